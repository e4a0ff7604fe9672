"""Measurements behind the claims; run them all with `make bench`."""

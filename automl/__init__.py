"""Rows to a better model; knows no broker."""

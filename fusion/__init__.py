"""Embeddings to one shared space; knows no encoder."""

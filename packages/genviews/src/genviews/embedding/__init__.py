"""Embeddings of a folder of images as one file, and a map of them."""

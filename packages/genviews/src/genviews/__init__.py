"""Generative views for self-supervised learning: make them, score them, train on them, measure them."""

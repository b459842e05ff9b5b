"""Utilities shared by the genviews libraries."""

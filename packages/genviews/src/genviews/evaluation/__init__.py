"""Measure what a backbone is worth."""

"""The small common ground of the genviews libraries."""

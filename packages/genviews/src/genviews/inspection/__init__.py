"""Show pairs, scores and statistics of a run in one HTML page."""

"""Command lines of the jobs."""

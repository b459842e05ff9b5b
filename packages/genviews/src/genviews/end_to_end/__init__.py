"""The quickstart: all jobs in sequence, on procedural scenes or your own images."""

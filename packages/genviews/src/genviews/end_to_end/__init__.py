"""Every job in a row, on procedural scenes or your own images."""

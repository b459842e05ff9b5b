"""Measure what a backbone is worth. See `python apps/evaluate --help`."""

from genviews.cli.evaluate import main

if __name__ == "__main__":
    main()

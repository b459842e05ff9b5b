"""Show a run in one HTML page. See `python apps/inspect --help`."""

from genviews.inspection.run import main

if __name__ == "__main__":
    main()

"""Show a run in one HTML page. See `python apps/inspect --help`."""

from genviews.cli.inspect import main

if __name__ == "__main__":
    main()

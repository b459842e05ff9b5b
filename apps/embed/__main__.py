"""Embed images with a backbone. See `python apps/embed --help`."""

from genviews.cli.embed import main

if __name__ == "__main__":
    main()

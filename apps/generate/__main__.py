"""Generate views of a folder of images. See `python apps/generate --help`."""

from genviews.cli.generate import main

if __name__ == "__main__":
    main()

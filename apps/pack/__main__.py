"""Pack images and views into records. See `python apps/pack --help`."""

from genviews.cli.pack import main

if __name__ == "__main__":
    main()

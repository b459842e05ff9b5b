"""Train encoders. See `python apps/pretrain --help`."""

from genviews.cli.pretrain import main

if __name__ == "__main__":
    main()

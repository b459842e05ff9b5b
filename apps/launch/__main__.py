"""Start a program on several processes. See `python apps/launch --help`."""

from genviews.cli.launch import main

if __name__ == "__main__":
    main()

"""`python -m genviews`, for torchrun."""

from genviews.cli import main

if __name__ == "__main__":
    main()

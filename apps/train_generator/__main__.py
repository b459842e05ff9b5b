"""Train a diffusion model on your own images. See `python apps/train_generator --help`."""

from genviews.cli.train_generator import main

if __name__ == "__main__":
    main()

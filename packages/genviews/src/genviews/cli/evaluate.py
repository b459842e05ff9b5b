"""What is a backbone worth? Measure it on labelled images, or by the test that the first word names.

    uv run apps/evaluate BACKBONE --train DATA/train --test DATA/test       # kNN, linear, few labels: classification.py
    uv run apps/evaluate retrieval BACKBONE --data DATA/roxford5k           # revisited Oxford and Paris
    uv run apps/evaluate copies BACKBONE --data DATA/copydays               # copies of images, among distractors
    uv run apps/evaluate video BACKBONE --data DATA/DAVIS                   # objects followed through videos
    uv run apps/evaluate slides BACKBONE --data PANDA/tiles --labels PANDA/train.csv    # slides, by their tiles
    uv run apps/evaluate segmentation BACKBONE --data VOCdevkit             # every pixel's class

WORD --help tells the options; a folder that is called like a word is given as ./WORD.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from genviews_core.command import command


@command
def main() -> None:
    """Run the test that is asked for; a user's mistake ends in one line."""
    tests = {
        "retrieval": retrieval,
        "copies": copies,
        "video": video,
        "slides": slides,
        "segmentation": segmentation,
    }
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
    try:
        if arguments and arguments[0] in tests:
            tests[arguments[0]](arguments[1:])
        else:
            classification(arguments)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from the last saved epoch")


# Each imports what it needs alone.


def classification(arguments: Sequence[str]) -> None:
    """Labelled images."""
    from genviews.evaluation.classification import main

    main(arguments)


def retrieval(arguments: Sequence[str]) -> None:
    """Landmarks."""
    from genviews.evaluation.retrieval import main

    main(arguments)


def copies(arguments: Sequence[str]) -> None:
    """Copies of images."""
    from genviews.evaluation.copy_detection import main

    main(arguments)


def video(arguments: Sequence[str]) -> None:
    """Objects in videos."""
    from genviews.evaluation.video import main

    main(arguments)


def slides(arguments: Sequence[str]) -> None:
    """Slides cut into tiles."""
    from genviews.evaluation.slides import main

    main(arguments)


def segmentation(arguments: Sequence[str]) -> None:
    """The class of every pixel."""
    from genviews.evaluation.segmentation import main

    main(arguments)


if __name__ == "__main__":
    main()

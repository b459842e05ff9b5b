"""A few steps of the training that a user's one call starts, timed from outside.

`python one_training.py SIDE DATA OUT SETTINGS`: SIDE is genviews or lightly_train, the interpreter one that has it, and
SETTINGS a JSON object: steps, method, batch_size, threads, workers, precision ("bf16" or "float32"). The last line
printed is a JSON object: cpu and wall (seconds of each step, from the end of one step of the optimizer to the next),
start (processor seconds before the end of the first), peak_mb (resident memory).
"""

import json
import os
import resource
import sys
import time
from itertools import pairwise


def train_genviews(data, out, method, batch_size, workers, precision):
    """Train as a user of genviews does."""
    import genviews

    genviews.pretrain(
        data=data,
        out=out,
        recipe=f"imagenet-{method}",
        backbone="resnet18",
        epochs=100,
        batch_size=batch_size,
        workers=workers,
        precision=precision,
    )


def train_lightly_train(data, out, method, batch_size, workers, precision):
    """Train as a user of LightlyTrain does."""
    import lightly_train  # pyright: ignore[reportMissingImports]

    lightly_train.pretrain(
        data=data,
        out=out,
        method=method,
        model="torchvision/resnet18",
        epochs=100,
        batch_size=batch_size,
        num_workers=workers,
        precision={"bf16": "bf16-mixed", "float32": "32-true"}[precision],
        accelerator="cpu",
    )


SIDES = {"genviews": train_genviews, "lightly_train": train_lightly_train}


def main(side, data, out, settings):
    """Train until enough steps are timed, print them, and exit."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    steps, threads = settings.pop("steps"), settings.pop("threads")
    torch.set_num_threads(threads)
    ends = []

    def count(*_):
        ends.append((time.process_time(), time.perf_counter()))
        if len(ends) > steps:
            cpu, wall = ([after - before for before, after in pairwise(at)] for at in zip(*ends, strict=True))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print("\n" + json.dumps({"cpu": cpu, "wall": wall, "start": ends[0][0], "peak_mb": peak}), flush=True)
            os._exit(0)

    register_optimizer_step_post_hook(count)
    SIDES[side](data, out, **settings)
    sys.exit("the training ended before enough steps were timed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]))

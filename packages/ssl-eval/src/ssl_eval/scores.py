"""Top-1 and top-5 accuracy of classifiers, counted over batches and processes.

Shapes: b batch, r classifiers, c classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from ssl_eval.processes import sum_over
from ssl_eval.training_images import Batches, check_labels


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Accuracy in percent.

    Attributes:
        top1: share of images whose class is the most likely one.
        top5: share of images whose class is among the five most likely; 100 with five classes or fewer.
    """

    top1: float
    top5: float


def count_hits(logits: Float[Tensor, "b r c"], labels: Int[Tensor, " b"]) -> Int[Tensor, "2 r"]:
    """How many images each classifier has right at the first guess and among five; none where its logits diverged."""
    guesses = logits.topk(min(5, logits.shape[2]), dim=2).indices
    hits = (guesses == labels[:, None, None]) & logits.isfinite().all(dim=2, keepdim=True)
    return torch.stack([hits[:, :, 0].sum(dim=0), hits.any(dim=2).sum(dim=0)])


@torch.no_grad()
def score(
    batches: Batches,
    classify: Callable[[Tensor], Float[Tensor, "b r c"]],
    *,
    num_classes: int,
    classifiers: int = 1,
    device: str | torch.device,
    group: dist.ProcessGroup | None = None,
) -> list[Scores]:
    """The scores of each classifier.

    Args:
        batches: (images, labels), each image on one process only.
        classify: images on the device to the logits of all classifiers.
        num_classes: c.
        classifiers: r.
        device: where to compute.
        group: processes that share the images.

    Raises:
        ValueError: no images, or a label that is no class.
    """
    hits, images = torch.zeros(2, classifiers, dtype=torch.long, device=device), 0
    for inputs, labels, *_ in batches:
        check_labels(labels, num_classes)
        hits += count_hits(classify(inputs.to(device, non_blocking=True)), labels.to(device))
        images += len(labels)
    total = int(sum_over(group, torch.tensor([images], device=device)))
    if total == 0:
        raise ValueError("no test images: the loader gave none")
    shares = 100.0 * sum_over(group, hits).double() / total
    return [Scores(top1=first, top5=five) for first, five in shares.T.tolist()]

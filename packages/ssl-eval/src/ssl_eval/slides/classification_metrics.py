"""Classification metrics for imbalanced classes, as reported in papers on slides, from probabilities and labels.

Shapes: n slides, c classes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_eval.classification import check_labels


@dataclass(frozen=True, kw_only=True)
class ClassificationMetrics:
    """Classification metrics in percent.

    Attributes:
        accuracy: fraction of slides whose most likely class is correct.
        balanced_accuracy: mean recall over classes.
        auc: area under the ROC curve of each class against the others, mean over classes.
        weighted_f1: F1 of each class, mean weighted by its slides.
        macro_f1: F1 of each class, plain mean, which the BRIGHT challenge ranks by
            (BiomedSciAI/fuse-med-ml@2b179e1 fuse_examples/imaging/classification/bright/eval/eval.py).
        kappa: Cohen's, weighted quadratically, which the PANDA challenge ranks by; for grades.
    """

    accuracy: float
    balanced_accuracy: float
    auc: float
    weighted_f1: float
    macro_f1: float
    kappa: float


def classification_metrics(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> ClassificationMetrics:
    """Compute the metrics of one test set; of equally likely classes the first counts.

    Raises:
        ValueError: a class without test slides, for which most of the scores have no value; a label that is no class.
    """
    classes = probabilities.shape[1]
    if len(labels) == 0:
        raise ValueError("expected one or more test slides, got none")
    check_labels(labels, classes)
    counts = labels.bincount(minlength=classes)
    if int(counts.min()) == 0:
        raise ValueError(f"expected test slides of every class, got none of class {int(counts.argmin())}")
    confusion = _confusion(labels, probabilities.argmax(dim=1), classes)
    recall = confusion.diagonal() / confusion.sum(dim=1)
    f1 = 2 * confusion.diagonal() / (confusion.sum(dim=0) + confusion.sum(dim=1))
    aucs = [auc(probabilities[:, each], labels == each) for each in range(classes)]
    metrics = {
        "accuracy": confusion.trace() / len(labels),
        "balanced_accuracy": recall.mean(),
        "auc": torch.tensor(aucs, dtype=torch.float64).mean(),
        "weighted_f1": (f1 * counts).sum() / len(labels),
        "macro_f1": f1.mean(),
        "kappa": quadratic_kappa(confusion),
    }
    return ClassificationMetrics(**{name: 100.0 * float(value) for name, value in metrics.items()})


def auc(scores: Float[Tensor, " n"], positive: Tensor) -> float:
    """Return the fraction of pairs in which the positive one scores above the negative one; ties count half.

    The Mann-Whitney statistic: ranks of the positive ones, less the smallest that they could have.
    """
    _, place, counts = scores.unique(return_inverse=True, return_counts=True)
    ranks = (counts.cumsum(0) - (counts - 1) / 2.0)[place].double()  # equal scores share their mean rank
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def quadratic_kappa(confusion: Float[Tensor, "c c"]) -> Tensor:
    """Return 1 - disagreement / disagreement by chance, where taking class i for j costs (i - j)^2.

    https://doi.org/10.1037/h0026256
    """
    place = torch.arange(len(confusion), dtype=confusion.dtype)
    cost = (place[:, None] - place) ** 2
    by_chance = torch.outer(confusion.sum(dim=1), confusion.sum(dim=0)) / confusion.sum()
    return 1 - (cost * confusion).sum() / (cost * by_chance).sum()


def _confusion(labels: Int[Tensor, " n"], guesses: Int[Tensor, " n"], classes: int) -> Float[Tensor, "c c"]:
    """Count how often class i is predicted as j."""
    return (labels * classes + guesses).bincount(minlength=classes**2).view(classes, classes).double()

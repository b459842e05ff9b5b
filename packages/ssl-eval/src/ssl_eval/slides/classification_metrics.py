"""Classification metrics for imbalanced classes, as reported in papers on slides, computed by torchmetrics.

Shapes: n slides, c classes.
"""

from dataclasses import dataclass

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
        kappa: Cohen's, weighted quadratically (https://doi.org/10.1037/h0026256), which the PANDA challenge ranks by;
            for grades.
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
    from torchmetrics.functional import classification as torchmetrics  # takes seconds to import

    task = (probabilities.double(), labels, classes)
    metrics = {
        "accuracy": torchmetrics.multiclass_accuracy(*task, average="micro"),
        "balanced_accuracy": torchmetrics.multiclass_accuracy(*task, average="macro"),
        "auc": torchmetrics.multiclass_auroc(*task, average="macro"),
        "weighted_f1": torchmetrics.multiclass_f1_score(*task, average="weighted"),
        "macro_f1": torchmetrics.multiclass_f1_score(*task, average="macro"),
        "kappa": torchmetrics.multiclass_cohen_kappa(*task, weights="quadratic"),
    }
    return ClassificationMetrics(**{name: 100.0 * float(value) for name, value in metrics.items()})

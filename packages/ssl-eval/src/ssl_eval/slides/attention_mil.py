"""Attention-based multiple instance learning on the tiles of slides (https://arxiv.org/abs/1802.04712, section 2.4).

One slide per training step, as in the official scripts.

Shapes: n tiles of a slide or n slides, d feature width, c classes.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softmax

from ssl_eval.classification import check_labels
from ssl_eval.features import evaluating
from ssl_eval.rng import rng_scope, seeded_generator
from ssl_eval.training_state import restore, save


class SlidePrediction(NamedTuple):
    """Prediction for one slide.

    Attributes:
        logits: logits of the classes.
        attention: attention weights of the tiles, which sum to 1.
    """

    logits: Float[Tensor, " c"]
    attention: Float[Tensor, " n"]


class AttentionMIL(nn.Module):
    """Gated attention: maps the tiles of a slide to the logits of the classes.

    h_k = relu(W x_k), a_k = softmax_k(w . (tanh(V h_k) * sigmoid(U h_k))), logits = C sum_k a_k h_k: the paper's
    equations 7 and 9, with biases, as in AMLab-Amsterdam/AttentionDeepMIL@eb0434b model.py (GatedAttention, whose
    sigmoid of one logit is a softmax of two); with dropout as in mahmoodlab/CLAM@53e2409 models/model_clam.py (CLAM_SB
    without its clustering of tiles).

    Args:
        width: feature width d.
        num_classes: number of classes c.
        hidden: width of h.
        attention: number of rows of U and V.
        dropout: dropout rate of h and of both parts of the gate.
    """

    def __init__(self, width: int, num_classes: int, *, hidden: int, attention: int, dropout: float):
        super().__init__()
        self.width = width
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.value = nn.Sequential(nn.Linear(hidden, attention), nn.Tanh(), nn.Dropout(dropout))
        self.gate = nn.Sequential(nn.Linear(hidden, attention), nn.Sigmoid(), nn.Dropout(dropout))
        self.weigh = nn.Linear(attention, 1)
        self.classify = nn.Linear(hidden, num_classes)

    def forward(self, bag: Float[Tensor, "n d"]) -> SlidePrediction:
        """Return the prediction for the tiles of one slide."""
        tiles = self.embed(bag)
        attention = softmax(self.weigh(self.value(tiles) * self.gate(tiles)).squeeze(1), dim=0)
        return SlidePrediction(self.classify(attention @ tiles), attention)


@dataclass(frozen=True, kw_only=True)
class MILProtocol:
    """Adam with a constant learning rate and one slide per step; the weights after the last epoch are used.

    Attributes:
        source: source of the numbers.
        epochs: number of epochs.
        learning_rate: learning rate of Adam.
        weight_decay: L2 weight decay.
        hidden: width of a tile's features before the attention.
        attention: width of the gate.
        dropout: dropout rate.
    """

    source: str
    epochs: int
    learning_rate: float
    weight_decay: float
    hidden: int
    attention: int
    dropout: float


MIL_PROTOCOLS = {
    "clam": MILProtocol(
        source="mahmoodlab/CLAM@53e2409 main.py's defaults, models/model_clam.py (CLAM_SB, small)",
        epochs=200, learning_rate=1e-4, weight_decay=1e-5, hidden=512, attention=256, dropout=0.25,
    ),
    "ilse": MILProtocol(
        source="AMLab-Amsterdam/AttentionDeepMIL@eb0434b main.py's defaults, model.py (GatedAttention)",
        epochs=20, learning_rate=5e-4, weight_decay=1e-4, hidden=500, attention=128, dropout=0.0,
    ),
}  # fmt: skip
"""Protocols by name; the papers that report PANDA or BRIGHT for generative views do not state their settings."""


def train_mil(
    bags: Sequence[Tensor],
    labels: Int[Tensor, " n"],
    *,
    protocol: MILProtocol,
    num_classes: int,
    seed: int = 0,
    device: str | torch.device = "cpu",
    resume: Path | None = None,
    on_epoch: Callable[[int, int], object] = lambda done, epochs: None,
) -> AttentionMIL:
    """Train attention MIL on the tile embeddings of slides; one slide is in memory at a time.

    The weights depend only on the seed; an interrupted training resumes bit-identically on a CPU.

    Args:
        bags: embeddings of each slide, [tiles, width].
        labels: classes of the slides.
        protocol: the network and its training.
        num_classes: number of classes c.
        seed: seed of the initial weights, the order and the dropout.
        device: device of the computation.
        resume: resume file, written after every epoch.
        on_epoch: called after every epoch with the numbers of finished and of all epochs.

    Raises:
        ValueError: there are no slides, labels are out of range, a class has no slide, embeddings differ in width,
            training diverged, or the resume file belongs to another training.
    """
    if len(bags) == 0 or len(bags) != len(labels):
        raise ValueError(
            f"expected one label per slide and at least one slide, got {len(bags)} slides and {len(labels)} labels"
        )
    check_labels(labels, num_classes)
    counts = labels.bincount(minlength=num_classes)
    if int(counts.min()) == 0:
        raise ValueError(f"expected training slides of every class, got none of class {int(counts.argmin())}")
    width = bags[0].shape[1]
    with rng_scope(seed, "bags/weights", device):
        model = AttentionMIL(
            width, num_classes, hidden=protocol.hidden, attention=protocol.attention, dropout=protocol.dropout
        ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=protocol.learning_rate, weight_decay=protocol.weight_decay)
    settings = {"protocol": asdict(protocol), "num_classes": num_classes, "seed": seed}
    settings["slides"] = "" if resume is None else _digest(bags, labels)
    for epoch in range(restore(resume, settings, model, optimizer, protocol.epochs), protocol.epochs):
        with rng_scope(seed, f"bags/dropout/{epoch}", device):
            _train_epoch(model.train(), bags, labels, optimizer, seeded_generator(seed, f"slides/{epoch}"), device)
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise ValueError(f"training diverged in epoch {epoch}; give a smaller learning rate")
        if resume is not None:
            save(resume, settings, epoch + 1, model, optimizer)
        on_epoch(epoch + 1, protocol.epochs)
    return model.eval()


@torch.no_grad()
def slide_probabilities(
    model: AttentionMIL, bags: Sequence[Tensor], *, device: str | torch.device = "cpu"
) -> Float[Tensor, "n c"]:
    """Compute the class probabilities of each slide, with one slide in memory at a time."""
    with evaluating(model):
        each = (bags[row].to(device) for row in range(len(bags)))
        return torch.stack([model(bag).logits.softmax(dim=0).cpu() for bag in each])


def _digest(bags: Sequence[Float[Tensor, "_ d"]], labels: Int[Tensor, " n"]) -> str:
    """Return a hash of the training data."""
    digest = hashlib.blake2b(labels.numpy().tobytes(), digest_size=16)
    for bag in bags:
        digest.update(f"{list(bag.shape)}".encode() + bag.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _train_epoch(
    model: AttentionMIL,
    bags: Sequence[Tensor],
    labels: Int[Tensor, " n"],
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    device: str | torch.device,
) -> None:
    width = model.width
    for row in torch.randperm(len(bags), generator=order).tolist():
        bag = bags[row].to(device)
        if bag.shape[1] != width:
            raise ValueError(
                f"expected embeddings of one width, got {bag.shape[1]} and {width}; embed all slides with one backbone"
            )
        loss = cross_entropy(model(bag).logits, labels[row].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

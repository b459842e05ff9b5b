"""Gated attention over the tiles of a slide (https://arxiv.org/abs/1802.04712, section 2.4).

Shapes: n tiles of a slide, d feature width, c classes.
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softmax


class Judgement(NamedTuple):
    """What is found of one slide.

    Attributes:
        logits: of the classes.
        attention: of the tiles; positive, sums to 1.
    """

    logits: Float[Tensor, " c"]
    attention: Float[Tensor, " n"]


class AttentionMIL(nn.Module):
    """A bag of tiles to the logits of its classes.

    h_k = relu(W x_k), a_k = softmax_k(w . (tanh(V h_k) * sigmoid(U h_k))), logits = C sum_k a_k h_k: the paper's
    equations 7 and 9, with biases, as in AMLab-Amsterdam/AttentionDeepMIL@eb0434b model.py (GatedAttention, whose
    sigmoid of one logit is a softmax of two); with dropout as in mahmoodlab/CLAM@53e2409 models/model_clam.py (CLAM_SB
    without its clustering of tiles).

    Args:
        width: d.
        num_classes: c.
        hidden: width of h.
        attention: rows of U and V.
        dropout: of h and of both halves of the gate, in training.
    """

    def __init__(self, width: int, num_classes: int, *, hidden: int, attention: int, dropout: float):
        super().__init__()
        self.width = width
        self.embed = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.value = nn.Sequential(nn.Linear(hidden, attention), nn.Tanh(), nn.Dropout(dropout))
        self.gate = nn.Sequential(nn.Linear(hidden, attention), nn.Sigmoid(), nn.Dropout(dropout))
        self.weigh = nn.Linear(attention, 1)
        self.classify = nn.Linear(hidden, num_classes)

    def forward(self, bag: Float[Tensor, "n d"]) -> Judgement:
        """All tiles of one slide."""
        tiles = self.embed(bag)
        attention = softmax(self.weigh(self.value(tiles) * self.gate(tiles)).squeeze(1), dim=0)
        return Judgement(self.classify(attention @ tiles), attention)

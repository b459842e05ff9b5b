"""Gen-SIS's disentanglement loss: name both sources of an interpolated image.

Shapes: B samples, K output dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.losses.dino import assignment
from sslzoo.losses.reduction import precise, weighted_mean


def disentanglement(
    student: Float[Tensor, "B K"],
    teacher_first: Float[Tensor, "B K"],
    teacher_second: Float[Tensor, "B K"],
    alpha: Float[Tensor, "B"],
    *,
    center: Float[Tensor, "K"],
    student_temperature: float,
    teacher_temperature: float,
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """-softmax((a t1 + (1-a) t2 - c)/T_t) . log softmax(s/T_s), https://arxiv.org/abs/2412.01672.

    The two sources are mixed as logits, before the softmax. The teacher's part is detached.

    Args:
        student: logits of the interpolated view.
        teacher_first: logits of a view of the first source, whose share is alpha.
        teacher_second: logits of a view of the second source, whose share is 1 - alpha.
        alpha: a, in [0, 1]; 1 is the first source alone.
        center: c, DINO's center.
        student_temperature: T_s.
        teacher_temperature: T_t.
        weights: one per sample, multiplies its term; zero where there is no interpolated view.
    """
    share = precise(alpha)[:, None]
    mixed = share * precise(teacher_first) + (1 - share) * precise(teacher_second)
    log_probability = torch.log_softmax(precise(student) / student_temperature, dim=-1)
    return weighted_mean(-(assignment(mixed, center, teacher_temperature) * log_probability).sum(dim=-1), weights)

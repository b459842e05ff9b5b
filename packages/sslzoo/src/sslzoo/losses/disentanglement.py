"""Gen-SIS's disentanglement loss: predict both sources of an interpolated image.

Shapes: B samples, K output dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.losses.dino import teacher_probs
from sslzoo.losses.reduction import upcast, weighted_mean


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

    The logits of the two sources are interpolated before the softmax. No gradient flows to the teacher.

    Args:
        student: logits of the interpolated view.
        teacher_first: logits of a view of the first source, with weight alpha.
        teacher_second: logits of a view of the second source, with weight 1 - alpha.
        alpha: a, in [0, 1]; 1: the first source only.
        center: c, DINO's center.
        student_temperature: T_s.
        teacher_temperature: T_t.
        weights: per-sample factors of the terms; zero for samples without an interpolated view.
    """
    a = upcast(alpha)[:, None]
    mixed = a * upcast(teacher_first) + (1 - a) * upcast(teacher_second)
    log_probability = torch.log_softmax(upcast(student) / student_temperature, dim=-1)
    return weighted_mean(-(teacher_probs(mixed, center, teacher_temperature) * log_probability).sum(dim=-1), weights)

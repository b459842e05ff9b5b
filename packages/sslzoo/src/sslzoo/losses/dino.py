"""DINO: the student predicts the teacher's distribution over prototypes for another view.

Shapes: V views of the student, T views of the teacher (the first T of the V), B samples, K output dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sslzoo.losses.reduction import upcast, weighted_mean


def dino(
    student: Float[Tensor, "V B K"],
    teacher: Float[Tensor, "T B K"],
    *,
    student_temperature: float,
    teacher_temperature: float,
    center: Float[Tensor, "K"],
    weights: Float[Tensor, "B"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over pairs (t, v != t) of -softmax((teacher_t - c)/T_t) . log softmax(student_v/T_s).

    https://arxiv.org/abs/2104.14294 eq. 1 and 2. No gradient flows to the teacher; computed in float32 or higher.

    Args:
        student: logits of all views.
        teacher: logits of the global views; view t of the teacher is view t of the student.
        student_temperature: T_s.
        teacher_temperature: T_t.
        center: c, the running mean of the teacher's logits.
        weights: per-sample factors of the terms.
    """
    target = teacher_probs(teacher, center, teacher_temperature)
    with torch.autocast(student.device.type, enabled=False):
        log_probability = torch.log_softmax(upcast(student) / student_temperature, dim=-1)
        cross_entropy = -torch.einsum("tbk,vbk->btv", target, log_probability)
    same_view = torch.eye(len(teacher), len(student), dtype=torch.bool, device=student.device)
    pairs = same_view.numel() - min(same_view.shape)
    return weighted_mean(cross_entropy.masked_fill(same_view, 0.0).sum(dim=(1, 2)) / pairs, weights)


def teacher_probs(
    logits: Float[Tensor, "*batch K"], center: Float[Tensor, "K"], temperature: float
) -> Float[Tensor, "*batch K"]:
    """Return softmax((logits - c)/T), detached, in float32 or higher: the centered and sharpened teacher output."""
    return torch.softmax((upcast(logits.detach()) - center) / temperature, dim=-1)

"""Batch norm over all ranks, also on a CPU with gloo, where torch's SyncBatchNorm refuses.

Shapes: B samples, C channels, any further dimensions.
"""

from typing import TypeVar

import timm.layers
import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sslzoo.gather import world_size
from sslzoo.losses.reduction import precise

Module = TypeVar("Module", bound=nn.Module)


def synchronise_batch_norm(module: Module) -> Module:
    """The module with every batch norm replaced by one whose statistics span all ranks.

    On CUDA torch's SyncBatchNorm, elsewhere SynchronisedBatchNorm. Parameters, buffers and their names stay. Call it
    on the final device, before DistributedDataParallel.

    Raises:
        ValueError: on a CPU, for a batch norm with an activation inside (timm's BatchNormAct2d).
    """
    if any(tensor.is_cuda for tensor in module.parameters()):
        return timm.layers.convert_sync_batchnorm(module)  # pyright: ignore[reportReturnType]
    if isinstance(module, _BatchNorm):
        return _synchronised(module)  # pyright: ignore[reportReturnType]
    for name, child in module.named_children():
        setattr(module, name, synchronise_batch_norm(child))
    return module


def _synchronised(norm: _BatchNorm) -> nn.Module:
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, SynchronisedBatchNorm):
        raise ValueError(
            f"{type(norm).__name__} cannot be synchronised on a CPU; choose a backbone with nn.BatchNorm2d."
        )
    other = SynchronisedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    ).train(norm.training)
    other._parameters = norm._parameters
    other._buffers = norm._buffers
    return other


class SynchronisedBatchNorm(_BatchNorm):
    """nn.BatchNorm whose training statistics are those of the batches of all ranks together."""

    def forward(self, input: Float[Tensor, "B C *rest"]) -> Float[Tensor, "B C *rest"]:
        """Normalised over everything but the channels; in one process, or in evaluation, exactly as nn.BatchNorm."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)  # pyright: ignore
        if self.running_mean is not None:
            self._track(mean, variance * (count / (count - 1)))
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(variance, momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() >= 2


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * w + b; statistics and gradients over all ranks, in float32 at least."""

    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        x = precise(input)
        axes = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x, dim=axes, correction=0)
        mean, variance, count = _joined(mean, variance, x.numel() // x.shape[1])
        scale = torch.rsqrt(variance + eps)
        ctx.save_for_backward(input, weight, mean, scale, count)
        factor = scale if weight is None else scale * weight
        shift = -mean * factor if bias is None else bias - mean * factor
        output = torch.addcmul(_channels(shift, x), x, _channels(factor, x)).to(input.dtype)
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx, *gradients: Tensor):
        input, weight, mean, scale, count = ctx.saved_tensors
        x, gradient = precise(input), precise(gradients[0])
        axes = [0, *range(2, x.dim())]
        normal = (x - _channels(mean, x)) * _channels(scale, x)
        own = torch.stack([gradient.sum(axes), (gradient * normal).sum(axes)])
        total = own.clone()
        distributed.all_reduce(total)
        of_shift, of_scale = total / count
        factor = scale if weight is None else scale * weight
        of_input = (gradient - _channels(of_shift, x) - normal * _channels(of_scale, x)) * _channels(factor, x)
        return of_input.to(input.dtype), None if weight is None else own[1], None if weight is None else own[0], None


def _joined(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count over all ranks, from each one's; ranks may hold different numbers of samples."""
    own = torch.cat([mean, variance, mean.new_tensor([count])])
    parts = [torch.empty_like(own) for _ in range(world_size())]
    distributed.all_gather(parts, own)
    stacked = torch.stack(parts)
    channels = len(mean)
    means, variances, counts = stacked[:, :channels], stacked[:, channels:-1], stacked[:, -1:]
    total = counts.sum()
    joined_mean = (means * counts).sum(0) / total
    joined_variance = ((variances + (means - joined_mean).square()) * counts).sum(0) / total
    return joined_mean, joined_variance, total


def _channels(per_channel: Tensor, like: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (like.dim() - 2))

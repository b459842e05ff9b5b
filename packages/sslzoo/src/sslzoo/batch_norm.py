"""Batch norm with statistics over all ranks, or over parts of the batch.

torch's SyncBatchNorm does not support CPUs; CPUSyncBatchNorm does, with gloo.

Shapes: B samples, C channels, any further dimensions.
"""

from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from genviews_core.distributed import all_gather, all_reduce_sum, default_group
from sslzoo.distributed import mean_over_ranks, world_size
from sslzoo.losses.reduction import upcast

Module = TypeVar("Module", bound=nn.Module)


def convert_sync_batchnorm(module: Module) -> Module:
    """Replace every batch norm of a module by one with statistics over all ranks.

    Uses torch's SyncBatchNorm on CUDA, otherwise CPUSyncBatchNorm. Parameters, buffers and their names are kept.
    Call it on the final device, before DistributedDataParallel. A method that needs separate statistics on every rank
    (`batch_norm_per_rank`, MoCo v2) is returned unchanged.

    Raises:
        ValueError: on a CPU, for a batch norm with an activation inside (timm's BatchNormAct2d).
    """
    if getattr(module, "batch_norm_per_rank", False):
        return module
    if any(tensor.is_cuda for tensor in module.parameters()):
        import timm.layers

        return timm.layers.convert_sync_batchnorm(module)  # pyright: ignore[reportReturnType]
    if isinstance(module, _BatchNorm):
        return _synchronized(module)  # pyright: ignore[reportReturnType]
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batchnorm(child))
    return module


def _synchronized(norm: _BatchNorm) -> nn.Module:
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, CPUSyncBatchNorm):
        raise ValueError(
            f"expected nn.BatchNorm1d, 2d or 3d for synchronization on a CPU, got {type(norm).__name__}; "
            "choose another backbone"
        )
    other = CPUSyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats).train(
        norm.training
    )
    other._parameters = norm._parameters
    other._buffers = norm._buffers
    return other


def split_batch_norm(module: Module, splits: int) -> Module:
    """Replace every batch norm of a module by a SplitBatchNorm; parameters, buffers and their names are kept."""
    if isinstance(module, _BatchNorm):
        return SplitBatchNorm.like(module, splits)  # pyright: ignore[reportReturnType]
    for name, child in module.named_children():
        setattr(module, name, split_batch_norm(child, splits))
    return module


class SplitBatchNorm(_BatchNorm):
    """nn.BatchNorm that normalizes equal parts of a batch separately, each by its own statistics.

    It simulates batch norm per rank in fewer processes, like SplitBatchNorm of facebookresearch/moco@f736491
    colab/moco_cifar10_demo.ipynb, which simulates 8 GPUs. The running statistics are updated with the mean over the
    parts. A part consists of consecutive rows.

    Attributes:
        splits: number of parts over all ranks; each of R ranks has splits / R, or fewer if a part would have less than
            two rows.
    """

    splits: int
    drop: nn.Module
    act: nn.Module

    @classmethod
    def like(cls, norm: _BatchNorm, splits: int) -> "SplitBatchNorm":
        """Create one that shares the parameters and buffers of another batch norm, and timm's activation if present."""
        other = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        other.splits = splits
        other.drop, other.act = getattr(norm, "drop", nn.Identity()), getattr(norm, "act", nn.Identity())
        other._parameters = norm._parameters
        other._buffers = norm._buffers
        return other.train(norm.training)

    def forward(self, input: Float[Tensor, "B C *rest"]) -> Float[Tensor, "B C *rest"]:
        """Normalize each part separately in training mode; in evaluation mode, same as nn.BatchNorm."""
        parts = min(self.splits // world_size(), len(input) // 2)
        if not self.training or parts < 2:
            return self.act(self.drop(super().forward(input)))
        outputs, means, variances = [], [], []
        for rows in input.tensor_split(parts):
            mean, variance = self._running()
            momentum = 0.0 if mean is None else self._momentum()
            outputs.append(
                functional.batch_norm(rows, mean, variance, self.weight, self.bias, True, momentum, self.eps)
            )
            means.append(mean)
            variances.append(variance)
        if self.running_mean is not None:
            self._track(torch.stack(means).mean(0), torch.stack(variances).mean(0))
        return self.act(self.drop(torch.cat(outputs)))

    def _running(self) -> tuple[Tensor | None, Tensor | None]:
        """Return copies of the running statistics, to be updated by one part."""
        if self.running_mean is None or self.running_var is None:
            return None, None
        return self.running_mean.clone(), self.running_var.clone()

    def _momentum(self) -> float:
        assert self.num_batches_tracked is not None
        return 1 / (float(self.num_batches_tracked) + 1) if self.momentum is None else self.momentum

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        self.running_mean.copy_(mean)
        self.running_var.copy_(variance)

    def _check_input_dim(self, input: Tensor) -> None:
        assert input.dim() >= 2


@torch.no_grad()
def average_running_statistics(module: nn.Module) -> None:
    """Average the running mean and variance of every batch norm over all ranks; no-op with one rank."""
    if world_size() == 1:
        return
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    both = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    buffers = [buffer for buffer in both if buffer is not None]
    if buffers:
        joined = mean_over_ranks(torch.cat([buffer.flatten() for buffer in buffers]))
        for buffer, mean in zip(buffers, joined.split([len(buffer) for buffer in buffers]), strict=True):
            buffer.copy_(mean)


class CPUSyncBatchNorm(_BatchNorm):
    """nn.BatchNorm with training statistics over the batches of all ranks, for CPUs."""

    def forward(self, input: Float[Tensor, "B C *rest"]) -> Float[Tensor, "B C *rest"]:
        """Normalize over all dimensions but the channels; with one rank or in evaluation mode, same as nn.BatchNorm."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        output, mean, variance, count = _Normalize.apply(input, self.weight, self.bias, self.eps)  # pyright: ignore
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


class _Normalize(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * w + b; statistics and gradients over all ranks, in float32 or higher."""

    @staticmethod
    def forward(ctx, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):
        x = upcast(input)
        axes = [0, *range(2, x.dim())]
        variance, mean = torch.var_mean(x, dim=axes, correction=0)
        mean, variance, count = _combine(mean, variance, x.numel() // x.shape[1])
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
        x, gradient = upcast(input), upcast(gradients[0])
        axes = [0, *range(2, x.dim())]
        normal = (x - _channels(mean, x)) * _channels(scale, x)
        own = torch.stack([gradient.sum(axes), (gradient * normal).sum(axes)])
        total = all_reduce_sum(own.clone(), default_group())
        of_shift, of_scale = total / count
        factor = scale if weight is None else scale * weight
        of_input = (gradient - _channels(of_shift, x) - normal * _channels(of_scale, x)) * _channels(factor, x)
        return of_input.to(input.dtype), None if weight is None else own[1], None if weight is None else own[0], None


def _combine(mean: Tensor, variance: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Combine mean, variance and count of all ranks, which may hold different numbers of samples."""
    stacked = all_gather(torch.cat([mean, variance, mean.new_tensor([count])]), default_group())
    channels = len(mean)
    means, variances, counts = stacked[:, :channels], stacked[:, channels:-1], stacked[:, -1:]
    total = counts.sum()
    joined_mean = (means * counts).sum(0) / total
    joined_variance = ((variances + (means - joined_mean).square()) * counts).sum(0) / total
    return joined_mean, joined_variance, total


def _channels(per_channel: Tensor, like: Tensor) -> Tensor:
    return per_channel.view(1, -1, *[1] * (like.dim() - 2))

"""Layers that look at the whole batch, or draw for it, where each process has an equal share of it.

They do what those of one process would.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import nn


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What `torch.nn.SyncBatchNorm` is, which knows GPUs alone: mean and variance of all processes' values.

    The shares are equal, so the statistics are means over the processes; they are added up in float64, since the
    variance is a difference there.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of spatial axes will do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            mean, variance = (moment.double() for moment in torch.batch_norm_update_stats(x, None, None, 0.0))
            mean, square = _mean(torch.stack([mean, variance + mean.square()]))
            variance = square - mean.square()
        if self.track_running_stats:
            self._track(mean, variance, x.numel() // x.shape[1] * torch.distributed.get_world_size())
        kind = torch.promote_types(x.dtype, torch.float32)
        mean, variance = mean.to(kind), variance.to(kind)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        return _Normalise.apply(x, weight, bias, mean, variance, self.eps)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """Batch normalisation by statistics of all processes, through PyTorch's kernels for fixed statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        direct, scales, shifts = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        # Less what goes through the statistics: w/σ · (mean of g + x̂ · mean of g·x̂), over all values of all
        # processes.
        through = _mean(torch.stack([shifts, scales])) / (x.numel() // x.shape[1])
        inverse = (variance + ctx.eps).rsqrt()
        slope = weight * inverse.square() * through[1]
        offset = weight * inverse * through[0] - slope * mean
        direct -= F.batch_norm(x, torch.zeros_like(mean), torch.ones_like(mean), slope, offset, eps=0.0)
        return direct, scales, shifts, None, None, None


def _mean(x: torch.Tensor) -> torch.Tensor:
    """Over the processes."""
    torch.distributed.all_reduce(x)
    return x / torch.distributed.get_world_size()


class SharedDropout(nn.Module):
    """Draws for the whole batch, as one process would, and takes its share of that.

    Args:
        layer: one of torch's that multiply by what they draw.
        rank, size: which of how many shares.
    """

    def __init__(self, layer: nn.Module, rank: int, size: int):
        super().__init__()
        self.layer, self.rank, self.size = layer, rank, size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        whole = torch.cat([torch.ones_like(x)] * self.size)  # keeps the layout in memory, which is the order of drawing
        return x * self.layer(whole)[self.rank * len(x) : (self.rank + 1) * len(x)]


def shared(network: nn.Module, rank: int, size: int, *, cpu: bool) -> nn.Module:
    """Change these layers, in place; weights and their names stay.

    Args:
        network: for one process.
        rank, size: which of how many equal shares of each batch it will see.
        cpu: where it will compute.
    """
    network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        if cpu and isinstance(parent, nn.SyncBatchNorm):
            parent.__class__ = CPUSyncBatchNorm  # type: ignore[assignment]  # the same attributes
        for name, child in parent.named_children():
            if isinstance(child, (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)) and child.p > 0:
                setattr(parent, name, SharedDropout(child, rank, size))
    return network

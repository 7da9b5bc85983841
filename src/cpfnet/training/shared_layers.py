"""Layers that look at the whole batch, or draw for it, where each process has an equal share of it: they do what one process would."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import nn


class CPUSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """What `torch.nn.SyncBatchNorm` is, which knows GPUs alone: mean and variance of all processes' values.

    The shares are equal, so the statistics are means over the processes; they are added up in float64, since the variance is a
    difference there.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of spatial axes will do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(values, axes, correction=0)
        moments = torch.stack([mean, variance]).double()
        moments = _Mean.apply(torch.stack([moments[0], moments[1] + moments[0].square()]))
        mean, variance = moments[0], moments[1] - moments[0].square()
        if self.track_running_stats:
            self._track(mean, variance, x.numel() // x.shape[1] * torch.distributed.get_world_size())
        each = (1, -1, *[1] * (x.ndim - 2))
        scale = (variance + self.eps).rsqrt()
        out = (values - mean.to(values.dtype).view(each)) * scale.to(values.dtype).view(each)
        if self.affine:
            out = out * self.weight.view(each) + self.bias.view(each)
        return out.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), share)


class _Mean(torch.autograd.Function):
    """Mean over the processes; backwards, too, since the loss of all is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous().clone()
        torch.distributed.all_reduce(x)
        return x / torch.distributed.get_world_size()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Mean.forward(ctx, gradient)


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
        whole = torch.cat(
            [torch.ones_like(x)] * self.size
        )  # in the same layout, since numbers are drawn as they lie in memory
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

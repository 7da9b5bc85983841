"""Dilated depthwise convolutions: PyTorch's gradients on a CPU are wrong in bfloat16 and slow in float32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv(nn.Module):
    """Depthwise 3×3(×3) convolution with dilation.

    PyTorch on a CPU returns wrong weight gradients for a *dilated* depthwise convolution in bfloat16 with channels-last
    memory (seen in 2.13: relative errors of 1.4 and far more, without a warning). In float32 they are right, but the
    kernel is many times slower than the one without dilation.

    With dilation d, a pixel meets only pixels that are d away: the map consists of d² (d³) interleaved maps, and each
    can be convolved without dilation. On a CPU this layer does so. In 3-D it does so in float32, under autocast, too,
    because there the gradients of plain convolutions are also wrong for maps of two planes.

    Exported, traced and compiled networks and other devices use the layer as it is, under autocast in float32. A
    network converted to bfloat16 as a whole is for prediction.
    """

    def __init__(self, spatial_dims: int, channels: int, *, dilation: int, bias: bool = False) -> None:
        super().__init__()
        self.conv = Conv[Conv.CONV, spatial_dims](
            channels, channels, 3, padding=dilation, dilation=dilation, groups=channels, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, *spatial)`` → the same shape."""
        device = x.device.type
        own = device == "cpu" and not (torch.compiler.is_compiling() or torch.jit.is_tracing())
        convolve = self._interleaved if own else self.conv
        autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if not autocast or (own and x.ndim == 4):
            return convolve(x)
        with torch.autocast(device, enabled=False):
            y = convolve(x.to(self.conv.weight.dtype))
        return y.to(torch.get_autocast_dtype(device))  # the dtype of other convolutions: half the memory later

    def _interleaved(self, x: Tensor) -> Tensor:
        layer, size = self.conv, x.shape[2:]
        convolve = {4: F.conv2d, 5: F.conv3d}[x.ndim]
        step = layer.dilation[0]
        parts = deinterleave(x, step) if step > 1 else x
        y = convolve(parts, layer.weight, layer.bias, padding=1, groups=layer.groups)
        return interleave(y, step, size) if step > 1 else y


def deinterleave(x: Tensor, step: int) -> Tensor:
    """The maps that every ``step``-th pixel along each axis forms, channels last in memory.

    ``(N, C, *S)`` → ``(N·stepⁿ, C, *⌈S/step⌉)``, zero where a map has one pixel fewer than others.
    """
    # MONAI's pixelunshuffle makes them channels, which makes a layer three to five times as slow on a CPU.
    counts = [-(-n // step) for n in x.shape[2:]]
    beyond = [count * step - n for count, n in zip(counts, x.shape[2:], strict=True)]
    x = F.pad(x, [*chain.from_iterable((0, n) for n in reversed(beyond))]) if any(beyond) else x
    x = x.movedim(1, -1).reshape(len(x), *chain.from_iterable((count, step) for count in counts), x.shape[1])
    pixels, maps = range(1, x.ndim - 1, 2), range(2, x.ndim - 1, 2)
    return x.permute(0, *maps, *pixels, -1).flatten(0, len(counts)).movedim(-1, 1)


def interleave(x: Tensor, step: int, size: Sequence[int]) -> Tensor:
    """The inverse of `deinterleave`: ``(N·stepⁿ, C, *⌈size/step⌉)`` → ``(N, C, *size)``."""
    axes = len(size)
    x = x.movedim(1, -1).unflatten(0, (-1, *[step] * axes))
    x = x.permute(0, *chain.from_iterable((axes + 1 + axis, 1 + axis) for axis in range(axes)), -1)
    whole = [count * step for count in x.shape[1:-1:2]]
    x = x.reshape(len(x), *whole, x.shape[-1]).movedim(-1, 1)
    if whole == [*size]:  # the gradient of a slice is a copy, even if the slice is everything
        return x
    return x[(slice(None), slice(None), *(slice(n) for n in size))]

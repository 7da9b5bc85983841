"""Small blocks that the networks share, for 2 and 3 spatial axes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn
from torch.nn import functional as F


def conv(
    spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = False
) -> nn.Conv2d | nn.Conv3d:
    """A convolution that keeps the size."""
    return Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)


def batch_norm(spatial_dims: int, channels: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
    return Norm[Norm.BATCH, spatial_dims](channels)


def conv_bn(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution without bias, then batch normalisation."""
    return nn.Sequential(
        OrderedDict(
            conv=conv(spatial_dims, in_channels, out_channels, kernel_size), bn=batch_norm(spatial_dims, out_channels)
        )
    )


def conv_bn_relu(spatial_dims: int, in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU."""
    block = conv_bn(spatial_dims, in_channels, out_channels, kernel_size)
    block.add_module("relu", nn.ReLU(inplace=True))
    return block


def resize(x: Tensor, size: Sequence[int], *, align_corners: bool = True) -> Tensor:
    """Linear interpolation to a spatial size; align_corners as in the paper's code."""
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    return F.interpolate(x, size=tuple(size), mode=mode, align_corners=align_corners)


def crop_or_extend(x: Tensor, size: Sequence[int]) -> Tensor:
    """Change the spatial size at the far edges: cut them off, or repeat the last pixel; ``x`` itself where it fits."""
    exporting = torch.compiler.is_compiling()
    for axis, n in enumerate(size, start=2):
        if not exporting and n == x.shape[axis]:  # an exported graph must not ask whether
            continue
        # Indices rather than pad and narrow: they put no condition on sizes into an exported graph.
        x = x.index_select(axis, torch.arange(n, device=x.device).clamp(max=x.shape[axis] - 1))
    return x


def initialise(*modules: nn.Module) -> None:
    """Initial weights as in the authors' code.

    Convolutions: He's uniform distribution (He et al., ICCV 2015; fan-in, gain of a ReLU), bias 0. Batch
    normalisation: scale from N(1, 0.02²), shift 0.
    """
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, (nn.Conv2d, nn.Conv3d)):
                nn.init.kaiming_uniform_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
            elif isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm3d)):
                nn.init.normal_(layer.weight, 1.0, 0.02)
                nn.init.zeros_(layer.bias)

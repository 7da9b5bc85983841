"""Scale-Aware Pyramid Fusion: context of several scales at the bottom of the U (Feng et al., IEEE TMI 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpfnet.network.blocks import batch_norm, conv, conv_bn_relu

DILATIONS = (1, 2, 4)


class ScaleAwareModule(nn.Module):
    """SAM: two maps of one scale each, merged by a per-pixel softmax attention."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            conv(spatial_dims, 2 * channels, channels, 1, bias=True),
            nn.ReLU(inplace=True),
            conv(spatial_dims, channels, channels // 2, 3, bias=True),
            nn.ReLU(inplace=True),
            conv(spatial_dims, channels // 2, 2, 3, bias=True),
            nn.Softmax(dim=1),
        )

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two maps ``(N, channels, *spatial)`` → one of the same shape."""
        attention = self.attention(torch.cat([a, b], dim=1))
        return attention[:, :1] * a + attention[:, 1:] * b


class ScaleAwarePyramidFusion(nn.Module):
    """SAPF on c5.

    One 3×3 kernel, applied at dilation 1, 2 and 4 with the same weights (its bias, as in the authors' code, at dilation
    1 only), and one SAM for both fusions. The result returns through a learned weight γ that starts from 0.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.conv = conv(spatial_dims, channels, channels, 3, bias=True)
        self.bns = nn.ModuleList(batch_norm(spatial_dims, channels) for _ in DILATIONS)
        self.sam = ScaleAwareModule(spatial_dims, channels)
        self.gamma = nn.Parameter(torch.zeros(1))
        self.out = conv_bn_relu(spatial_dims, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, *spatial)`` → the same shape."""
        convolve = {4: F.conv2d, 5: F.conv3d}[x.ndim]
        near, middle, far = (
            bn(convolve(x, self.conv.weight, self.conv.bias if d == 1 else None, padding=d, dilation=d))
            for bn, d in zip(self.bns, DILATIONS, strict=True)
        )
        fused = self.sam(self.sam(near, middle), far)
        return self.out(F.relu(self.gamma * fused + (1 - self.gamma) * x))

"""Global Pyramid Guidance: what each skip connection learns from all deeper levels (Feng et al., IEEE TMI 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpfnet.network.blocks import batch_norm, conv, conv_bn, conv_bn_relu, resize
from cpfnet.network.depthwise import DepthwiseConv


class GlobalPyramidGuidance(nn.Module):
    """GPG at one level.

    Every source (c5 … ck) is projected to ``width`` and resized to level k; their concatenation passes one separable
    3×3 branch per source, dilated by 1, 2, 4, …; the branches are merged to ``width`` channels.

    Args:
        spatial_dims: 2 or 3.
        sources: channels of the sources, deepest first; the last is the level's own.
        width: channels of the result.
    """

    def __init__(self, spatial_dims: int, sources: Sequence[int], width: int) -> None:
        super().__init__()
        count = len(sources)
        self.projections = nn.ModuleList(conv_bn_relu(spatial_dims, channels, width, 3) for channels in sources)
        self.branches = nn.ModuleList(
            nn.Sequential(
                DepthwiseConv(spatial_dims, count * width, dilation=2**i),
                batch_norm(spatial_dims, count * width),
                conv(spatial_dims, count * width, width, 1),
                batch_norm(spatial_dims, width),
                nn.ReLU(inplace=True),
            )
            for i in range(count)
        )
        self.merge = conv_bn(spatial_dims, count * width, width, 1)

    def forward(self, *sources: Tensor) -> Tensor:
        """Feature maps, deepest first → ``(N, width, *size of the last)``."""
        size = sources[-1].shape[2:]
        projected = [project(source) for project, source in zip(self.projections, sources, strict=True)]
        pyramid = torch.cat([*(resize(p, size) for p in projected[:-1]), projected[-1]], dim=1)
        return self.merge(torch.cat([branch(pyramid) for branch in self.branches], dim=1))


class PlainSkip(nn.Module):
    """A skip without guidance: the level's own features (the baseline of the paper's ablation)."""

    def __init__(self, spatial_dims: int, sources: Sequence[int], width: int) -> None:
        super().__init__()

    def forward(self, *sources: Tensor) -> Tensor:
        """Feature maps, deepest first → the last."""
        return sources[-1]

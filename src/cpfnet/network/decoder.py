"""The decoder's steps and the head (Feng et al., IEEE TMI 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from cpfnet.network.blocks import conv, conv_bn_relu, resize


class DecoderBlock(nn.Module):
    """One step up: 3×3 conv/BN/ReLU, resize to the skip, 1×1 conv/BN/ReLU to fewer channels.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels from below.
        out_channels: channels of the skip.
        refine: False leaves the 3×3 convolution out (the deepest step).
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, refine: bool = True) -> None:
        super().__init__()
        self.refine = conv_bn_relu(spatial_dims, in_channels, in_channels, 3) if refine else nn.Identity()
        self.reduce = conv_bn_relu(spatial_dims, in_channels, out_channels, 1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """``(N, in_channels, *spatial)`` → ``(N, out_channels, *size)``."""
        return self.reduce(resize(self.refine(x), size))


class Head(nn.Module):
    """Resize to the input, 1×1 and 3×3 conv/BN/ReLU at half the channels, 1×1 conv with bias to the classes."""

    def __init__(self, spatial_dims: int, in_channels: int, classes: int) -> None:
        super().__init__()
        self.reduce = conv_bn_relu(spatial_dims, in_channels, in_channels // 2, 1)
        self.refine = conv_bn_relu(spatial_dims, in_channels // 2, in_channels // 2, 3)
        self.classify = conv(spatial_dims, in_channels // 2, classes, 1, bias=True)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """``(N, in_channels, *spatial)`` → logits ``(N, classes, *size)``."""
        return self.classify(self.refine(self.reduce(resize(x, size))))

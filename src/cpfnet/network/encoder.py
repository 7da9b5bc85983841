"""The ResNet-34 encoder (He et al., CVPR 2016), tapped at five levels."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn

from cpfnet.errors import NetworkError

WIDTH = 64
"""Channels of c1 and c2 in He et al. and in ImageNet weights; c3, c4 and c5 have two, four and eight times as many."""


class ResNet34Encoder(ResNet):
    """MONAI's ResNet-34 with torchvision's parameter names (no ``fc``), so ImageNet files load unchanged.

    From scratch, the last batch normalisation of each residual block starts from zero (Goyal et al., 2017, section
    5.1): the encoder begins as a shallow network, which learns sooner.

    Args:
        in_channels: channels of the input.
        spatial_dims: 2 or 3.
        stem_stride: stride of the first convolution. 2 is the paper's; 1 doubles the resolution of every tap.
        width: channels of c1 and c2; c3, c4 and c5 have two, four and eight times as many. ImageNet weights have 64.

    Raises:
        NetworkError: another stem stride, or a width that is not an even number above 0.
    """

    def __init__(self, in_channels: int, *, spatial_dims: int = 2, stem_stride: int = 2, width: int = WIDTH) -> None:
        if stem_stride not in (1, 2):
            raise NetworkError(
                f"stem_stride = {stem_stride!r}", fix="give 2 (the paper's) or 1 (every level at double resolution)"
            )
        if not isinstance(width, int) or width < 2 or width % 2:
            raise NetworkError(f"width = {width!r}", fix=f"give an even number above 0; {WIDTH} is the paper's")
        super().__init__(
            "basic",
            [3, 4, 6, 3],
            [width, 2 * width, 4 * width, 8 * width],
            spatial_dims=spatial_dims,
            n_input_channels=in_channels,
            conv1_t_stride=stem_stride,
            bias_downsample=False,
            feed_forward=False,
        )
        for module in self.modules():
            if isinstance(module, ResNetBlock):
                nn.init.zeros_(module.bn2.weight)
        self.width = width
        self.frozen_statistics = False
        """Does its batch normalisation keep mean and variance in training? Scale and shift learn all the same."""
        self.stride = 16 * stem_stride
        """Input pixels per pixel of c5."""

    def train(self, mode: bool = True) -> ResNet34Encoder:
        """As for all modules, but for batch normalisation with `frozen_statistics`."""
        super().train(mode)
        if self.frozen_statistics:
            for layer in self.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

    def deepest(self, size: Sequence[int]) -> list[int]:
        """Spatial size of c5 for an input of this size."""
        return [-(-n // self.stride) for n in size]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``(N, in_channels, *spatial)`` → c1 … c5 at 1/2, 1/4, 1/8, 1/16, 1/32 (twice that with ``stem_stride=1``).

        c1 is taken after the stem's ReLU, before pooling. Sizes are rounded up.
        """
        c1 = self.act(self.bn1(self.conv1(x)))
        c2 = self.layer1(self.maxpool(c1))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        return c1, c2, c3, c4, c5


def find_encoder(network: nn.Module) -> ResNet34Encoder | None:
    """The encoder within a network; None where it has another or none."""
    return next((module for module in network.modules() if isinstance(module, ResNet34Encoder)), None)

"""The ResNet encoders (He et al., CVPR 2016), tapped at five levels."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets.resnet import ResNet, ResNetBlock, ResNetBottleneck
from torch import Tensor, nn

from cpfnet.errors import NetworkError

WIDTH = 64
"""Channels of c1 in He et al. and in ImageNet weights; those of all other taps change with them."""

BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}
"""Depth → residual blocks of each stage; from 50 on they are bottlenecks of three convolutions."""

PAPERS = 34
"""The depth that the paper has."""


def check_width(width: int) -> None:
    """Refuse what cannot be channels of c1.

    Raises:
        NetworkError: no even number above 0.
    """
    if not isinstance(width, int) or width < 2 or width % 2:
        raise NetworkError(f"width = {width!r}", fix=f"give an even number above 0; {WIDTH} is the paper's")


class ResNetEncoder(ResNet):
    """MONAI's ResNet with torchvision's parameter names (no ``fc``), so ImageNet files load unchanged.

    The stride of a bottleneck is at its 3×3 convolution, as in torchvision. From scratch, the last batch normalisation
    of each residual block starts from zero (Goyal et al., 2017, section 5.1): the encoder begins as a shallow network,
    which learns sooner.

    Args:
        in_channels: channels of the input.
        depth: 18, 34 (the paper's), 50 or 101.
        spatial_dims: 2 or 3.
        stem_stride: stride of the first convolution. 2 is the paper's; 1 doubles the resolution of every tap.
        width: channels of c1; c2 … c5 have 1, 2, 4 and 8 times as many, with bottlenecks 4, 8, 16 and 32 times.
            ImageNet weights have 64.

    Raises:
        NetworkError: another depth or stem stride, or a width that is not an even number above 0.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        depth: int = PAPERS,
        spatial_dims: int = 2,
        stem_stride: int = 2,
        width: int = WIDTH,
    ) -> None:
        if depth not in BLOCKS:
            raise NetworkError(f"depth = {depth!r}", fix=f"give {', '.join(map(str, BLOCKS))}; {PAPERS} is the paper's")
        if stem_stride not in (1, 2):
            raise NetworkError(
                f"stem_stride = {stem_stride!r}", fix="give 2 (the paper's) or 1 (every level at double resolution)"
            )
        check_width(width)
        block = ResNetBottleneck if depth >= 50 else ResNetBlock
        super().__init__(
            block,
            BLOCKS[depth],
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
            elif isinstance(module, ResNetBottleneck):
                nn.init.zeros_(module.bn3.weight)
        self.depth = depth
        self.width = width
        self.frozen_statistics = False
        """Does its batch normalisation keep mean and variance in training? Scale and shift learn all the same."""
        self.channels = (width, *(block.expansion * width * 2**level for level in range(4)))
        """Of c1 … c5."""
        self.strides = tuple(stem_stride * 2**level for level in range(5))
        """Input pixels per pixel of c1 … c5."""

    def train(self, mode: bool = True) -> ResNetEncoder:
        """As for all modules, but for batch normalisation with `frozen_statistics`."""
        super().train(mode)
        if self.frozen_statistics:
            for layer in self.modules():
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.eval()
        return self

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


def deepest(strides: Sequence[int], size: Sequence[int]) -> list[int]:
    """Spatial size of c5 for an input of this size."""
    return [-(-n // strides[-1]) for n in size]


def find_encoder(network: nn.Module) -> ResNetEncoder | None:
    """The ResNet within a network, into which ImageNet weights fit; None where it has another encoder or none."""
    return next((module for module in network.modules() if isinstance(module, ResNetEncoder)), None)

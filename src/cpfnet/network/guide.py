"""CPFNet as a widely read practical guide sketches it. The guide's code does not run; this is what it describes, fixed.

It differs from the paper in every module: GPG sums two inputs, SAPF fuses with two plain attention maps, the decoder
concatenates its skips and convolves twice, and only the encoder has batch normalisation. Layers keep PyTorch's
initialisation, since the guide gives none.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cpfnet.network.base import SegmentationNetwork
from cpfnet.network.blocks import conv, resize
from cpfnet.network.depthwise import DepthwiseConv
from cpfnet.network.encoder import deepest
from cpfnet.network.encoder_zoo import DEFAULT, Neck, build_encoder
from cpfnet.network.sapf import DILATIONS


class GuideGPG(nn.Module):
    """An encoder skip and the decoder feature above it: projected, summed, three dilated separable branches, merged."""

    def __init__(self, spatial_dims: int, skip_channels: int, deep_channels: int, width: int) -> None:
        super().__init__()
        self.project_skip = conv(spatial_dims, skip_channels, width, 3, bias=True)
        self.project_deep = conv(spatial_dims, deep_channels, width, 3, bias=True)
        self.branches = nn.ModuleList(
            nn.Sequential(
                DepthwiseConv(spatial_dims, width, dilation=dilation, bias=True),
                conv(spatial_dims, width, width, 1, bias=True),
            )
            for dilation in (1, 2, 4)
        )
        self.merge = conv(spatial_dims, 3 * width, width, 1, bias=True)

    def forward(self, skip: Tensor, deep: Tensor) -> Tensor:
        """``(N, width, *size of the skip)``."""
        fused = self.project_skip(skip) + resize(self.project_deep(deep), skip.shape[2:], align_corners=False)
        return self.merge(torch.cat([branch(fused) for branch in self.branches], dim=1))


class GuideSAM(nn.Module):
    """Two maps merged by a softmax over one 1×1 convolution of both."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(conv(spatial_dims, 2 * channels, 2, 1, bias=True), nn.Softmax(dim=1))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        attention = self.attention(torch.cat([a, b], dim=1))
        return attention[:, :1] * a + attention[:, 1:] * b


class GuideSAPF(nn.Module):
    """One 3×3 kernel at dilation 1, 2, 4; two SAMs; the branch at dilation 1 plus α times their result, α from 0.1."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.conv = conv(spatial_dims, channels, channels, 3)
        self.sam1 = GuideSAM(spatial_dims, channels)
        self.sam2 = GuideSAM(spatial_dims, channels)
        self.alpha = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        convolve = {4: F.conv2d, 5: F.conv3d}[x.ndim]
        base, middle, far = (convolve(x, self.conv.weight, padding=d, dilation=d) for d in DILATIONS)
        return base + self.alpha * self.sam2(self.sam1(base, middle), far)


class GuideDecoderBlock(nn.Module):
    """Resize to the skip, concatenate it, two 3×3 conv + ReLU."""

    def __init__(self, spatial_dims: int, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv(spatial_dims, in_channels + skip_channels, out_channels, 3, bias=True),
            nn.ReLU(inplace=True),
            conv(spatial_dims, out_channels, out_channels, 3, bias=True),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.convs(torch.cat([resize(x, skip.shape[2:], align_corners=False), skip], dim=1))


class GuideCPFNet(SegmentationNetwork):
    """The guide's network: 27,639,881 parameters with 3 channels and 4 classes in 2-D.

    Arguments, sizes and errors as in `cpfnet.network.cpfnet.CPFNet`.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        spatial_dims: int = 2,
        stem_stride: int = 2,
        encoder: str | nn.Module = DEFAULT,
    ) -> None:
        super().__init__(in_channels, classes, spatial_dims)
        self.encoder = build_encoder(encoder, in_channels, spatial_dims=spatial_dims, stem_stride=stem_stride)
        self.neck = Neck(spatial_dims, self.encoder, (64, 64, 128, 256, 512))
        self.sapf = GuideSAPF(spatial_dims, 512)
        self.gpg3 = GuideGPG(spatial_dims, 128, 256, 128)
        self.gpg2 = GuideGPG(spatial_dims, 64, 128, 64)
        self.gpg1 = GuideGPG(spatial_dims, 64, 64, 64)
        self.decoder4 = GuideDecoderBlock(spatial_dims, 512, 256, 256)
        self.decoder3 = GuideDecoderBlock(spatial_dims, 256, 128, 128)
        self.decoder2 = GuideDecoderBlock(spatial_dims, 128, 64, 64)
        self.decoder1 = GuideDecoderBlock(spatial_dims, 64, 64, 64)
        self.head = conv(spatial_dims, 64, classes, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *spatial)`` → logits ``(N, classes, *spatial)``.

        Raises:
            NetworkError: wrong rank or channel count, an axis below 32 pixels, or one value per channel in training.
        """
        self.check_input(x)
        self.check_statistics(x, deepest(self.encoder.strides, x.shape[2:]))
        c1, c2, c3, c4, c5 = self.neck(self.encoder(x))
        d4 = self.decoder4(self.sapf(c5), c4)
        d3 = self.decoder3(d4, self.gpg3(c3, d4))
        d2 = self.decoder2(d3, self.gpg2(c2, d3))
        d1 = self.decoder1(d2, self.gpg1(c1, d2))
        # The guide resizes first. A 1×1 convolution commutes with that, and has a quarter of the pixels to process
        # here.
        return resize(self.head(d1), x.shape[2:], align_corners=False)

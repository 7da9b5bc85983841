"""CPFNet-HR: the paper's network with a head that gives every pixel its own logits, for thin structures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from cpfnet.errors import NetworkError
from cpfnet.network.blocks import conv, conv_bn, conv_bn_relu, crop_or_extend, initialise, resize
from cpfnet.network.cpfnet import CPFNet
from cpfnet.network.encoder import WIDTH
from cpfnet.network.encoder_zoo import DEFAULT


class CPFNetHR(CPFNet):
    """CPFNet with a fine skip and a sub-pixel head, which are not from the paper.

    Encoder, GPG, SAPF and decoder are the paper's. The paper's head adds c1 to the decoder's last map and enlarges both
    by interpolation, so it must guess what lies between their pixels. But c1 holds 64 values (its width) for each 2×2
    pixels of the input: with three channels, this is all of their content.

    Here c1, a single convolution deep, passes two residual blocks. The head (`SubpixelHead`) reads it and the decoder's
    map at half resolution, and gives each pixel of a block its own logits. In training, x₂ and x₃ give logits, too,
    enlarged to the input: with this deep supervision (Lee et al., AISTATS 2015) the deeper levels learn sooner.

    Args:
        in_channels: channels of the input.
        classes: planes of the output.
        spatial_dims: 2 or 3.
        width, encoder, gpg, sapf: as in `CPFNet`; c1 must have half the input's resolution.

    Raises:
        NetworkError: an argument, or later an input, that the network cannot have.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        spatial_dims: int = 2,
        width: int = WIDTH,
        encoder: str | nn.Module = DEFAULT,
        gpg: bool = True,
        sapf: bool = True,
    ) -> None:
        super().__init__(
            in_channels, classes, spatial_dims=spatial_dims, width=width, encoder=encoder, gpg=gpg, sapf=sapf
        )
        if self.encoder.strides[0] != 2:  # the head makes 2×2 pixels of one
            raise NetworkError(
                f"this encoder's finest map has one pixel for {self.encoder.strides[0]} along each axis, and CPFNetHR "
                "needs one for 2",
                fix="let its strides begin with 2, or take CPFNet",
            )
        self.fine = nn.Sequential(*(ResidualBlock(spatial_dims, width) for _ in range(2)))
        self.head = SubpixelHead(spatial_dims, 2 * width, classes)  # type: ignore[assignment]
        self.guesses = nn.ModuleList(
            conv(spatial_dims, channels, classes, 1, bias=True) for channels in (width, 2 * width)
        )
        initialise(self.guesses)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:  # type: ignore[override]
        """``(N, in_channels, *spatial)`` → logits ``(N, classes, *spatial)``; in training those of the head, x₂ and x₃.

        Raises:
            NetworkError: as `CPFNet.forward`.
        """
        c1, x2, x3 = self.decode(x)
        size = x.shape[2:]
        logits = self.head(torch.cat([self.fine(c1), self.decoder2(x2, c1.shape[2:])], dim=1), size)
        if not self.training:
            return logits
        return [logits, *(resize(guess(y), size) for guess, y in zip(self.guesses, (x2, x3), strict=True))]


class ResidualBlock(nn.Module):
    """ReLU(x + BN(conv(ReLU(BN(conv(x)))))), 3×3 (He et al., CVPR 2016); the last BN starts from zero."""

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__()
        self.first = conv_bn_relu(spatial_dims, channels, channels, 3)
        self.second = conv_bn(spatial_dims, channels, channels, 3)
        initialise(self.first, self.second)
        nn.init.zeros_(self.second.bn.weight)  # type: ignore[union-attr, arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(N, channels, *spatial)`` → the same shape."""
        return F.relu(x + self.second(self.first(x)))


class SubpixelHead(nn.Module):
    """Twice the resolution by a sub-pixel convolution (Shi et al., CVPR 2016).

    Before it, a 3×3 conv/BN/ReLU to half the channels and a residual block. At half resolution, 64 channels cost as
    much as the paper's 32 at full resolution.
    """

    def __init__(self, spatial_dims: int, in_channels: int, classes: int) -> None:
        super().__init__()
        channels = in_channels // 2
        self.reduce = conv_bn_relu(spatial_dims, in_channels, channels, 3)
        self.refine = ResidualBlock(spatial_dims, channels)
        # A transposed convolution whose kernel is its stride is a 1×1 convolution and a pixel shuffle in one.
        self.classify = Conv[Conv.CONVTRANS, spatial_dims](channels, classes, 2, stride=2)
        initialise(self.reduce)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """``(N, in_channels, *half the size, rounded up)`` → logits ``(N, classes, *size)``."""
        return crop_or_extend(self.classify(self.refine(self.reduce(x))), size)

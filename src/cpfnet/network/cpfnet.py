"""CPFNet as published.

Feng et al., "CPFNet: Context Pyramid Fusion Network for Medical Image Segmentation", IEEE TMI 2020.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cpfnet.network.base import SegmentationNetwork
from cpfnet.network.blocks import initialise
from cpfnet.network.decoder import DecoderBlock, Head
from cpfnet.network.encoder import WIDTH, check_width, deepest
from cpfnet.network.encoder_zoo import DEFAULT, Neck, build_encoder
from cpfnet.network.gpg import GlobalPyramidGuidance, PlainSkip
from cpfnet.network.sapf import ScaleAwarePyramidFusion


class CPFNet(SegmentationNetwork):
    """The paper's network (doi:10.1109/TMI.2020.2983721), after the authors' code.

    ResNet-34 encoder → GPG on the three deeper skips → SAPF at the bottom → decoder → head. 30,650,823 parameters with
    3 channels and 4 classes in 2-D. In evaluation any size from 32 pixels works; training needs more than one value per
    channel at the deepest level (a batch of 2, or patches above 32 pixels).

    Args:
        in_channels: channels of the input.
        classes: planes of the output.
        spatial_dims: 2 for ``(height, width)``, 3 for ``(depth, height, width)``.
        stem_stride: 2 as published; 1 keeps every feature map at double resolution, for thin structures (about four
            times the work in 2-D).
        width: channels of c1 and c2, 64 as published; all other maps change with them. Half of it means a quarter of
            the weights and multiplications. ImageNet weights fit only 64.
        encoder: ``"resnet34"`` as published, ``"resnet18"``, ``"resnet50"``, ``"resnet101"``, or an `Encoder` of your
            own (or its registered name). Maps of other channels than a ResNet-34's pass a 1×1 conv/BN/ReLU (`Neck`), so
            that GPG, SAPF and decoder stay the paper's.
        gpg: False leaves the skips plain, as in the paper's ablation.
        sapf: False leaves c5 as it is, as in the paper's ablation.

    Raises:
        NetworkError: an argument, or later an input, that the network cannot have.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        *,
        spatial_dims: int = 2,
        stem_stride: int = 2,
        width: int = WIDTH,
        encoder: str | nn.Module = DEFAULT,
        gpg: bool = True,
        sapf: bool = True,
    ) -> None:
        super().__init__(in_channels, classes, spatial_dims)
        skip = GlobalPyramidGuidance if gpg else PlainSkip
        check_width(width)
        self.encoder = build_encoder(
            encoder, in_channels, spatial_dims=spatial_dims, stem_stride=stem_stride, width=width
        )
        c3, c4, c5 = 2 * width, 4 * width, 8 * width
        self.neck = Neck(spatial_dims, self.encoder, (width, width, c3, c4, c5))
        self.gpg4 = skip(spatial_dims, (c5, c4), c4)
        self.gpg3 = skip(spatial_dims, (c5, c4, c3), c3)
        self.gpg2 = skip(spatial_dims, (c5, c4, c3, width), width)
        self.sapf = ScaleAwarePyramidFusion(spatial_dims, c5) if sapf else nn.Identity()
        self.decoder5 = DecoderBlock(spatial_dims, c5, c4, refine=False)
        self.decoder4 = DecoderBlock(spatial_dims, c4, c3)
        self.decoder3 = DecoderBlock(spatial_dims, c3, width)
        self.decoder2 = DecoderBlock(spatial_dims, width, width)
        self.head = Head(spatial_dims, width, classes)
        # The encoder has torchvision's initialisation; SAPF has PyTorch's own, as in the authors' code.
        initialise(self.neck, self.gpg4, self.gpg3, self.gpg2)
        initialise(self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in_channels, *spatial)`` → logits ``(N, classes, *spatial)``.

        Raises:
            NetworkError: wrong rank or channel count, an axis below 32 pixels, or one value per channel in training.
        """
        c1, x2, _ = self.decode(x)
        return self.head(self.decoder2(x2, c1.shape[2:]) + c1, x.shape[2:])

    def decode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Everything up to the head and the step before it: ``(N, in_channels, *spatial)`` → c1, x₂ and x₃.

        c1 and x₂ have ``width`` channels, x₃ twice as many.

        Raises:
            NetworkError: as `forward`.
        """
        self.check_input(x)
        self.check_statistics(x, deepest(self.encoder.strides, x.shape[2:]))
        c1, c2, c3, c4, c5 = self.neck(self.encoder(x))
        x4 = F.relu(self.decoder5(self.sapf(c5), c4.shape[2:]) + self.gpg4(c5, c4))
        x3 = F.relu(self.decoder4(x4, c3.shape[2:]) + self.gpg3(c5, c4, c3))
        x2 = F.relu(self.decoder3(x3, c2.shape[2:]) + self.gpg2(c5, c4, c3, c2))
        return c1, x2, x3

"""MedNeXt (Roy et al., MICCAI 2023): a U-Net of ConvNeXt's blocks, from MONAI, with or without deep supervision."""

from __future__ import annotations

from monai.networks.blocks.mednext_block import MedNeXtOutBlock
from monai.networks.nets.mednext import MedNeXt
from torch import Tensor, nn

from cpfnet.errors import NetworkError

SIZES: dict[str, dict[str, object]] = {
    "small": {},
    "base": {
        "encoder_expansion_ratio": (2, 3, 4, 4),
        "decoder_expansion_ratio": (4, 4, 3, 2),
        "bottleneck_expansion_ratio": 4,
    },
}
SIZES["medium"] = SIZES["base"] | {"blocks_down": (3, 4, 4, 4), "blocks_bottleneck": 4, "blocks_up": (4, 4, 4, 3)}
SIZES["large"] = {
    "encoder_expansion_ratio": (3, 4, 8, 8),
    "decoder_expansion_ratio": (8, 8, 4, 3),
    "bottleneck_expansion_ratio": 8,
    "blocks_down": (3, 4, 8, 8),
    "blocks_bottleneck": 8,
    "blocks_up": (8, 8, 4, 3),
}
"""The paper's S, B, M and L (its table 1), as far as they differ from MONAI's defaults."""


class SupervisedMedNeXt(MedNeXt):
    """MONAI's `MedNeXt` with kernels of 3, which in training may give logits of several sizes, full size first.

    MONAI's own heads are not used: they compute in evaluation, too, and one of them judges the bottom of the network,
    which nnU-Net's training, which the paper uses, leaves out.

    Args:
        in_channels: channels of the input.
        classes: planes of the output.
        spatial_dims: 2 or 3.
        size: one of `SIZES`.
        deep_supervision: judge all levels of the decoder in training.

    Raises:
        NetworkError: no such size.
    """

    def __init__(self, in_channels: int, classes: int, *, spatial_dims: int, size: str, deep_supervision: bool) -> None:
        if size not in SIZES:
            raise NetworkError(f"size = {size!r}", fix=f"choose one of {', '.join(SIZES)}")
        super().__init__(
            spatial_dims, 32, in_channels, classes, kernel_size=3, use_residual_connection=True, **SIZES[size]
        )
        count = len(self.dec_stages) - 1 if deep_supervision else 0
        self.supervision = nn.ModuleList(
            MedNeXtOutBlock(32 * 2**level, classes, f"{spatial_dims}d") for level in range(1, 1 + count)
        )

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """``(N, in_channels, *spatial)``, sizes divisible by 16 → logits; deeply supervised in training, a list."""
        if not self.training or not self.supervision:
            return super().forward(x)
        x = self.stem(x)
        skips = []
        for stage, down in zip(self.enc_stages, self.down_blocks, strict=True):
            x = stage(x)
            skips.append(x)
            x = down(x)
        x = self.bottleneck(x)
        maps = []
        for up, stage in zip(self.up_blocks, self.dec_stages, strict=True):
            x = stage(up(x) + skips.pop())
            maps.append(x)
        finest, *coarser = maps[::-1]
        heads = zip(self.supervision, coarser, strict=True)
        return [self.out_0(finest), *(head(one) for head, one in heads)]

"""nnU-Net's network with deep supervision: in training the levels above the lowest of the decoder are judged, too."""

from __future__ import annotations

from typing import Any

from monai.networks.blocks.dynunet_block import UnetOutBlock
from monai.networks.nets.dynunet import DynUNet, DynUNetSkipLayer
from torch import Tensor, nn

from cpfnet.errors import NetworkError


class DeeplySupervisedDynUNet(DynUNet):
    """MONAI's `DynUNet`, which in training gives logits of several sizes, full size first.

    MONAI's own deep supervision enlarges all logits to full size and keeps them in the network; nnU-Net (Isensee et
    al., Nature Methods 2021) judges each level at its size. There the lowest level of the decoder has the weight 0: it
    has no head here. In evaluation this is `DynUNet`, with the same weights under the same names.

    Args:
        arguments, options: of `DynUNet`; four or more levels.

    Raises:
        NetworkError: fewer levels, which leave none to supervise.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        count = len(self.strides) - 3
        if count < 1:
            raise NetworkError(
                f"deep_supervision needs 4 levels or more, and this patch makes {len(self.strides)}",
                fix="leave deep_supervision out, or use larger patches",
            )
        widths = self.filters[1 : 1 + count]
        self.supervision = nn.ModuleList(UnetOutBlock(self.spatial_dims, width, self.out_channels) for width in widths)
        self.supervision.apply(self.initialize_weights)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """``(N, in_channels, *spatial)`` → logits; in training a list of them, the input's size first."""
        if not self.training:
            return super().forward(x)
        layer, levels = self.skip_layers, []
        while isinstance(layer, DynUNetSkipLayer):
            x = layer.downsample(x)
            levels.append((layer.upsample, x))
            layer = layer.next_layer
        x = layer(x)
        maps = []
        for upsample, skip in reversed(levels):
            x = upsample(x, skip)
            maps.append(x)
        finest, *coarser = maps[::-1]
        heads = zip(self.supervision, coarser, strict=False)  # the lowest has none
        return [self.output_block(finest), *(head(one) for head, one in heads)]

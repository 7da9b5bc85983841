"""The network as its authors wrote it: what "as published" means in every table."""

from __future__ import annotations

import torch

from cpfnet import CPFNet
from cpfnet.network.depthwise import DepthwiseConv


def published(in_channels: int, classes: int) -> torch.nn.Module:
    """CPFNet with PyTorch's own dilated depthwise convolutions, where cpfnet uses `DepthwiseConv`.

    The weights have the same names.
    """
    network = CPFNet(in_channels, classes)
    for layer in network.modules():
        if isinstance(layer, DepthwiseConv):
            layer.forward = layer.conv.forward  # type: ignore[method-assign]
    return network

"""Depthwise convolutions under bfloat16 autocast, where PyTorch's own gradients go wrong on a CPU."""

from __future__ import annotations

import pytest
import torch

from cpfnet.network import zoo
from cpfnet.network.blocks import DepthwiseConv


@pytest.mark.parametrize("name", ["cpfnet", "cpfnet-guide"])
def test_gradients_of_every_layer_are_right_in_bf16(name: str) -> None:
    torch.manual_seed(0)
    network = zoo.build(name, 3, 2)
    layers = {key: module for key, module in network.named_modules() if isinstance(module, DepthwiseConv)}
    depthwise = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert [layer.conv for layer in layers.values()] == depthwise  # none escapes
    for key, layer in layers.items():
        channels = layer.conv.in_channels
        x = torch.randn(2, channels, 64, 64).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        outer = torch.randn(2, channels, 64, 64)
        (exact,) = torch.autograd.grad((layer.conv(x.float()) * outer).sum(), layer.conv.weight)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        (found,) = torch.autograd.grad((out.float() * outer).sum(), layer.conv.weight)
        assert (found - exact).norm() < 0.02 * exact.norm(), key


def test_networks_converted_to_bf16_still_answer() -> None:
    layer = DepthwiseConv(2, 8, dilation=2).to(torch.bfloat16)
    assert layer(torch.rand(1, 8, 40, 40, dtype=torch.bfloat16)).dtype == torch.bfloat16

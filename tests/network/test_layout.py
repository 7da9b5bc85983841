"""Which layout in memory is chosen, and that no result depends on it."""

from __future__ import annotations

import pytest
import torch

from cpfnet.network import zoo
from cpfnet.network.layout import memory_layout

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "spatial_dims", "device", "layout"),
    [
        ("dynunet", 3, GPU, torch.contiguous_format),
        ("unet", 3, GPU, torch.contiguous_format),
        ("cpfnet", 3, GPU, torch.channels_last_3d),
        ("dynunet", 2, GPU, torch.channels_last),
        ("dynunet", 3, CPU, torch.channels_last_3d),
        ("cpfnet", 2, CPU, torch.channels_last),
    ],
)
def test_instance_normalisation_decides_in_3d_on_a_gpu(
    name: str, spatial_dims: int, device: torch.device, layout: torch.memory_format
) -> None:
    with torch.device("meta"):
        network = zoo.build(name, 1, 2, spatial_dims=spatial_dims)
    assert memory_layout(network, spatial_dims, device) is layout


@pytest.mark.parametrize("name", ["dynunet", "cpfnet"])
def test_both_layouts_learn_the_same(name: str) -> None:
    options = {"widths": [4, 4, 8, 8, 8]} if name == "dynunet" else {"width": 4}
    x = torch.rand(2, 1, 32, 40, 32, dtype=torch.float64)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        torch.manual_seed(0)
        network = zoo.build(name, 1, 2, spatial_dims=3, **options).double().to(memory_format=layout)
        logits = network.train()(x)
        logits.square().mean().backward()
        found.append([logits.detach(), *(p.grad for p in network.parameters())])
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)

"""The rewritten network gives the trained one's logits, with less work."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cpfnet.network import zoo
from cpfnet.network.fuse import fuse
from tests.network.test_contract import OPTIONS

OURS = ("cpfnet", "cpfnet-hr", "cpfnet-guide")


def trained(name: str, spatial_dims: int = 2, **options: object) -> nn.Module:
    """A network whose every parameter and statistic counts, as after training."""
    generator = torch.Generator().manual_seed(0)
    network = zoo.build(name, 3, 2, spatial_dims=spatial_dims, **{**OPTIONS.get(name, {}), **options})
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                tensor.data.uniform_(-0.5, 0.5, generator=generator)
    for key, parameter in network.named_parameters():
        if parameter.numel() == 1:  # SAPF's share
            nn.init.constant_(parameter, 0.3)
        elif key.endswith("bias") and not parameter.any():
            parameter.data.uniform_(-0.5, 0.5, generator=generator)
    return network.eval()


@torch.no_grad()
def difference(network: nn.Module, other: nn.Module, size: tuple[int, ...], dtype: torch.dtype) -> float:
    """Largest one of the logits, relative to their range."""
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=dtype)
    logits = network.to(dtype)(x)
    return float((other.to(dtype)(x) - logits).abs().max() / (logits.max() - logits.min()))


WAYS = [
    *((name, {}) for name in OURS),
    *(
        (name, options)
        for name in ("cpfnet", "cpfnet-hr")
        for options in ({"gpg": False, "sapf": False}, {"width": 16})
    ),
    ("cpfnet-guide", {"stem_stride": 1}),
]


@pytest.mark.parametrize(
    ("name", "options"), WAYS, ids=lambda way: way if isinstance(way, str) else "-".join(way) or "whole"
)
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (96, 65)])
def test_same_logits(name: str, size: tuple[int, int], options: dict[str, object]) -> None:
    network = trained(name, **options)
    assert difference(network, fuse(network), size, torch.float32) < 1e-4
    network = network.double()
    assert difference(network, fuse(network), size, torch.float64) < 1e-12


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("size", [(32, 32, 32), (33, 40, 35)])
def test_same_logits_in_3d(name: str, size: tuple[int, int, int]) -> None:
    network = trained(name, 3)
    assert difference(network, fuse(network), size, torch.float32) < 1e-4


@pytest.mark.parametrize("name", sorted(set(zoo.names()) - set(OURS)))
def test_other_networks_stay_what_they_are(name: str) -> None:
    network = trained(name)
    assert difference(network, fuse(network), (64, 64), torch.float32) < 1e-4


@pytest.mark.parametrize("name", OURS)
def test_it_is_a_copy_without_normalisation_that_does_less(name: str) -> None:
    network = trained(name)
    before = copy.deepcopy(network.state_dict())
    fused = fuse(network.train())
    assert network.training
    assert not fused.training
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in fused.modules())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), key
    work = []
    for one in (network.eval(), fused):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            one(torch.zeros(1, 3, 64, 64))
        work.append(counter.get_total_flops())
    assert work[1] < work[0]
    assert sum(p.numel() for p in fused.parameters()) <= sum(p.numel() for p in network.parameters()) * 1.2


def test_what_only_training_needs_is_left_out() -> None:
    assert not any(key.startswith("guesses") for key in fuse(trained("cpfnet-hr")).state_dict())

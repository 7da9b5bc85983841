"""What every network promises, whatever its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch.export import Dim, export

from cpfnet.errors import NetworkError
from cpfnet.network import zoo

NARROW = (4, 4, 8, 8, 8)
OPTIONS = {
    "unet": {"widths": NARROW},
    "attention-unet": {"widths": NARROW},
    "unet++": {"widths": NARROW},
    "segresnet": {"width": 8},
    "dynunet": {"patch": [64, 64], "widths": NARROW},
    "dynunet-res": {"patch": [64, 64], "widths": NARROW},
}
"""Narrow networks where the builder can, for the sake of time."""

SUPERVISED = [f"{name}, supervised" for name in ("dynunet", "dynunet-res", "mednext")]


def build(name: str, *, spatial_dims: int = 2, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    registered = name.partition(",")[0]
    options = dict(OPTIONS.get(registered, {}))
    if spatial_dims == 3 and "patch" in options:
        options["patch"] = [32, 64, 64]
    if name in SUPERVISED:
        options["deep_supervision"] = True
    network = zoo.build(registered, 3, 2, spatial_dims=spatial_dims, **options)
    for key, parameter in network.named_parameters():
        # What starts from 0 (SAPF's share, the last normalisation of a residual block) would leave a branch out.
        if not key.endswith("bias") and not parameter.any():
            torch.nn.init.constant_(parameter, 0.3)
    return network


@pytest.fixture(scope="module", params=[*zoo.names(), *SUPERVISED])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def network(name: str) -> torch.nn.Module:
    return build(name)


@pytest.fixture(autouse=True)
def evaluation_mode(network: torch.nn.Module) -> None:
    network.eval()


def test_it_knows_its_interface(network: torch.nn.Module) -> None:
    assert (network.in_channels, network.classes, network.spatial_dims) == (3, 2, 2)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (65, 71)])
def test_any_size_comes_back(network: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = network(torch.rand(1, 3, *size))
    assert logits.shape == (1, 2, *size)
    assert logits.isfinite().all()


def test_volumes_come_back(name: str) -> None:
    network = build(name, spatial_dims=3).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 32, 33, 35)).shape == (1, 2, 32, 33, 35)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 3, 64, 31)])
def test_wrong_inputs_are_refused(network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NetworkError):
        network(torch.rand(shape))


def test_evaluation_is_deterministic_and_samples_are_independent(network: torch.nn.Module) -> None:
    x = torch.rand(2, 3, 40, 48)
    with torch.no_grad():
        both = network(x)
        assert torch.equal(network(x), both)
        torch.testing.assert_close(network(x[1:]), both[1:], atol=1e-4, rtol=1e-4)


def test_weights_survive_a_file(name: str, network: torch.nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other = build(name, seed=1).eval()
    x = torch.rand(1, 3, 40, 48)
    with torch.no_grad():
        assert not torch.equal(other(x), network(x))
        other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
        assert torch.equal(other(x), network(x))


def test_every_weight_learns(name: str) -> None:
    network = build(name).train()
    outputs = network(torch.rand(2, 3, 32, 40))
    outputs = outputs if isinstance(outputs, list) else [outputs]  # several where supervised deeply
    assert outputs[0].shape == (2, 2, 32, 40)
    sum(logits.square().mean() for logits in outputs).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        if not key.endswith("bias"):  # a bias before a normalisation is cancelled by it
            assert parameter.grad.abs().max() > 0, key


def test_training_on_one_small_patch_works_or_says_why(name: str) -> None:
    network = build(name).train()
    message = "fine"
    try:
        network(torch.rand(1, 3, 32, 32))
    except NetworkError as error:
        message = str(error)
    assert message == "fine" or "batch of 2 or more" in message


def test_autocast_to_bf16_keeps_close(network: torch.nn.Module) -> None:
    x = torch.rand(1, 3, 40, 48).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x).float()
    assert (rough - exact).norm() < 0.1 * exact.norm()


@pytest.mark.slow
def test_it_exports_with_free_batch_height_and_width(network: torch.nn.Module) -> None:
    free = {0: Dim("batch", min=1, max=64), 2: Dim("height", min=33, max=4096), 3: Dim("width", min=33, max=4096)}
    program = export(network, (torch.rand(2, 3, 65, 71),), dynamic_shapes=(free,)).module()
    for shape in ((1, 3, 33, 97), (3, 3, 64, 33)):
        x = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(program(x), network(x), atol=1e-5, rtol=1e-5)

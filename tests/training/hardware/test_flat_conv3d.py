"""3-D convolutions of flat maps: right gradients in bfloat16 on a CPU, by any network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from cpfnet.data.case import Dataset
from cpfnet.network import zoo
from cpfnet.training.hardware.flat_conv3d import FlatMaps
from cpfnet.training.hardware.precision import fabric_for
from cpfnet.training.samples import cache
from cpfnet.training.samples.patches import Patches, batches
from cpfnet.training.train_step import Task
from tests.training.conftest import volumes_plan


class Calls(TorchFunctionMode):
    """Collects what convolutions are called with."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[tuple[Callable[..., torch.Tensor], tuple[Any, ...], dict[str, Any]]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.conv3d, F.conv_transpose3d):
            self.met.append((func, args, kwargs or {}))
        return func(*args, **kwargs or {})


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("cpfnet", (40, 56, 40)),
        ("unet", (64, 32, 32)),
        ("attention-unet", (32, 32, 32)),
        ("dynunet", (32, 32, 32)),
        ("dynunet-res", (32, 32, 32)),
        ("mednext", (32, 32, 32)),
    ],
)
def test_gradients_of_every_3d_convolution_are_right(name: str, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = zoo.build(name, 1, 2, spatial_dims=3, hints={"patch": size}).train()
    calls = Calls()
    with torch.no_grad(), calls:
        network(torch.randn(2, 1, *size))
    deep = [call for call in calls.met if max(call[1][0].shape[2:]) <= 8]
    assert deep
    for convolve, (x, weight, *others), given in deep:
        inputs = x.clone().requires_grad_(), weight.clone().requires_grad_()
        exact = convolve(*inputs, *others, **given)
        outer = torch.randn_like(exact)
        right = torch.autograd.grad(exact, inputs, outer)
        with FlatMaps(), torch.autocast("cpu", torch.bfloat16):
            out = convolve(*inputs, *others, **given)
        for found, wanted in zip(torch.autograd.grad(out.float(), inputs, outer), right, strict=True):
            assert (found - wanted).norm() < 0.02 * wanted.norm(), (x.shape, weight.shape, others, given)


@pytest.mark.parametrize("given", [{"padding": 2, "dilation": 2}, {"padding": (2, 1, 1), "dilation": (2, 1, 1)}, {}])
@pytest.mark.parametrize("depth", [3, 6])
def test_only_maps_flatter_than_the_kernel_are_computed_in_float32(given: dict[str, Any], depth: int) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(1, 4, depth, 6, 6), torch.randn(4, 4, 3, 3, 3)
    exact = F.conv3d(x, weight, **given)
    with FlatMaps(), torch.autocast("cpu", torch.bfloat16):
        out = F.conv3d(x, weight, **given)
    assert out.dtype == torch.bfloat16
    flat = depth == 3 and "dilation" in given
    assert torch.equal(out, exact.bfloat16()) == flat
    with FlatMaps():
        assert torch.equal(F.conv3d(x, weight, **given), exact)


class _Flat(nn.Module):
    """A 3-D convolution over two planes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(self.conv(F.avg_pool3d(x, (16, 1, 1))), size=x.shape[2:])


def test_a_step_of_training_in_bf16_is_nearly_that_in_float32(volumes: Dataset, tmp_path: Path) -> None:
    steps = []
    for precision in ("fp32", "bf16"):
        plan = volumes_plan("3d", optimiser="sgd", clip=None, warmup=0, batch=2, accumulate=1, samples=2)
        cached = cache.build(volumes.cases, plan, tmp_path / precision)
        task, patches = Task(_Flat(), plan, fabric_for(torch.device("cpu"), precision)), Patches(cached, plan)
        task.step(batches(patches, 0), 0, patches)
        steps.append(task.network.conv.weight.detach() - _Flat().conv.weight.detach())
    assert steps[0].norm() > 0
    assert (steps[1] - steps[0]).norm() < 0.05 * steps[0].norm()

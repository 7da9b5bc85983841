"""Depthwise convolutions: equal to PyTorch's in float32, and right in bfloat16, where PyTorch's are wrong on a CPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.network import zoo
from cpfnet.network.depthwise import DepthwiseConv, deinterleave, interleave


@pytest.mark.parametrize("name", ["cpfnet", "cpfnet-hr", "cpfnet-guide"])
@pytest.mark.parametrize("size", [(64, 64), (7, 9), (6, 32, 10)])
def test_gradients_of_every_layer_are_right_in_bf16(name: str, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = zoo.build(name, 3, 2, spatial_dims=len(size))
    layers = {key: module for key, module in network.named_modules() if isinstance(module, DepthwiseConv)}
    depthwise = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Conv3d) and m.groups > 1]
    assert [layer.conv for layer in layers.values()] == depthwise  # none escapes
    last = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    for key, layer in layers.items():
        channels = layer.conv.in_channels
        x = torch.randn(2, channels, *size).to(torch.bfloat16).contiguous(memory_format=last).requires_grad_()
        outer = torch.randn(2, channels, *size)
        inputs = x, layer.conv.weight
        exact = torch.autograd.grad((layer.conv(x.float()) * outer).sum(), inputs)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        assert out.dtype == torch.bfloat16
        for found, right in zip(torch.autograd.grad((out.float() * outer).sum(), inputs), exact, strict=True):
            assert (found.float() - right.float()).norm() < 0.02 * right.float().norm(), key


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 21), min_size=2, max_size=3),
    st.sampled_from([1, 2, 4, 8]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_a_layer_is_the_dilated_convolution(
    size: list[int], dilation: int, bias: bool, last: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv(len(size), 6, dilation=dilation, bias=bias).to(dtype)
    exact = copy.deepcopy(layer.conv).double()
    x, outer = torch.randn(2, 2, 6, *size, dtype=dtype)
    laid = x.contiguous(memory_format={2: torch.channels_last, 3: torch.channels_last_3d}[len(size)]) if last else x
    laid, right = laid.requires_grad_(), x.double().requires_grad_()
    out, wanted = layer(laid), exact(right)
    found = out, *torch.autograd.grad(out, (laid, *layer.parameters()), outer)
    expected = wanted, *torch.autograd.grad(wanted, (right, *exact.parameters()), outer.double())
    error = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype]
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= error * (1 + other.norm())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 17), min_size=2, max_size=3), st.integers(2, 8))
def test_maps_come_apart_and_together_again(size: list[int], step: int) -> None:
    x = torch.randn(2, 3, *size)
    parts = deinterleave(x, step)
    assert torch.equal(parts[0], x[(0, slice(None), *[slice(None, None, step)] * len(size))])
    assert torch.equal(interleave(parts, step, size), x)


def test_networks_converted_to_bf16_still_answer() -> None:
    layer = DepthwiseConv(2, 8, dilation=2).to(torch.bfloat16)
    assert layer(torch.rand(1, 8, 40, 40, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_what_is_exported_is_one_convolution(tmp_path: Path) -> None:
    import onnx

    graph = tmp_path / "layer.onnx"
    torch.onnx.export(
        DepthwiseConv(2, 8, dilation=4).eval(), (torch.rand(1, 8, 40, 40),), graph, dynamo=True, verbose=False
    )
    assert [node.op_type for node in onnx.load(graph).graph.node] == ["Conv"]


def test_what_is_traced_takes_any_size() -> None:
    layer = DepthwiseConv(2, 8, dilation=4).eval()
    traced = torch.jit.trace(layer, torch.rand(1, 8, 20, 20))
    x = torch.rand(1, 8, 23, 21)
    torch.testing.assert_close(traced(x), layer(x))

"""The table of what networks take, counted again by autograd's own hook."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.memory import measure, measure_loss
from cpfnet.network import zoo
from cpfnet.network.encoder_zoo import RESNETS
from cpfnet.planner.costs import (
    CLASS_BYTES,
    COSTS,
    ENCODED,
    ENCODERS,
    FIXED_BYTES,
    GIB,
    TRANSIENT,
    cost,
    patch_bytes,
    patch_flops,
    room,
)

SIZES = {2: (448, 320), 3: (96, 128, 96)}


@pytest.mark.parametrize(("network", "dims"), COSTS)
@pytest.mark.parametrize("half", [False, True])
def test_what_is_kept_and_computed_is_what_the_table_says(network: str, dims: int, half: bool) -> None:
    kept, flops = measure(network, SIZES[dims], half=half, channels=3)
    row = cost(network, dims)
    assert kept == pytest.approx(row.half if half else row.full, rel=0.25)
    assert flops == pytest.approx(row.flops, rel=0.25)


@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("network", ["cpfnet", "cpfnet-hr"])
def test_narrow_networks_keep_and_compute_less(network: str, width: int) -> None:
    kept, flops = measure(network, SIZES[2], width=width)
    row = cost(network, 2, options={"width": width})
    assert (kept, flops) == (pytest.approx(row.full, rel=0.25), pytest.approx(row.flops, rel=0.25))


@pytest.mark.parametrize(
    ("network", "encoder", "dims"),
    [
        ("cpfnet", "resnet18", 2),
        ("cpfnet-hr", "resnet50", 2),
        ("cpfnet", "resnet101", 3),
        ("cpfnet-guide", "resnet50", 3),
    ],
)
def test_another_encoder_keeps_and_computes_more_or_less(network: str, encoder: str, dims: int) -> None:
    for half in (False, True):
        kept, flops = measure(network, SIZES[dims], half=half, encoder=encoder)
        row = cost(network, dims, options={"encoder": encoder})
        assert kept == pytest.approx(row.half if half else row.full, rel=0.1)
        assert flops == pytest.approx(row.flops, rel=0.1)


@pytest.mark.parametrize("encoder", ["parts:Own", "pyramid", ["resnet18"]])
def test_an_unknown_encoder_is_taken_for_the_dearest(encoder: object) -> None:
    for dims in (2, 3):
        known = [cost("cpfnet", dims, options={"encoder": name}) for name in RESNETS]
        assert cost("cpfnet", dims, options={"encoder": encoder}) == max(known, key=lambda row: row.full)
    assert set(ENCODERS) == {(name, dims) for name in RESNETS for dims in (2, 3)}
    assert set(ENCODED) == set(zoo.ENCODED)


@pytest.mark.parametrize(
    ("patch", "spacing"),
    [((64, 160, 192), (2, 0.69, 0.69)), ((20, 320, 256), (3.6, 0.625, 0.625)), ((16, 320, 256), (8, 0.6, 0.6))],
)
def test_slices_far_apart_cost_more(patch: Any, spacing: Any) -> None:
    kept, flops = measure("dynunet", patch, half=True, spacing=spacing)
    row = cost("dynunet", 3, spacing=spacing)
    assert (kept, flops) == (pytest.approx(row.half, rel=0.05), pytest.approx(row.flops, rel=0.05))


@pytest.mark.parametrize("outputs", [2, 15, 105])
def test_the_loss_keeps_no_more_than_is_reckoned_with(outputs: int) -> None:
    assert 0.6 * CLASS_BYTES < measure_loss(outputs) < CLASS_BYTES


def test_an_unknown_network_is_taken_for_the_dearest() -> None:
    for dims in (2, 3):
        rows = [row for (_, axes), row in COSTS.items() if axes == dims]
        assert cost("my-own", dims).half == max(row.half for row in rows)
        assert cost("my-own", dims).flops == max(row.flops for row in rows)


def test_a_patch_costs_by_its_pixels_planes_and_precision() -> None:
    one = patch_bytes("dynunet", (128, 128, 128), 4, half=True)
    assert one == pytest.approx(128**3 * TRANSIENT * (869 + 4 * CLASS_BYTES))
    assert patch_bytes("dynunet", (128, 128, 64), 4, half=True) == pytest.approx(one / 2)
    assert patch_bytes("dynunet", (128, 128, 128), 4, half=False) > 1.7 * one
    assert patch_bytes("dynunet", (128, 128, 128), 104, half=True) == pytest.approx(
        one + 128**3 * TRANSIENT * 100 * CLASS_BYTES
    )
    assert patch_bytes("cpfnet", (64, 64), 2, half=False, options={"width": 16}) < 0.3 * patch_bytes(
        "cpfnet", (64, 64), 2, half=False
    )
    assert patch_flops("dynunet", (128, 128, 128)) == 128**3 * 455_000


def test_room_is_never_below_nothing() -> None:
    assert room(0) == 0
    assert room(24 * GIB) == pytest.approx(0.8 * 24 * GIB - FIXED_BYTES)

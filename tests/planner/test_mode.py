"""Volumes can be planned for slices or for 3-D, whatever suits them; what cannot be is refused."""

from __future__ import annotations

import math
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.errors import PlanError
from cpfnet.planner.costs import GIB
from cpfnet.planner.gpu_patch import CPU_VOXELS, multiples
from cpfnet.planner.machine import Memory
from cpfnet.planner.training import BATCH_PIXELS
from tests.planner.test_first_stage import proposed
from tests.planner.test_gpu_patch import ACDC, BRATS, BTCV, HIPPOCAMPUS, LITS, PROSTATE
from tests.planner.test_proposal import CPU, GPU, found, plan

TASKS = [ACDC, BRATS, BTCV, HIPPOCAMPUS, LITS, PROSTATE]
THICK = found(((7, 256, 256),) * 20, spacing=(8, 1, 1), high=3000)


@pytest.mark.parametrize("data", [*TASKS, THICK])
@pytest.mark.parametrize("memory", [CPU, GPU])
def test_the_mode_that_suits_is_planned_for_as_without_asking(data: object, memory: Memory) -> None:
    own, reasons = proposed(data, memory)
    if own.spatial.mode == "2.5d":
        return
    asked, told = proposed(data, memory, mode=own.spatial.mode)  # type: ignore[arg-type]
    assert asked == own
    assert told.pop("spatial.mode") == "as asked for"
    reasons.pop("spatial.mode")
    assert told == reasons


@pytest.mark.parametrize("data", TASKS)
def test_each_mode_has_the_network_and_the_augmentation_that_it_is_planned_with(data: object) -> None:
    flat, deep = plan(data, GPU, mode="2d"), plan(data, GPU, mode="3d")  # type: ignore[arg-type]
    assert (flat.spatial.mode, deep.spatial.mode) == ("2d", "3d")
    assert (flat.network.name, deep.network.name) == ("cpfnet", "dynunet")
    assert (flat.network.weights, deep.network.weights) == ("imagenet", "none")
    assert (flat.training.augmentation.elastic > 0, deep.training.augmentation.elastic > 0) == (True, False)
    assert flat.spatial.spacing is not None
    assert flat.spatial.spacing[0] is None  # slices stay where they are
    assert flat.folds == deep.folds
    assert flat.labels == deep.labels


def test_on_a_cpu_patches_of_large_volumes_in_3d_are_a_usual_step() -> None:
    """64³ voxels are what four patches of 256² are."""
    assert CPU_VOXELS == BATCH_PIXELS
    assert plan(LITS, CPU, mode="3d").spatial.patch == (64, 64, 64)
    assert plan(HIPPOCAMPUS, CPU, mode="3d").spatial.patch == (40, 56, 40)  # whole, as without asking
    assert plan(HIPPOCAMPUS, CPU, mode="2d").network.name == "cpfnet"


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 700)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 8)] * 3),
    memory=st.integers(4, 80),
    device=st.sampled_from(["cpu", "cuda"]),
    mode=st.sampled_from(["2d", "3d"]),
    network=st.sampled_from([None, "unet"]),
)
def test_any_volumes_get_the_mode_or_a_refusal(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    memory: int,
    device: Literal["cpu", "cuda"],
    mode: Literal["2d", "3d"],
    network: str | None,
) -> None:
    data, machine = found((size,) * 20, spacing=spacing, high=3000), Memory(memory * GIB, device)
    made, why = None, ""
    try:
        made = plan(data, machine, mode=mode, network=network)
    except PlanError as error:
        why = str(error)
    if made is None:
        assert mode == "3d"
        assert "too few slices" in why
        assert min(size) < 10  # rounding to the network's grid moves it from 8
        return
    assert made.spatial.mode == mode
    patch = made.spatial.patch
    if mode == "2d":
        assert len(patch) == 2
        return
    steps = made.spatial.spacing or (1.0, 1.0, 1.0)
    assert all(n % unit == 0 for n, unit in zip(patch, multiples(patch, steps), strict=True))  # type: ignore[arg-type]
    if device == "cpu" and max(size) > 64:
        least = math.prod((8, 32, 32) if network is None else (32, 32, 32))
        assert least <= math.prod(patch) <= max(CPU_VOXELS, least)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PlanError, match=r"slice distance 8.0 × pixel size: too few slices to look across"):
        plan(THICK, mode="3d")
    with pytest.raises(PlanError, match="no ImageNet weights in 3-D"):
        plan(LITS, mode="3d", weights="imagenet")
    with pytest.raises(PlanError, match=r"unknown mode '2\.5d'"):
        plan(LITS, mode="2.5d")
    for mode in ("2d", "3d"):
        with pytest.raises(PlanError, match="images are always learned in 2-D"):
            plan(found(), mode=mode)

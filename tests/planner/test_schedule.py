"""How long is trained, and that validation takes a small share of it."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.data.case import Dataset
from cpfnet.errors import PlanError
from cpfnet.planner.costs import GIB, patch_flops
from cpfnet.planner.fingerprint import Fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planner.proposal import propose
from cpfnet.planner.schedule import LEAST_STEPS, MOST_STEPS
from cpfnet.planner.speed import duration, flops_per_second, piece_seconds, step_seconds
from cpfnet.planner.training import expected_time
from cpfnet.planning import Plan
from tests.planner.test_gpu_patch import BRATS, HIPPOCAMPUS, LITS
from tests.planner.test_proposal import found, plan

CPU, GPU = Memory(16 * GIB, "cpu"), Memory(24 * GIB, "cuda")


def steps(made: Plan) -> int:
    training = made.training
    return training.epochs * (training.samples // (training.batch * training.accumulate))


def held_out(data: Fingerprint) -> int:
    """As the default fold has it."""
    return data.cases if data.patients < 2 else max(1, round(data.cases / min(5, data.patients)))


def seconds(made: Plan, data: Fingerprint, memory: Memory) -> tuple[float, float, float]:
    """Of learning, of validating after the epochs, and of what is segmented whole at the end (fitting twice, the
    report, and scores that no epoch gave); worked out from the plan alone."""
    training, dims = made.training, made.spatial.dims
    size = made.spatial.size or data.median_size
    if made.spatial.mode == "3d" and made.spatial.spacing and data.spacings:
        order = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}[made.spatial.slices]
        size = tuple(
            round(data.sizes[0][a] * data.spacings[0][a] / (to or 1))
            for a, to in zip(order, made.spatial.spacing, strict=False)
        )
    elif data.spacings:
        order = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}[made.spatial.slices]
        size = tuple(size[a] for a in order)

    def flops(shape: Any) -> float:
        return patch_flops(made.network.name, shape, spacing=made.spatial.spacing, options=made.network.options)

    plane, patch = size[-dims:], made.spatial.patch
    limit = made.inference.tile or (patch if dims == 3 else plane)
    tile = tuple(min(max(most, p), max(n, p)) for most, n, p in zip(limit, plane, patch, strict=True))
    per_case = math.prod(1 if n <= t else math.ceil((n - t) / (t // 2)) + 1 for n, t in zip(plane, tile, strict=True))
    if data.volumes and dims == 2:
        per_case *= size[0]
    one = piece_seconds(memory, flops(tile), math.prod(tile))
    learning = steps(made) * step_seconds(memory, training.batch * training.accumulate * flops(patch))
    validation, cases = training.validation, held_out(data)
    if validation is None:
        return learning, training.epochs * cases * per_case * one, 3 * cases * per_case * one
    assert 1 <= validation.cases <= cases
    assert 1 <= validation.pieces <= per_case
    whole = validation.whole or cases
    return learning, training.epochs * validation.cases * validation.pieces * one, 4 * whole * per_case * one


@settings(max_examples=1000, deadline=None)
@given(
    size=st.one_of(
        st.tuples(st.integers(32, 3000), st.integers(32, 3000)),
        st.tuples(st.integers(1, 700), st.integers(32, 800), st.integers(32, 800)),
    ),
    spacing=st.tuples(*[st.floats(0.3, 8)] * 3),
    cases=st.integers(1, 3000),
    classes=st.integers(1, 20),
    radius=st.floats(0.5, 300),
    frequency=st.floats(1e-5, 0.5),
    tubular=st.booleans(),
    device=st.sampled_from(["cpu", "cuda"]),
    gib=st.sampled_from([8, 12, 16, 24, 48, 80]),
    name=st.sampled_from(["", "NVIDIA H100 80GB HBM3", "Tesla T4"]),
    network=st.sampled_from([None, "unet", "cpfnet-hr", "dynunet"]),
)
def test_validation_takes_a_tenth_of_the_run_at_most(
    size: Any, spacing: Any, cases: int, classes: int, radius: float, frequency: float, tubular: bool, device: str,
    gib: int, name: str, network: Any,
) -> None:  # fmt: skip
    memory = Memory(gib * GIB, device, name)
    names = tuple(f"n{k}" for k in range(classes))
    data = found(
        (size,) * cases, spacing=spacing, names=names, radius=radius, frequency=frequency, tubular=tubular, high=3000
    )
    made = plan(data, memory, network=network)
    learning, on_the_way, at_the_end = seconds(made, data, memory)
    assert on_the_way <= 0.101 * (learning + on_the_way + at_the_end)
    alone = made.training.validation is not None and (made.training.validation.whole == 1 or held_out(data) == 1)
    assert alone or on_the_way + at_the_end <= 0.101 * (learning + on_the_way + at_the_end)
    if device == "cuda":
        assert LEAST_STEPS <= steps(made) <= 1.01 * MOST_STEPS + made.training.epochs
        assert made.training.accumulate == 1 or gib < 12
    # Any class can be met: patches are centred on structures, or the rarest is met anywhere.
    assert made.training.foreground > 0 or frequency > 0.05


def test_steps_follow_the_data() -> None:
    few, many = (plan(found(((512, 512),) * n, radius=20), GPU) for n in (20, 20_000))
    assert steps(few) == LEAST_STEPS
    assert steps(many) == pytest.approx(100 * 16_000 / many.training.batch, rel=0.01)
    assert steps(plan(found(((512, 512),) * 400_000, radius=20), GPU)) == MOST_STEPS
    assert steps(plan(HIPPOCAMPUS, GPU)) == LEAST_STEPS
    assert steps(plan(BRATS, GPU)) == pytest.approx(100 * 387 * 8 / 2, rel=0.01)  # 2×2×2 patches cover one
    assert steps(plan(LITS, GPU)) == MOST_STEPS
    slices = found(((12, 256, 256),) * 1000, spacing=(8, 1, 1))
    assert plan(slices, GPU).spatial.mode == "2d"
    assert steps(plan(slices, GPU)) == pytest.approx(25 * 800 * 12 / 12, rel=0.01)


def test_on_a_cpu_small_data_keep_the_steps_that_were_measured_and_many_get_more() -> None:
    assert steps(plan(found(((512, 512),) * 200, radius=20), CPU)) == 2000
    assert steps(plan(found(((512, 512),) * 4000, radius=20), CPU)) == pytest.approx(10 * 3200 / 2, rel=0.01)


@pytest.mark.parametrize("memory", [CPU, GPU, Memory(80 * GIB, "cuda", "NVIDIA H100 80GB HBM3")])
@pytest.mark.parametrize("hours", [0.25, 2, 30])
def test_hours_become_steps(memory: Memory, hours: float) -> None:
    for data in (BRATS, found(((584, 565),) * 20, radius=1.4, tubular=True)):
        made, reasons = propose(data, Dataset(Path(), "test", ()), memory=memory, hours=hours)
        learning, on_the_way, at_the_end = seconds(made, data, memory)
        assert 0.85 * hours < (learning + on_the_way + at_the_end) / 3600 < 1.05 * hours
        assert f"as many as fit into {duration(3600 * hours)}" in reasons["training.epochs"]


@pytest.mark.parametrize("hours", [0, -1, math.inf, math.nan])
def test_no_time_is_no_time(hours: float) -> None:
    with pytest.raises(PlanError, match=r"--hours: .* is no time to train in"):
        propose(BRATS, Dataset(Path(), "test", ()), memory=GPU, hours=hours)


def test_the_plan_says_how_long_it_takes(tmp_path: Path) -> None:
    made, reasons = propose(LITS, Dataset(Path(), "test", ()), memory=Memory(24 * GIB, "cuda", "NVIDIA RTX 3090"))
    assert made.training.validation is not None
    assert "days on NVIDIA RTX 3090" in reasons["training.epochs"] or "hours on NVIDIA" in reasons["training.epochs"]
    assert "more than 10% of the run" in reasons["training.validation"]
    made.save(tmp_path / "plan.yaml", comments=reasons)
    assert "overlap over the whole batch" in (tmp_path / "plan.yaml").read_text()
    assert re.fullmatch(
        r"about [\d.]+ (days|hours) on NVIDIA RTX 3090, \d+% of it for validation", expected_time(reasons)
    )


@pytest.mark.parametrize(
    ("time", "text"),
    [(10, "a minute"), (600, "10 minutes"), (5400, "1.5 hours"), (86400, "24 hours"), (3e5, "3.5 days")],
)
def test_durations(time: float, text: str) -> None:
    assert duration(time) == text


def test_faster_devices_are_taken_for_faster() -> None:
    order = [
        CPU,
        Memory(8 * GIB, "cuda"),
        Memory(24 * GIB, "cuda"),
        Memory(24 * GIB, "cuda", "NVIDIA GeForce RTX 4090"),
        Memory(10 * GIB, "cuda", "NVIDIA H100 80GB HBM3"),
    ]
    rates = [flops_per_second(memory) for memory in order]
    assert rates == sorted(rates)
    # nnU-Net's step of 2 × 128³ on an A100, from its users' reports of 40 s for 250
    a100 = Memory(80 * GIB, "cuda", "NVIDIA A100-SXM4-80GB")
    assert step_seconds(a100, 2 * patch_flops("dynunet", (128,) * 3)) == pytest.approx(0.17, abs=0.04)

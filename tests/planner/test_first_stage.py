"""A first stage is proposed where nnU-Net plans one, and sees a quarter of a median volume."""

from __future__ import annotations

import logging
import math
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cpfnet
from cpfnet.data.case import Dataset
from cpfnet.errors import PlanError
from cpfnet.planner.costs import GIB
from cpfnet.planner.first_stage import ENOUGH, share_seen
from cpfnet.planner.machine import Memory
from cpfnet.planner.proposal import propose
from cpfnet.planning import Plan
from tests import synthetic
from tests.planner.test_gpu_patch import BRATS, BTCV, HIPPOCAMPUS, KITS, LITS
from tests.planner.test_proposal import CPU, GPU, found


def proposed(data: object, memory: Memory = GPU, **options: bool) -> tuple[Plan, dict[str, str]]:
    return propose(data, Dataset(Path(), "test", ()), memory=memory, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "share"), [(LITS, 0.02), (BTCV, 0.05), (KITS, 0.06), (BRATS, None), (HIPPOCAMPUS, None)]
)
def test_it_is_advised_where_a_patch_sees_less_than_a_quarter(data: object, share: float | None) -> None:
    plan, reasons = proposed(data)
    assert not plan.first_stage
    if share is None:
        assert "first_stage" not in reasons
    else:
        assert f"a patch sees {share:.0%} of a median volume" in reasons["first_stage"]
        assert "cpfnet plan --first-stage" in reasons["first_stage"]
    on_a_cpu, reasons = proposed(data, CPU)
    assert "first_stage" not in reasons
    with pytest.raises(PlanError, match="on a GPU"):
        proposed(data, CPU, first_stage=True)
    assert not on_a_cpu.first_stage


def test_the_spacing_of_lits() -> None:
    """By hand: 128³ is a quarter of 432×512×512 / 2.38³, and 1.03³⁰ = 2.427 the first power of 1.03 above 2.38."""
    plan, reasons = proposed(LITS, first_stage=True)
    assert plan.spatial.patch == (128, 128, 128)
    assert plan.spatial.spacing == pytest.approx((2.427, 1.869, 1.869), rel=1e-3)
    assert "a patch would see 2% of a median volume at 1×0.77×0.77 mm, and sees 2" in reasons["spatial.spacing"]
    fine, _ = proposed(LITS)
    assert plan.labels == fine.labels
    assert plan.channels == fine.channels


def test_thick_slices_stay_until_pixels_are_half_as_coarse() -> None:
    plan, _ = proposed(KITS, first_stage=True)
    assert plan.spatial.spacing is not None
    depth, height, width = plan.spatial.spacing
    assert depth == 3
    assert 0.78 < height == width <= 1.5 * 1.03


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(*[st.integers(32, 700)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 5)] * 3),
    memory=st.integers(6, 80),
)
def test_a_first_stage_sees_enough_or_is_refused(
    size: tuple[int, int, int], spacing: tuple[float, float, float], memory: int
) -> None:
    data, gpu = found((size,) * 40, spacing=spacing, high=3000), Memory(memory * GIB, "cuda")
    fine, reasons = proposed(data, gpu)
    if "first_stage" not in reasons:
        with pytest.raises(PlanError, match="less than a quarter"):
            proposed(data, gpu, first_stage=True)
        return
    coarse, _ = proposed(data, gpu, first_stage=True)
    assert coarse.spatial.mode == "3d"
    assert coarse.spatial.spacing is not None
    assert fine.spatial.spacing is not None
    factors = [a / b for a, b in zip(fine.spatial.spacing, coarse.spatial.spacing, strict=True)]  # type: ignore[operator]
    assert max(factors) <= 1
    assert math.prod(factors) < 1
    order = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}[coarse.spatial.slices]
    whole = [size[a] * spacing[a] / step for a, step in zip(order, coarse.spatial.spacing, strict=True)]  # type: ignore[operator]
    assert share_seen(coarse.spatial.patch, [max(1, round(n)) for n in whole]) > 0.95 * ENOUGH


def test_volumes_without_millimetres_have_none() -> None:
    data = found(((400, 500, 500),) * 20, high=3000).model_copy(update={"spacings": []})
    _, reasons = proposed(data)
    assert "first_stage" not in reasons
    with pytest.raises(PlanError, match="no millimetres"):
        proposed(data, first_stage=True)


def test_the_user_is_told_and_gets_both_plans(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = synthetic.make_volumes_dataset(tmp_path / "data", cases=1, shape=(80, 80, 80), spacing=(1, 1, 1))
    machine = {"device": "cuda", "memory": "2.7GiB"}  # holds small patches only
    with caplog.at_level(logging.INFO):
        cpfnet.plan(data, out=tmp_path / "plan.yaml", **machine)  # type: ignore[arg-type]
    assert re.search(r"Note: a patch sees \d+% of a median volume of 80×80×80, less than a quarter", caplog.text)
    lines = (tmp_path / "plan.yaml").read_text().splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith("first_stage: false"))
    assert any("cpfnet plan --first-stage" in line for line in lines[number - 4 : number])
    first = cpfnet.plan(data, first_stage=True, **machine)  # type: ignore[arg-type]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        second = cpfnet.plan(data, settings=["first_stage=true"], **machine)  # type: ignore[arg-type]
    assert "Note" not in caplog.text
    assert second.first_stage
    assert second.spatial == Plan.load(tmp_path / "plan.yaml").spatial
    assert not first.first_stage
    assert first.spatial.spacing > second.spatial.spacing  # type: ignore[operator]

"""The page of proposed plans is current, and nnU-Net's rule is restated as its authors published its results."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.planning import PAGE, TASKS, fingerprint, nnunet, nnunet_of, proposals, tables
from cpfnet.planner.costs import room
from tests.planner.test_gpu_patch import taken


@pytest.mark.parametrize(
    ("task", "patch", "batch"),
    [  # from the plans that its authors gave away or printed for these data sets
        ("BraTS", (128, 128, 128), 2),
        ("LiTS", (128, 128, 128), 2),
        ("ACDC", (20, 256, 224), 4),
        ("Hippocampus", (40, 56, 40), 9),
        ("Prostate", (20, 320, 256), 2),
        ("BTCV", (48, 192, 192), 2),
        ("Lung", (80, 192, 160), 2),
    ],
)
def test_nnunets_rule(task: str, patch: Any, batch: int) -> None:
    found = next(one for one in TASKS if one.name.startswith(task))
    assert nnunet_of(found) == (patch, batch)


def test_nnunets_rule_in_2d() -> None:
    assert nnunet((0.77, 0.77), (432, 512, 512), 131, 3) == ((512, 512), 12)  # LiTS


def test_the_page_shows_what_is_proposed() -> None:
    assert tables()["proposals"] in PAGE.read_text(encoding="utf-8"), "run: python -m benchmarks planning"


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
def test_what_is_proposed_fits_each_machine(task: Any) -> None:
    from benchmarks.planning import MACHINES

    assert fingerprint(task).cases == task.cases
    for name, (made, reasons) in proposals(task).items():
        assert taken(made, MACHINES[name]) <= room(MACHINES[name].bytes)
        assert name in ("8 GiB", "CPU") or made.training.accumulate == 1
        assert {"spatial.patch", "training.batch", "training.epochs"} <= set(reasons)

"""Folds and splits: grouped by patient, balanced, the same every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpfnet.data.case import Case, Dataset
from cpfnet.data.splits import folds, split
from cpfnet.errors import DatasetError
from cpfnet.planning import Plan

PLAN = Plan.model_validate(
    {
        "name": "test",
        "source": "images",
        "channels": [{"name": "grey", "intensity": {"kind": "minmax"}}],
        "labels": {"classes": [{"name": "a", "values": 1}]},
        "spatial": {"patch": [32, 32]},
        "training": {"samples": 4},
    }
)


def cases(count: int, *, each: int = 1, **changes: object) -> list[Case]:
    """``count`` patients of ``each`` labelled cases."""
    return [
        replace(Case(f"p{p}_{i}", f"p{p}", (Path("i.png"),), {"label": Path("l.png")}), **changes)
        for p in range(count)
        for i in range(each)
    ]


def dataset(*parts: list[Case]) -> Dataset:
    return Dataset(Path("root"), "test", tuple(case for part in parts for case in part))


@given(
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=30), count=st.integers(2, 8), seed=st.integers(0, 2**32 - 1)
)
def test_folds_part_no_patient_and_use_every_case_once(sizes: list[int], count: int, seed: int) -> None:
    pool = [
        case for p, n in enumerate(sizes) for case in (replace(c, patient=f"p{p}", id=f"{p}-{c.id}") for c in cases(n))
    ]
    parts = folds(pool, count, seed)
    assert len(parts) == min(count, len(sizes))
    assert sorted(case.id for _, val in parts for case in val) == sorted(case.id for case in pool)
    for train, val in parts:
        assert train
        assert val
        assert not {case.patient for case in train} & {case.patient for case in val}
        assert len(train) + len(val) == len(pool)
    lengths = [len(val) for _, val in parts]
    assert max(lengths) - min(lengths) <= max(sizes)
    again = folds(pool[::-1], count, seed)
    assert [{case.id for case in val} for _, val in again] == [{case.id for case in val} for _, val in parts]


def test_seed_matters() -> None:
    assert len({tuple(c.id for c in folds(cases(20), 5, seed)[0][1]) for seed in range(5)}) > 1


def test_own_split_wins_and_test_and_unlabelled_stay_out(caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(
        cases(4, split="train"),
        [replace(c, id=f"v{c.id}", patient=f"v{c.patient}") for c in cases(2, split="val")],
        [replace(c, id=f"t{c.id}") for c in cases(2, split="test")],
        [Case("bare", "bare", (Path("i.png"),))],
    )
    train, val = split(data, PLAN)
    assert [case.id for case in val] == ["vp0_0", "vp1_0"]
    assert len(train) == 4
    assert any("2 cases of the test split kept apart" in m for m in caplog.messages)
    assert any("1 case without a label that could be taken: bare" in m for m in caplog.messages)
    train, val = split(data, PLAN, fold=1)
    assert len(train) + len(val) == 6
    assert not any(case.split == "test" or case.id == "bare" for case in train + val)
    assert any("fold was asked for" in m for m in caplog.messages)


def test_one_case_validates_what_it_trains_on(caplog: pytest.LogCaptureFixture) -> None:
    train, val = split(dataset(cases(1)), PLAN)
    assert train == val
    assert len(train) == 1
    assert any("validation is on the training data" in m for m in caplog.messages)


def test_five_folds_on_four_patients(caplog: pytest.LogCaptureFixture) -> None:
    for fold in range(4):
        train, val = split(dataset(cases(4, each=2)), PLAN, fold)
        assert (len(train), len(val)) == (6, 2)
        assert any("5 folds asked for, but only 4 patients: 4 folds" in m for m in caplog.messages)
    with pytest.raises(DatasetError, match=r"no fold 4; there are 4"):
        split(dataset(cases(4, each=2)), PLAN, 4)


def test_own_folds_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(cases(2, fold=0), [replace(c, id=f"x{c.id}", patient=f"x{c.patient}") for c in cases(3, fold=1)])
    train, val = split(data, PLAN, 1)
    assert (len(train), len(val)) == (2, 3)
    assert any("dataset's own 2 folds" in m for m in caplog.messages)


@pytest.mark.parametrize(
    "data", [dataset(cases(3, split="test")), dataset(cases(3, labels={})), dataset(cases(2, split="val"))]
)
def test_nothing_to_train_on(data: Dataset) -> None:
    with pytest.raises(DatasetError, match="no labelled case to train on"):
        split(data, PLAN)


def test_a_val_split_without_labels_is_not_replaced_by_a_fold() -> None:
    data = dataset(cases(4, split="train"), [replace(c, labels={}, split="val") for c in cases(1, split="val")])
    with pytest.raises(DatasetError, match=r"none of the cases that shall validate \(.*\) has a label"):
        split(data, PLAN)
    assert len(split(data, PLAN, fold=0)[0]) > 0

"""A process that may use one core of several asks no more of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpfnet.cores import cores, cores_in_words
from cpfnet.data.dataset import load
from cpfnet.inference.backends.autotune import processor
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.patches import Patches, batches
from tests.synthetic import make_images_dataset
from tests.training.conftest import images_plan


@pytest.fixture
def one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no process to cores")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.usefixtures("one_core")
def test_one_core_is_counted() -> None:
    assert (cores(), cores_in_words()) == (1, "1 core")
    assert processor().endswith(", 1 core")


@pytest.mark.filterwarnings("error:This DataLoader will create")
@pytest.mark.usefixtures("one_core")
def test_samples_are_prepared_by_no_more_processes_than_cores(tmp_path: Path) -> None:
    plan = images_plan(workers=3)
    cases = cache.build(load(make_images_dataset(tmp_path / "data")).cases, images_plan(), tmp_path / "cache")
    assert batches(Patches(cases, plan, Augmenter(plan)), 0).num_workers == 1


def test_where_processes_are_not_bound_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()

"""Samples are functions of (seed, number); patches lie where they should; a dead worker is a message."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.data.case import Dataset
from cpfnet.labels import IGNORED
from cpfnet.planning import Plan, TrainingPlan
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter, Cut
from cpfnet.training.samples.patches import Batches, Patches, Sample, Schedule, batches, corner, cut, explain
from tests.training.conftest import images_plan, volumes_plan


@pytest.fixture(scope="module")
def cached_images(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[cache.Cached]:
    return cache.build(images.cases, images_plan(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def cached_volumes(volumes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[cache.Cached]:
    return cache.build(volumes.cases, volumes_plan(), tmp_path_factory.mktemp("cache"))


def same(a: Sample, b: Sample) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("image", "codes", "number"))  # type: ignore[literal-required]


COUNTS = st.integers(1, 12)


@given(epochs=st.integers(1, 4), samples=COUNTS, batch=COUNTS, accumulate=st.integers(1, 5), data=st.data())
def test_batches_and_steps_cover_every_sample_once(
    epochs: int, samples: int, batch: int, accumulate: int, data: st.DataObject
) -> None:
    training = TrainingPlan(epochs=epochs, samples=samples, batch=batch, accumulate=accumulate)
    schedule = Schedule(training)
    everything = list(Batches(training))
    assert [n for b in everything for n in b] == list(range(epochs * samples))
    assert all(b[0] // samples == b[-1] // samples and len(b) <= batch for b in everything)

    number, starts, steps, rest = 0, [], 0, list(everything)
    while number < schedule.samples:
        assert schedule.step(number) == steps
        starts.append(number)
        size = schedule.group_size(number)
        taken = [rest.pop(0) for _ in range(-(-size // batch))]
        assert [n for b in taken for n in b] == list(range(number, number + size))
        number, steps = number + size, steps + 1
    assert not rest
    assert steps == schedule.steps

    start = data.draw(st.sampled_from(starts))
    assert list(Batches(training, start)) == [b for b in everything if b[0] >= start]


def test_a_sample_is_a_function_of_seed_and_number(cached_images: list[cache.Cached]) -> None:
    plan = images_plan()
    first, second = (Patches(cached_images, plan, Augmenter(plan)) for _ in range(2))
    samples = [first[n] for n in range(12)]
    for n in reversed(range(12)):
        assert same(second[n], samples[n])
    other = images_plan(seed=1)
    assert not any(same(Patches(cached_images, other, Augmenter(other))[n], samples[n]) for n in range(12))


def test_workers_change_nothing(cached_images: list[cache.Cached]) -> None:
    def stream(workers: int, start: int) -> list[Sample]:
        plan = images_plan(workers=workers)
        return list(batches(Patches(cached_images, plan, Augmenter(plan)), start))

    alone, helped = stream(0, 0), stream(2, 0)
    assert [b["number"].tolist() for b in alone] == [[0, 1], [2, 3], [4, 5], [6], [7, 8], [9, 10], [11, 12], [13]]
    assert all(map(same, alone, helped))
    assert all(map(same, alone[2:], stream(2, 4)))


@pytest.mark.parametrize("length", [60, 71, 72, 200])
def test_a_long_name_of_the_temporary_folder_stops_nothing(
    cached_images: list[cache.Cached], length: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        folder = Path(short, "x" * (length - len(short) - 1))
        folder.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        plan = images_plan(workers=1)
        helped = batches(Patches(cached_images, plan, Augmenter(plan)), 0, patience=20)
        assert len(list(helped)) == 8
    assert helped.num_workers == (1 if length <= 71 else 0)
    assert ("set TMPDIR to a shorter one" in caplog.text) == (length > 71)


def test_every_case_comes_once_in_each_round(cached_images: list[cache.Cached]) -> None:
    patches = Patches(cached_images, images_plan())
    rounds = [[patches.case_of(n).id for n in range(6 * k, 6 * k + 6)] for k in range(4)]
    assert all(sorted(r) == [c.id for c in cached_images] for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_share_of_patches_centred_on_a_structure(cached_volumes: list[cache.Cached], share: float) -> None:
    patches = Patches(cached_volumes, volumes_plan("3d", foreground=share))
    centres = []
    for n in range(120):
        case = patches.case_of(n)
        centre = patches._centre(case, 0, case.codes()[0].shape, np.random.default_rng(n))
        centres.append(0 if centre is None else int(case.codes()[0][centre]))
    found = np.array(centres)
    assert np.mean(found > 0) == pytest.approx(share, abs=0.12)
    if share:  # both structures come equally often, however small
        assert np.mean(found[found > 0] == 1) == pytest.approx(0.5, abs=0.17)


def test_patches_keep_to_what_is_annotated(cached_images: list[cache.Cached]) -> None:
    patches = Patches(cached_images, images_plan(foreground=0.0))
    for n in range(40):
        case = patches.case_of(n)
        centre = patches._centre(case, 0, (1, 64, 64), np.random.default_rng(n))
        assert centre is not None
        assert case.codes()[0][centre[1:]] != IGNORED


def _spatial(mode: str, patch: Sequence[int], neighbours: int = 0) -> Any:
    return Plan.model_validate(
        volumes_plan().model_dump(mode="json") | {"spatial": {"mode": mode, "patch": patch, "neighbours": neighbours}}
    ).spatial


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(20, 70), st.integers(20, 70)),
    patch=st.tuples(st.integers(32, 48), st.integers(32, 48), st.integers(32, 48)),
    seed=st.integers(0, 1000),
)
def test_a_3d_patch_is_the_voxels_around_its_centre(
    shape: tuple[int, int, int], patch: tuple[int, int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    index = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    codes = (index % 5).astype(np.uint8)
    centre = tuple(int(rng.integers(n)) for n in shape)
    spatial = _spatial("3d", patch)
    start = corner(shape, centre, spatial, rng)
    image, patch_codes = cut(index[None], codes, start, spatial)
    assert image.shape == (1, *patch)
    assert patch_codes.shape == patch
    inside = patch_codes != IGNORED
    np.testing.assert_array_equal(image[0][inside] % 5, patch_codes[inside])
    assert inside.sum() == np.prod([min(n, p) for n, p in zip(shape, patch, strict=True)])
    assert index[centre] in image[0][inside]
    where = np.argwhere(image[0] == index[centre])
    for axis in range(3):  # in the middle, unless the border is near
        near = centre[axis] < patch[axis] // 2 or centre[axis] > shape[axis] - (patch[axis] - patch[axis] // 2)
        if not near and shape[axis] > patch[axis]:
            assert where[0][axis] == patch[axis] // 2
    margin = tuple(int(m) for m in rng.integers(0, 9, 3))
    wider, wider_codes = cut(index[None], codes, start, spatial, margin)
    middle = tuple(slice(m, m + p) for m, p in zip(margin, patch, strict=True))
    np.testing.assert_array_equal(wider[0][middle], image[0])
    np.testing.assert_array_equal(wider_codes[middle], patch_codes)
    there = wider_codes != IGNORED
    np.testing.assert_array_equal(wider[0][there] % 5, wider_codes[there])
    reach = [(max(s - m, 0), min(s + p + m, n)) for s, m, p, n in zip(start, margin, patch, shape, strict=True)]
    assert there.sum() == np.prod([stop - first for first, stop in reach])


def test_a_stack_repeats_the_outermost_slices() -> None:
    image = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1) * np.ones((2, 1, 40, 40), np.float32)
    image[1] += 100
    codes = np.broadcast_to(np.arange(4, dtype=np.uint8)[:, None, None], (4, 40, 40))
    rng = np.random.default_rng(0)
    for depth, expected in ((0, [0, 0, 0, 1, 2]), (1, [0, 0, 1, 2, 3]), (3, [1, 2, 3, 3, 3])):
        spatial = _spatial("2.5d", (32, 32), 2)
        stack, plane = cut(image, codes, corner((4, 40, 40), (depth, 20, 20), spatial, rng), spatial, (2, 6))
        assert stack.shape == (10, 36, 44)
        assert (plane[:, 2:-2] == depth).all()
        assert (plane[:, :2] == IGNORED).all()
        # slice by slice, all channels of each
        assert stack[:, 0, 0].tolist() == [v for s in expected for v in (s, s + 100)]


def test_patches_without_a_centre_reach_every_pixel() -> None:
    codes = np.zeros((3, 34, 35), np.uint8)
    index = np.arange(codes.size, dtype=np.float32).reshape(1, *codes.shape)
    rng = np.random.default_rng(0)
    spatial = _spatial("2d", (32, 32))
    starts = [corner(codes.shape, None, spatial, rng) for _ in range(200)]
    seen = {v for start in starts for v in cut(index, codes, start, spatial)[0].ravel().tolist()}
    assert len(seen) == codes.size


def _killed(piece: Cut, rng: np.random.Generator) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _asleep(piece: Cut, rng: np.random.Generator) -> Any:
    time.sleep(3)


def _broken(piece: Cut, rng: np.random.Generator) -> Any:
    raise OSError("the disk has gone")


@pytest.mark.parametrize(
    ("augment", "workers", "patience", "words"),
    [
        (_killed, 2, 60, ["DataLoader worker (pid", "training.workers"]),
        (_asleep, 1, 1, ["timed out after 1 seconds"]),
        (_broken, 2, 60, ["sample 0 of case case_", "the disk has gone", "cpfnet check"]),
        (_broken, 0, 60, ["sample 0 of case case_", "the disk has gone", "cpfnet check"]),
    ],
)
def test_failing_workers_end_in_a_message(
    cached_images: list[cache.Cached], augment: Any, workers: int, patience: float, words: list[str]
) -> None:
    stream = batches(Patches(cached_images, images_plan(workers=workers), augment), 0, patience=patience)
    with pytest.raises(RuntimeError) as caught:
        list(stream)
    explained = explain(caught.value)
    assert explained is not None
    assert all(word in str(explained) for word in words), str(explained)
    assert "Traceback" not in str(explained)


def test_other_errors_are_not_explained_away() -> None:
    assert explain(RuntimeError("shape mismatch")) is None


def test_a_lost_cache_is_named(cached_images: list[cache.Cached], tmp_path: Path) -> None:
    from dataclasses import replace

    patches = Patches([replace(cached_images[0], folder=tmp_path / "gone")], images_plan())
    with pytest.raises(RuntimeError, match=r"sample 3 of case case_00: FileNotFoundError"):
        patches[3]

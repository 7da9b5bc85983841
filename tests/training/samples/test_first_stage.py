"""What a first stage found, in samples: it moves with the image, and is changed as structures may be wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cpfnet.data.case import Dataset
from cpfnet.labels import OUTSIDE, membership
from cpfnet.planning import LabelClass, Labels, Plan
from cpfnet.training.samples import cache, first_stage
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.patches import Patches
from tests.training.conftest import volumes_plan

LABELS = Labels(classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b", values=(2,))))
EVEN = np.ones(3)


def ball(radius: float) -> np.ndarray:
    reach = np.arange(-int(radius), int(radius) + 1)
    return sum(axis**2 for axis in np.meshgrid(reach, reach, reach)) <= radius**2  # type: ignore[no-any-return]


@pytest.mark.parametrize("radius", [1, 2, 3.5])
def test_boundaries_move_as_dilation_and_erosion_by_a_ball_do(radius: float) -> None:
    mask = np.random.default_rng(0).random((18, 17, 16)) < 0.003
    mask[5:12, 6:15, 0:9] = True  # cut by the patch
    kept = mask.copy()
    grown = ndimage.binary_dilation(mask, ball(radius))
    np.testing.assert_array_equal(first_stage.moved(mask, radius, EVEN), grown)
    shrunk = ndimage.binary_erosion(mask, ball(radius), border_value=1)
    np.testing.assert_array_equal(first_stage.moved(mask, -radius, EVEN), shrunk)
    np.testing.assert_array_equal(mask, kept)


def test_boundaries_move_in_mm() -> None:
    mask = np.zeros((9, 21, 21), bool)
    mask[4, 10, 10] = True
    depth, height, width = np.nonzero(first_stage.moved(mask, 4, np.array([4.0, 1.0, 1.0])))
    assert (np.ptp(depth), np.ptp(height), np.ptp(width)) == (2, 8, 8)


def test_nothing_and_everything_stay() -> None:
    for mask in (np.zeros((8, 8, 8), bool), np.ones((8, 8, 8), bool)):
        for distance in (-3, 3):
            np.testing.assert_array_equal(first_stage.moved(mask, distance, EVEN), mask)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_exclusive_classes_stay_exclusive_and_large_components_stay(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = np.zeros((12, 12, 12), np.uint8)
    codes[:5], codes[7:9, 2:4, 2:4], codes[10, 10, 10] = 1, 2, 2
    image = rng.random((1, 12, 12, 12)).astype(np.float32)
    out = first_stage.with_planes(image, codes, LABELS, EVEN, rng)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out[:1], image)
    assert set(np.unique(out[1:])) <= {0, 1}
    assert out[1:].sum(axis=0).max() <= 1


def test_how_often_what_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.zeros((8, 10, 10), np.uint8)
    codes[0:6], codes[7, 1, 1], codes[7, 8, 8] = 1, 2, 2
    image = np.zeros((1, *codes.shape), np.float32)
    expected = first_stage.with_planes(image, codes, LABELS, EVEN, None)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(first_stage, "MOVED", 0)
    sizes = [first_stage.with_planes(image, codes, LABELS, EVEN, rng)[1:].sum(axis=(1, 2, 3)) for _ in range(200)]
    assert {size[0] for size in sizes} == {600}  # it fills the patch
    lost = [size[1] for size in sizes]
    assert set(lost) == {1, 2}
    assert 20 <= lost.count(1) <= 60
    monkeypatch.setattr(first_stage, "MOVED", 0.4)
    monkeypatch.setattr(first_stage, "LOST", 0)
    same = [np.array_equal(first_stage.with_planes(image, codes, LABELS, EVEN, rng), expected) for _ in range(200)]
    assert 60 <= same.count(False) <= 100


@pytest.fixture(scope="module")
def plan() -> Plan:
    return volumes_plan("3d").model_copy(update={"first_stage": True})


@pytest.fixture(scope="module")
def cached(volumes: Dataset, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> list[cache.Cached]:
    """What the first stage "found" are the very labels."""
    folder = tmp_path_factory.mktemp("cache")
    truth = cache.build(volumes.cases, volumes_plan("3d"), folder)
    files = {}
    for case in truth:  # stored as axial slices, head up or down: the grid is the image's own
        files[case.id] = folder / f"{case.id}.npy"
        np.save(files[case.id], case.codes()[0])
    return cache.build(volumes.cases, plan, folder, first_stage=files)


def test_planes_move_with_the_codes(cached: list[cache.Cached], plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_stage, "MOVED", 0)
    monkeypatch.setattr(first_stage, "LOST", 0)
    always = {"elastic": 1, "rotation": 1, "scale": 1, "flips": ("depth", "height", "width"), "quarter_turns": True}
    augmented = plan.with_settings({"training.augmentation": always})
    for patches in (Patches(cached, plan), Patches(cached, augmented, Augmenter(augmented))):
        for number in range(6):
            sample = patches[number]
            image, codes = sample["image"].numpy(), sample["codes"].numpy()
            assert image.shape == (plan.in_channels, *plan.spatial.patch)
            inside = codes < OUTSIDE
            for plane, belongs in zip(image[1:], membership(plan.labels).T, strict=True):
                np.testing.assert_array_equal(plane[inside], belongs[codes[inside]])


def test_the_image_is_changed_as_without_a_first_stage(
    cached: list[cache.Cached], volumes: Dataset, plan: Plan
) -> None:
    without = plan.model_copy(update={"first_stage": False})
    alone = cache.build(volumes.cases, without, cached[0].folder.parent)
    for number in range(3):
        sample = Patches(cached, plan, Augmenter(plan))[number]
        before = Patches(alone, without, Augmenter(without))[number]
        np.testing.assert_array_equal(sample["image"][:1], before["image"])
        np.testing.assert_array_equal(sample["codes"], before["codes"])


def test_another_mask_is_another_case(volumes: Dataset, plan: Plan, tmp_path: Path) -> None:
    case = volumes.cases[0]
    assert (
        len({cache.key(case, plan, tmp_path / name) for name in ("one.npy", "two.npy")} | {cache.key(case, plan)}) == 3
    )

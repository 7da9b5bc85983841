"""Changes of one sample: training's own, whole images in and out, and what is no sample refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from cpfnet import augment
from cpfnet.errors import CpfnetError
from cpfnet.labels import IGNORED
from cpfnet.training.samples.augment import Augmenter
from tests.training.samples.test_augment import KINDS, OFF, blocks, plan, rng, whole

SHAPE = ["elastic", "rotation", "scale", "flip", "quarter_turns"]
VALUES = [name for name in augment.__all__ if name not in (*SHAPE, "Augment")]


def sample(shape: tuple[int, ...] = (64, 64), channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    image = ndimage.gaussian_filter(rng().random((channels, *shape)), (0, *[2] * len(shape)))
    return image.astype(np.float32), blocks(shape, (0, 1, 3), seed=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("shape", "spacing"), [((48, 64), None), ((24, 32, 40), (2.0, 1.0, 0.5))])
@pytest.mark.parametrize("values", ["minmax", "zscore"])
def test_each_change_is_trainings(kind: str, shape: tuple[int, ...], spacing: Any, values: str) -> None:
    image, mask = sample(shape, channels=1)
    changed = augment.Augment(
        spacing=spacing, outside=IGNORED, zero_mean=values == "zscore", **{**OFF, kind: 1.0, "flips": ["width"]}
    )
    found = changed(image, mask, rng(4))
    trained = Augmenter(plan(shape, spacing=spacing, kind=values, flips=["width"], **{kind: 1.0}))
    expected = trained(whole(image, mask), rng(4))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", [*SHAPE, *VALUES])
@pytest.mark.parametrize("shape", [(64, 48), (24, 32, 32)])
def test_every_function_changes_a_copy_and_is_a_function_of_the_seed(name: str, shape: tuple[int, ...]) -> None:
    function = getattr(augment, name)
    image, mask = sample(shape)
    kept = image.copy(), mask.copy()
    samples = [function(image, mask, rng(seed)) for seed in range(8)]
    again = function(image, mask, rng(0))
    assert any(not np.array_equal(changed, image) for changed, _ in samples)
    np.testing.assert_array_equal(again[0], samples[0][0])
    np.testing.assert_array_equal(again[1], samples[0][1])
    for changed, moved in samples:
        assert (changed.dtype, moved.dtype) == (np.float32, np.uint8)
        assert (changed.shape, moved.shape) == (image.shape, mask.shape)
        assert {*np.unique(moved)} <= {*np.unique(mask)}
        if name in VALUES:
            np.testing.assert_array_equal(moved, mask)
    np.testing.assert_array_equal(kept[0], image)
    np.testing.assert_array_equal(kept[1], mask)


@pytest.mark.parametrize("name", SHAPE)
def test_image_and_mask_move_together(name: str) -> None:
    mask = blocks((96, 96), (0, 1))
    for seed in range(4):
        changed, moved = getattr(augment, name)(mask[None].astype(np.float64), mask, rng(seed))
        sure = np.abs(changed[0] - 0.5) > 0.499
        assert sure.mean() > 0.5
        np.testing.assert_array_equal((changed[0] > 0.5)[sure], moved[sure] > 0)


def test_the_deformation_is_as_large_as_the_guides() -> None:
    """RMS along each axis, measured on an image of coordinates, far from its border."""
    size, inner = 512, (slice(128, -128),) * 2
    places = np.indices((size, size)).astype(np.float32)
    mask = np.zeros((size, size), np.uint8)
    moves = []
    for seed in range(12):
        moved = augment.elastic(places, mask, rng(seed))[0] - places
        moves += [moved[0][inner], moved[1][inner]]
    rms = math.sqrt(np.mean(np.square(moves)))
    assert rms == pytest.approx(1000 / (30 * math.sqrt(12 * math.pi)), rel=0.1)


@pytest.mark.parametrize("name", ["elastic", "rotation", "scale"])
def test_what_moves_in_is_the_border_or_what_the_user_names(name: str) -> None:
    image, mask = np.zeros((1, 64, 64), np.float32), np.ones((64, 64), np.int64)
    options: dict[str, Any] = {"factors": (0.5, 0.6)} if name == "scale" else {}
    function = getattr(augment, name)
    assert (function(image, mask, rng(1), **options)[1] == 1).all()
    moved = function(image, mask, rng(1), outside=255, **options)[1]
    assert moved.dtype == np.int64
    assert {*np.unique(moved)} == {1, 255}


def test_bool_masks_and_tensors_of_the_cpu() -> None:
    image, mask = sample()
    as_bool = augment.rotation(image, mask > 0, rng(2))[1]
    assert as_bool.dtype == bool
    np.testing.assert_array_equal(as_bool, augment.rotation(image, mask, rng(2))[1] > 0)
    from_tensors = augment.Augment()(torch.from_numpy(image), torch.from_numpy(mask), rng(3))  # type: ignore[arg-type]
    np.testing.assert_array_equal(from_tensors[0], augment.Augment()(image, mask, rng(3))[0])


IMAGE, MASK = sample()


@pytest.mark.parametrize(
    ("image", "mask", "said"),
    [
        (IMAGE[0], MASK, r"image\[None\]"),
        (IMAGE, MASK[:9], r"a mask of \(9, 64\)"),
        ((255 * IMAGE).astype(np.uint8), MASK, "the image holds uint8"),
        (np.where(IMAGE > 0.5, np.nan, IMAGE), MASK, "NaN"),
        (IMAGE, MASK.astype(float), "the mask holds float64"),
        (IMAGE, MASK.astype(int) - 1, "from -1 to 2"),
        (IMAGE, MASK.astype(int) + 999, "from 999 to 1002"),
    ],
)
def test_what_is_no_sample_is_refused(image: np.ndarray, mask: np.ndarray, said: str) -> None:
    with pytest.raises(CpfnetError, match=said) as caught:
        augment.elastic(image, mask, rng())
    assert caught.value.fix


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"elastik": 1}, "elastik"),
        ({"elastic": 2}, "elastic"),
        ({"outside": 256}, "outside = 256"),
        ({"channel_dropout": 2}, "channel_dropout = 2"),
        ({"spacing": (1.0,)}, "for 2 axes"),
        ({"spacing": (1.0, 0.0)}, "for 2 axes"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict, said: str) -> None:
    with pytest.raises(CpfnetError, match=said) as caught:
        augment.Augment(**options)(IMAGE, MASK, rng())
    assert caught.value.fix


def test_an_old_generator_is_refused() -> None:
    with pytest.raises(CpfnetError, match=r"numpy\.random\.default_rng"):
        augment.noise(IMAGE, MASK, np.random.RandomState(0))  # type: ignore[arg-type]

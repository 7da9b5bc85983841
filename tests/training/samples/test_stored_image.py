"""Images of the cache are exact where they are said to be, and else as near as said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cpfnet.planning import MinMax, Percentiles, Scale, Window, ZScore
from cpfnet.preprocessing.intensity import normalise
from cpfnet.training.samples.stored_image import StoredImage, exactly, rounded

KEYS = [
    np.s_[:],
    np.s_[:, 2],
    np.s_[:, 1:4, 3:9, ::2],
    (slice(None), np.array([0, 0, 1, 5]), slice(2, 7), slice(0, 3)),
]


@settings(max_examples=20)
@given(
    kind=st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64]),
    intensity=st.sampled_from(
        [Window(low=-90, high=210), ZScore(), Percentiles(low=1, high=99), MinMax(), Scale(full=255, mean=0.4, std=0.2)]
    ),
    low=st.integers(-2000, 30_000),
    data=st.data(),
)
def test_whole_numbers_are_kept_to_the_last_bit(kind: Any, intensity: Any, low: int, data: st.DataObject) -> None:
    least, most = (-2000, 65_000) if np.dtype(kind).kind == "f" else (np.iinfo(kind).min, np.iinfo(kind).max)
    low = min(max(low, least), most - 50)
    elements = st.integers(low, low + 50).map(float if np.dtype(kind).kind == "f" else int)
    stored = data.draw(arrays.arrays(kind, (2, 6, 9, 8), elements=elements))
    values = np.stack([normalise(channel, intensity) for channel in stored])
    found = exactly(values, stored)
    assert found.numbers.dtype == np.uint8
    for key in KEYS:
        piece = found[key]
        assert piece.dtype == np.float32
        np.testing.assert_array_equal(piece.view(np.uint32), values[key].view(np.uint32))


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_many_whole_numbers_take_two_bytes(kind: Any) -> None:
    stored = np.random.default_rng(0).integers(-1024, 3071, (1, 40, 50, 60)).astype(kind)
    values = normalise(stored[0], Window(low=-1000, high=3000))[None]
    found = exactly(values, stored)
    np.testing.assert_array_equal(found, values)
    assert found.numbers.dtype == np.uint16
    assert found.nbytes == stored.size * 2 + found.table.nbytes


@pytest.mark.parametrize(
    "stored",
    [
        np.random.default_rng(0).normal(size=(1, 6, 9, 8)).astype(np.float32),  # no whole numbers
        np.array([0, 2**20, 7, 9] * 108).reshape(1, 6, 9, 8),  # too far apart
        np.array([0, 60_000] * 216, np.uint16).reshape(1, 6, 9, 8),  # the table would be the larger part
        np.zeros((1, 3, 9, 8), np.uint8),  # resampled
    ],
)
def test_else_they_stay_as_they_are(stored: np.ndarray) -> None:
    values = np.linspace(0, 1, 432, dtype=np.float32).reshape(1, 6, 9, 8)
    found = exactly(values, stored)
    assert found.table is None
    assert found.numbers is values


def test_values_that_depend_on_their_surroundings_stay_as_they_are() -> None:
    stored = np.arange(200, dtype=np.uint8).reshape(1, 10, 20) // 4
    values = np.random.default_rng(0).random(stored.shape, dtype=np.float32)
    assert exactly(values, stored).table is None


@given(low=st.floats(-1e4, 1e4), width=st.floats(1e-3, 1e4), seed=st.integers(0, 9))
def test_rounding_is_off_by_half_a_step_at_most(low: float, width: float, seed: int) -> None:
    values = (low + width * np.random.default_rng(seed).random((2, 5, 7))).astype(np.float32)
    off = np.abs(np.asarray(rounded(values)).astype(np.float64) - values).max(axis=(1, 2))
    ulp = np.spacing(np.abs(values).max())
    assert (off <= np.ptp(values.astype(np.float64), axis=(1, 2)) / 131_070 + 2 * ulp).all()
    np.testing.assert_array_equal(rounded(np.full((1, 3, 4), 0.3, np.float32)), np.full((1, 3, 4), 0.3, np.float32))


def test_codes_beside_an_image_are_not_rounded() -> None:
    """As what a first stage found."""
    image = np.random.default_rng(0).random((1, 4, 5, 7), dtype=np.float32)
    codes = np.random.default_rng(1).integers(0, 253, (1, 4, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(rounded(np.concatenate([image, codes]))[:][1], codes[0])


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((2, 5, 7), dtype=np.float32)
    for name, image in (("plain", StoredImage(values)), ("rounded", rounded(values))):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name)
        found = StoredImage.load(tmp_path / name)
        np.testing.assert_array_equal(found, image)
        np.testing.assert_array_equal(found.as_volume()[:, 0], image)
        assert isinstance(found.numbers, np.memmap)

"""Local contrast, against a Gaussian window computed at full length, and what it must not see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from cpfnet import preprocessing
from cpfnet.errors import FormatError
from cpfnet.image import Image
from cpfnet.planning import Local
from cpfnet.preprocessing import intensity
from cpfnet.preprocessing.local_contrast import FLAT, field_of_view, local_contrast
from tests.preprocessing.plans import make_plan


def photograph(rng: np.random.Generator, size: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A bright disc with texture in a dark, but not black, surround: ``(3, size, size)`` uint8, and the disc's mask."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    disc = x**2 + y**2 < (0.42 * size) ** 2
    image = rng.integers(0, 12, (3, size, size))
    image[:, disc] = (rng.normal(0, 12, (3, disc.sum())) + np.array([[170], [90], [45]])).clip(5, 255)
    return image.astype(np.uint8), disc


def test_it_is_what_a_gaussian_window_gives():
    rng = np.random.default_rng(0)
    image, disc = photograph(rng)
    x, sigma = image[1].astype(float), 0.05 * 120
    weight = gaussian_filter(disc.astype(float), sigma, mode="constant")
    mean = gaussian_filter(x * disc, sigma, mode="constant") / np.maximum(weight, 1e-9)
    difference = (x - mean) * disc
    variance = gaussian_filter(difference**2, sigma, mode="constant") / np.maximum(weight, 1e-9)
    expected = difference / np.sqrt(variance + FLAT**2 * x[disc].var())
    found = local_contrast(image[1], 0.05, disc)
    assert found.dtype == np.float32
    assert not found[~disc].any()
    assert np.corrcoef(found[disc], expected[disc])[0, 1] > 0.999
    np.testing.assert_allclose(found[disc], expected[disc], atol=0.12)  # three boxes are nearly a Gaussian


@settings(deadline=None, max_examples=25)
@given(gain=st.floats(0.2, 5), offset=st.floats(-100, 100), seed=st.integers(0, 99))
def test_exposure_does_not_matter(gain, offset, seed):
    image, disc = photograph(np.random.default_rng(seed), 40)
    x = image[0].astype(float)
    np.testing.assert_allclose(local_contrast(gain * x + offset, 0.1, disc), local_contrast(x, 0.1, disc), atol=2e-4)


def test_uneven_light_hardly_matters():
    image, disc = photograph(np.random.default_rng(1))
    light = np.linspace(0.6, 1.4, 120)[None, :]
    even, uneven = local_contrast(image[0], 0.05, disc), local_contrast(image[0] * light, 0.05, disc)
    assert np.corrcoef(even[disc], uneven[disc])[0, 1] > 0.98


def test_the_rim_of_the_field_of_view_is_no_edge():
    image, disc = photograph(np.random.default_rng(2))
    inner = (np.hypot(*(np.mgrid[:120, :120] - 59.5))) < 0.30 * 120
    rim, middle = local_contrast(image[0], 0.05, disc)[disc & ~inner], local_contrast(image[0], 0.05, disc)[inner]
    assert abs(rim.mean()) < 0.1
    assert rim.std() == pytest.approx(middle.std(), rel=0.1)


@pytest.mark.parametrize("turn", [lambda a: a[..., ::-1], lambda a: a[..., ::-1, :], lambda a: a.swapaxes(-1, -2)])
def test_it_turns_with_the_image(turn):
    image, _ = photograph(np.random.default_rng(3), 64)
    kind = Local(radius=0.1)
    straight = intensity.normalise(image[1], kind, inside=field_of_view(image))
    np.testing.assert_allclose(
        intensity.normalise(turn(image)[1], kind, inside=field_of_view(turn(image))), turn(straight), atol=1e-5
    )


def test_the_field_of_view_is_found_in_all_channels_together():
    image, disc = photograph(np.random.default_rng(4))
    image[2] = 0  # a dark channel alone would show nothing
    assert np.array_equal(field_of_view(image), disc)


def test_a_dark_structure_inside_belongs_to_the_field_of_view():
    image, disc = photograph(np.random.default_rng(5))
    image[:, 55:60, 40:80] = 2
    assert np.array_equal(field_of_view(image), disc)


@pytest.mark.parametrize("value", [0, 9, 255])
def test_an_image_without_contrast_is_zero(value):
    out = intensity.normalise(np.full((8, 9), value, np.uint8), Local())
    assert out.shape == (8, 9)
    assert not out.any()


def test_an_image_of_single_bits_is_one_of_bytes():
    bits = np.random.default_rng(6).random((1, 40, 50)) < 0.3
    ours, bytewise = (
        intensity.normalise(a[0], Local(), inside=field_of_view(a)) for a in (bits, bits.astype(np.uint8))
    )
    np.testing.assert_array_equal(ours, bytewise)


def test_all_channels_of_an_image_share_its_field_of_view():
    """A channel that is dark in places would lose them, were it alone."""
    array, disc = photograph(np.random.default_rng(7))
    array[2] = np.where(np.random.default_rng(8).random(disc.shape) < 0.9, 0, array[2])
    image = Image(array)
    found, _ = preprocessing.apply(image, make_plan("images", channels=3, intensity=Local()))
    for plane, channel in zip(found, array, strict=True):
        np.testing.assert_array_equal(plane, local_contrast(channel, Local().radius, disc))


def test_values_that_are_no_numbers_are_refused():
    array = np.full((1, 40, 40), np.nan, np.float32)
    with pytest.raises(FormatError, match="NaN"):
        preprocessing.apply(Image(array), make_plan("images", intensity=Local()))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cpfnet.errors import FormatError
from cpfnet.planning import Local, MinMax, Percentiles, Scale, Window, ZScore
from cpfnet.preprocessing import intensity

KINDS = [Window(), ZScore(), Percentiles(), MinMax(), Scale(mean=0.485, std=0.229)]
ids = {"ids": lambda kind: kind.kind}


def head(rng: np.random.Generator, shape: tuple[int, ...] = (30, 40, 50)) -> tuple[np.ndarray, np.ndarray]:
    """An MR-like image: tissue about 600 ± 100 in a ball, Rayleigh noise around it."""
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    inside = (grid**2).sum(0) < 0.64
    image = rng.rayleigh(12, shape)
    image[inside] = rng.normal(600, 100, inside.sum())
    return image.astype(np.float32), inside


def test_window_by_hand():
    x = np.array([[-3000, -1000, 500, 2000, 9000]], dtype=np.int16)
    np.testing.assert_allclose(intensity.normalise(x, Window()), [[0, 0, 0.5, 1, 1]])


def test_levels_are_quantiles_inside_the_body():
    image, inside = head(np.random.default_rng(0))
    expected = np.percentile(image[inside], (0.5, 50, 99.5))
    np.testing.assert_allclose(intensity.levels(image, Scale(full=1000)), expected, rtol=0.04)
    clipped = expected.clip(0, 620)
    np.testing.assert_allclose(intensity.levels(image, Window(low=0, high=620)), clipped, rtol=0.04)


def test_levels_of_a_large_image_are_those_of_a_sample(monkeypatch):
    image, _ = head(np.random.default_rng(0), (60, 80, 100))
    whole = intensity.levels(image, Scale(full=1000))
    monkeypatch.setattr(intensity, "LEVELS_PIXELS", 60000)
    np.testing.assert_allclose(intensity.levels(image, Scale(full=1000)), whole, rtol=0.03)


def test_levels_of_pictures_in_black_and_white_and_of_one_pixel():
    assert intensity.levels(np.eye(50, dtype=bool), Scale(full=1)) is not None
    assert intensity.levels(np.full((1, 1), 7), Scale()) == (7, 7, 7)


@pytest.mark.parametrize("kind", [ZScore(), Percentiles(), MinMax(), Local()], **ids)
def test_levels_do_not_matter_where_the_intensity_adapts(kind):
    assert intensity.levels(np.arange(9.0).reshape(3, 3), kind) is None


def test_scale_is_that_of_imagenet():
    x = np.array([[0, 128, 255]], dtype=np.uint8)
    expected = (x / 255 - 0.485) / 0.229
    np.testing.assert_allclose(intensity.normalise(x, Scale(mean=0.485, std=0.229)), expected, rtol=1e-6)


def test_minmax_by_hand_without_integer_overflow():
    x = np.array([[-32768, 0, 32767]], dtype=np.int16)
    np.testing.assert_allclose(intensity.normalise(x, MinMax()), [[0, 32768 / 65535, 1]], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS, **ids)
@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1), (5, 6), (1, 4, 4), (3, 4, 5)])
def test_constant_images_are_finite(kind, value, shape):
    out = intensity.normalise(np.full(shape, value, np.uint8), kind)
    assert out.shape == shape
    assert np.isfinite(out).all()
    if kind.kind in ("zscore", "minmax", "percentiles"):
        assert not out.any()


@settings(deadline=None)
@given(
    x=hnp.arrays(
        st.sampled_from(
            [np.bool_, np.uint8, np.int16, np.uint16, np.int32, np.uint64, np.float16, np.float32, np.float64]
        ),
        hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
        elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 1},
    ),
    kind=st.sampled_from(KINDS),
)
def test_every_dtype_gives_finite_float32(x, kind):
    out = intensity.normalise(x, kind)
    assert out.dtype == np.float32
    assert out.shape == x.shape
    assert np.isfinite(out).all()
    if kind.kind in ("window", "percentiles", "minmax"):
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("kind", KINDS, **ids)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("ulps", [1, 100, 255, 256, 1000])
@pytest.mark.parametrize("value", [0.5, -3000, 0])
def test_nearly_constant_images_are_finite(kind, dtype, ulps, value):
    first = dtype(value)
    out = intensity.normalise(np.array([[first + ulps * np.spacing(first), first]], dtype), kind)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("kind", KINDS, **ids)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_their_count(kind, bad):
    x = np.ones((10, 10), np.float32)
    x[0, :3] = bad
    with pytest.raises(FormatError, match=r"channel t1: 3 of 100 values \(3\.00%\)"):
        intensity.normalise(x, kind, where="channel t1")


@pytest.mark.parametrize("kind", KINDS, **ids)
def test_orientation_does_not_change_values(kind):
    x, _ = head(np.random.default_rng(0), (12, 14, 16))
    turned = x.transpose(2, 0, 1)[::-1, :, ::-1]
    expected = intensity.normalise(x, kind).transpose(2, 0, 1)[::-1, :, ::-1]
    np.testing.assert_allclose(intensity.normalise(turned, kind), expected, rtol=1e-4, atol=1e-6)


class TestBody:
    def test_is_what_rises_out_of_the_air(self):
        image, inside = head(np.random.default_rng(1))
        assert (intensity.body(image) == inside).mean() > 0.999

    def test_stays_the_same_in_a_thin_slab_that_cuts_the_body(self):
        image, inside = head(np.random.default_rng(1))
        assert (intensity.body(image[13:18]) == inside[13:18]).mean() > 0.999

    def test_of_a_skull_stripped_image_is_all_but_the_padding(self):
        image, inside = head(np.random.default_rng(2))
        image[~inside] = 0
        np.testing.assert_array_equal(intensity.body(image), inside)

    @pytest.mark.parametrize("change", ["frame", "coarse"])
    def test_is_no_air_either_where_that_is_partly_exactly_zero(self, change):
        image, inside = head(np.random.default_rng(2))
        if change == "frame":
            image[:3] = image[-3:] = image[:, :3] = image[:, -3:] = 0
        else:
            image = (image / 20).astype(np.uint8)
        assert (intensity.body(image) == inside).mean() > 0.995

    def test_of_a_crop_within_the_body_is_all_of_it(self):
        rng = np.random.default_rng(3)
        dark_and_bright = np.where(
            rng.random((30, 30, 30)) < 0.6, rng.normal(300, 60, (30,) * 3), rng.normal(700, 90, (30,) * 3)
        )
        assert intensity.body(dark_and_bright.astype(np.float32)).all()

    @pytest.mark.parametrize("gain", [0.01, 1.0, 40.0])
    def test_zscore_is_of_the_body_and_knows_no_units(self, gain):
        image, inside = head(np.random.default_rng(4))
        out = intensity.normalise(image * np.float32(gain), ZScore())
        assert abs(out[inside].mean()) < 0.02
        assert abs(out[inside].std() - 1) < 0.02


class TestPercentiles:
    @pytest.mark.parametrize("border", [0, 255])
    def test_a_constant_border_of_any_width_does_not_count(self, border):
        image = np.random.default_rng(0).integers(40, 200, (60, 80)).astype(np.uint8)
        alone = intensity.normalise(image, Percentiles())
        for width in (2, 10, 100):
            framed = np.pad(image, width, constant_values=border)
            out = intensity.normalise(framed, Percentiles())[width:-width, width:-width]
            np.testing.assert_allclose(out, alone, atol=1e-6)

    def test_a_border_on_one_side_does_not_count_either(self):
        image = np.random.default_rng(0).integers(40, 200, (60, 80)).astype(np.uint8)
        out = intensity.normalise(np.pad(image, ((0, 0), (30, 0))), Percentiles())
        np.testing.assert_allclose(out[:, 30:], intensity.normalise(image, Percentiles()), atol=1e-6)

    def test_speckle_hardly_moves_the_scale(self):
        rng = np.random.default_rng(1)
        image = rng.rayleigh(30, (200, 200)).astype(np.float32)
        speckled = image.copy()
        spots = rng.random(image.shape) < 0.001
        speckled[spots] = 60000
        difference = intensity.normalise(speckled, Percentiles()) - intensity.normalise(image, Percentiles())
        assert np.abs(difference[~spots]).max() < 0.05

    def test_few_pixels_on_a_constant_ground_are_not_lost(self):
        image = np.zeros((100, 100), np.uint8)
        image[50, 50] = 9
        out = intensity.normalise(image, Percentiles())
        assert out[50, 50] == 1
        assert out.sum() == 1

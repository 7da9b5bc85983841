"""Augmentation: aligned, label-exact, repeatable, and as strong as it says."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy import ndimage, stats

from cpfnet.labels import IGNORED
from cpfnet.planning import Channel, Plan, Spatial
from cpfnet.training.samples.augment import Augmenter, Cut, elastic_field, elastic_rms
from cpfnet.training.samples.patches import corner, cut

KINDS = (
    *("elastic", "rotation", "scale", "illumination", "colour", "low_resolution", "inverted_gamma", "gamma"),
    *("brightness", "contrast", "blur", "noise"),
)
SHAPE_KINDS = KINDS[:3]
OFF: dict[str, Any] = dict.fromkeys(KINDS, 0)


def plan(
    patch: tuple[int, ...] = (64, 64),
    *,
    spacing: tuple[float, float, float] | None = None,
    kind: str = "minmax",
    **augmentation: Any,
) -> Plan:
    return Plan.model_validate(
        {
            "name": "test",
            "source": "volumes",
            "channels": [{"name": "a", "intensity": {"kind": kind}}],
            "labels": {"classes": [{"name": "a", "values": 1}]},
            "spatial": {"mode": f"{len(patch)}d", "patch": patch, "spacing": spacing},
            "training": {"samples": 1, "augmentation": {**OFF, **augmentation}},
        }
    )


def blocks(shape: tuple[int, ...], codes: tuple[int, ...] = (0, 1, 3, 255), seed: int = 0) -> np.ndarray:
    """A code map of compact pieces."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 5)
    edges = np.quantile(noise, np.linspace(0, 1, len(codes) + 1)[1:-1])
    return np.array(codes, np.uint8)[np.digitize(noise, edges)]


def whole(image: np.ndarray, codes: np.ndarray) -> Cut:
    """An image as large as the patch: what lies beyond it repeats its edge, and is ignored."""

    def piece(margin: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        around = [(m, m) for m in margin]
        return np.pad(image, [(0, 0), *around], mode="edge"), np.pad(codes, around, constant_values=IGNORED)

    return piece


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("patch", [(64, 48), (32, 40, 36)])
def test_probability_0_is_the_identity(patch: tuple[int, ...]) -> None:
    image, codes = rng().normal(size=(2, *patch)).astype(np.float32), blocks(patch)
    out = Augmenter(plan(patch))(whole(image, codes), rng(1))
    for before, after in zip((image, codes), out, strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
        assert not np.shares_memory(before, after)


@pytest.mark.parametrize("patch", [(64, 48), (32, 40, 36)])
@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_same_generator_same_sample(patch: tuple[int, ...], kind: str) -> None:
    """Also through pickling, as a worker process gets the augmenter, and after other samples."""
    on = dict.fromkeys(KINDS, 1) if kind == "all" else {kind: 1}
    augmenter = Augmenter(plan(patch, flips=["width"], **on))
    image, codes = rng().random((1, *patch), dtype=np.float32), blocks(patch)
    kept = image.copy(), codes.copy()
    first = augmenter(whole(image, codes), rng(5))
    other = augmenter(whole(image, codes), rng(6))
    again = pickle.loads(pickle.dumps(augmenter))(whole(image, codes), rng(5))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])
    assert not np.array_equal(first[0], image)
    for before, after in zip(kept, (image, codes), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("patch", [(96, 80), (40, 40, 48)])
@pytest.mark.parametrize("kind", SHAPE_KINDS)
def test_image_and_mask_move_together(patch: tuple[int, ...], kind: str) -> None:
    """The image is its own mask: wherever it is far from an edge, both still agree."""
    augmenter = Augmenter(plan(patch, flips=["height", "width"], **{kind: 1}))
    for seed in range(5):
        codes = blocks(patch, (0, 1), seed)
        image, mask = augmenter(whole(codes[None].astype(np.float32), codes), rng(seed))
        sure = (np.abs(image[0] - 0.5) > 0.499) & (mask != IGNORED)
        assert sure.mean() > 0.5
        np.testing.assert_array_equal((image[0] > 0.5)[sure], mask[sure] > 0)


@pytest.mark.parametrize("patch", [(64, 64), (32, 32, 40)])
def test_no_new_codes(patch: tuple[int, ...]) -> None:
    augmenter = Augmenter(plan(patch, **dict.fromkeys(KINDS, 1)))
    codes = blocks(patch)
    for seed in range(5):
        mask = augmenter(whole(codes[None].astype(np.float32), codes), rng(seed))[1]
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1, 3, 255}


def test_intensity_changes_leave_masks_alone() -> None:
    codes = blocks((64, 64))
    augmenter = Augmenter(plan(**dict.fromkeys(KINDS[3:], 1)))
    image, mask = augmenter(whole(rng().random((3, 64, 64), dtype=np.float32), codes), rng())
    np.testing.assert_array_equal(mask, codes)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()


@pytest.mark.parametrize("offset", [-3.0, 0.0, 5.0])
def test_intensity_changes_stand_any_range(offset: float) -> None:
    """Gamma of negative numbers is NaN unless it acts on the sample's range; constant samples have none."""
    augmenter = Augmenter(plan(**dict.fromkeys(KINDS, 1), kind="zscore"))
    codes = np.zeros((64, 64), np.uint8)
    for image in (rng().normal(offset, 1, (1, 64, 64)), np.full((1, 64, 64), offset)):
        out = augmenter(whole(image.astype(np.float32), codes), rng(2))[0]
        assert np.isfinite(out).all()
        assert np.abs(out - image).max() < 6


def test_gamma_contrast_and_low_resolution_keep_the_range() -> None:
    image = rng().normal(size=(1, 64, 64)).astype(np.float32)
    augmenter = Augmenter(plan(gamma=1, inverted_gamma=1, contrast=1, low_resolution=1))
    for seed in range(5):
        out = augmenter(whole(image, np.zeros((64, 64), np.uint8)), rng(seed))[0]
        assert out.min() >= image.min() - 1e-4
        assert out.max() <= image.max() + 1e-4


def test_inverted_gamma_is_the_negatives() -> None:
    image = rng().random((1, 64, 64), dtype=np.float32)
    codes = np.zeros((64, 64), np.uint8)
    exponents = []
    for seed in range(300):
        out = Augmenter(plan(inverted_gamma=1))(whole(image, codes), rng(seed))[0]
        low, extent = image.min(), np.ptp(image)
        negative = (low + extent - image) / extent
        inner = (negative > 0.05) & (negative < 0.95)
        powers = np.log((low + extent - out[inner]) / extent) / np.log(negative[inner])
        assert np.ptp(powers) < 1e-3
        exponents.append(powers.mean())
    assert stats.kstest(exponents, stats.uniform(0.7, 0.8).cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("patch", "spacing", "thick"),
    [((48, 40), None, []), ((32, 40, 36), (1.0, 1.0, 1.0), []), ((32, 40, 36), (4.0, 1.0, 1.0), [0])],
)
def test_low_resolution_is_the_nearest_pixels_and_linear_between(
    patch: tuple[int, ...], spacing: tuple[float, float, float] | None, thick: list[int]
) -> None:
    """Against SciPy, for the one share of the resolution that fits; slices that are far apart stay whole."""
    image = rng().random((1, *patch), dtype=np.float32)
    augmenter = Augmenter(plan(patch, spacing=spacing, low_resolution=1))
    shares = []
    for seed in range(8):
        out, mask = augmenter(whole(image, blocks(patch)), rng(seed))
        np.testing.assert_array_equal(mask, blocks(patch))
        fitting = set()
        for share in np.arange(0.5, 1.0001, 0.002):
            size = [n if axis in thick else round(n * share) for axis, n in enumerate(patch)]
            coarse = image[0]
            for axis, (n, m) in enumerate(zip(patch, size, strict=True)):
                coarse = coarse.take(np.floor((np.arange(m) + 0.5) * n / m).astype(int), axis)
            places = [(np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(patch, size, strict=True)]
            grid = np.meshgrid(*places, indexing="ij")
            expected = ndimage.map_coordinates(coarse, grid, order=1, mode="nearest")
            if np.allclose(out[0], expected, atol=1e-4):
                fitting.add(tuple(size))
        (size,) = fitting
        shares.append(size[-1] / patch[-1])
    assert 0.5 <= min(shares) < 0.65
    assert 0.85 < max(shares) <= 1


def test_each_channel_has_its_own_resolution_and_a_stack_one() -> None:
    made, image = in_colour(low_resolution=0.5)
    changed = []
    for seed in range(200):
        out = Augmenter(made)(whole(image, np.zeros((64, 64), np.uint8)), rng(seed))[0]
        np.testing.assert_array_equal(out[3:], out[:3])
        changed.append([not np.array_equal(after, before) for before, after in zip(image[:3], out[:3], strict=True)])
    for count in np.sum(changed, axis=0):
        assert stats.binomtest(int(count), 200, 0.5).pvalue > 0.001
    assert 0 < np.mean(np.all(changed, axis=1)) < 0.3  # each by itself


def test_sizes_are_as_often_smaller_as_larger() -> None:
    augmenter = Augmenter(plan((64, 64), scale=1, scale_factors=[0.7, 1.4]))
    factors = [1 / np.diff(moved(augmenter, (64, 64), seed), axis=2)[1].mean() for seed in range(300)]
    assert stats.kstest(factors, stats.loguniform(0.7, 1.4).cdf).pvalue > 0.01


def test_nnunets_changes_of_shape_and_resolution_keep_image_and_mask_together() -> None:
    """The image is its own mask, and stays within its values."""
    patch = (32, 40, 36)
    made = plan(
        patch,
        flips=["depth", "height", "width"],
        rotation=1,
        rotation_degrees=30,
        scale=1,
        scale_factors=[0.7, 1.4],
        low_resolution=0.5,
    )
    for seed in range(6):
        codes = blocks(patch, (0, 1), seed)
        image, mask = Augmenter(made)(whole(codes[None].astype(np.float32), codes), rng(seed))
        again, _ = Augmenter(made)(whole(codes[None].astype(np.float32), codes), rng(seed))
        np.testing.assert_array_equal(image, again)
        assert image.min() >= -1e-4
        assert image.max() <= 1 + 1e-4
        inner = ndimage.minimum_filter(mask, 9) == ndimage.maximum_filter(mask, 9)  # far from an edge
        inner &= mask != IGNORED
        assert inner.any()
        np.testing.assert_array_equal((image[0] > 0.5)[inner], mask[inner] > 0)


def test_what_is_off_draws_nothing() -> None:
    """Samples of a plan from before there was such a change stay what they were."""
    image, codes = rng().random((1, 64, 64), dtype=np.float32), blocks((64, 64))
    generators = [rng(3), rng(3)]
    Augmenter(plan(**dict.fromkeys(SHAPE_KINDS, 1)))(whole(image, codes), generators[0])
    Augmenter(plan(**dict.fromkeys(SHAPE_KINDS, 1), scale_factors=[0.7, 1.4]))(whole(image, codes), generators[1])
    assert generators[0].random() == generators[1].random()


def test_channels_of_a_stack_move_alike() -> None:
    """2.5-D: the same slice in all channels stays the same slice, whatever its light."""
    image = np.repeat(rng().random((1, 64, 64), dtype=np.float32), 5, axis=0)
    out = Augmenter(plan(**dict.fromkeys((*SHAPE_KINDS, "illumination", "colour"), 1)))(
        whole(image, blocks((64, 64))), rng()
    )[0]
    for channel in out[1:]:
        np.testing.assert_array_equal(channel, out[0])


def test_flips_are_exact_and_along_the_named_axes() -> None:
    image, codes = rng().random((2, 32, 36, 40), dtype=np.float32), blocks((32, 36, 40))
    augmenter = Augmenter(plan((32, 36, 40), flips=["depth", "width"]))
    seen = set()
    for seed in range(40):
        out, mask = augmenter(whole(image, codes), rng(seed))
        for axes in ((), (0,), (2,), (0, 2)):
            if np.array_equal(mask, np.flip(codes, axes)):
                np.testing.assert_array_equal(out, np.flip(image, [a + 1 for a in axes]))
                seen.add(axes)
    assert seen == {(), (0,), (2,), (0, 2)}


def test_elastic_field_is_the_guides() -> None:
    """Against the guide's own recipe, at full resolution: RMS, and correlation over one and two sigma."""
    sigma, alpha, shape = 12.0, 400.0, (256, 256)

    def statistics(fields: list[np.ndarray]) -> np.ndarray:
        out = []
        for field in fields:
            inner = field[..., 48:-48, 48:-48]  # the guide's field fades towards the border
            power = np.mean(inner**2)
            shifted = [np.mean(inner[..., lag:] * inner[..., :-lag]) / power for lag in (12, 24)]
            out.append([np.sqrt(power), *shifted])
        return np.mean(out, axis=0)

    draws = rng(3)
    guide = [
        np.stack([ndimage.gaussian_filter(draws.random(shape) * 2 - 1, sigma, mode="constant") * alpha for _ in "yx"])
        for _ in range(40)
    ]
    rms = elastic_rms(alpha, sigma)
    ours = [elastic_field(shape, (sigma,) * 2, (rms,) * 2, draws) for _ in range(120)]
    expected, found = statistics(guide), statistics(ours)
    assert found[0] == pytest.approx(expected[0], rel=0.1)
    assert found[0] == pytest.approx(rms, rel=0.06)
    np.testing.assert_allclose(found[1:], expected[1:], atol=0.08)
    np.testing.assert_allclose(found[1:], np.exp([-0.25, -1.0]), atol=0.06)  # theory: exp(-d²/4σ²)


def test_elastic_rms_of_the_guide_is_5_pixels() -> None:
    assert elastic_rms(1000, 30) == pytest.approx(5.43, abs=0.01)


def test_elastic_field_in_3d_has_the_rms_asked_for_along_each_axis() -> None:
    fields = [elastic_field((24, 48, 48), (3.0, 6.0, 6.0), (0.5, 1.0, 2.0), rng(seed)) for seed in range(20)]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(fields), axis=(0, 2, 3, 4))), (0.5, 1.0, 2.0), rtol=0.1)


def test_small_patches_bend_in_proportion_and_volumes_in_mm() -> None:
    large, small = Augmenter(plan((512, 512))), Augmenter(plan((64, 64)))
    assert large.rms[0] == pytest.approx(5.43, abs=0.01)
    assert large.sigma[0] == 30
    assert (small.rms[0], small.sigma[0]) == pytest.approx((large.rms[0] / 4, 7.5))
    volume = Augmenter(plan((32, 64, 64), spacing=(4.0, 2.0, 2.0)))  # 128 mm: half size
    np.testing.assert_allclose(np.array(volume.rms) * (4, 2, 2), large.rms[0] / 2)
    np.testing.assert_allclose(np.array(volume.sigma) * (4, 2, 2), 15)


def moved(augmenter: Augmenter, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Where each pixel comes from, read off ramps: ``(axes, *shape)``, the inner half."""
    ramps = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")).astype(np.float32)
    out = augmenter(whole(ramps, np.zeros(shape, np.uint8)), rng(seed))[0]
    return out[(slice(None), *[slice(n // 4, n - n // 4) for n in shape])]


@pytest.mark.parametrize("spacing", [None, (2.0, 1.0, 1.0), (5.0, 1.0, 1.0)])
def test_rotation_is_rigid_in_mm(spacing: tuple[float, float, float] | None) -> None:
    shape = (32, 48, 40)
    augmenter = Augmenter(plan(shape, spacing=spacing, rotation=1, rotation_degrees=12))
    scale = np.reshape(spacing or (1, 1, 1), (3, 1))
    here = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij"))
    here = here[(slice(None), *[slice(n // 4, n - n // 4) for n in shape])].reshape(3, -1) * scale
    for seed in range(3):
        there = moved(augmenter, shape, seed).reshape(3, -1) * scale
        matrix = np.linalg.lstsq(here.T, there.T, rcond=None)[0].T
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-3)
        assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-3)
        np.testing.assert_allclose(matrix @ here, there, atol=0.02)
        if spacing == (5.0, 1.0, 1.0):  # thick slices: within the slice only
            np.testing.assert_allclose(matrix[0], (1, 0, 0), atol=1e-3)


def test_rotation_and_scale_stay_within_their_range() -> None:
    rotate = Augmenter(plan((64, 64), rotation=1, rotation_degrees=15))
    zoom = Augmenter(plan((64, 64), scale=1, scale_range=0.2))
    angles, factors = [], []
    for seed in range(30):
        step = np.diff(moved(rotate, (64, 64), seed), axis=2).mean(axis=(1, 2))
        angles.append(np.degrees(np.arctan2(step[0], step[1])))
        factors.append(1 / np.diff(moved(zoom, (64, 64), seed), axis=2)[1].mean())
    assert -15 <= min(angles) < -8
    assert 8 < max(angles) <= 15
    assert 0.8 <= min(factors) < 0.88
    assert 1.12 < max(factors) <= 1.2


def test_beyond_the_image_comes_its_edge_and_counts_nowhere() -> None:
    augmenter = Augmenter(plan((64, 64), scale=1, scale_range=0.5))
    image, codes = np.ones((1, 64, 64), np.float32), np.full((64, 64), 3, np.uint8)
    ignored = []
    for seed in range(5):
        out, mask = augmenter(whole(image, codes), rng(seed))
        np.testing.assert_allclose(out, 1, atol=1e-5)
        assert set(np.unique(mask)) <= {3, IGNORED}
        ignored.append((mask == IGNORED).mean())
    assert min(ignored) == 0  # made larger
    assert max(ignored) > 0.2  # made smaller


@pytest.mark.parametrize(
    ("mode", "shape", "patch"),
    [("2d", (1, 150, 140), (48, 36)), ("2.5d", (9, 150, 140), (48, 36)), ("3d", (90, 100, 110), (32, 36, 40))],
)
def test_a_patch_sees_the_image_around_it(mode: str, shape: tuple[int, int, int], patch: tuple[int, ...]) -> None:
    """Against SciPy on the whole image, at the places that ramps among the channels tell."""
    made = plan(patch, **dict.fromkeys(SHAPE_KINDS, 1), rotation_degrees=40)
    if mode == "2.5d":
        made = made.model_copy(update={"spatial": Spatial(mode="2.5d", neighbours=1, patch=patch)})
    ramps = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    texture = ndimage.gaussian_filter(rng().normal(size=shape), (0, 3, 3)).astype(np.float32)
    image, codes = np.concatenate([ramps, texture[None]]), blocks(shape, (0, 1, 3))
    augmenter = Augmenter(made)
    beyond = 0
    for seed, middle in enumerate([0.5, 0.5, 0.5, 0.0, 1.0]):
        centre = tuple(int(middle * (n - 1)) for n in shape)
        start = corner(shape, centre, made.spatial, rng())
        out, mask = augmenter(partial(cut, image, codes, start, made.spatial), rng(seed))
        assert mask.shape == patch
        out = out[4:8] if mode == "2.5d" else out  # the slice itself
        where = out[:3].reshape(3, -1)
        axes = range(3 if mode == "3d" else 2)  # in their plane, slices have all their pixels
        inside = np.all([(where[-1 - a] > 0.01) & (where[-1 - a] < shape[-1 - a] - 1.01) for a in axes], axis=0)
        expected = ndimage.map_coordinates(texture, where, order=1, mode="nearest")
        np.testing.assert_allclose(out[3].ravel()[inside], expected[inside], atol=2e-3 * texture.std())
        sure = inside & (np.abs(where % 1 - 0.5) > 0.01).all(axis=0)
        nearest = codes[tuple(where[:, sure].round().astype(int))]
        np.testing.assert_array_equal(mask.ravel()[sure], nearest)
        if middle == 0.5:  # not a pixel is lost to the patch's own border
            assert inside.all()
            assert (mask != IGNORED).all()
        beyond += int((mask == IGNORED).sum())
    assert beyond > 0


@pytest.mark.parametrize("patch", [(48, 36), (32, 36, 40)])
def test_no_more_is_cut_than_a_sample_needs(patch: tuple[int, ...]) -> None:
    asked = []

    def piece(margin: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        asked.append(margin)
        sizes = [n + 2 * m for n, m in zip(patch, margin, strict=True)]
        ramps = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in sizes], indexing="ij"))
        return ramps.astype(np.float32), np.zeros(sizes, np.uint8)

    augmenter = Augmenter(plan(patch, **dict.fromkeys(SHAPE_KINDS, 0.5)))
    for seed in range(20):
        out = augmenter(piece, rng(seed))[0]
        for axis, (n, m) in enumerate(zip(patch, asked[-1], strict=True)):
            reach = np.abs(out[axis]).max() - (n - 1) / 2
            assert -0.01 < m - max(0, reach) < 1.01
    assert (0,) * len(patch) in asked


def quarters(augmenter: Augmenter, patch: tuple[int, ...]) -> set[int]:
    """Which quarter turns occur; each must be exact."""
    image, codes, seen = rng().random((2, *patch), dtype=np.float32), blocks(patch), set()
    for seed in range(30):
        out, mask = augmenter(whole(image, codes), rng(seed))
        for turns in range(4):
            if np.array_equal(mask, np.rot90(codes, turns, (-2, -1))):
                np.testing.assert_array_equal(out, np.rot90(image, turns, (-2, -1)))
                seen.add(turns)
    return seen


def test_quarter_turns_are_exact_and_keep_the_patch_as_it_is() -> None:
    assert quarters(Augmenter(plan((64, 64), quarter_turns=True)), (64, 64)) == {0, 1, 2, 3}
    assert quarters(Augmenter(plan((64, 48), quarter_turns=True)), (64, 48)) == {0, 2}
    assert quarters(Augmenter(plan((32, 40, 40), quarter_turns=True)), (32, 40, 40)) == {0, 1, 2, 3}
    flat = plan((32, 40, 40), spacing=(1.0, 2.0, 1.0), quarter_turns=True)  # square in pixels, not in mm
    assert quarters(Augmenter(flat), (32, 40, 40)) == {0, 2}
    assert quarters(Augmenter(plan((64, 64))), (64, 64)) == {0}


@pytest.mark.parametrize(
    ("intensity", "black"),
    [({"kind": "minmax"}, 0.0), ({"kind": "scale", "mean": 0.5, "std": 0.25}, -2.0), ({"kind": "zscore"}, -1.5)],
)
def test_uneven_light_is_a_smooth_factor_above_black(intensity: dict[str, Any], black: float) -> None:
    made = plan((96, 96), illumination=1)
    made = made.model_copy(update={"channels": (Channel.model_validate({"name": "a", "intensity": intensity}),)})
    augmenter, logs = Augmenter(made), []
    image = np.full((1, 96, 96), black + 2, np.float32)
    image[0, 40:50, 40:50] = black
    for seed in range(60):
        out = augmenter(whole(image, np.zeros((96, 96), np.uint8)), rng(seed))[0][0]
        np.testing.assert_allclose(out[40:50, 40:50], black, atol=1e-6)
        factor = (out - black) / 2
        factor[40:50, 40:50] = np.nan
        logs.append(np.log(factor))
    assert np.sqrt(np.nanmean(np.square(logs))) == pytest.approx(0.2, rel=0.15)
    assert np.nanmax(np.abs(np.diff(logs, axis=1))) < 0.03  # from pixel to pixel
    assert np.nanmean(np.ptp(np.array(logs)[:, ::95, ::95], axis=(1, 2))) > 0.1  # from corner to corner


@pytest.mark.parametrize("kind", ["illumination", "colour"])
def test_unlike_slices_of_a_stack_change_alike(kind: str) -> None:
    """The same values in the slice and in its neighbours, which also hold darker and brighter ones, stay the same."""
    made = plan(kind="zscore", **{kind: 1})
    made = made.model_copy(update={"spatial": Spatial(mode="2.5d", neighbours=1, patch=(64, 64))})
    slices = rng().random((3, 64, 64), dtype=np.float32)
    slices[:, :32] = slices[0, :32]
    slices[1, 40:] -= 3
    slices[2, 40:] += 2
    out, _ = Augmenter(made)(whole(slices, np.zeros((64, 64), np.uint8)), rng())
    assert not np.allclose(out[0], slices[0], atol=0.01)
    for other in out[1:]:
        np.testing.assert_allclose(other[:32], out[0, :32], atol=1e-5)


def in_colour(**augmentation: Any) -> tuple[Plan, np.ndarray]:
    """A plan of three channels, and two equal slices of them."""
    content = plan().model_dump()
    content["channels"] = [content["channels"][0] | {"name": name} for name in "rgb"]
    content["training"]["augmentation"] |= augmentation
    return Plan.model_validate(content), np.tile(rng().random((3, 64, 64), dtype=np.float32), (2, 1, 1))


def test_dropped_channels_show_their_mean_and_one_at_least_is_kept() -> None:
    made, image = in_colour(channel_dropout={"r": 0.5, "b": 0.5, "g": 0.25})
    augmenter, codes, kept = Augmenter(made), np.zeros((64, 64), np.uint8), []
    for seed in range(400):
        out = augmenter(whole(image, codes), rng(seed))[0]
        np.testing.assert_array_equal(out[3:], out[:3])
        kept.append([bool(np.array_equal(after, before)) for before, after in zip(image[:3], out[:3], strict=True)])
        for before, after, same in zip(image[:3], out[:3], kept[-1], strict=True):
            if not same:
                np.testing.assert_allclose(after, before.mean(), atol=1e-6)
    # Where all three would go (1/16 of the samples), all stay.
    np.testing.assert_allclose(np.mean(kept, axis=0), [9 / 16, 13 / 16, 9 / 16], atol=0.08)
    assert all(any(one) for one in kept)


def test_each_channel_has_its_own_colour() -> None:
    made, image = in_colour(colour=1)
    contrasts = []
    for seed in range(20):
        out = Augmenter(made)(whole(image, np.zeros((64, 64), np.uint8)), rng(seed))[0]
        np.testing.assert_array_equal(out[3:], out[:3])
        for before, after in zip(image[:3], out[:3], strict=True):
            slope, offset = np.polyfit(before.ravel(), after.ravel(), 1)
            np.testing.assert_allclose(after, slope * before + offset, atol=1e-5)
            assert abs(after.mean() - before.mean()) <= 0.2 * before.std() + 1e-5
            contrasts.append(slope)
    assert np.exp(-0.2) <= min(contrasts) < 0.86
    assert 1.16 < max(contrasts) <= np.exp(0.2)
    assert len(np.unique(np.round(contrasts, 4))) > 55


@pytest.mark.parametrize(
    ("intensity", "strongest"),
    [
        ({"kind": "zscore"}, 0.2),
        ({"kind": "local"}, 0.2),
        ({"kind": "scale", "mean": 0.5, "std": 0.25}, 0.2),
        ({"kind": "scale"}, 0.05),
        ({"kind": "minmax"}, 0.05),
    ],
)
def test_noise_is_relative_to_what_the_normalisation_makes(intensity: dict[str, Any], strongest: float) -> None:
    made = plan(noise=1)
    made = made.model_copy(update={"channels": (Channel.model_validate({"name": "a", "intensity": intensity}),)})
    flat, codes = np.full((1, 64, 64), 0.5, np.float32), np.zeros((64, 64), np.uint8)
    augment = Augmenter(made)
    deviations = [augment(whole(flat, codes), np.random.default_rng(seed))[0].std() for seed in range(40)]
    assert 0.8 * strongest < max(deviations) < 1.1 * strongest

"""Geometry: exact where nothing is resampled, right within half a voxel where something is."""

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cpfnet import preprocessing
from cpfnet.errors import FormatError, InputRefused, NetworkError
from cpfnet.image import Image
from cpfnet.labels import IGNORED
from cpfnet.planning import LabelClass, Labels
from cpfnet.preprocessing import spatial
from tests import synthetic
from tests.preprocessing.plans import make_plan

SLICES = ("axial", "coronal", "sagittal", "stored")
TO_LPS = np.diag([-1.0, -1, 1, 1])
REVERSE = np.eye(4)[[2, 1, 0, 3]]  # (depth, height, width, 1) ↔ (x, y, z, 1)


def lps(affine_ras: np.ndarray) -> np.ndarray:
    """NIfTI's affine in our convention."""
    return TO_LPS @ affine_ras @ REVERSE


def one_hot(codes: np.ndarray, planes: int) -> np.ndarray:
    return (codes[None] == np.arange(planes).reshape(-1, *[1] * codes.ndim)).astype(np.float32)


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Array order → LPS: any permutation and flips, turned by up to 30°, any spacing and origin."""
    axes, signs = draw(st.sampled_from(list(synthetic.orientations())))
    numbers = st.floats(0.3, 4)
    angles = st.floats(-30, 30)
    return lps(
        synthetic.affine(
            draw(st.tuples(numbers, numbers, numbers)),
            origin=draw(st.tuples(*[st.floats(-200, 200)] * 3)),
            degrees=draw(st.tuples(angles, angles, angles)),
            axes=axes,
            signs=signs,
        )
    )


shapes = st.tuples(*[st.integers(1, 12)] * 3)


@pytest.mark.parametrize("slices", SLICES[:3])
@pytest.mark.parametrize("degrees", [(0, 0, 0), (13, -8, 21)], ids=["straight", "oblique"])
def test_one_patient_stored_in_48_orientations_is_one_tensor(slices, degrees):
    """Whatever way a scan is stored, the network sees the same: not merely consistent, but right."""
    patient, _ = synthetic.phantom((9, 11, 13))  # as stored with axes (S, A, R) → array order
    plan = make_plan(slices=slices)
    expected = None
    for axes, signs in synthetic.orientations():
        stored = patient.transpose(2, 1, 0)  # (x, y, z) along R, A, S
        affine = synthetic.affine((0.7, 1.1, 2.5), degrees=degrees)
        start = nibabel.orientations.axcodes2ornt("RAS")
        end = np.stack([axes, signs], axis=1).astype(float)
        turn = nibabel.orientations.ornt_transform(start, end)
        turned = nibabel.orientations.apply_orientation(stored, turn)
        affine = affine @ nibabel.orientations.inv_ornt_aff(turn, stored.shape)
        image = Image(turned.transpose(2, 1, 0)[None], lps(affine))
        out, trace = preprocessing.apply(image, plan)
        if expected is None:
            expected = out, trace.grid_affine
        np.testing.assert_array_equal(out, expected[0])
        np.testing.assert_allclose(trace.grid_affine, expected[1], atol=1e-9)


@pytest.mark.parametrize(
    ("slices", "codes"),
    [("axial", "LPS"), ("coronal", "LIP"), ("sagittal", "PIL")],
)
def test_directions_are_those_that_nibabel_and_simpleitk_name(slices, codes):
    """(width, height, depth) grow towards these."""
    array = np.arange(3 * 4 * 5, dtype=np.int16).reshape(1, 3, 4, 5)
    image = Image(array, lps(synthetic.affine((1, 2, 3), axes=(1, 2, 0), signs=(1, -1, 1), degrees=(5, 5, 5))))
    out, trace = preprocessing.apply(image, make_plan(slices=slices))
    ras = TO_LPS @ trace.grid_affine @ REVERSE
    assert "".join(nibabel.aff2axcodes(ras)) == codes
    itk = SimpleITK.GetImageFromArray(array[0])
    directions = image.affine[:3, 2::-1] / np.array(image.spacing)[::-1]
    itk.SetDirection(directions.ravel().tolist())
    itk.SetSpacing(image.spacing[::-1])
    turned = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(itk, codes))
    np.testing.assert_allclose(out[0] * (array.max() - array.min()), turned, atol=1e-4)


@settings(deadline=None)
@given(affine=affines(), slices=st.sampled_from(["axial", "coronal", "sagittal"]))
def test_closest_axes_are_nibabels(affine, slices):
    axes, flips = spatial.closest_axes(affine, spatial.DIRECTIONS[slices])
    ornt = nibabel.io_orientation(TO_LPS @ affine @ REVERSE)  # per stored x, y, z: world axis, sign in RAS
    for target, direction in enumerate(spatial.DIRECTIONS[slices]):
        world = int(np.abs(direction).argmax())
        stored = int(np.flatnonzero(ornt[:, 0] == world)[0])
        sign = ornt[stored, 1] * (1 if world == 2 else -1) * direction[world]
        assert axes[target] == 2 - stored
        assert flips[target] == (sign < 0)


@settings(deadline=None)
@given(rotation=st.tuples(*[st.floats(-180, 180)] * 3))
def test_any_rotation_uses_each_axis_once(rotation):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix()
    axes, _ = spatial.closest_axes(affine, spatial.DIRECTIONS["axial"])
    assert sorted(axes) == [0, 1, 2]


@settings(deadline=None)
@given(affine=affines(), shape=shapes, slices=st.sampled_from(SLICES), seed=st.integers(0, 9))
def test_codes_there_and_back_are_identical_without_resampling(affine, shape, slices, seed):
    codes = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint8)
    plan = make_plan(slices=slices)
    _, trace = preprocessing.apply(Image(codes[None], affine), plan)
    result = preprocessing.restore(
        one_hot(preprocessing.apply_codes(codes, trace), 4), trace, plan, keep_probabilities=True
    )
    np.testing.assert_array_equal(result.array, codes)
    np.testing.assert_array_equal(result.affine, affine)
    np.testing.assert_array_equal(result.probabilities, one_hot(codes, 4))
    assert result.classes == ("background", "c1", "c2", "c3")


@settings(deadline=None)
@given(
    affine=affines(),
    shape=shapes,
    slices=st.sampled_from(SLICES),
    spacing=st.tuples(*[st.floats(0.4, 4)] * 3),
)
def test_world_coordinates_agree_across_resampling(affine, shape, slices, spacing):
    """An image that holds its own world coordinates still does so after resampling, away from the border."""
    index = np.stack([*np.indices(shape), np.ones(shape)]).reshape(4, -1)
    world = (affine @ index)[:3].reshape(3, *shape)
    trace = spatial.trace(Image(world, affine), make_plan(slices=slices, spacing=spacing).spatial)
    out = np.stack([spatial.resample(trace.orient(plane.astype(np.float32)), trace.grid) for plane in world])
    grid = np.stack([*np.indices(trace.grid), np.ones(trace.grid)]).reshape(4, -1)
    expected = (trace.grid_affine @ grid)[:3].reshape(3, *trace.grid)
    # Right to 0.1 voxel of the network's grid wherever the kernel does not reach beyond the edge (a sampled triangle
    # bends a ramp by up to 0.06).
    inner = []
    for m, n in zip(trace.oriented, trace.grid, strict=True):
        centres = (np.arange(n) + 0.5) * m / n - 0.5
        reach = max(m / n, 1)
        whole = (centres - reach > -1.001) & (centres + reach < m + 0.001) if m != n else np.ones(n, bool)
        inner.append(np.flatnonzero(whole))
    at = (slice(None), *np.ix_(*inner))
    moved = np.linalg.inv(trace.grid_affine[:3, :3]) @ (out[at] - expected[at]).reshape(3, -1)
    np.testing.assert_allclose(moved, 0, atol=0.1)
    # Both grids cover the same box, corner to corner.
    for corner in np.ndindex(2, 2, 2):
        far = np.array(corner)
        network = trace.grid_affine @ np.append(far * trace.grid - 0.5, 1)
        flipped = np.where(trace.flips, 1 - far, far)
        source = np.empty(3)
        source[list(trace.axes)] = flipped * trace.oriented - 0.5
        np.testing.assert_allclose(network, affine @ np.append(source, 1), atol=1e-6)
    # The spacing is the one asked for, but for rounding to whole voxels.
    if min(trace.grid) > 1:
        ratio = np.array(spatial.spacing_of(trace.grid_affine)) / spacing
        assert (np.abs(np.log(ratio)) < np.log(1 + 0.51 / (np.array(trace.grid) - 0.5))).all()


@pytest.mark.parametrize("shape", [(7, 9), (40, 15), (63, 60), (41, 59), (13, 200)])
def test_resampling_is_torchs_antialiased_bilinear(shape):
    image = np.random.default_rng(0).random((40, 60), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=shape, mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(spatial.resample(image, shape), expected[0, 0].numpy(), atol=1e-5)


@given(
    before=st.tuples(*[st.integers(1, 40)] * 2),
    after=st.tuples(*[st.integers(1, 40)] * 2),
    value=st.floats(0, 1, width=32),
)
def test_resampling_stays_within_the_extremes(before, after, value):
    plane = np.full(before, value, np.float32)
    plane.flat[0] = 1
    out = spatial.resample(plane, after)
    assert plane.min() <= out.min()
    assert out.max() <= 1


def test_resampling_to_the_same_size_is_the_same_array():
    image = np.random.default_rng(0).random((5, 6, 7), dtype=np.float32)
    assert spatial.resample(image, (5, 6, 7)) is image


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.6, 2.0])
@pytest.mark.parametrize("slices", ["axial", "sagittal"])
def test_a_ball_comes_back_with_a_high_dice_in_its_place(factor, slices):
    spacing = np.array([1.0, 0.8, 1.2])
    affine = lps(synthetic.affine(tuple(spacing[::-1]), degrees=(10, 5, -7), axes=(1, 0, 2), signs=(1, -1, -1)))
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in (32, 40, 36)], indexing="ij"), -1)
    ball = (((grid - (14, 22, 17)) * spacing) ** 2).sum(-1) < 10**2
    plan = make_plan(slices=slices, classes=1, spacing=(factor,) * 3)
    _, trace = preprocessing.apply(Image(ball[None].astype(np.int16), affine), plan)
    codes = preprocessing.apply_codes(ball.astype(np.uint8), trace)
    back = preprocessing.restore(one_hot(codes, 2), trace, plan).array > 0
    dice = 2 * (back & ball).sum() / (back.sum() + ball.sum())
    assert dice > (0.97 if factor < 1.5 else 0.93)
    # On the network's grid too, its centre lies where it lies in the patient.
    there = trace.grid_affine @ np.append(np.argwhere(codes).mean(0), 1)
    np.testing.assert_allclose(there, affine @ np.append(np.argwhere(ball).mean(0), 1), atol=0.1)


@settings(deadline=None)
@given(
    codes=st.integers(0, 9).map(
        lambda seed: np.random.default_rng(seed).choice([0, 3, 7, 200, IGNORED], (5, 6, 7)).astype(np.uint8)
    ),
    shape=shapes,
)
def test_resampling_codes_makes_no_new_ones(codes, shape):
    out = spatial.resample_codes(codes, shape)
    assert out.shape == shape
    assert out.dtype == np.uint8
    assert set(np.unique(out)) <= set(np.unique(codes))


def test_codes_grow_like_the_nearest_neighbour_and_shrink_like_a_vote():
    codes = np.repeat([0, 5, 9], 4)[None].astype(np.uint8)
    np.testing.assert_array_equal(spatial.resample_codes(codes, (1, 24))[0], np.repeat([0, 5, 9], 8))
    np.testing.assert_array_equal(spatial.resample_codes(codes, (1, 6))[0], np.repeat([0, 5, 9], 2))
    speck = np.zeros((12, 12), np.uint8)
    speck[5, 5] = 1
    assert not spatial.resample_codes(speck, (3, 3)).any()


def test_images_go_to_the_plans_size_and_back():
    _, mask = synthetic.phantom((50, 70))
    plan = make_plan("images", channels=3, size=(64, 64))
    image = Image(np.stack([mask * 80] * 3))
    out, trace = preprocessing.apply(image, plan)
    assert out.shape == (3, 64, 64)
    result = preprocessing.restore(one_hot(preprocessing.apply_codes(mask, trace), 4), trace, plan)
    assert result.array.shape == (50, 70)
    assert result.affine is None
    assert (result.array == mask).mean() > 0.98


@given(shape=st.tuples(st.integers(20, 90), st.integers(20, 90)), longest=st.integers(20, 90))
def test_the_longer_side_gets_what_the_plan_says_and_the_other_keeps_the_proportion(shape, longest):
    _, mask = synthetic.phantom(shape)
    plan = make_plan("images", longest=longest)
    out, trace = preprocessing.apply(Image(mask[None].astype(np.float32)), plan)
    assert max(out.shape) == longest
    assert out.shape[1] / shape[0] * max(shape) == pytest.approx(longest, abs=0.5 * max(shape) / shape[0] + 1e-9)
    assert out.shape[2] / shape[1] * max(shape) == pytest.approx(longest, abs=0.5 * max(shape) / shape[1] + 1e-9)
    result = preprocessing.restore(one_hot(preprocessing.apply_codes(mask, trace), 4), trace, plan)
    assert result.array.shape == shape


def test_images_of_the_plans_longest_side_keep_their_pixels():
    image, _ = synthetic.phantom((50, 70))
    kept, enlarged = (
        preprocessing.apply(Image(pixels), make_plan("images", longest=70))[0]
        for pixels in (image[None], np.kron(image, np.ones((3, 3)))[None])
    )
    np.testing.assert_array_equal(kept, preprocessing.apply(Image(image[None]), make_plan("images"))[0])
    assert np.abs(enlarged - kept).mean() < 0.05  # another camera's 150 × 210, seen at the same scale


class TestRestore:
    def plan(self, **labels):
        return make_plan("images", labels=Labels(**labels))

    def trace(self):
        return spatial.Trace((1, 4), None, None, (0, 1), (False, False), (1, 4))

    def test_writes_the_data_sets_own_values(self):
        plan = self.plan(classes=(LabelClass(name="vessel", values=(255,)),))
        foreground = np.array([[0.1, 0.5, 0.51, 0.9]], np.float32)
        result = preprocessing.restore(np.stack([1 - foreground, foreground]), self.trace(), plan)
        np.testing.assert_array_equal(result.array, [[0, 0, 255, 255]])
        lower = preprocessing.restore(np.stack([1 - foreground, foreground]), self.trace(), plan, threshold=0.3)
        np.testing.assert_array_equal(lower.array, [[0, 255, 255, 255]])

    def test_paints_regions_innermost_last_each_with_its_threshold(self):
        plan = self.plan(
            classes=(LabelClass(name="whole", values=(1, 2)), LabelClass(name="core", values=(2,))), exclusive=False
        )
        planes = np.array([[[0.1, 0.6, 0.9, 0.9]], [[0.1, 0.3, 0.4, 0.9]]], np.float32)
        np.testing.assert_array_equal(preprocessing.restore(planes, self.trace(), plan).array, [[0, 1, 1, 2]])
        split = preprocessing.restore(planes, self.trace(), plan, threshold=(0.7, 0.35))
        np.testing.assert_array_equal(split.array, [[0, 0, 2, 2]])

    def test_refuses_planes_of_another_size(self):
        plan = self.plan(classes=(LabelClass(name="vessel", values=(255,)),))
        with pytest.raises(NetworkError, match=r"\(2, 1, 3\).*\(2, 1, 4\)"):
            preprocessing.restore(np.zeros((2, 1, 3), np.float32), self.trace(), plan)


class TestRefusals:
    volume = np.zeros((1, 4, 5, 6), np.int16)

    @pytest.mark.parametrize("settings", [{"slices": "axial"}, {"spacing": (1, 1, 1)}])
    def test_a_volume_without_geometry_where_the_plan_needs_it(self, settings):
        with pytest.raises(InputRefused, match="no geometry"):
            preprocessing.apply(Image(self.volume), make_plan(**settings))

    def test_a_volume_without_geometry_where_it_needs_none(self):
        out, trace = preprocessing.apply(Image(self.volume), make_plan())
        assert out.shape == (1, 4, 5, 6)
        assert trace.grid_affine is None

    def test_another_rank(self):
        with pytest.raises(InputRefused, match=r"2 spatial axes.*has 3: 4×5×6"):
            preprocessing.apply(Image(self.volume), make_plan("images"))
        with pytest.raises(InputRefused, match=r"3 spatial axes.*has 2: 5×6"):
            preprocessing.apply(Image(self.volume[0]), make_plan(channels=4))

    def test_another_count_of_channels(self):
        with pytest.raises(InputRefused, match=r"has 2 channels.*has 1: t1"):
            preprocessing.apply(Image(self.volume, channels=("t1",)), make_plan(channels=2))

    def test_an_empty_image(self):
        with pytest.raises(InputRefused, match="empty: 0×5×6"):
            preprocessing.apply(Image(self.volume[:, :0]), make_plan())

    def test_nan_names_the_channel(self):
        bad = self.volume.astype(np.float32)
        bad[0, 1, 2, 3] = np.nan
        with pytest.raises(FormatError, match="channel 'channel0': 1 of 120"):
            preprocessing.apply(Image(bad), make_plan())

    def test_a_label_of_another_size(self):
        _, trace = preprocessing.apply(Image(self.volume), make_plan())
        with pytest.raises(FormatError, match="4×5×7 is not its image's, 4×5×6"):
            preprocessing.apply_codes(np.zeros((4, 5, 7), np.uint8), trace)


@pytest.mark.parametrize("degrees", [0, 3, 7, 12, 33])
def test_a_grid_does_not_hang_on_the_last_digits_of_an_oblique_spacing(degrees):
    """45 slices of 0.7 mm at 1.4 mm are 22.5, whether the scan is straight or not; a half goes to the even number."""
    for step in (0.7, 1 / 3, 1.1):
        matrix = lps(
            synthetic.affine((step, step, step), degrees=(degrees, 0, degrees)).astype(np.float32).astype(float)
        )
        plan = make_plan(spacing=(2 * step,) * 3, slices="axial")
        found = preprocessing.trace_of(Image(np.zeros((1, 45, 47, 49)), matrix), plan)
        assert found.grid == (22, 24, 24)


def test_size_of_a_pixel():
    """mm³ of a sheared grid by hand: base times height. Photographs: the share of the network's grid, for any size."""
    sheared = np.array([[0, 0, 2.0, 0], [1.0, 3.0, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])
    assert preprocessing.trace_of(Image(np.zeros((1, 5, 6, 7)), sheared), make_plan()).pixel_volume == pytest.approx(24)
    for size in ((60, 80), (600, 800)):
        found = preprocessing.trace_of(Image(np.zeros((1, *size))), make_plan("images", longest=40))
        assert (found.pixel_volume, found.pixel_share * np.prod(size)) == (None, pytest.approx(30 * 40))

"""Voxels of any size, from a microscope's to a mountain's: the scaled volume is read, written and compared the same."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.image import Image, Segmentation, geometry_difference
from tests.formats.dicom.seg.test_read_seg import lps, of
from tests.formats.dicom.written_labels import write_rtstruct, write_seg
from tests.synthetic import affine, write_series

SHAPE = (4, 9, 11)
SCALES = st.floats(-9, 6).map(lambda exponent: 10.0**exponent)


@settings(max_examples=60, deadline=None)
@given(
    scale=SCALES,
    degrees=st.tuples(*[st.floats(-40, 40)] * 3),
    ratio=st.floats(0.01, 100),
    unit=st.sampled_from(["mm", "micron", "meter"]),
)
def test_volumes_lie_where_nibabel_says(tmp_path_factory, scale, degrees, ratio, unit) -> None:
    folder = tmp_path_factory.mktemp("scale")
    matrix = affine((0.7, 0.8, 2.5 * ratio), origin=(3, -4, 5), degrees=degrees)
    matrix[:3] *= scale
    image = nibabel.Nifti1Image(np.arange(396, dtype=np.int16).reshape(SHAPE).T, matrix)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, folder / "a.nii")
    found = formats.read(folder / "a.nii")
    world = nibabel.load(folder / "a.nii").affine @ np.array([10, 8, 3, 1])
    world *= {"mm": 1, "micron": 0.001, "meter": 1000}[unit]
    assert found.affine is not None
    np.testing.assert_allclose((found.affine @ [3, 8, 10, 1])[:3], world[:3] * [-1, -1, 1], rtol=1e-6)
    written = formats.write(Segmentation(np.uint8(found.array[0] > 200), found.affine, found.source), folder / "m.nii")
    np.testing.assert_allclose(nibabel.load(written).affine, nibabel.load(folder / "a.nii").affine, rtol=1e-6)
    again = formats.read(written)
    assert geometry_difference(found.shape, found.affine, again.shape, again.affine) is None
    moved = found.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0.01], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    assert "0.01 voxels" in str(geometry_difference(found.shape, found.affine, found.shape, moved))


@settings(max_examples=60, deadline=None)
@given(scale=SCALES, weights=st.tuples(*[st.floats(-2, 2)] * 2), tilt=st.floats(0, 0.95))
@example(scale=1.0, weights=(0.0, 1.9e-42), tilt=0.0)
def test_what_has_no_volume_is_refused_at_any_scale_and_sheared_stacks_are_not(scale, weights, tilt) -> None:
    matrix = lps(affine((0.7, 0.8, 2.5), degrees=(20, -35, 10)))
    flat, sheared = matrix.copy(), matrix.copy()
    flat[:3, 0] = matrix[:3, 1:3] @ weights
    sheared[:3, 0] = (1 - tilt) * matrix[:3, 0] + tilt * matrix[:3, 1]
    for one in (flat, sheared):
        one[:3] *= scale
    assert Image(np.zeros((1, *SHAPE)), sheared).spacing is not None
    with pytest.raises(FormatError, match="singular"):
        Image(np.zeros((1, *SHAPE)), flat)
    with pytest.raises(FormatError, match="singular"):
        Image(np.zeros((1, *SHAPE)), flat.astype(np.float32))


@pytest.mark.parametrize("scale", [5e-5, 1, 1e4])
def test_dicom_series_and_their_labels(tmp_path, scale) -> None:
    matrix = lps(affine((0.7, 0.8, 2.5), origin=(1, -2, 3), signs=(-1, -1, 1)))
    matrix[:3] *= scale
    files = write_series(tmp_path / "ct", np.zeros(SHAPE, np.uint16), matrix)
    image = formats.read(tmp_path / "ct")
    assert image.spacing == pytest.approx((2.5 * scale, 0.8 * scale, 0.7 * scale))
    mask = np.random.default_rng(0).random(SHAPE) < 0.4
    seg = write_seg(tmp_path / "s.dcm", files, {1: "cell"}, mask[..., None].astype(np.uint8))
    np.testing.assert_array_equal(of(formats.read_label(seg, image), "cell"), mask)
    corners = np.array([(2, 2.5, 3.5), (2, 2.5, 8.5), (2, 6.5, 8.5), (2, 6.5, 3.5)])
    contour = corners @ matrix[:3, :3].T + matrix[:3, 3]
    drawn = of(formats.read_label(write_rtstruct(tmp_path / "r.dcm", files[0], [("cell", [contour])]), image), "cell")
    expected = np.zeros(SHAPE, bool)
    expected[2, 3:7, 4:9] = True
    np.testing.assert_array_equal(drawn, expected)
    result = Segmentation(np.uint8(mask), image.affine, image.source)
    for format in ("dicom-seg", "rtstruct", "nifti"):
        written = formats.write(result, tmp_path / "m", format=format)
        label = formats.read_label(written, image)
        np.testing.assert_array_equal(label.array[0] > 0, mask)


def test_pixel_spacings_that_differ_are_told_apart_however_small(tmp_path) -> None:
    matrix = lps(affine((5e-5, 5e-5, 1e-4), signs=(-1, -1, 1)))

    def other(index: int, header) -> None:
        if index == 1:
            header.PixelSpacing = [6e-5, 6e-5]

    write_series(tmp_path / "ct", np.zeros(SHAPE, np.uint16), matrix, edit=other)
    with pytest.raises(FormatError, match=r"2 PixelSpacings: \[5e-05, 5e-05\] mm in .*; \[6e-05, 6e-05\] mm in "):
        formats.read(tmp_path / "ct")


def test_both_values_are_told_apart_however_small() -> None:
    matrix = np.diag([1e-4, 5e-5, 5e-5, 1])
    other = np.diag([1e-4, 6e-5, 5e-5, 1])
    words = str(geometry_difference(SHAPE, matrix, SHAPE, other))
    assert "spacing [0.0001, 5e-05, 5e-05] mm" in words
    assert "spacing [0.0001, 6e-05, 5e-05] mm" in words

"""DICOM series against SimpleITK (GDCM): the same voxels at the same patient coordinates."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.image import geometry_difference
from tests.synthetic import affine, phantom, write_multiframe, write_nifti, write_photograph, write_series

_AXES = {
    "axial": np.eye(3),
    "coronal": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "feet first": np.diag([-1, 1, -1]),
    "oblique": Rotation.from_euler("xyz", (11, -23, 37), degrees=True).as_matrix(),
}


def _lps(rotation: np.ndarray, spacing=(2.5, 0.7, 0.9), origin=(-40.0, 12.5, 300.0)) -> np.ndarray:
    """(depth, height, width) → LPS mm, from columns x (along rows), y (down columns), z (normal)."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation[:, ::-1] * np.array(spacing)
    matrix[:3, 3] = origin
    return matrix


def reference(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """SimpleITK's array and its affine in array order."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = (np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing())[:, ::-1]
    matrix[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image), matrix


@pytest.mark.parametrize("name", _AXES)
def test_series_as_simpleitk_reads_them(tmp_path, name):
    stored = phantom((9, 10, 12))[0].astype(np.int16)
    write_series(tmp_path, stored, _lps(_AXES[name]), names=[f"{i * 5 % 9}.dcm" for i in range(9)])
    image = formats.read(tmp_path)
    array, matrix = reference(tmp_path)
    np.testing.assert_array_equal(image.array[0], array)
    np.testing.assert_array_equal(array, stored.astype(int) - 1024)
    assert geometry_difference(image.shape, image.affine, array.shape, matrix, tolerance=1e-6) is None
    np.testing.assert_allclose(image.affine, _lps(_AXES[name]), atol=1e-9)
    assert image.modality == "ct"
    assert image.source.details["unit"] == "HU"
    assert image.source.warnings == ()


def test_slices_that_run_against_their_normal_are_turned(tmp_path):
    """Voxels keep their patient coordinates, whichever slice is called the first."""
    stored = phantom((8, 9, 10))[0].astype(np.int16)
    matrix = _lps(_AXES["oblique"])
    backwards = matrix.copy()
    backwards[:3, 3] = matrix[:3] @ [7, 0, 0, 1]
    backwards[:3, 0] *= -1
    write_series(tmp_path / "a", stored, matrix)
    write_series(tmp_path / "b", stored[::-1], backwards)
    first, second = formats.read(tmp_path / "a"), formats.read(tmp_path / "b")
    np.testing.assert_array_equal(first.array, second.array)
    np.testing.assert_allclose(first.affine, second.affine, atol=1e-9)


def test_instances_and_headers_are_in_slice_order(tmp_path):
    paths = write_series(tmp_path, np.zeros((4, 5, 6), np.int16), names=["d", "a", "c", "b"])
    source = formats.read(list(reversed(paths))).source
    assert list(source.paths) == paths
    assert [header.InstanceNumber for header in source.details["headers"]] == [1, 2, 3, 4]
    assert not any("PixelData" in header for header in source.details["headers"])
    assert source.details["frames"] == [0] * 4


def test_a_single_slice(tmp_path):
    stored = phantom((8, 9, 10))[0].astype(np.int16)[:1]
    path = write_series(tmp_path, stored, _lps(_AXES["oblique"]), SpacingBetweenSlices=4.0)[0]
    image = formats.read(path)
    assert image.shape == (1, 9, 10)
    np.testing.assert_allclose(image.affine, _lps(_AXES["oblique"], (4.0, 0.7, 0.9)), atol=1e-9)
    path = write_series(tmp_path / "b", stored, _lps(_AXES["axial"]))[0]
    assert formats.read(path).spacing == pytest.approx((2.5, 0.7, 0.9))
    path = write_series(tmp_path / "c", stored, _lps(_AXES["axial"]), SliceThickness=None)[0]
    image = formats.read(path)
    assert image.spacing == pytest.approx((1, 0.7, 0.9))
    assert "1 mm" in image.source.warnings[0]


def test_a_tilted_gantry_stays_a_shear_and_is_said(tmp_path):
    stored = phantom((8, 9, 10))[0].astype(np.int16)
    matrix = _lps(np.eye(3))
    matrix[1, 0] = 2.5 * np.tan(np.radians(12.0))  # each slice stands a little more to the back
    write_series(tmp_path, stored, matrix)
    image = formats.read(tmp_path)
    np.testing.assert_allclose(image.affine, matrix, atol=1e-9)
    assert "gantry tilt of 12.0°" in image.source.warnings[0]


def test_photographs_and_radiographs_have_no_millimetres(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = formats.read(write_photograph(tmp_path / "a.dcm", colour, modality="OP"))
    np.testing.assert_array_equal(image.array, colour.transpose(2, 0, 1))
    assert (image.affine, image.modality, image.channels) == (None, "fundus", ("red", "green", "blue"))
    grey = rng.integers(0, 4096, (6, 7), dtype=np.uint16)
    image = formats.read(write_photograph(tmp_path / "b.dcm", grey, modality="CR", PixelSpacing=[0.2, 0.2]))
    np.testing.assert_array_equal(image.array, grey[None])
    assert (image.affine, image.modality, image.source.warnings) == (None, "xray", ())


def test_several_folders_are_channels_where_their_grids_agree(tmp_path):
    stored = phantom((8, 9, 10))[0].astype(np.uint16)
    for number, series in enumerate(("t1", "t2")):
        write_series(tmp_path / series, stored + number, modality="MR", series=series)
    write_series(tmp_path / "else", stored, _lps(np.eye(3)), modality="MR", series="else")
    image = formats.read([tmp_path / "t1", tmp_path / "t2"])
    np.testing.assert_array_equal(image.array, [stored, stored + 1])
    assert formats.read_header([tmp_path / "t1", tmp_path / "t2"]).channels == image.channels
    with pytest.raises(FormatError, match="differs from t1"):
        formats.read([tmp_path / "t1", tmp_path / "else"])
    with pytest.raises(FormatError, match="of another kind"):
        formats.read([tmp_path / "t1", write_nifti(tmp_path / "a.nii", stored)])


def test_nifti_and_dicom_of_one_volume_agree(tmp_path):
    stored = phantom((8, 9, 10))[0].astype(np.int16)
    ras = affine((0.9, 0.7, 2.5), origin=(5, 6, 7), degrees=(10, 20, 30))
    nifti = formats.read(write_nifti(tmp_path / "a.nii.gz", stored, ras))
    write_series(tmp_path / "a", stored, nifti.affine, RescaleIntercept=0)
    dicom = formats.read(tmp_path / "a")
    flipped = np.linalg.det(nifti.affine[:3, :3]) > 0  # array order (z, y, x): right-handed when against the normal
    array = nifti.array[:, ::-1] if flipped else nifti.array
    np.testing.assert_array_equal(dicom.array, array)
    corner = nifti.affine @ [7 if flipped else 0, 0, 0, 1]
    np.testing.assert_allclose(dicom.affine[:, 3], corner, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(st.floats(0.3, 8), st.floats(0.05, 3), st.floats(0.05, 3)),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
    order=st.permutations(range(5)),
    backwards=st.booleans(),
    multiframe=st.booleans(),
)
def test_any_orientation_spacing_and_order(turn, spacing, origin, order, backwards, multiframe):
    stored = phantom((8, 8, 9))[0].astype(np.int16)[:5]
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    matrix = _lps(rotation, spacing, origin)
    if backwards:
        matrix[:3, 0] *= -1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if multiframe:
            write_multiframe(folder / "a.dcm", stored, matrix, order=order)
        else:
            write_series(folder, stored, matrix, names=[f"{i}.dcm" for i in order])
        image, header = formats.read(folder), formats.read_header(folder)
        array, seen = (image.array[0], image.affine) if multiframe else reference(folder)
    np.testing.assert_array_equal(image.array[0], array)
    np.testing.assert_array_equal(image.array[0], (stored[::-1] if backwards else stored).astype(int) - 1024)
    assert geometry_difference(image.shape, image.affine, array.shape, seen) is None
    expected = matrix.copy()
    if backwards:
        expected[:3, 3] = matrix[:3] @ [4, 0, 0, 1]
        expected[:3, 0] *= -1
    # Decimal strings hold 16 characters, about 12 digits.
    np.testing.assert_allclose(image.affine, expected, atol=1e-6)
    assert (header.shape, header.dtype, header.channels) == (image.shape, image.array.dtype, image.channels)
    np.testing.assert_array_equal(header.affine, image.affine)

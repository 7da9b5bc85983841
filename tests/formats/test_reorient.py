"""Labels in files of volumes: however their axes are stored, each voxel stays where it is in the patient."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from cpfnet import formats
from cpfnet.data.case import placed
from cpfnet.errors import DatasetError
from tests import synthetic
from tests.synthetic import phantom, shared, write_series


def ras(affine_lps: np.ndarray) -> np.ndarray:
    """(depth, height, width) → LPS, as NIfTI's (x, y, z) → RAS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_lps[:, [2, 1, 0, 3]]


@pytest.mark.parametrize("number", range(0, 48, 5))
def test_any_axis_order_and_direction(tmp_path: Path, number: int) -> None:
    axes, signs = list(synthetic.orientations())[number]
    image, mask = phantom((8, 9, 11))
    oblique = synthetic.affine((0.7, 0.8, 2.5), origin=(5, -7, 11), degrees=(9, -4, 17))
    affine_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ oblique[:, [2, 1, 0, 3]]
    write_series(tmp_path / "ct", np.uint16(image), affine_lps)
    read = formats.read(tmp_path / "ct")
    assert read.affine is not None
    stored = nibabel.Nifti1Image(mask.transpose(2, 1, 0), ras(affine_lps))
    orientation = np.array([[axes.index(a), signs[axes.index(a)]] for a in range(3)])
    nibabel.save(stored.as_reoriented(orientation), tmp_path / "label.nii.gz")
    label = formats.read_label(tmp_path / "label.nii.gz", read)
    assert label.affine is not None
    np.testing.assert_allclose(label.affine, read.affine, atol=1e-3)
    # The voxel of structure 3 lies where it was drawn, whatever the order of slices.
    (index,) = np.argwhere(label.array[0] == 3)
    (drawn,) = np.argwhere(mask == 3)
    np.testing.assert_allclose((read.affine @ [*index, 1])[:3], (affine_lps @ [*drawn, 1])[:3], atol=1e-3)
    assert sorted(np.unique(label.array, return_counts=True)[1]) == sorted(np.unique(mask, return_counts=True)[1])


def test_another_grid_is_left_as_it_is(tmp_path: Path) -> None:
    image, mask = phantom((8, 9, 11))
    write_series(tmp_path / "ct", np.uint16(image))
    read = formats.read(tmp_path / "ct")
    path = synthetic.write_nifti(tmp_path / "label.nii", mask, np.diag([1.0, -1.0, 1.0, 1.0]))
    assert np.array_equal(formats.read_label(path, read).array, formats.read(path).array)


def test_abdomen_ct_is_labelled_where_nibabel_says() -> None:
    root = shared("AbdomenCT")
    image = formats.read(root / "dicom")
    label = formats.read_label(root / "labels.nii.gz", image)
    assert image.affine is not None
    assert label.shape == image.shape
    stored = nibabel.load(root / "labels.nii.gz")
    world = np.linalg.inv(stored.affine) @ np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine
    values = np.asarray(stored.dataobj)
    for index in np.argwhere(label.array[0] > 0)[::5000]:
        x, y, z = np.rint((world @ [*index, 1])[:3]).astype(int)
        assert label.array[0][tuple(index)] == values[x, y, z]


@pytest.mark.parametrize("number", range(1, 48, 5))
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_labels_of_volumes_in_files_are_turned_and_that_is_said(tmp_path: Path, number: int, suffix: str) -> None:
    axes, signs = list(synthetic.orientations())[number]
    scan, mask = phantom((8, 9, 11))
    oblique = synthetic.affine((0.7, 0.8, 2.5), origin=(5, -7, 11), degrees=(9, -4, 17))
    image = formats.read(synthetic.write_nifti(tmp_path / "scan.nii.gz", np.int16(scan), oblique))
    orientation = np.array([[axes.index(a), signs[axes.index(a)]] for a in range(3)])
    nibabel.save(nibabel.Nifti1Image(mask.T, oblique).as_reoriented(orientation), tmp_path / "turned.nii.gz")
    stored = formats.read(tmp_path / "turned.nii.gz")
    path = tmp_path / f"label{suffix}"
    formats.write_image(stored, path)
    label = formats.read_label(path, image)
    np.testing.assert_array_equal(label.array[0], mask)
    np.testing.assert_allclose(label.affine, image.affine, atol=1e-4)
    assert ["turned" in warning for warning in label.warnings] == [True]
    np.testing.assert_array_equal(formats.read_map(path, image)[0], mask)
    assert not formats.read_label(formats.write_image(image, tmp_path / f"same{suffix}"), image).warnings


def test_a_label_at_another_place_or_spacing_is_not_turned(tmp_path: Path) -> None:
    scan, mask = phantom((8, 9, 11))
    image = formats.read(synthetic.write_nifti(tmp_path / "scan.nii.gz", np.int16(scan), np.diag([1.0, 1, 2, 1])))
    for name, matrix in {
        "mirrored, not moved": np.diag([-1.0, 1, 2, 1]),  # its first voxel lies where the image's does
        "shifted by half a voxel": np.array([[-1.0, 0, 0, 10.5], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
        "another spacing": np.array([[-1.1, 0, 0, 11], [0, 1, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]),
    }.items():
        path = synthetic.write_nifti(tmp_path / "label.nii", mask, matrix)
        np.testing.assert_array_equal(formats.read_label(path, image).array[0], mask, err_msg=name)
        with pytest.raises(DatasetError, match="does not lie on its image's grid"):
            placed(path, image)

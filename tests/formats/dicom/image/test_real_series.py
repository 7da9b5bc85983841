"""Real series, against SimpleITK (GDCM) and the NIfTI that its authors made of one."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from cpfnet import formats
from cpfnet.image import geometry_difference
from tests.synthetic import shared


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("LungCT/pat_1", "ct"),
        ("LungCT/pat_2", "ct"),
        ("LungCT/pat_3", "ct"),
        ("AbdomenCT/dicom", "ct"),
        ("DicomSeg/ct-3slice", "ct"),
    ],
)
def test_real_series_as_simpleitk_reads_them(name, modality):
    folder = shared(name)
    image, header = formats.read(folder), formats.read_header(folder)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    expected = reader.Execute()
    array = SimpleITK.GetArrayFromImage(expected)
    if name.startswith("DicomSeg"):  # its padding, -2000 before the intercept, becomes the smallest value
        array = np.where(array == -3024, array[array != -3024].min(), array)
    np.testing.assert_array_equal(image.array[0], array)
    affine = np.eye(4)
    affine[:3, :3] = (np.array(expected.GetDirection()).reshape(3, 3) * expected.GetSpacing())[:, ::-1]
    affine[:3, 3] = expected.GetOrigin()
    assert geometry_difference(image.shape, image.affine, array.shape, affine) is None
    assert (image.modality, image.source.details["unit"]) == (modality, "HU")
    assert (header.shape, header.dtype) == (image.shape, image.array.dtype)


def test_a_series_equals_its_nifti():
    dicom, nifti = formats.read(shared("LungCT/pat_1")), formats.read(shared("LungCT/pat_1_nifti/image/phantom.nii.gz"))
    # The NIfTI's slices run along the same normal, or against it.
    forward = np.dot(dicom.affine[:3, 0], nifti.affine[:3, 0]) > 0
    assert forward
    np.testing.assert_array_equal(dicom.array, nifti.array)
    assert geometry_difference(dicom.shape, dicom.affine, nifti.shape, nifti.affine, tolerance=0.01) is None


def test_real_defects_are_said():
    notes = formats.read_header(shared("AbdomenCT/dicom")).source.warnings
    assert [note.split(" empty")[0] for note in notes] == [
        "SOPClassUID and SOPInstanceUID",
        "StudyInstanceUID and SeriesInstanceUID",
    ]
    (note,) = formats.read_header(shared("DicomSeg/ct-3slice")).source.warnings
    assert note.startswith("SpecificCharacterSet is empty")
    assert formats.read_header(shared("LungCT/pat_1")).source.warnings == ()

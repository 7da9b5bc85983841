"""A DICOM image series whose values are labels: their numbers, whatever viewers are told of brightness."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from cpfnet import formats
from cpfnet.data.case import placed
from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError, FormatError
from tests.synthetic import affine, write_series

SHAPE = (6, 32, 34)
MATRIX = affine((0.8, 0.9, 2.5), origin=(3, 4, 5), degrees=(5, 0, 0))


def mask(seed: int) -> np.ndarray:
    out = np.zeros(SHAPE, np.uint8)
    out[1:5, 8:20, 8 + seed : 20 + seed], out[3, 2:6, 2:6] = 1, 3
    return out


def study(root, count: int = 3, **attributes: object) -> None:
    for seed in range(count):
        scan = np.random.default_rng(seed).integers(0, 1500, SHAPE).astype(np.uint16)
        name = f"p{seed}"
        write_series(root / name / "ct", scan, MATRIX, patient=name, study=name, series=f"{name} ct")
        write_series(
            root / name / "mask",
            mask(seed),
            MATRIX,
            patient=name,
            study=name,
            series=f"{name} mask",
            modality="MR",
            **attributes,
        )


@pytest.mark.parametrize("attributes", [{}, {"PixelPaddingValue": 0}])
def test_values_are_labels(tmp_path, attributes):
    study(tmp_path, **attributes)
    (tmp_path / "dataset.yaml").write_text(
        "image: '{case}/ct'\nlabel: '{case}/mask'\nlabels: {organ: 1, lesion: 3}\nmodality: ct\n"
    )
    dataset = load(tmp_path)
    for seed, case in enumerate(dataset.cases):
        image = formats.read(case.images)
        label = placed(case.labels["label"], image, dataset.labels)
        np.testing.assert_array_equal(label.array[0], mask(seed)[::-1])  # slices ascend along their normal
        np.testing.assert_allclose(label.affine, image.affine)
        files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(case.labels["label"]))
        read = sitk.ImageSeriesReader()
        read.SetFileNames(files)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read.Execute()), label.array[0])
    assert [str(f) for f in check(tmp_path) if f.severity == "error"] == []


def test_undeclared_studies_never_take_a_series_for_a_label(tmp_path):
    study(tmp_path)
    assert not any(case.labels for case in load(tmp_path).cases)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"LossyImageCompression": "01"}, "compressed with loss"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "do not agree on its numbers"),
    ],
)
def test_numbers_that_may_have_changed_are_refused(tmp_path, attributes, words):
    study(tmp_path, 1, **attributes)
    with pytest.raises(FormatError, match=words):
        formats.read_label(tmp_path / "p0" / "mask")


def test_colours_and_other_grids(tmp_path):
    write_series(tmp_path / "rgb", np.zeros((2, 8, 8, 3), np.uint8), modality="MR")
    label = formats.read_label(tmp_path / "rgb")
    assert label.channels == ("red", "green", "blue")  # as of a picture: colours are values
    study(tmp_path, 1)
    moved = MATRIX.copy()
    moved[0, 3] += 3
    write_series(tmp_path / "moved", mask(0), moved, modality="MR", series="moved")
    with pytest.raises(DatasetError, match="does not lie on its image's grid"):
        placed(tmp_path / "moved", formats.read(tmp_path / "p0" / "ct"))

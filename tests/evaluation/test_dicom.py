"""Labels and predictions that refer to DICOM images: the same masks have the same scores in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cpfnet import formats
from cpfnet.errors import CpfnetError
from cpfnet.evaluation.case_masks import Item, load_masks
from cpfnet.evaluation.case_picture import overlay_of
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.image import Segmentation
from cpfnet.planning import Labels
from tests.data.dicom_studies import scan, write_rtstruct, write_seg

LABELS = Labels(classes=[{"name": "GTV-1", "values": [3]}, {"name": "lung", "values": [7]}])
BOXES = {"GTV-1": np.s_[2:5, 6:14, 5:12], "lung": np.s_[0:3, 15:20, 2:9]}
TRUTH = np.zeros((6, 24, 20), np.uint8)
for value, box in zip((3, 7), BOXES.values(), strict=True):
    TRUTH[box] = value


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return scan(tmp_path / "ct")


def predicted(tmp_path: Path, format: str, **maps: object) -> Segmentation:
    source = formats.read(tmp_path / "ct")
    segmentation = Segmentation(np.roll(TRUTH, 1, axis=2), source.affine, source.source, labels=LABELS)
    formats.write(segmentation, tmp_path / f"prediction_{format}", format=format)  # type: ignore[arg-type]
    return segmentation


def written(tmp_path: Path, format: str) -> Path:
    (path,) = tmp_path.glob(f"prediction_{format}.*")
    return path


def item(tmp_path: Path, truth: Path, prediction: Path | None = None, **more: object) -> Item:
    return Item("a", prediction, {"label": truth}, images=(tmp_path / "ct",), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["seg", "rtstruct"])
def test_labels_lie_on_the_grid_of_their_image(tmp_path, files, label):
    write = {"seg": write_seg, "rtstruct": write_rtstruct}[label]
    truth = write(tmp_path / "label.dcm", files, BOXES)
    masks = load_masks(item(tmp_path, truth), LABELS)
    np.testing.assert_array_equal(masks.truth["label"], np.select([TRUTH == 3, TRUTH == 7], [1, 2]))
    assert masks.affine is not None


def test_a_class_that_nobody_drew_in_the_truth_is_said(tmp_path, files):
    truth = write_rtstruct(tmp_path / "label.dcm", files, {"GTV-1": BOXES["GTV-1"]})
    (note,) = load_masks(item(tmp_path, truth), LABELS).warnings
    assert "'lung'" in note


@pytest.mark.parametrize("format", ["dicom-labelmap", "rtstruct", "nifti"])
def test_one_prediction_has_one_score_in_every_format(tmp_path, files, format):
    truth = write_rtstruct(tmp_path / "label.dcm", files, BOXES)
    for each in ("dicom-seg", format):
        predicted(tmp_path, each)
    first, other = (
        evaluate([item(tmp_path, truth, written(tmp_path, each))], LABELS).rows for each in ("dicom-seg", format)
    )
    assert first == other
    assert 0 < first[1]["dice"] < 1


@pytest.mark.parametrize("exact", [False, True])
def test_probabilities_come_back_from_a_fractional_segmentation(tmp_path, files, exact):
    rng = np.random.default_rng(0)
    planes = rng.dirichlet((1, 1, 1), TRUTH.shape).transpose(3, 0, 1, 2).astype(np.float32)
    segmentation = predicted(tmp_path, "dicom-seg")
    names = ("background", "GTV-1", "lung")
    truth = write_seg(tmp_path / "label.dcm", files, BOXES)
    format = "nifti" if exact else "same"
    maps = formats.write_map(planes, segmentation, tmp_path / "maps", names=names, format=format)
    masks = load_masks(item(tmp_path, truth, written(tmp_path, "dicom-seg"), probabilities=maps), LABELS)
    np.testing.assert_allclose(masks.probability, planes[1:], atol=1e-6 if exact else 0.5 / 255 + 1e-6)


def test_slices_without_probability_are_zero(tmp_path, files):
    planes = np.zeros((2, *TRUTH.shape), np.float32)
    planes[0, 2], planes[1, 4] = 0.2, 0.8
    segmentation = predicted(tmp_path, "dicom-seg")
    maps = formats.write_map(planes, segmentation, tmp_path / "maps", names=("GTV-1", "lung"))
    np.testing.assert_allclose(formats.read_map(maps, formats.read(tmp_path / "ct")), planes, atol=0.5 / 255 + 1e-6)


def test_masks_are_no_probabilities(tmp_path, files):
    predicted(tmp_path, "dicom-seg")
    with pytest.raises(CpfnetError, match="no fractional segmentation") as caught:
        formats.read_map(written(tmp_path, "dicom-seg"), formats.read(tmp_path / "ct"))
    assert "prediction_dicom-seg" in str(caught.value)


def test_the_picture_of_a_series(tmp_path, files):
    truth = write_rtstruct(tmp_path / "label.dcm", files, BOXES)
    predicted(tmp_path, "rtstruct")
    picture = overlay_of(item(tmp_path, truth, written(tmp_path, "rtstruct")), LABELS)
    assert picture is not None
    assert "of 6" in picture.caption
    assert picture.truth.sum(axis=(1, 2)).tolist() == [56, 35]  # of each class, on the slice that has both


def test_what_was_assumed_is_a_warning_of_the_scores(tmp_path):
    def nameless(_, header):
        header.SpecificCharacterSet = ""

    files = scan(tmp_path / "ct", edit=nameless)
    truth = write_rtstruct(tmp_path / "label.dcm", files, BOXES)
    predicted(tmp_path, "dicom-seg")
    scores = evaluate([item(tmp_path, truth, written(tmp_path, "dicom-seg"))], LABELS)
    assert any(warning.startswith("a: SpecificCharacterSet is empty") for warning in scores.warnings)


def test_a_prediction_for_another_series_is_refused(tmp_path, files):
    truth = write_seg(tmp_path / "label.dcm", files, BOXES)
    other = write_seg(tmp_path / "other.dcm", scan(tmp_path / "other", study="other"), BOXES)
    with pytest.raises(CpfnetError, match=r"other\.dcm: refers"):
        evaluate([item(tmp_path, truth, other)], LABELS)

"""Predicting from, into and with the formats of viewers: NRRD, segmentations of 3D Slicer, MetaImage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from cpfnet import formats
from cpfnet.evaluation.case_masks import load_masks
from cpfnet.evaluation.evaluate import Item
from tests import synthetic
from tests.inference.oracle import bright, make_model
from tests.predicting import predict_files

MASK = synthetic.phantom((5, 34, 36))[1]


def scan(path: Path, roll: int = 0) -> Path:
    """A scan that the oracle knows, by SimpleITK."""
    path.parent.mkdir(exist_ok=True, parents=True)
    image = sitk.GetImageFromArray(bright(np.roll(MASK, roll, axis=2), 3))
    image.SetSpacing((0.8, 0.9, 2.5))
    image.SetOrigin((-3, 5, 7))
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize(
    ("format", "suffix"), [("same", None), ("nrrd", ".nrrd"), ("seg-nrrd", ".seg.nrrd"), ("mha", ".mha")]
)
def test_each_format_in_and_out(tmp_path, format, suffix):
    names = ("a.nrrd", "b.nhdr", "c.mha", "d.mhd", "e.nii.gz")
    for name in names:
        scan(tmp_path / "in" / name)
    model = make_model(slices="axial")
    outcomes = predict_files(
        [model], [tmp_path / "in"], tmp_path / "out", device="cpu", format=format, probabilities=True
    )
    assert [outcome.status for outcome in outcomes] == ["done"] * 5
    own = {"a": ".nrrd", "b": ".nrrd", "c": ".mha", "d": ".mha", "e": ".nii.gz"}
    for name in names:
        letter = name[0]
        path = tmp_path / "out" / f"{letter}{suffix or own[letter]}"
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), MASK)
        assert sitk.ReadImage(str(path)).GetOrigin() == pytest.approx((-3, 5, 7))
        floats = "nrrd" if format == "seg-nrrd" else path.name.split(".", 1)[1]
        item = Item(
            case=letter,
            prediction=path,
            truth={"label": path},
            images=(tmp_path / "in" / name,),
            probabilities=tmp_path / "out" / "probabilities" / f"{letter}.{floats}",
        )
        masks = load_masks(item, model.plan.labels)
        np.testing.assert_array_equal(masks.prediction, MASK)
        np.testing.assert_array_equal(masks.probability.argmax(axis=0)[MASK > 0] + 1, MASK[MASK > 0])


def test_slicer_gets_the_names_of_the_classes(tmp_path):
    scan(tmp_path / "in" / "a.nrrd")
    predict_files([make_model(slices="axial")], [tmp_path / "in"], tmp_path / "out", device="cpu", format="seg-nrrd")
    image = sitk.ReadImage(str(tmp_path / "out" / "a.seg.nrrd"))
    assert [image.GetMetaData(f"Segment{n}_Name") for n in range(3)] == ["class 1", "class 2", "class 3"]
    assert len({image.GetMetaData(f"Segment{n}_Color") for n in range(3)}) == 3


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd"])
def test_resume_sees_voxels_that_changed_beside_their_header(tmp_path, name):
    path = scan(tmp_path / "in" / name)
    before = path.read_bytes()
    run = {"device": "cpu", "resume": True}
    model = make_model(slices="axial")
    predict_files([model], [tmp_path / "in"], tmp_path / "out", **run)
    (outcome,) = predict_files([model], [tmp_path / "in"], tmp_path / "out", **run)
    assert outcome.already_done
    scan(path, 3)
    assert path.read_bytes() == before
    (outcome,) = predict_files([model], [tmp_path / "in"], tmp_path / "out", **run)
    assert not outcome.already_done
    np.testing.assert_array_equal(formats.read(outcome.output).array[0], np.roll(MASK, 3, axis=2))


def test_masks_of_a_data_set_are_not_predicted(tmp_path):
    """TotalSegmentator's folders, and a segmentation that Slicer laid beside its image."""
    scan(tmp_path / "in" / "c1" / "ct.nrrd")
    scan(tmp_path / "in" / "c1" / "Segmentations" / "liver.nrrd", 1)
    scan(tmp_path / "in" / "c1" / "ct.seg.nrrd", 2)
    outcomes = predict_files([make_model(slices="axial")], [tmp_path / "in"], tmp_path / "out", device="cpu")
    assert [outcome.path.name for outcome in outcomes] == ["ct.nrrd"]


def test_a_result_takes_no_name_of_another(tmp_path):
    scan(tmp_path / "in" / "case.nii.gz")
    scan(tmp_path / "in" / "case.seg.nii.gz", 3)
    outcomes = predict_files(
        [make_model(slices="axial")], [tmp_path / "in"], tmp_path / "out", device="cpu", format="nrrd", overwrite=True
    )
    assert [outcome.status for outcome in outcomes] == ["done", "failed"]
    assert "choose another --format" in outcomes[1].message
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "case.nrrd")))
    np.testing.assert_array_equal(expected > 0, MASK > 0)

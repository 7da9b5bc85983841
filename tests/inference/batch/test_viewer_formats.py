"""Predicting from, into and with the formats of viewers: NRRD, segmentations of 3D Slicer, MetaImage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

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


def test_stacks_of_imagej_and_of_pictures(tmp_path):
    """Volumes of pictures: each becomes one TIFF with the distances of its voxels, or any other format."""
    voxels = bright(MASK, 3)
    options = {"axes": "ZYX", "unit": "mm", "spacing": 2.5}
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "a.tif", voxels, imagej=True, resolution=(1.25, 1.25), metadata=options)
    for index, plane in enumerate(voxels):
        (tmp_path / "in" / "b").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "in" / "b" / f"{index + 8}.tif", plane)
    inputs = [tmp_path / "in" / "a.tif", tmp_path / "in" / "b" / "stack=2.5x0.8x0.8"]
    model = make_model(slices="axial")
    for format, suffix in (("same", ".tif"), ("tiff", ".tif"), ("nifti", ".nii.gz"), ("seg-nrrd", ".seg.nrrd")):
        out = tmp_path / format
        run = {"device": "cpu", "format": format, "probabilities": True, "resume": True}
        for already in (False, True):
            outcomes = predict_files([model], inputs, out, **run)
            assert [(one.status, one.already_done) for one in outcomes] == [("done", already)] * 2
        for name, path in zip("ab", inputs, strict=True):
            image = formats.read(path)
            mask = formats.read(out / f"{name}{suffix}")
            np.testing.assert_array_equal(mask.array[0], MASK)
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-5)
            floats = ".nrrd" if format == "seg-nrrd" else suffix
            planes = formats.read_map(out / "probabilities" / f"{name}{floats}")
            np.testing.assert_array_equal(planes.argmax(axis=0), MASK)


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

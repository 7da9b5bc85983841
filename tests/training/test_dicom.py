"""Training on DICOM studies: what is cached of them, when it is made anew, and what is said."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cpfnet.data.case import Case
from cpfnet.data.dataset import load
from cpfnet.labels import IGNORED
from cpfnet.planning import LabelClass, Plan
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from cpfnet.training.samples import cache
from cpfnet.training.samples.preview import preview
from tests.data.dicom_studies import BOX, scan, write_rtstruct, write_seg
from tests.training.conftest import volumes_plan

SHAPE = (6, 24, 20)


def plan(**training: object) -> Plan:
    data = volumes_plan(**training).model_dump(mode="json")
    data["modality"] = "ct"
    data["labels"] = {"classes": [{"name": "tumour", "values": [1], "names": ["GTV*"]}]}
    return Plan.model_validate(data)


def unnamed(_: int, header: pydicom.Dataset) -> None:
    header.SpecificCharacterSet = ""


@pytest.fixture
def case(tmp_path: Path) -> Case:
    files = scan(tmp_path / "ct")
    return Case("a", "a", (tmp_path / "ct",), {"label": write_rtstruct(tmp_path / "rs.dcm", files)})


@pytest.mark.parametrize("write", [write_rtstruct, write_seg])
@pytest.mark.parametrize("workers", [0, 2])
def test_named_structures_become_codes(tmp_path, write, workers):
    cases = []
    for number in range(2):
        files = scan(tmp_path / str(number) / "ct", seed=number, patient=str(number))
        label = write(tmp_path / str(number) / "label.dcm", files, {"GTV-1": BOX, "Lung": np.s_[0:2, 0:3, 0:3]})
        cases.append(Case(f"c{number}", "p", (files[0].parent,), {"label": label}))
    expected = np.zeros(SHAPE, np.uint8)
    expected[BOX] = 1
    for found in cache.build(cases, plan(workers=workers), tmp_path / "cache"):
        np.testing.assert_array_equal(found.codes()[0], expected)
        assert found.image().shape == (1, *SHAPE)


def test_a_class_without_structure_is_said(tmp_path, case):
    """Nobody drew it there: learnt as background, it spoils a model without a word."""
    two = plan().labels.model_copy(update={"classes": (*plan().labels.classes, LabelClass(name="lung", values=(2,)))})
    (found,) = cache.build([case], plan().model_copy(update={"labels": two}), tmp_path / "cache")
    assert found.warnings == ("no structure of its label means 'lung': there it counts as background",)


def test_a_segmentation_may_be_the_region_of_interest(tmp_path, case):
    files = sorted((tmp_path / "ct").iterdir())
    region = np.s_[1:6, 2:20, 2:18]
    case = replace(case, roi=write_seg(tmp_path / "roi.dcm", files, {"body": region}))
    (found,) = cache.build([case], plan(), tmp_path / "cache")
    inside = np.zeros(SHAPE, bool)
    inside[region] = True
    assert (found.codes()[0][~inside] == IGNORED).all()
    assert (found.codes()[0][inside] != IGNORED).all()


def references(tmp_path: Path, case: Case) -> dict[str, Path]:
    """The series as a folder, as one of two in a folder, and in an archive."""
    folder = case.images[0]
    uid = pydicom.dcmread(next(folder.iterdir())).SeriesInstanceUID
    scan(tmp_path / "two" / "other", series="other")
    for file in folder.iterdir():
        (tmp_path / "two" / file.name).write_bytes(file.read_bytes())
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return {"folder": folder, "reference": tmp_path / "two" / f"series={uid}", "archive": tmp_path / "study.zip"}


@pytest.mark.parametrize("kind", ["folder", "reference", "archive"])
def test_a_series_is_cached_until_one_of_its_files_changes(tmp_path, case, kind):
    image = references(tmp_path, case)[kind]
    case = replace(case, images=(image,))
    folder = tmp_path / "cache"
    (first,) = cache.build([case], plan(), folder)
    (tmp_path / "two" / "notes.txt").write_text("of no importance")
    scan(tmp_path / "two" / "third", series="third")
    (again,) = cache.build([case], plan(), folder)
    assert again == first
    if kind == "archive":
        with zipfile.ZipFile(image, "a") as archive:
            archive.writestr("notes.txt", "of no importance, but who knows")
    else:
        one = (image if kind == "folder" else image.parent) / "slice_003.dcm"
        dataset = pydicom.dcmread(one)
        dataset.PixelData = b"\x84\x03" * (len(dataset.PixelData) // 2)
        dataset.save_as(one)
    (changed,) = cache.build([case], plan(), folder)
    assert changed.folder != first.folder
    assert (changed.digest == first.digest) == (kind == "archive")


def test_what_was_assumed_is_said_once_not_again_when_resumed(tmp_path, caplog):
    for number in range(3):
        files = scan(tmp_path / "data" / f"p{number}" / "ct", seed=number, patient=str(number), edit=unnamed)
        write_rtstruct(tmp_path / "data" / f"p{number}" / "rs.dcm", files)
    dataset = load(tmp_path / "data")
    train(dataset, plan(epochs=1), tmp_path / "out", TrainOptions(device="cpu", progress=False))
    about = [line for line in caplog.messages if "SpecificCharacterSet" in line]
    assert len(about) == 1
    names = about[0].split(":")[0].split(", ")
    assert sorted(names) == ["p0", "p1", "p2"]
    caplog.clear()
    train(dataset, plan(epochs=2), tmp_path / "out", TrainOptions(device="cpu", progress=False, resume=True))
    assert not any("SpecificCharacterSet" in line for line in caplog.messages)


def test_the_preview_draws_studies(tmp_path, case):
    scan(tmp_path / "data" / "p" / "ct")
    files = sorted((tmp_path / "data" / "p" / "ct").iterdir())
    write_rtstruct(tmp_path / "data" / "p" / "rs.dcm", files)
    assert preview(load(tmp_path / "data"), plan(), tmp_path / "preview.png").stat().st_size > 10_000

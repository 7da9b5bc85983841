"""A folder of DICOM studies is a data set, however it is nested."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.fileset import FileSet
from ruamel.yaml import YAML

from cpfnet import formats
from cpfnet.data.case import Case, Dataset, placed
from cpfnet.data.checks.check import check
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError
from cpfnet.image import Image
from cpfnet.planner.fingerprint import fingerprint
from cpfnet.planner.proposal import propose
from cpfnet.planning import LabelClass, Labels
from tests.data.dicom_studies import BOX, SHAPE, scan, write_rtstruct, write_seg
from tests.synthetic import PRIVATE, shared, write_nifti, write_photograph


def kinds(dataset: Dataset) -> list[str]:
    return [finding.kind for finding in dataset.problems]


def by_id(dataset: Dataset) -> dict[str, Case]:
    return {case.id: case for case in dataset.cases}


def declare(root: Path, text: str) -> None:
    YAML(typ="safe").load(text)
    (root / "dataset.yaml").write_text(text)


def two_patients(root: Path) -> Path:
    """anna with one study, ben with two; labels inside, in a folder of their own, and far away."""
    files = scan(root / "anna", patient="A", study="1")
    write_rtstruct(root / "anna" / "rs.dcm", files)
    files = scan(root / "ben" / "first" / "CT", patient="B", study="1")
    write_seg(root / "ben" / "first" / "SEG" / "1.dcm", files)
    files = scan(root / "ben" / "second" / "CT", patient="B", study="2")
    write_rtstruct(root / "contours" / "x" / "27.dcm", files)
    return root


def test_labels_find_their_series_wherever_they_lie(tmp_path: Path) -> None:
    root = two_patients(tmp_path / "studies")
    dataset = load(root)
    assert not dataset.problems
    assert {case.id: case.images[0].relative_to(root).as_posix() for case in dataset.cases} == {
        "anna": "anna",
        "ben_first": "ben/first/CT",
        "ben_second": "ben/second/CT",
    }
    labels = {case.id: case.labels["label"].relative_to(root).as_posix() for case in dataset.cases}
    assert labels == {"anna": "anna/rs.dcm", "ben_first": "ben/first/SEG/1.dcm", "ben_second": "contours/x/27.dcm"}
    expected = np.zeros(SHAPE, dtype=bool)
    expected[BOX] = True
    for case in dataset.cases:
        image = formats.read(case.images)
        label = formats.read_label(case.labels["label"], image)
        assert image.shape == SHAPE
        assert np.array_equal(label.array[0] > 0, expected)


def test_patients_come_from_the_headers_and_are_pseudonyms(tmp_path: Path) -> None:
    cases = by_id(load(two_patients(tmp_path)))
    assert cases["ben_first"].patient == cases["ben_second"].patient != cases["anna"].patient
    assert all(re.fullmatch("patient-[0-9a-f]{8}", case.patient) for case in cases.values())


def test_nothing_private_shows(tmp_path: Path) -> None:
    root = two_patients(tmp_path / "studies")
    scan(root / "anna" / "scout", patient="A", study="1", series="other", shape=(2, 24, 20))
    lost = scan(tmp_path / "lost", patient="A", study="9", series="lost")
    write_rtstruct(root / "lost.dcm", lost)
    write_rtstruct(root / "anna" / "again.dcm", scan(tmp_path / "copy", patient="A", study="1"), name="b")
    dataset = load(root)
    assert {"left-out", "no-image", "ambiguous-label"} <= set(kinds(dataset))
    found = fingerprint(dataset)
    plan, reasons = propose(found, dataset)
    text = json.dumps(
        [[asdict(case) for case in dataset.cases], [asdict(p) for p in dataset.problems], reasons, plan.model_dump()],
        default=str,
    )
    text = text.replace(str(tmp_path), "") + found.model_dump_json()
    for private in (*PRIVATE.values(), "Erika", "Muster"):
        assert private not in text


def test_flat_folder(tmp_path: Path) -> None:
    for number in range(3):
        files = scan(tmp_path, patient=f"P{number}", names=f"{number}_{{}}")
        write_rtstruct(tmp_path / f"rs{number}", files)
    dataset = load(tmp_path)
    assert not dataset.problems
    assert len({case.id for case in dataset.cases}) == len({case.patient for case in dataset.cases}) == 3
    assert all(re.fullmatch(re.escape(tmp_path.name) + "-[0-9a-f]{8}", case.id) for case in dataset.cases)
    assert [case.id for case in load(tmp_path).cases] == [case.id for case in dataset.cases]
    assert {formats.read(case.images).shape for case in dataset.cases} == {SHAPE}


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_the_only_channel_is_called_after_the_modality(tmp_path: Path, modality: str) -> None:
    for patient in "ab":
        files = scan(tmp_path / patient / "scan", patient=patient, modality=modality)
        write_rtstruct(tmp_path / patient / "rs.dcm", files)
    assert [channel.name for channel in fingerprint(load(tmp_path)).channels] == [modality]


def test_one_study_alone_is_called_as_its_folder(tmp_path: Path) -> None:
    files = scan(tmp_path / "mine")
    write_rtstruct(tmp_path / "mine" / "rs.dcm", files)
    assert [case.id for case in load(tmp_path / "mine").cases] == ["mine"]
    assert [case.id for case in load(tmp_path).cases] == ["mine"]


def test_folders_named_by_uids_make_short_ids(tmp_path: Path) -> None:
    for number in (1, 2):
        files = scan(tmp_path / "LIDC" / f"1.3.6.1.4.1.14519.{number}" / "1.3.6.1.4.1.9.9", patient=f"{number}")
        write_rtstruct(files[0].parent / "rs.dcm", files)
    assert all(re.fullmatch("[0-9a-f]{8}", case.id) for case in load(tmp_path).cases)


def test_pictures_of_one_series_are_cases_called_as_their_files(tmp_path: Path) -> None:
    for number in range(2):
        picture = np.full((32, 30), 90 * number, np.uint8)
        file = write_photograph(tmp_path / f"view_{number}.dcm", picture, modality="CR", series="one")
        assert file.exists()
    assert [case.id for case in load(tmp_path).cases] == ["view_0", "view_1"]


def test_medium_with_dicomdir(tmp_path: Path) -> None:
    source, medium = tmp_path / "source", FileSet()
    for number in range(2):
        for file in scan(source / f"p{number}", patient=f"P{number}", StudyTime="101112"):
            medium.add(file)
    medium.write(tmp_path / "disc")
    for number in range(2):
        write_rtstruct(tmp_path / "disc" / f"RS{number}", sorted((source / f"p{number}").iterdir()))
    dataset = load(tmp_path / "disc")
    assert (tmp_path / "disc" / "DICOMDIR").exists()
    assert not dataset.problems
    assert [case.id for case in dataset.cases] == ["PT000000", "PT000001"]


def test_archives(tmp_path: Path) -> None:
    for number in (1, 2):
        files = scan(tmp_path / "out" / f"p{number}", patient=f"P{number}")
        files.append(write_rtstruct(tmp_path / "out" / "rs.dcm", files))
        with zipfile.ZipFile(tmp_path / f"p{number}.zip", "w") as archive:
            for file in files:
                archive.write(file, f"study/{file.name}")
    shutil.rmtree(tmp_path / "out")
    dataset = load(tmp_path)
    assert not dataset.problems
    assert [case.id for case in dataset.cases] == ["p1", "p2"]
    for case in dataset.cases:
        image = formats.read(case.images)
        assert formats.read_label(case.labels["label"], image).array.sum() == 3 * 8 * 7


def test_download_beside_what_was_unpacked_from_it(tmp_path: Path) -> None:
    root = tmp_path / "set"
    files = scan(root / "p1")
    write_rtstruct(root / "p1" / "rs.dcm", files)
    shutil.make_archive(str(root / "download"), "zip", root / "p1")
    dataset = load(root)
    assert [(case.id, case.images) for case in dataset.cases] == [("p1", (root / "p1",))]
    assert [(f.severity, f.kind, f.where) for f in dataset.problems] == [("note", "archive", "set")]
    files[-1].unlink()
    assert [(f.severity, f.kind, f.where) for f in load(root).problems] == [
        ("warning", "archive", "download.zip"),
        ("note", "archive", "set"),
    ]


def zipped(folder: Path) -> Path:
    """An archive in the folder's place."""
    path = Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))
    shutil.rmtree(folder)
    return path


def test_archive_beside_folders_is_a_study_as_they_are(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        files = scan(tmp_path / "train" / f"p{number}", patient=f"P{number}")
        write_rtstruct(tmp_path / "train" / f"p{number}" / "rs.dcm", files)
    archive = zipped(tmp_path / "train" / "p3")
    scan(tmp_path / "train" / "p4", patient="P4")
    zipped(tmp_path / "train" / "p4")
    write_nifti(tmp_path / "code" / "a.nii", np.zeros((2, 3, 4), np.uint8))
    zipped(tmp_path / "code")
    dataset = load(tmp_path)
    assert not dataset.problems
    assert {case.id: (bool(case.labels), case.split) for case in dataset.cases} == {
        "p1": (True, "train"),
        "p2": (True, "train"),
        "p3": (True, "train"),
        "p4": (False, "train"),
    }
    case = by_id(dataset)["p3"]
    assert case.images == (archive,)
    assert formats.read_label(case.labels["label"], formats.read(case.images)).array.sum() == 3 * 8 * 7


def test_labels_in_an_archive_find_unpacked_series(tmp_path: Path) -> None:
    for number in (1, 2):
        files = scan(tmp_path / f"p{number}", patient=f"P{number}")
        write_rtstruct(tmp_path / "labels" / f"{number}.dcm", files)
    zipped(tmp_path / "labels")
    dataset = load(tmp_path)
    assert not dataset.problems
    for case in dataset.cases:
        assert formats.read_label(case.labels["label"], formats.read(case.images)).array.sum() == 3 * 8 * 7


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda content: content[: len(content) // 2], "is no readable ZIP archive"),
        (lambda content: content.replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"), "is encrypted"),
    ],
)
def test_archive_that_cannot_be_read_is_a_finding(tmp_path: Path, harm, words: str, alone: bool) -> None:
    for number in range(1 + (not alone)):
        files = scan(tmp_path / f"p{number}", patient=f"P{number}")
        write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files)
    archive = zipped(tmp_path / "p0")
    archive.write_bytes(harm(archive.read_bytes()))
    if alone:
        with pytest.raises(DatasetError, match=f"no usable case.*p0.zip: {words}"):
            load(tmp_path)
        return
    (finding,) = load(tmp_path).problems
    assert (finding.severity, finding.kind, finding.where) == ("error", "unreadable", "p0.zip")
    assert words in finding.what
    assert finding.fix.endswith("; or move `p0.zip` elsewhere")


@pytest.mark.parametrize("name", ["p1.zip", "p1/slice_000.dcm", "p1/DICOMDIR"])
def test_the_folder_is_the_data_set_not_a_file_in_it(name: str, tmp_path: Path) -> None:
    files = scan(tmp_path / "p1")
    shutil.copy(files[0], tmp_path / "p1" / "DICOMDIR")
    shutil.make_archive(str(tmp_path / "p1"), "zip", tmp_path / "p1")
    with pytest.raises(DatasetError, match=r"is no DATASET\n.*give the folder that holds it: `") as refused:
        load(tmp_path / name)
    assert f"`{(tmp_path / name).parent}`" in str(refused.value.fix)


def test_splits_stand_above(tmp_path: Path) -> None:
    for split, name in (("train", "p1"), ("train", "p2"), ("test", "p1"), ("test", "p3")):
        files = scan(tmp_path / split / name, patient=name, study=split)
        write_rtstruct(tmp_path / split / name / "rs.dcm", files)
    cases = by_id(load(tmp_path))
    assert {case.id: case.split for case in cases.values()} == {
        "p1_train": "train",
        "p1_test": "test",
        "p2": "train",
        "p3": "test",
    }
    assert cases["p1_train"].patient == cases["p1_test"].patient  # which `check` then calls a leak


def test_unlabelled_series_do_not_flood(tmp_path: Path) -> None:
    root = tmp_path
    for number in (1, 2):
        files = scan(root / f"p{number}" / "portal", patient=f"P{number}", series="portal")
        write_rtstruct(root / f"p{number}" / "rs.dcm", files)
        scan(root / f"p{number}" / "native", patient=f"P{number}", series="native")
        scan(root / f"p{number}" / "pet", patient=f"P{number}", series="pet", modality="PT")
    scan(root / "p3" / "portal", patient="P3", series="portal")
    scan(root / "p3" / "thin", patient="P3", series="thin", shape=(3, 24, 20))
    dataset = load(root)
    assert {case.id: bool(case.labels) for case in dataset.cases} == {"p1": True, "p2": True, "p3": False}
    assert by_id(dataset)["p3"].images[0] == root / "p3" / "portal"
    (note,) = dataset.problems
    assert (note.severity, note.kind) == ("note", "left-out")
    assert "5 image series without label left out (3 CT, 2 PT): 4 beside a labelled series" in note.what


def test_without_any_label_every_series_is_a_case(tmp_path: Path) -> None:
    scan(tmp_path / "p1", patient="P1")
    scan(tmp_path / "p2", patient="P2")
    dataset = load(tmp_path)
    assert [case.labels for case in dataset.cases] == [{}, {}]
    with pytest.raises(DatasetError, match="none of 2 cases has a label"):
        fingerprint(dataset)


def test_frame_of_reference_joins_what_refers_to_nothing(tmp_path: Path) -> None:
    files = scan(tmp_path / "a", patient="A")
    write_rtstruct(tmp_path / "labels" / "a.dcm", files, refer=False)
    files = scan(tmp_path / "b", patient="B")
    write_rtstruct(tmp_path / "labels" / "b.dcm", files, refer=False, frame=False)
    dataset = load(tmp_path)
    assert not dataset.problems
    assert {case.id: case.labels["label"].name for case in dataset.cases} == {"a": "a.dcm", "b": "b.dcm"}


def test_label_of_another_series_in_the_same_frame_is_said(tmp_path: Path) -> None:
    lost = scan(tmp_path / "lost", series="arterial")
    scan(tmp_path / "set" / "p", series="portal")
    write_rtstruct(tmp_path / "set" / "p" / "rs.dcm", lost)
    dataset = load(tmp_path / "set")
    (finding,) = dataset.problems
    assert (finding.severity, finding.kind, finding.where) == ("warning", "other-series", "p/rs.dcm")
    (case,) = dataset.cases
    assert formats.read_label(case.labels["label"], formats.read(case.images)).array.sum() == 3 * 8 * 7


def test_ambiguous_frame_of_reference_is_settled_by_modality(tmp_path: Path) -> None:
    files = scan(tmp_path / "p" / "ct", series="ct")
    scan(tmp_path / "p" / "pet", series="pet", modality="PT")
    write_rtstruct(tmp_path / "p" / "rs.dcm", files, refer=False)
    (finding,) = load(tmp_path).problems
    assert finding.kind == "ambiguous-image"
    assert finding.fix == "write `modality: ct` into `dataset.yaml`; or write `modality: pet` into `dataset.yaml`"
    declare(tmp_path, "modality: ct")
    dataset = load(tmp_path)
    assert not dataset.problems
    assert [case.images[0].name for case in dataset.cases] == ["ct"]


def test_label_that_refers_to_two_series_is_settled_by_modality(tmp_path: Path) -> None:
    files = [*scan(tmp_path / "p" / "ct", series="ct"), *scan(tmp_path / "p" / "mr", series="mr", modality="MR")]
    write_rtstruct(tmp_path / "p" / "rs.dcm", files)
    (finding,) = load(tmp_path).problems
    assert finding.kind == "ambiguous-image"
    declare(tmp_path, "modality: ct")
    (case,) = load(tmp_path).cases
    assert (case.images[0].name, len(case.labels)) == ("ct", 1)


def test_labelled_series_of_another_modality_are_left_out_aloud(tmp_path: Path) -> None:
    for patient, modality in (("a", "CT"), ("b", "CT"), ("c", "MR")):
        files = scan(tmp_path / patient, patient=patient, modality=modality)
        write_rtstruct(tmp_path / patient / "rs.dcm", files)
    declare(tmp_path, "modality: ct")
    dataset = load(tmp_path)
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert [f.what for f in dataset.problems] == ["1 labelled image series of another modality left out (1 mr): `c`"]


def test_label_of_nothing_here(tmp_path: Path) -> None:
    files = scan(tmp_path / "set" / "p", patient="P")
    write_rtstruct(tmp_path / "set" / "p" / "rs.dcm", files)
    write_rtstruct(tmp_path / "set" / "alien.dcm", scan(tmp_path / "elsewhere", patient="Q"))
    (finding,) = load(tmp_path / "set").problems
    assert (finding.kind, finding.where) == ("no-image", "alien.dcm")
    (tmp_path / "set" / "alien.dcm").unlink()
    assert not load(tmp_path / "set").problems


def readers(root: Path) -> Path:
    for number in (1, 2):
        files = scan(root / f"p{number}", patient=f"P{number}")
        write_rtstruct(root / f"p{number}" / "anna.dcm", files, name="a")
        write_rtstruct(root / f"p{number}" / "ben.dcm", files, {"GTV-1": np.s_[2:4, 6:14, 5:12]}, name="b")
    return root


def test_several_labels_of_a_series_are_refused_and_every_fix_works(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="2 labels of the same image series"):
        load(readers(tmp_path / "all"))
    files = scan(tmp_path / "all" / "p3", patient="P3")
    write_rtstruct(tmp_path / "all" / "p3" / "anna.dcm", files)
    found = [finding for finding in load(tmp_path / "all").problems if finding.kind == "ambiguous-label"]
    assert [finding.case for finding in found] == ["p1", "p2"]
    for number, fix in enumerate(found[0].fix.split("; or ")):
        root = shutil.copytree(tmp_path / "all", tmp_path / f"{number}")
        if fix.startswith("move "):
            (root / fix.split("`")[1]).unlink()
        else:
            assert fix.endswith("`dataset.yaml`") or fix.endswith("if each is the work of one reader")
            declare(root, fix.split("`")[1])
        assert not any(f.case == "p1" for f in load(root).problems), fix
    last = load(tmp_path / f"{number}")
    assert by_id(last)["p1"].labels.keys() == {"reader1", "reader2"}


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_one_object_for_each_structure(tmp_path: Path, kind: str) -> None:
    boxes = {"Liver": BOX, "Spleen": np.s_[0:1, 0:3, 0:3], "Lesion": np.s_[2:3, 6:9, 6:9]}
    for number in (1, 2, 3):
        files = scan(tmp_path / f"p{number}" / "ct", patient=f"P{number}")
        for name, box in boxes.items():
            path = tmp_path / f"p{number}" / "segmentations" / f"{name}.dcm"
            if kind == "seg":
                write_seg(path, files, {name: box})
            else:
                write_rtstruct(path, files, {name: box}, name=f"{number} {name}")
    dataset = load(tmp_path)
    assert [case.labels["label"].name for case in dataset.cases] == ["segmentations"] * 3
    image = formats.read(dataset.cases[0].images)
    label = placed(dataset.cases[0].labels["label"], image)
    for name in boxes:
        (own,) = [path for path in (tmp_path / "p1" / "segmentations").iterdir() if path.stem == name]
        alone = formats.read_label(own, image)
        np.testing.assert_array_equal(drawn(label, name), drawn(alone, name))
        assert drawn(alone, name).any()
    only = placed(dataset.cases[0].labels["label"], image, Labels(classes=(LabelClass(name="liver", values=(1,)),)))
    assert set().union(*only.meanings) == {"Liver"}
    errors = [finding for finding in check(tmp_path) if finding.severity == "error"]
    assert {finding.kind for finding in errors} == {"overlap"}  # Lesion lies in Liver
    declare(tmp_path, "labels: {Liver: Liver, Lesion: Lesion, Spleen: Spleen, overlap: last}")
    assert not [finding for finding in check(tmp_path) if finding.severity == "error"]


def drawn(label: Image, name: str) -> np.ndarray:
    return np.isin(label.array[0], [number for number, names in enumerate(label.meanings) if name in names])


def test_objects_of_one_structure_among_those_of_other_images_are_refused(tmp_path: Path) -> None:
    """Their folder would not say which are meant."""
    for number in (1, 2):
        files = scan(tmp_path / "ct" / f"p{number}", patient=f"P{number}")
        for name in ("Liver", "Spleen"):
            write_seg(tmp_path / "seg" / f"{number}{name}.dcm", files, {name: BOX})
    with pytest.raises(DatasetError, match="each with structures of its own") as refused:
        load(tmp_path)
    assert "give them a folder of their own" in str(refused.value)


def test_many_labels_of_a_series_are_told_in_few_words(tmp_path: Path) -> None:
    files = scan(tmp_path / "p")
    for number in range(12):
        write_rtstruct(tmp_path / "p" / f"rs_{number}.dcm", files, name=f"{number}")
    with pytest.raises(DatasetError, match="12 labels of the same image series") as refused:
        load(tmp_path)
    assert len(str(refused.value)) < 600


def test_no_pattern_is_offered_that_would_drop_the_labels_of_others(tmp_path: Path) -> None:
    for number in (1, 2):
        files = scan(tmp_path / f"p{number}", patient=f"P{number}")
        for part in range(number):
            write_rtstruct(tmp_path / f"p{number}" / f"RS.1.2.{number}.{part}.dcm", files, name=f"{part}")
    (finding,) = load(tmp_path).problems
    assert finding.fix == "move `p2/RS.1.2.2.1.dcm` elsewhere; or move `p2/RS.1.2.2.0.dcm` elsewhere"


def test_seg_beside_rtstruct_is_chosen_by_kind(tmp_path: Path) -> None:
    files = scan(tmp_path / "p1" / "ct", patient="P1")
    write_rtstruct(tmp_path / "p1" / "rs" / "1.dcm", files)
    write_seg(tmp_path / "p1" / "seg" / "1.dcm", files)
    with pytest.raises(DatasetError, match="write `label: rtstruct` into"):
        load(tmp_path)
    for kind, folder in (("rtstruct", "rs"), ("seg", "seg")):
        declare(tmp_path, f"label: {kind}")
        (case,) = load(tmp_path).cases
        assert case.labels["label"].parent.name == folder


def test_label_that_finds_nothing(tmp_path: Path) -> None:
    files = scan(tmp_path / "p1")
    write_rtstruct(tmp_path / "p1" / "rs.dcm", files)
    declare(tmp_path, "label: seg")
    with pytest.raises(DatasetError, match=r"'seg' finds no segmentation.*p1/rs.dcm"):
        load(tmp_path)
    declare(tmp_path, "modality: mr")
    with pytest.raises(DatasetError, match="none of 1 image series is mr; there are 1 ct"):
        load(tmp_path)


def test_modalities_must_agree(tmp_path: Path) -> None:
    for modality in ("CT", "MR"):
        files = scan(tmp_path / modality, patient=modality, modality=modality)
        write_rtstruct(tmp_path / modality / "rs.dcm", files)
    with pytest.raises(DatasetError, match=r"several modalities: 1 ct, 1 mr; mr is `MR`\n"):
        load(tmp_path)
    declare(tmp_path, "modality: mr")
    assert [case.id for case in load(tmp_path).cases] == ["MR"]


def test_empty_patient_ids_are_patients_of_their_own(tmp_path: Path) -> None:
    for number in (1, 2):
        files = scan(tmp_path / f"p{number}", patient="", study=f"{number}")
        write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files)
    dataset = load(tmp_path)
    assert len({case.patient for case in dataset.cases}) == 2
    assert kinds(dataset) == ["no-patient"]
    declare(tmp_path, "patient: 'p(.)'")
    dataset = load(tmp_path)
    assert not dataset.problems
    assert [case.patient for case in dataset.cases] == ["1", "2"]


@pytest.mark.parametrize(
    ("folders", "example"), [(["pat_1", "pat_2", "pat_3"], None), (["a_1", "a_2", "b_1"], "patient: '^(.*)_'")]
)
def test_an_example_of_patients_makes_several(folders: list[str], example: str | None, tmp_path: Path) -> None:
    for number, folder in enumerate(folders):
        files = scan(tmp_path / folder, patient="", study=f"{number}")
        write_rtstruct(tmp_path / folder / "rs.dcm", files)
    (finding,) = load(tmp_path).problems
    assert re.findall("`(patient: .*?)`", finding.fix) == ([example] if example else [])
    if example:
        declare(tmp_path, example)
        assert [case.patient for case in load(tmp_path).cases] == ["a", "a", "b"]


def test_other_formats_among_studies_are_told(tmp_path: Path) -> None:
    files = scan(tmp_path / "p1", patient="P1")
    write_rtstruct(tmp_path / "p1" / "rs.dcm", files)
    for name in ("p2/image.nii.gz", "p2/mask.nii.gz", ".hidden/x.nii"):
        write_nifti(tmp_path / name, np.ones((4, 5, 6), np.uint8))
    (finding,) = load(tmp_path).problems
    assert (finding.severity, finding.kind) == ("note", "listing")
    assert "2 image files of other formats, such as p2/image.nii.gz, lie among" in finding.what
    header, line, name = finding.fix.split("`")[1::2]
    (tmp_path / name).write_text(f"{header}\n{line}\np2/image.nii.gz,p2/mask.nii.gz\n")
    dataset = load(tmp_path / name)
    assert not dataset.problems
    assert len(dataset.cases) == 2


def test_studies_without_any_uid(tmp_path: Path) -> None:
    """As anonymising tools leave them: the file meta, the folder and the frame of reference must do."""
    empty = {"StudyInstanceUID": "", "SeriesInstanceUID": ""}
    for number in (1, 2):
        files = scan(tmp_path / f"p{number}", patient="", study=f"{number}", seed=number, **empty)
        write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files, refer=False, name=f"{number}")
    cases = by_id(load(tmp_path))
    assert cases.keys() == {"p1", "p2"}
    for case in cases.values():
        assert case.labels["label"].parent == case.images[0] == tmp_path / case.id
        assert formats.read_label(case.labels["label"], formats.read(case.images)).array.sum() == 3 * 8 * 7
    assert cases["p1"].patient != cases["p2"].patient


def test_one_patient_id_for_all_is_said_and_fixed(tmp_path: Path) -> None:
    for number in (1, 2):
        files = scan(tmp_path / f"p{number}", patient="ANON", study=f"{number}")
        write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files)
    dataset = load(tmp_path)
    (finding,) = dataset.problems
    assert (finding.kind, len({case.patient for case in dataset.cases})) == ("one-patient", 1)
    declare(tmp_path, finding.fix.split("`")[1])
    assert [case.patient for case in load(tmp_path).cases] == ["p1", "p2"]


def test_a_series_that_was_never_fetched_is_one_finding(tmp_path: Path) -> None:
    for patient in "ab":
        files = scan(tmp_path / patient / "ct", patient=patient)
        write_rtstruct(tmp_path / patient / "rs.dcm", files)
    for path in [*files, tmp_path / "a" / "rs.dcm"]:
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n")
    findings = {f.where: f for f in load(tmp_path).problems if f.kind == "lfs-pointer"}
    assert sorted(findings) == ["a/rs.dcm", "b/ct"]
    assert findings["b/ct"].what.startswith(f"{len(files)} files, such as `b/ct/")
    assert len(findings["b/ct"].files) == len(files)
    assert all(f.fix.startswith("fetch the content with `git lfs pull`; or ") for f in findings.values())


def test_the_label_to_add_is_called_after_the_case_alone(tmp_path: Path) -> None:
    """A case called c changes no suffix."""
    labelled, other = (Case(name, name, (tmp_path / name / "ct",), {}) for name in "cb")
    labelled.labels["label"] = tmp_path / "c" / "c_mask.dcm"
    fixes = FixSuggestions(Dataset(tmp_path, "set", (labelled, other)))
    assert fixes.add_label(other) == "add the label `b/b_mask.dcm`"


def test_damaged_file_beside_the_cases(tmp_path: Path) -> None:
    files = scan(tmp_path / "p1")
    write_rtstruct(tmp_path / "labels" / "a.dcm", files)
    (tmp_path / "labels" / "b.dcm").write_text("<html>please log in</html>")
    (tmp_path / "labels" / "README.txt").write_text("not DICOM, and no problem")
    (finding,) = load(tmp_path).problems
    assert (finding.kind, finding.where) == ("html-page", "labels/b.dcm")
    (tmp_path / "labels" / "b.dcm").unlink()
    assert not load(tmp_path).problems


def test_labels_without_images(tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "labels" / "a.dcm", scan(tmp_path / "p"))
    with pytest.raises(DatasetError, match="1 DICOM segmentations or structure sets, but no image"):
        load(tmp_path / "labels")


@pytest.mark.parametrize("how", ["folder", "archive", "file"])
def test_plain_layout(tmp_path: Path, how: str) -> None:
    """images/ with a series each, masks/ with NIfTI or DICOM called alike."""
    for number in range(3):
        name = f"c{number}"
        files = scan(tmp_path / "images" / name, patient=f"P{number}")
        if number == 0:
            write_rtstruct(tmp_path / "masks" / f"{name}.dcm", files)
        elif number == 1:
            write_seg(tmp_path / "masks" / f"{name}_seg.dcm", files)
        else:
            mask = np.zeros(SHAPE, dtype=np.uint8)
            mask[BOX] = 1
            write_nifti(tmp_path / "masks" / f"{name}.nii.gz", mask, np.diag([-1.0, -1.0, 1.0, 1.0]))
        if how == "archive":
            with zipfile.ZipFile(tmp_path / "images" / f"{name}.zip", "w") as archive:
                for file in files:
                    archive.write(file, file.name)
        if how == "file":
            shutil.copy(files[0], tmp_path / "images" / f"{name}.dcm")
        if how != "folder":
            shutil.rmtree(files[0].parent)
    dataset = load(tmp_path)
    assert not dataset.problems
    assert {case.id: bool(case.labels) for case in dataset.cases} == {"c0": True, "c1": True, "c2": True}
    if how != "file":
        for case in dataset.cases:
            image = formats.read(case.images)
            assert formats.read_label(case.labels["label"], image).array.sum() == 3 * 8 * 7


def test_archive_among_other_images_is_none(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        write_nifti(tmp_path / folder / "a.nii.gz", np.ones((4, 5, 6), np.uint8))
        (tmp_path / folder / "download.zip").write_bytes(b"PK")
    dataset = load(tmp_path)
    assert not dataset.problems
    assert [case.id for case in dataset.cases] == ["a"]


def test_images_and_masks_called_unlike_are_joined_by_reference(tmp_path: Path) -> None:
    for number in range(2):
        files = scan(tmp_path / "images" / f"c{number}", patient=f"P{number}")
        write_rtstruct(tmp_path / "labels" / f"RS.{number + 7}.dcm", files)
    assert {case.id: case.labels["label"].name for case in load(tmp_path).cases} == {"c0": "RS.7.dcm", "c1": "RS.8.dcm"}


def test_manifest_names_folders_archives_and_series(tmp_path: Path) -> None:
    files = scan(tmp_path / "p1", patient="P1")
    write_rtstruct(tmp_path / "rs" / "p1.dcm", files)
    two = [scan(tmp_path / "p2", patient="P2", series=s, names=s + "{}.dcm") for s in "ab"]
    write_rtstruct(tmp_path / "rs" / "p2.dcm", two[1])
    uid = pydicom.dcmread(two[1][0]).SeriesInstanceUID
    (tmp_path / "cases.csv").write_text(
        f"image,label\np1,rs/p1.dcm\np2/series={uid[-12:]},rs/p2.dcm\np9/series=1.2,rs/p2.dcm\n"
    )
    dataset = load(tmp_path / "cases.csv")
    assert [(f.kind, f.case) for f in dataset.problems] == [("missing-file", "p9")]
    cases = by_id(dataset)
    assert cases.keys() == {"p1", "p2", "p9"}
    assert formats.read_label(cases["p2"].labels["label"], formats.read(cases["p2"].images)).array.sum() == 3 * 8 * 7
    content = {"training": [{"image": "p1", "label": "rs/p1.dcm"}, {"image": f"p2/series={uid}", "label": "rs/p2.dcm"}]}
    (tmp_path / "list.json").write_text(json.dumps(content))
    assert [case.id for case in load(tmp_path / "list.json").cases] == ["p1", "p2"]


def test_plain_cases_of_one_patient_stay_together(tmp_path: Path) -> None:
    for number in range(3):
        files = scan(tmp_path / "images" / f"c{number}", patient=f"P{number // 2}", study=f"{number}")
        write_rtstruct(tmp_path / "masks" / f"c{number}.dcm", files)
    cases = by_id(load(tmp_path))
    assert cases["c0"].patient == cases["c1"].patient
    assert re.fullmatch("patient-[0-9a-f]{8}", cases["c0"].patient)
    assert cases["c2"].patient == "c2"
    declare(tmp_path, "patient: '.+'")
    assert [case.patient for case in load(tmp_path).cases] == ["c0", "c1", "c2"]


def test_patterns_find_folders_of_series(tmp_path: Path) -> None:
    for number in range(2):
        files = scan(tmp_path / f"p{number}" / "dicom", patient=f"P{number}")
        write_rtstruct(tmp_path / f"p{number}" / "RS.dcm", files)
        (tmp_path / f"p{number}" / "notes").mkdir()
    declare(tmp_path, "image: '{case}/*'\nlabel: '{case}/RS.dcm'")
    dataset = load(tmp_path)
    assert {f.kind for f in dataset.problems} <= {"duplicate-case"}  # RS.dcm is a file that * matches
    declare(tmp_path, "image: '{case}/dicom'\nlabel: '{case}/RS.dcm'")
    dataset = load(tmp_path)
    assert not dataset.problems
    assert [case.images[0].name for case in dataset.cases] == ["dicom", "dicom"]


def test_label_pattern_without_image_needs_dicom(tmp_path: Path) -> None:
    write_nifti(tmp_path / "images" / "a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    write_nifti(tmp_path / "masks" / "a.nii.gz", np.zeros((4, 5, 6), np.uint8))
    declare(tmp_path, "label: '*/a.nii.gz'")
    with pytest.raises(DatasetError, match="`label`"):
        load(tmp_path)


def test_plan_of_studies(tmp_path: Path) -> None:
    spellings = ("GTV-1", "gtv_1", "GTV-1")
    for number, name in enumerate(spellings):
        files = scan(tmp_path / f"p{number}", patient=f"P{number}", seed=number)
        write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files, {name: BOX})
    dataset = load(tmp_path)
    found = fingerprint(dataset)
    assert (found.cases, found.patients, found.volumes, found.modality) == (3, 3, True, "ct")
    assert found.values == {"GTV-1": 2, "gtv_1": 1}
    plan, reasons = propose(found, dataset)
    assert plan.modality == "ct"
    assert "DICOM" in reasons["modality"]
    (gtv,) = plan.labels.classes
    assert (gtv.name, gtv.values, gtv.names) == ("GTV-1", (1,), ("gtv_1",))
    assert gtv.category is not None
    assert gtv.type is not None
    assert found.classes[0].frequency == pytest.approx(3 * 8 * 7 / np.prod(SHAPE))
    assert fingerprint(load(tmp_path), workers=1) == found


def test_declared_names_choose_structures(tmp_path: Path) -> None:
    boxes = {
        "GTV primary": BOX,
        "Lung_L": np.s_[1:5, 2:6, 2:6],
        "Lungs": np.s_[1:5, 2:6, 12:16],
        "BODY": np.s_[0:6, 1:20, 1:18],
    }
    for number in range(2):
        files = scan(tmp_path / f"p{number}", patient=f"P{number}")
        write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files, boxes)
    with pytest.raises(DatasetError, match="structures cover each other") as refused:
        fingerprint(load(tmp_path))
    line = re.search("`(labels: .*?)`", str(refused.value.fix))
    assert line is not None
    declare(tmp_path, line[1])
    assert fingerprint(load(tmp_path)).labels.classes[0].name == "BODY"
    declare(tmp_path, 'labels: {tumour: "GTV*", lung: ["Lung*", "lungs"]}')
    found = fingerprint(load(tmp_path))
    assert [(c.name, c.cases) for c in found.classes] == [("tumour", 1.0), ("lung", 1.0)]
    assert found.classes[1].frequency == pytest.approx(2 * 4 * 4 * 4 / np.prod(SHAPE))


@pytest.mark.slow
def test_lung_ct_from_folder_to_plan() -> None:
    root = shared("LungCT")
    dataset = load(root)
    assert [case.id for case in dataset.cases] == ["pat_1", "pat_2", "pat_3"]
    assert len({case.patient for case in dataset.cases}) == 3
    assert kinds(dataset) == ["listing"]
    found = fingerprint(dataset)
    plan, _ = propose(found, dataset)
    assert plan.modality == "ct"
    assert [c.name for c in plan.labels.classes] == ["GTV-1"]
    assert found.classes[0].cases == 1
    assert found.channels[0].low < -900  # HU


def test_dicom_seg_from_folder(tmp_path: Path) -> None:
    """Two segmentations of one series, each with structures of its own: together, chosen, or as readers."""
    root = Path(shutil.copytree(shared("DicomSeg"), tmp_path / "set"))
    dataset = load(root)
    assert "together" in kinds(dataset)
    (case,) = dataset.cases
    image = formats.read(case.images)
    label = placed(case.labels["label"], image)
    for name, file in (("Liver", "liver.dcm"), ("ORANGE", "partial_overlaps.dcm")):
        alone = formats.read_label(root / file, image)
        np.testing.assert_array_equal(drawn(label, name), drawn(alone, name))
    assert len(frozenset().union(*label.meanings)) == 6
    declare(root, "label: liver.dcm")
    assert [c.name for c in fingerprint(load(root)).labels.classes] == ["Liver"]
    declare(root, "label: {anna: liver.dcm, ben: partial_overlaps.dcm}")
    (case,) = load(root).cases
    assert case.labels.keys() == {"anna", "ben"}


def test_abdomen_ct_with_labels_beside(tmp_path: Path) -> None:
    """NIfTI labels are not guessed; what is said to do about them works."""
    root = tmp_path / "abdomen"
    root.symlink_to(shared("AbdomenCT"))
    (finding,) = load(root).problems
    header, line, name = finding.fix.split("`")[1::2]
    (tmp_path / name).write_text(f"{header}\n{''.join(f'abdomen/{part},' for part in line.split(','))[:-1]}\n")
    (case,) = load(tmp_path / name).cases
    header = formats.read_header(case.images)
    label = formats.read_label(case.labels["label"], header)
    assert label.shape == header.shape
    assert header.modality == "ct"

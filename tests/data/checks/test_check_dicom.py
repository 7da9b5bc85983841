"""What `check` finds in DICOM studies.

Each planted defect at its place, each fix followed literally, nothing private said.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from cpfnet import plan
from cpfnet.cli.app import app
from cpfnet.data.checks.check import check
from cpfnet.data.finding import Finding
from cpfnet.errors import DatasetError
from tests.data.checks.follow_fixes import follow
from tests.data.dicom_studies import scan, write_rtstruct, write_seg
from tests.synthetic import PRIVATE, shared

GTV, LUNG = np.s_[2:5, 6:14, 5:9], np.s_[1:5, 3:10, 11:18]
BOTH = {"GTV": GTV, "Lung": LUNG}
PATIENTS = [f"pat_{number}" for number in range(1, 7)]


def _files(root: Path, patient: str) -> list[Path]:
    return sorted((root / patient / "ct").iterdir())


def _draw(root: Path, patient: str, structures: dict[str, tuple[slice, slice, slice]], **options: bool) -> None:
    write_rtstruct(root / patient / "rs.dcm", _files(root, patient), structures, **options)


@pytest.fixture(scope="session")
def treated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients with a CT series and two structures each."""
    root = tmp_path_factory.mktemp("treated") / "treated"
    for number, patient in enumerate(PATIENTS):
        scan(root / patient / "ct", seed=number, patient=f"secret-{patient}")
        _draw(root, patient, BOTH)
    return root


def _declare(root: Path, labels: str) -> None:
    (root / "dataset.yaml").write_text(f"labels: {labels}\n")


def _edit(*paths: Path, **attributes: object) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.update(attributes)
        dataset.save_as(path)


def _renamed(name: str) -> Callable[[Path], None]:
    return lambda root: _draw(root, "pat_3", {name: GTV, "Lung": LUNG})


def _not_as_declared(root: Path) -> None:
    _declare(root, "{GTV: 1, Lung: 2}")
    _renamed("GTV-primary")(root)


def _without_lung(*patients: str) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        for patient in patients:
            _draw(root, patient, {"GTV": GTV})

    return harm


def _other_structures(root: Path) -> None:
    _declare(root, "{GTV: 1}")
    _draw(root, "pat_3", {"BODY": LUNG})


def _overlap(root: Path) -> None:
    _declare(root, "{Lung: 1, GTV: 2}")
    _draw(root, "pat_2", {"GTV": GTV, "Lung": np.s_[1:5, 3:10, 8:18]})


def _time_points(root: Path) -> None:
    for path in _files(root, "pat_4"):
        later = path.with_name(f"later_{path.name}")
        shutil.copy(path, later)
        _edit(later, SOPInstanceUID=pydicom.uid.generate_uid(), TemporalPositionIdentifier=2)
        _edit(path, TemporalPositionIdentifier=1)


DEFECTS: list[tuple[str, Callable[[Path], None], str, str, str]] = [
    # name, how a set is harmed, kind that must be found, where, words of what is said
    ("name spelt otherwise", _renamed("gtv_1"), "structure-names", "treated", "GTV also as gtv_1"),
    ("not as declared", _not_as_declared, "structure-names", "treated", "GTV-primary (GTV?) mean no class"),
    ("no declared structure", _other_structures, "structure-names", "pat_3/rs.dcm", "none of its structures (BODY)"),
    (
        "structure not drawn by one",
        _without_lung("pat_4"),
        "missing-structure",
        "treated",
        "class Lung was not drawn in 1 of 6 labels (pat_4)",
    ),
    (
        "structure without contours",
        lambda root: _draw(root, "pat_2", {"GTV": GTV, "Lung": np.s_[2:2, 0:3, 0:3]}),
        "empty-structure",
        "pat_2/rs.dcm",
        "nothing is drawn of Lung",
    ),
    (
        "nothing drawn that others show",
        lambda root: _draw(root, "pat_2", {"BODY": np.s_[2:2, 0:3, 0:3]}),
        "empty-label",
        "pat_2/rs.dcm",
        "nothing is drawn of BODY, which no other label draws",
    ),
    (
        "nothing drawn",
        lambda root: _draw(root, "pat_2", {}),
        "empty-label",
        "pat_2/rs.dcm",
        "empty label",
    ),
    ("structures of two classes overlap", _overlap, "overlap", "pat_2/rs.dcm", "Lung and GTV overlap on 12"),
    (
        "slice missing",
        lambda root: _files(root, "pat_5")[2].unlink(),
        "unreadable",
        "pat_5/ct",
        "1 slice missing",
    ),
    ("two time points", _time_points, "unreadable", "pat_4/ct", "told apart by TemporalPositionIdentifier"),
    (
        "CT without its offset",
        lambda root: _edit(*_files(root, "pat_6"), RescaleIntercept="0"),
        "intensity",
        "pat_6/ct",
        "of the others typically",
    ),
    (
        "structures drawn in only two",
        _without_lung(*PATIENTS[2:]),
        "rare-class",
        "treated",
        "class Lung is drawn in 2 of 6 labels (pat_1, pat_2)",
    ),
]


def _ways(finding: Finding) -> list[str]:
    return finding.fix.split("; or ")


def test_clean_studies_give_no_finding(treated: Path) -> None:
    assert check(treated) == []


@pytest.mark.parametrize(("harm", "kind", "where", "words"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_defect_is_found_and_every_fix_clears_it(
    harm: Callable[[Path], None], kind: str, where: str, words: str, treated: Path, tmp_path: Path
) -> None:
    harmed = tmp_path / "harmed" / "treated"
    shutil.copytree(treated, harmed)
    harm(harmed)
    (finding,) = (f for f in check(harmed) if f.kind != "unused-structures")
    assert (finding.kind, finding.where) == (kind, where)
    assert words in finding.what
    for number, way in enumerate(_ways(finding)):
        if way == "add cases that show it" or way.startswith("put each time point"):
            continue  # the unharmed copy has no more; as cases these want a list
        root = tmp_path / str(number) / "treated"
        shutil.copytree(harmed, root)
        follow(way, root, root, treated)
        left = [f for f in check(root) if f.kind not in ("unused-structures", "few-cases")]
        assert left == [], way


def test_why_a_label_is_missing_is_said_once(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    broken = root / "pat_2" / "rs.dcm"
    broken.write_bytes(broken.read_bytes()[:-300])
    (root / "pat_3" / "rs.dcm").unlink()
    shutil.copy(root / "pat_4" / "rs.dcm", root / "pat_5" / "rs.dcm")  # so pat_4 is left out, and pat_5 has none
    findings = {(f.kind, f.where): f for f in check(root) if f.kind != "few-cases"}
    assert findings.keys() == {
        ("unreadable", "pat_2/rs.dcm"),
        ("no-label", "pat_3/ct"),
        ("ambiguous-label", "pat_4/rs.dcm"),
    }
    assert findings["no-label", "pat_3/ct"].fix == (
        "add a SEG or RTSTRUCT that refers to this series; or move `pat_3/ct` elsewhere"
    )
    assert findings["ambiguous-label", "pat_4/rs.dcm"].files == ("pat_4/rs.dcm", "pat_5/rs.dcm")


def test_several_series_in_the_place_of_one_are_told_ready_to_paste(treated: Path, tmp_path: Path) -> None:
    shutil.copytree(treated / "pat_1", tmp_path / "pat_1")
    for path in scan(tmp_path / "pat_1" / "b", patient="secret-pat_1", series="b"):
        path.rename(tmp_path / "pat_1" / "ct" / f"b_{path.name}")
    (tmp_path / "pat_1" / "b").rmdir()
    lines = ["case,image,label", "p,pat_1/ct,pat_1/rs.dcm"]
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    (finding,) = (f for f in check(tmp_path / "cases.csv") if f.where == "pat_1/ct")
    assert str(tmp_path) not in finding.what
    assert "\n" not in finding.what
    assert "readable copy" not in finding.fix
    references = [word.rstrip(";") for word in finding.what.split() if "series=" in word]
    assert len(references) == 2
    found = []
    for reference in references:
        (tmp_path / "cases.csv").write_text("\n".join(lines).replace("pat_1/ct", reference))
        found.append({f.kind for f in check(tmp_path / "cases.csv")} - {"few-cases"})
    assert sorted(map(sorted, found)) == [[], ["dicom-note"]]  # one has the label, the other its frame of reference


def test_table_of_names(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    for patient, name in (("pat_2", "GTV-1"), ("pat_3", "gtv_1"), ("pat_5", "gtv p")):
        _draw(root, patient, {name: GTV, "Lung": LUNG})
    (finding,) = check(root)
    assert finding.variants == {
        "Lung": tuple(PATIENTS),
        "GTV": ("pat_1", "pat_4", "pat_6"),
        "GTV-1": ("pat_2",),
        "gtv p": ("pat_5",),
        "gtv_1": ("pat_3",),
    }
    assert json.loads(json.dumps(finding.as_dict()))["variants"]["gtv_1"] == ["pat_3"]
    assert "write `labels: {Lung: " in finding.fix
    assert "names: ['gtv p', 'GTV-1', 'gtv_1']" in finding.fix
    page = tmp_path / "check.html"
    said = CliRunner().invoke(app, ["check", str(root), "--html", str(page)]).output
    assert "    gtv_1: 1 case (pat_3)" in said
    assert "GTV: 3 cases (pat_1, pat_4, pat_6)" in said
    assert "<dt>gtv_1</dt><dd>1 case: pat_3</dd>" in page.read_text()
    assert page.read_text().count("<img ") == 0  # it is about the whole, not about one case


def test_spellings_of_one_name_are_one_unless_told_otherwise(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    for patient, name in (("pat_2", "gt v"), ("pat_3", "G-TV")):
        _draw(root, patient, {name: GTV, "Lung": LUNG})
    (finding,) = check(root)
    assert "GTV also as G-TV and gt v; planning takes them as one" in finding.what
    undeclared = plan(root).labels
    counts = []
    for way in _ways(finding):
        follow(way, root, root, root)
        assert "structure-names" not in {f.kind for f in check(root)}
        counts.append(plan(root).labels.classes)
        (root / "dataset.yaml").unlink()
    assert [len(classes) for classes in counts] == [2, 4]
    assert {c.name for c in counts[0]} == {c.name for c in undeclared.classes}


def test_a_rare_structure_is_left_out_by_its_name_alone(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    _without_lung(*PATIENTS[2:])(root)
    (finding,) = check(root)
    assert "write `labels: {GTV: 1}` into" in finding.fix


def test_names_that_mean_no_class_are_noted(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    _declare(root, "{GTV: 1}")
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("note", "unused-structures")
    assert finding.variants == {"Lung": tuple(PATIENTS)}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("{Lung: '*', GTV_all: 'GTV*'}", "one name means both Lung and GTV_all on"),
        (
            "{classes: [{name: GTV, values: [1, 2]}, {name: Lung, values: [2]}], exclusive: false}",
            "region Lung lies outside all others on",
        ),
    ],
)
def test_check_refuses_what_training_would(labels: str, words: str, treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    _declare(root, labels)
    findings = check(root)
    assert [f.kind for f in findings] == ["overlap"] * len(PATIENTS)
    assert all(words in f.what for f in findings)
    with pytest.raises(DatasetError, match=words):
        plan(root)


@pytest.mark.parametrize("name", [None, "BODY"])
def test_a_label_without_any_known_structure_is_an_error(name: str | None, treated: Path, tmp_path: Path) -> None:
    """As planning has it; a known structure that is nowhere drawn is only looked at."""
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    _draw(root, "pat_2", {name: np.s_[2:2, 0:3, 0:3]} if name else {})
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("error", "empty-label")
    with pytest.raises(DatasetError, match="none of its structures"):
        plan(root)
    _draw(root, "pat_2", {"gtv": np.s_[2:2, 0:3, 0:3]})
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("warning", "empty-label")
    plan(root)


def test_contours_outside_the_image_are_said(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    _draw(root, "pat_2", {"GTV": GTV, "Lung": np.s_[1:5, 3:10, 11:28]})
    (finding,) = check(root)
    assert (finding.severity, finding.kind, finding.where) == ("warning", "dicom-note", "pat_2/rs.dcm")
    assert "'Lung': 50.0% of its contour points lie outside the image: cut off" in finding.what
    _draw(root, "pat_2", {"GTV": GTV, "Lung": np.s_[1:5, 3:10, 41:58]})
    (finding,) = check(root)
    assert (finding.severity, finding.kind) == ("error", "unreadable")
    assert "all of 'Lung' lies outside the image" in finding.what


def test_label_of_another_series(treated: Path, tmp_path: Path) -> None:
    rows = [[p, f"{treated}/{p}/ct", f"{treated}/{p}/rs.dcm"] for p in PATIENTS]
    rows[2][2] = f"{treated}/pat_4/rs.dcm"

    def manifest(rows: list[list[str]]) -> Path:
        with (tmp_path / "cases.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["case", "image", "label"], *rows])
        return tmp_path / "cases.csv"

    (finding,) = check(manifest(rows))
    assert (finding.severity, finding.kind, finding.case) == ("error", "other-series", "pat_3")
    assert finding.where == f"{treated}/pat_4/rs.dcm"
    assert "refers to the series" in finding.what
    assert finding.fix.startswith("pair it with the series that it was drawn on; or remove the entry of case `pat_3`")
    rows[2][2] = f"{treated}/pat_3/rs.dcm"
    assert check(manifest(rows)) == []


def test_errors_in_structures_that_nobody_asked_for_do_not_count(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    _draw(root, "pat_2", {"GTV": GTV, "Lung": np.s_[1:5, 3:10, 41:58]})
    _declare(root, "{GTV: 1}")
    assert [f.kind for f in check(root)] == ["unused-structures"]


def test_segmentations_are_checked_as_structure_sets_are(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "treated"
    shutil.copytree(treated, root)
    for patient in PATIENTS:
        (root / patient / "rs.dcm").unlink()
        name = "Liver" if patient != "pat_5" else "liver_new"
        write_seg(root / patient / "seg.dcm", _files(root, patient), {name: GTV})
    (finding,) = check(root)
    assert (finding.kind, finding.variants["liver_new"]) == ("structure-names", ("pat_5",))
    assert check(follow(finding.fix, root, root, root)) == []


def test_units_of_pet(tmp_path: Path) -> None:
    for number, patient in enumerate(PATIENTS):
        files = scan(
            tmp_path / patient,
            seed=number,
            patient=patient,
            modality="PT",
            Units="GML" if number == 3 else "BQML",
            RescaleSlope=1,
            RescaleIntercept=0,
        )
        write_rtstruct(tmp_path / patient / "rs.dcm", files)
    (finding,) = check(tmp_path)
    assert (finding.severity, finding.kind, finding.where) == ("warning", "unit", "pat_4")
    assert "GML" in finding.what
    assert "BQML" in finding.what


def test_one_patient_in_two_splits(treated: Path, tmp_path: Path) -> None:
    for patient in PATIENTS:
        split = "test" if patient in ("pat_5", "pat_6") else "train"
        shutil.copytree(treated / patient, tmp_path / split / patient)
    assert [f.kind for f in check(tmp_path)] == ["few-cases"]
    files = scan(tmp_path / "test" / "again" / "ct", seed=9, patient="secret-pat_2", study="second")
    write_rtstruct(tmp_path / "test" / "again" / "rs.dcm", files, BOTH)
    findings = {f.kind: f for f in check(tmp_path)}
    assert findings["patient-split"].severity == "error"
    assert "secret" not in str(findings)


def test_nothing_private_is_said(treated: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(treated, root)
    for harm in [d[1] for d in DEFECTS]:
        harm(root)
    page = tmp_path / "check.html"
    said = CliRunner().invoke(app, ["check", str(root), "--html", str(page)]).output
    said += CliRunner().invoke(app, ["check", str(root), "--json"]).output + page.read_text()
    assert "pat_3" in said
    for secret in (*PRIVATE.values(), *str(PRIVATE["PatientName"]).split("^"), "secret-"):
        assert str(secret) not in said


@pytest.mark.parametrize(
    ("name", "line", "expected"),
    [
        ("LungCT", "", {"few-cases", "listing"}),
        ("DicomSeg", "label: liver.dcm", {"few-cases", "dicom-note", "listing"}),
        ("DicomSeg", "label: partial_overlaps.dcm", {"few-cases", "dicom-note", "overlap", "listing"}),
    ],
)
@pytest.mark.slow
def test_real_studies(name: str, line: str, expected: set[str], tmp_path: Path) -> None:
    declaration = tmp_path / "dataset.yaml"
    declaration.write_text(f"root: {shared(name)}\n{line}\n")
    findings = check(declaration)
    assert {finding.kind for finding in findings} == expected
    if "overlap" in expected:
        (overlap,) = (finding for finding in findings if finding.kind == "overlap")
        follow("write " + overlap.fix.partition("write ")[2].split(":  here")[0], tmp_path, declaration, tmp_path)
        assert "overlap" not in {finding.kind for finding in check(declaration)}


@pytest.mark.parametrize("kind", ["POINT", "OPEN_PLANAR", "OPEN_NONPLANAR"])
@pytest.mark.parametrize("declared", [False, True])
def test_contours_that_enclose_nothing_are_the_reason(tmp_path: Path, kind: str, declared: bool) -> None:
    for number in range(3):
        files = scan(tmp_path / f"p{number}" / "ct", seed=number, patient=f"p{number}")
        path = write_rtstruct(tmp_path / f"p{number}" / "rs.dcm", files)
        if number == 1:
            made = pydicom.dcmread(path)
            for contour in made.ROIContourSequence[0].ContourSequence:
                contour.ContourGeometricType = kind
            made.save_as(path)
    if declared:
        (tmp_path / "dataset.yaml").write_text("labels: {GTV-1: 1}\n")
    (found,) = [finding for finding in check(tmp_path) if finding.where == "p1/rs.dcm"]
    assert f"nothing is drawn of GTV-1: contours of type {kind}, which enclose nothing" in found.what
    assert found.fix.startswith("draw GTV-1 with closed contours in `p1/rs.dcm`")
    assert "delete" not in found.fix


PERSONAL = [
    "Muster GTV",
    "GTV_muster",
    "ERIKA",
    "HausGTV",
    "Smith^John",
    "SMITH^J GTV".replace("J ", "Jo "),
    "Müller, Anna",
    "Meyer, A. B.",
    "SMITH, JOHN",
]
PERSONAL += ["contour by Dr. Weber", "Dr_Weber", "王小東"]
USUAL = [
    "Lung, Left",
    "Kidney, Right",
    "Mustergan",
    "GTV, Boost",
    "Left Lung",
    "Optic Chiasm",
    "Femur_Head_L",
    "Brain^Stem",
    "lung^left",
]
USUAL += ["PTV 60Gy", "MR GTV", "Glioma, Residual", "ring, 1 cm", "Bladder, Rectum", "Hausfrau", "ROI-1", "A, B"]


@pytest.mark.parametrize("name", PERSONAL)
def test_a_structure_called_as_a_person_is_told_without_its_name(treated: Path, tmp_path: Path, name: str) -> None:
    root = shutil.copytree(treated, tmp_path / "data")
    _edit(*_files(root, "pat_2"), PatientName="Muster^Erika=王^小東", SpecificCharacterSet="ISO_IR 192")
    write_rtstruct(root / "pat_2/rs.dcm", _files(root, "pat_2"), {"Lung": LUNG, "GTV": GTV})
    label = pydicom.dcmread(root / "pat_2/rs.dcm")
    label.SpecificCharacterSet, label.StructureSetROISequence[1].ROIName = "ISO_IR 192", name
    label.save_as(root / "pat_2/rs.dcm")
    (found,) = [f for f in check(root) if f.kind == "personal-name"]
    assert (found.severity, found.where, found.case) == ("warning", "pat_2/rs.dcm", "pat_2")
    assert f"number 2 ({name[0]}…)" in found.what
    words = [word for word in re.findall(r"\w{4,}", name) if word not in ("contour",)]
    assert not [word for word in words if word.casefold() in f"{found.what} {found.fix}".casefold()]


def test_the_usual_names_of_structures_are_no_persons(treated: Path, tmp_path: Path) -> None:
    root = shutil.copytree(treated, tmp_path / "data")
    _edit(*_files(root, "pat_2"), PatientName="Muster^Erika^Brain")
    write_rtstruct(root / "pat_2/rs.dcm", _files(root, "pat_2"), dict.fromkeys([*USUAL, "Brain", "Lung"], GTV))
    _edit(*_files(root, "pat_3"), PatientName="LUNG1-001^Boxes")  # a pseudonym
    write_rtstruct(root / "pat_3/rs.dcm", _files(root, "pat_3"), {"lung1": LUNG, "Boxes": GTV})
    assert "personal-name" not in {f.kind for f in check(root)}


@pytest.mark.parametrize(("said", "told"), [("YES", True), ("yes ", True), ("NO", False), ("", False)])
def test_words_in_the_pixels_are_remarked(treated: Path, tmp_path: Path, said: str, told: bool) -> None:
    root = shutil.copytree(treated, tmp_path / "data")
    with pydicom.config.disable_value_validation():
        _edit(_files(root, "pat_4")[1], BurnedInAnnotation=said)
    found = [f for f in check(root) if f.kind == "burned-in"]
    assert [(f.severity, f.case) for f in found] == [("note", "pat_4")] * told
    assert all("BurnedInAnnotation is YES" in f.what for f in found)

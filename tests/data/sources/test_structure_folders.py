"""One file a structure, as TotalSegmentator lays them: found without help, declared, checked, and read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cpfnet import formats, labels
from cpfnet.cli.app import app
from cpfnet.data.case import placed
from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.data.infer_labels import meaning_of, values_of
from cpfnet.errors import CpfnetError, DatasetError, FormatError
from cpfnet.image import Segmentation
from cpfnet.planning import LabelClass, Labels
from tests.formats.dicom.written_labels import write_seg
from tests.synthetic import affine, write_nifti, write_raster, write_series

SHAPE = (6, 32, 34)
MATRIX = affine((0.8, 0.9, 2.5), origin=(3, 4, 5), degrees=(5, 0, 0))


def masks(roll: int = 0) -> dict[str, np.ndarray]:
    """Two organs, a lesion in the first, and one that is nowhere."""
    out = {name: np.zeros(SHAPE, np.uint8) for name in ("liver", "spleen", "liver_lesion", "prostate")}
    out["liver"][1:5, 4:16, 4 + roll : 16 + roll] = 1
    out["spleen"][2:5, 20:28, 6:12] = 1
    out["liver_lesion"][2:4, 6:9, 8 + roll : 11 + roll] = 1
    return out


def case(folder: Path, roll: int = 0, image: str = "ct.nii.gz", **left_out: bool) -> Path:
    scan = np.random.default_rng(roll).normal(0, 30, SHAPE).astype(np.int16)
    write_nifti(folder / image, scan, MATRIX)
    for name, mask in masks(roll).items():
        if name not in left_out:
            write_nifti(folder / "segmentations" / f"{name}.nii.gz", mask, MATRIX)
    return folder


def test_the_layout_is_understood_without_help(tmp_path):
    for number in range(3):
        case(tmp_path / f"s{number:04}", number)
    (tmp_path / "meta.csv").write_text("image_id;age\ns0000;40\n")
    dataset = load(tmp_path)
    assert [(c.id, c.images[0].name, c.labels["label"].name) for c in dataset.cases] == [
        (f"s{number:04}", "ct.nii.gz", "segmentations") for number in range(3)
    ]
    findings = check(tmp_path)
    assert {f.kind for f in findings if f.severity == "error"} == {"overlap"}, [str(f) for f in findings]
    for number, one in enumerate(dataset.cases):
        label = formats.read_label(one.labels["label"], formats.read(one.images))
        for name, mask in masks(number).items():
            drawn = np.isin(label.array[0], [n for n, meant in enumerate(label.meanings) if name in meant])
            np.testing.assert_array_equal(drawn, mask > 0)


def test_names_are_declared_and_overlaps_follow_the_rules_that_exist(tmp_path):
    case(tmp_path / "a")
    case(tmp_path / "b", 2)
    (tmp_path / "dataset.yaml").write_text(
        "image: '{case}/ct.nii.gz'\nlabel: '{case}/segmentations'\nmodality: ct\n"
        "labels: {organ: [liver, spleen], lesion: '*_lesion', overlap: last}\n"
    )
    dataset = load(tmp_path)
    assert [f for f in check(tmp_path) if f.severity == "error"] == []
    label = formats.read_label(dataset.cases[0].labels["label"], labels=dataset.labels)
    codes = labels.encode(label, dataset.labels)
    expected = np.where(masks()["liver_lesion"], 2, np.maximum(masks()["liver"], masks()["spleen"]))
    np.testing.assert_array_equal(codes, expected)
    assert not any("prostate" in meant for meant in label.meanings)


def test_undeclared_every_file_becomes_a_class(tmp_path):
    for name in ("a", "b"):
        case(tmp_path / name, liver_lesion=True)
    dataset = load(tmp_path)
    read = [values_of(one, formats.read_header(one.images), None) for one in dataset.cases]
    found, _ = meaning_of(dataset, read)
    assert {c.name for c in found.classes} >= {"liver", "spleen"}


def test_a_missing_structure_file_is_said(tmp_path):
    case(tmp_path / "a")
    case(tmp_path / "b", spleen=True)
    (tmp_path / "dataset.yaml").write_text("labels: {liver: liver, spleen: spleen}\n")
    (told,) = [f for f in check(tmp_path) if f.kind == "missing-structure"]
    assert told.what.startswith("class spleen was not drawn in 1 of 2 labels (b)")
    only = Labels(classes=(LabelClass(name="kidney", values=(1,)),))
    with pytest.raises(DatasetError, match=r"none of its structures \(liver") as caught:
        formats.read_label(tmp_path / "a" / "segmentations", labels=only)
    assert caught.value.where == str(tmp_path / "a" / "segmentations")


def test_splits_and_what_lacks_or_is_too_much(tmp_path):
    case(tmp_path / "train" / "a")
    case(tmp_path / "test" / "b")
    case(tmp_path / "train" / "two")
    write_nifti(tmp_path / "train" / "two" / "mr.nii.gz", np.zeros(SHAPE, np.int16), MATRIX)
    (case(tmp_path / "train" / "none") / "ct.nii.gz").unlink()
    write_nifti(tmp_path / "train" / "bare" / "ct.nii.gz", np.zeros(SHAPE, np.int16), MATRIX)
    dataset = load(tmp_path)
    assert [(c.id, c.split, bool(c.labels)) for c in dataset.cases] == [
        ("a", "train", True),
        ("b", "test", True),
        ("bare", "train", False),
    ]
    told = {f.case: f for f in dataset.problems}
    assert told["two"].kind == "ambiguous-image"
    assert "`image: '{case}/ct.nii.gz'`" in told["two"].fix
    assert told["none"].kind == "no-image"


def test_masks_on_another_grid_and_of_several_values_are_refused(tmp_path):
    folder = case(tmp_path / "a") / "segmentations"
    write_nifti(folder / "spleen.nii.gz", np.zeros((6, 32, 33), np.uint8), MATRIX)
    with pytest.raises(FormatError, match=r"does not lie on the grid of liver\.nii\.gz: size") as caught:
        formats.read_label(folder)
    assert caught.value.where.endswith("spleen.nii.gz")
    several = masks()["spleen"].copy()
    several[3] *= 2
    write_nifti(folder / "spleen.nii.gz", several, MATRIX)
    with pytest.raises(FormatError, match="values from 1 to 2"):
        formats.read_label(folder)
    soft = masks()["spleen"].astype(np.float32)
    soft[0, 0, 0] = np.nan
    write_nifti(folder / "spleen.nii.gz", soft, MATRIX)
    with pytest.raises(FormatError, match="values from nan"):
        formats.read_label(folder)
    write_nifti(folder / "spleen.nii", masks()["spleen"], MATRIX)
    with pytest.raises(FormatError, match="'spleen' twice"):
        formats.read_label(folder)


def test_masks_stored_along_other_axes_are_turned(tmp_path):
    import nibabel

    folder = case(tmp_path / "a") / "segmentations"
    stored = nibabel.load(folder / "spleen.nii.gz")
    nibabel.save(stored.as_reoriented(np.array([[1, -1], [2, 1], [0, -1]])), folder / "spleen.nii.gz")
    label = formats.read_label(folder, formats.read(tmp_path / "a" / "ct.nii.gz"))
    drawn = np.isin(label.array[0], [n for n, meant in enumerate(label.meanings) if "spleen" in meant])
    np.testing.assert_array_equal(drawn, masks()["spleen"] > 0)
    assert any("spleen.nii.gz" in warning for warning in label.warnings)


def test_pictures_with_a_folder_of_masks_each(tmp_path):
    for name in ("a", "b"):
        write_raster(tmp_path / name / "photo.png", np.full((16, 18, 3), 90, np.uint8))
        for structure, rows in {"disc": slice(2, 9), "cup": slice(4, 6)}.items():
            mask = np.zeros((16, 18), np.uint8)
            mask[rows, 3:9] = 255
            write_raster(tmp_path / name / "masks" / f"{structure}.png", mask)
    (tmp_path / "dataset.yaml").write_text("labels: {disc: disc, cup: cup, overlap: last}\n")
    dataset = load(tmp_path)
    codes = labels.encode(formats.read_label(dataset.cases[0].labels["label"], labels=dataset.labels), dataset.labels)
    assert (codes.shape, codes[5, 5], codes[2, 5], codes[0, 0]) == ((16, 18), 2, 1, 0)


def test_a_folder_of_masks_is_no_image(tmp_path):
    with pytest.raises(CpfnetError):
        formats.read(case(tmp_path / "a") / "segmentations")


def test_it_converts_to_label_maps(tmp_path):
    for name in ("a", "b"):
        case(tmp_path / "data" / name, len(name))
    text = "modality: ct\nlabels: {organ: [liver, spleen], lesion: '*_lesion', overlap: last}\n"
    (tmp_path / "data" / "dataset.yaml").write_text(text)
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "data"), "--to", "nnunet", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    (label,) = (tmp_path / "out").rglob("labelsTr/a.nii.gz")
    expected = np.where(masks(1)["liver_lesion"], 2, np.maximum(masks(1)["liver"], masks(1)["spleen"]))
    np.testing.assert_array_equal(formats.read_label(label).array[0], expected)


def test_what_is_left_out_or_not_read_is_named(tmp_path):
    case(tmp_path / "a")
    write_nifti(case(tmp_path / "b") / "masks" / "liver.nii.gz", masks()["liver"], MATRIX)  # two folders of masks
    write_nifti(tmp_path / "c" / "ct.nii.gz", masks()["liver"], MATRIX)
    write_nifti(tmp_path / "c" / "pet.nii.gz", masks()["liver"], MATRIX)  # two images, no masks
    write_nifti(tmp_path / "d" / "ct.nii.gz", masks()["liver"], MATRIX)
    (tmp_path / "d" / "segmentations").mkdir()
    np.save(tmp_path / "d" / "segmentations" / "liver.npy", masks()["liver"])
    (case(tmp_path / "e") / "segmentations" / "kidney.nii.gz.part").write_bytes(b"half")
    dataset = load(tmp_path)
    assert [one.id for one in dataset.cases] == ["a", "d", "e"]
    told = {(problem.kind, problem.where.split("/")[0]) for problem in dataset.problems}
    assert {("ambiguous-label", "b"), ("ambiguous-image", "c")} <= told
    assert any(problem.where.startswith("d/segmentations") for problem in dataset.problems)
    label = formats.read_label(tmp_path / "e" / "segmentations")
    assert any("kidney.nii.gz.part" in warning for warning in label.warnings)


def test_a_structure_has_one_file_whatever_the_case_of_its_name(tmp_path):
    folder = case(tmp_path / "a") / "segmentations"
    write_nifti(folder / "Liver.nii.gz", masks()["spleen"], MATRIX)
    with pytest.raises(FormatError, match="twice"):
        formats.read_label(folder)
    (folder / "Liver.nii.gz").unlink()
    formats.write(Segmentation(masks()["liver"], MATRIX), folder / "all", format="seg-nrrd")
    with pytest.raises(FormatError, match="names its own structures"):
        formats.read_label(folder)


def one_seg_a_structure(folder: Path, roll: int = 0, names: str = "{}", volume: bool = False) -> None:
    """An image with a folder of segmentations, by name or all called "Segment_1"."""
    scan = np.random.default_rng(roll).integers(900, 1300, SHAPE).astype(np.uint16)
    files = write_series(folder / "ct", scan, series=folder.name, patient=folder.name, study=folder.name)
    if volume:
        write_nifti(folder / "ct.nii.gz", scan.astype(np.int16), np.diag([-1.0, -1, 1, 1]))
        for file in files:
            file.rename(folder.parent / f"{folder.name}_{file.name}")
        files = [folder.parent / f"{folder.name}_{file.name}" for file in files]
    for name in ("liver", "spleen", "liver_lesion"):
        mask = masks(roll)[name]
        write_seg(folder / "segmentations" / f"{name}.dcm", files, {1: names.format(name)}, mask[..., None])
    if volume:
        for file in files:
            file.unlink()
        (folder / "ct").rmdir()


def test_one_seg_a_structure_beside_nifti(tmp_path):
    for number in range(3):
        one_seg_a_structure(tmp_path / f"s{number}", number, volume=True)
    dataset = load(tmp_path)
    assert [c.labels["label"].name for c in dataset.cases] == ["segmentations"] * 3
    for number, one in enumerate(dataset.cases):
        label = placed(one.labels["label"], formats.read(one.images))
        for name in ("liver", "spleen", "liver_lesion"):
            drawn = np.isin(label.array[0], [n for n, meant in enumerate(label.meanings) if name in meant])
            np.testing.assert_array_equal(drawn, masks(number)[name] > 0)
    write_nifti(tmp_path / "turned.nii.gz", np.zeros(SHAPE, np.int16), np.eye(4)[:, [2, 1, 0, 3]])
    with pytest.raises(FormatError, match="do not lie on a slice of the image"):
        formats.read_label(dataset.cases[0].labels["label"], formats.read_header(tmp_path / "turned.nii.gz"))
    write_nifti(tmp_path / "s1" / "segmentations" / "other.nii.gz", masks()["liver"], np.eye(4))
    assert "mixed-formats" in {finding.kind for finding in load(tmp_path).problems}


@pytest.mark.parametrize("names", ["{}", "Segment_1"])
def test_files_of_structures_are_declared(tmp_path, names):
    """Then a file is its class, whatever its segment is called."""
    for number in range(3):
        one_seg_a_structure(tmp_path / f"s{number}", number, names)
    (tmp_path / "s2" / "segmentations" / "spleen.dcm").unlink()
    (tmp_path / "dataset.yaml").write_text(
        "image: '{case}/ct'\nmodality: ct\n"
        "labels: {liver: '{case}/segmentations/liver.dcm', spleen: '{case}/segmentations/spleen.dcm',\n"
        "         tumour: '{case}/segmentations/liver_lesion.dcm', overlap: last}\n"
    )
    dataset = load(tmp_path)
    assert [c.labels["label"].name for c in dataset.cases] == ["files=*.dcm"] * 3
    assert not [str(f) for f in check(tmp_path) if f.severity == "error"]
    for number, one in enumerate(dataset.cases):
        codes = labels.encode(placed(one.labels["label"], formats.read(one.images), dataset.labels), dataset.labels)
        expected = np.where(masks(number)["liver"], 1, 2 * masks(number)["spleen"] * (number < 2))
        np.testing.assert_array_equal(codes, np.where(masks(number)["liver_lesion"], 3, expected))
    if names == "Segment_1":
        with pytest.raises(FormatError, match=r"both hold 'Segment_1'(.|\n)*called after its file"):
            formats.read_label(tmp_path / "s0" / "segmentations", formats.read_header(dataset.cases[0].images))


@pytest.mark.parametrize(
    "pattern", ["{{case}}/segmentations/{}.nii.gz", "masks/{{case}}_{}.nii.gz", "masks/{}-{{case}}.nii.gz"]
)
@pytest.mark.parametrize("listed", [False, True])
def test_files_of_structures_wherever_they_lie(tmp_path, pattern, listed):
    """Also where the name of one case begins as that of another does."""
    cases = {"p1": 0, "p1_b": 1, "q": 2}
    for one, roll in cases.items():
        write_nifti(tmp_path / "scans" / f"{one}.nii.gz", np.zeros(SHAPE, np.int16) + roll, MATRIX)
        for name, mask in masks(roll).items():
            write_nifti(tmp_path / pattern.format(name).format(case=one), mask, MATRIX)
    files = {name: pattern.format(name) for name in ("liver", "spleen")}
    text = f"label: {json.dumps([*files.values()])}" if listed else f"labels: {json.dumps(files)}"
    (tmp_path / "dataset.yaml").write_text(f"image: 'scans/{{case}}.nii.gz'\n{text}\n")
    dataset = load(tmp_path)
    assert [one.id for one in dataset.cases] == [*cases]
    assert dataset.problems == ()
    wanted = Labels(classes=(LabelClass(name="liver", values=(1,)), LabelClass(name="spleen", values=(2,))))
    for one in dataset.cases:
        codes = labels.encode(placed(one.labels["label"], formats.read(one.images), wanted), wanted)
        expected = masks(cases[one.id])["liver"] + 2 * masks(cases[one.id])["spleen"]
        np.testing.assert_array_equal(codes, expected)
        assert len(formats.files_of(one.labels["label"])) >= 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels: {liver: 'liver/{case}.png', spleen: 'spleen/{case}.png'}", "not called alike in one folder"),
        ("labels: {liver: '{case}/liver.png', spleen: '{case}/spleen.nii'}", "not called alike in one folder"),
        ("labels: {liver: '{case}/liver.png', spleen: spleen}", "not of 'spleen'"),
        ("label: '{case}/x.png'\nlabels: {liver: '{case}/liver.png'}", "remove `label`"),
    ],
)
def test_files_of_structures_that_are_no_data_set(tmp_path, text, words):
    case(tmp_path / "a")
    (tmp_path / "dataset.yaml").write_text(f"image: '{{case}}/ct.nii.gz'\n{text}\n")
    with pytest.raises(CpfnetError, match=words):
        load(tmp_path)


@pytest.mark.parametrize("form", ["{}_{}", "{1}_{0}"])
def test_a_file_that_fits_two_cases_is_refused(tmp_path, form):
    """case1_2_left_liver is no liver of case1, though it is called 2_left_liver there."""
    for case in ("case1", "case1_2", "2_case1", "case2"):
        write_nifti(tmp_path / "images" / f"{case}.nii.gz", np.zeros((2, 3, 4), np.int16), np.eye(4))
        for structure in ("left_liver", "spleen"):
            mask = np.ones((2, 3, 4), np.uint8)
            write_nifti(tmp_path / "masks" / f"{form.format(case, structure)}.nii.gz", mask, np.eye(4))

    def declared(liver: str) -> None:
        files = [f"masks/{form.format('{case}', structure)}.nii.gz" for structure in (liver, "spleen")]
        content = {"image": "images/{case}.nii.gz", "labels": dict(zip(("liver", "spleen"), files, strict=True))}
        (tmp_path / "dataset.yaml").write_text(json.dumps(content))

    declared("*liver*")
    with pytest.raises(DatasetError, match="fits two cases"):
        load(tmp_path)
    declared("left_liver")
    dataset = load(tmp_path)
    assert len(dataset.cases) == 4
    for case in dataset.cases:
        label = formats.read_label(case.labels["label"], labels=dataset.labels)
        assert frozenset().union(*label.meanings) == {"left_liver", "spleen"}

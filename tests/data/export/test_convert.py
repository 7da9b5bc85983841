"""A data set written for other tools says the same as the one it was made from.

To its own reader, to theirs, to others.
"""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.uid import RLELossless

import cpfnet
from cpfnet import formats
from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.data.export.case_writer import file_names
from cpfnet.data.splits import split
from cpfnet.errors import CpfnetError, DatasetError, OutputError
from cpfnet.image import Image, geometry_difference
from cpfnet.labels import IGNORED, encode, membership
from cpfnet.planning import Labels
from tests.data.conftest import listed, nnunet
from tests.formats.dicom.written_labels import write_seg
from tests.synthetic import (
    PRIVATE,
    affine,
    blobs,
    make_images_dataset,
    make_volumes_dataset,
    phantom,
    write_nifti,
    write_raster,
    write_series,
)

TARGETS = ("nnunet", "monai", "csv")
targets = pytest.mark.parametrize("to", TARGETS)


def declare(root: Path, text: str) -> Path:
    (root / "dataset.yaml").write_text(text, encoding="utf-8")
    return root


def pictures(root: Path) -> Path:
    """RGB, 0/255, test split."""
    return declare(
        make_images_dataset(root, cases=5, size=(34, 40)), "labels: {lesion: 255}\nsplit: {test: [case_04]}\n"
    )


def wide_pictures(root: Path) -> Path:
    """Grey of 16 bits, with labels as colours."""
    for number in range(4):
        image, mask = blobs(np.random.default_rng(number), (33, 35), 2)
        colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], dtype=np.uint8)
        write_raster(root / "images" / f"c{number}.png", np.uint16(60000 * image))
        write_raster(root / "masks" / f"c{number}.png", colours[mask])
    return declare(root, "labels: {stroma: '#ff0000', tumour: '#00ff00'}\n")


def float_pictures(root: Path) -> Path:
    """32-bit TIFF with soft masks."""
    for number in range(4):
        image, mask = blobs(np.random.default_rng(number), (33, 35))
        write_raster(root / "images" / f"c{number}.tif", np.float32(image))
        write_raster(root / "masks" / f"c{number}.png", np.uint8(np.minimum(250 * mask + 3 * image, 255)))
    return declare(root, "labels: {lung: 255, threshold: 127}\n")


def oblique_volumes(root: Path) -> Path:
    """Oblique CT with gaps between its values, some not annotated, and a validation split."""
    geometry = affine((0.7, 0.8, 2.5), origin=(-120.5, 33.25, 870.0), degrees=(12, -7, 30), axes=(1, 0, 2))
    for number in range(5):
        image, mask = phantom((9, 12 + number, 11))
        write_nifti(root / "images" / f"s{number}.nii.gz", np.int16(image - 1024), geometry)
        write_nifti(root / "labels" / f"s{number}.nii.gz", np.uint8([0, 7, 40, 99])[mask], geometry)
    return declare(root, "modality: ct\nlabels: {liver: 7, spleen: 40, ignore: 99}\nsplit: {val: [s3, s4]}\n")


def regions(root: Path) -> Path:
    """Two channels in one file, overlapping regions."""
    for number in range(4):
        image, mask = blobs(np.random.default_rng(number), (8, 14, 12), 3)
        write_nifti(root / "images" / f"b{number}.nii.gz", np.stack([image, 1 - image]))
        write_nifti(root / "labels" / f"b{number}.nii.gz", np.uint8([0, 1, 2, 4])[mask])
    return declare(
        root,
        "channels: [T1, FLAIR]\nlabels: {exclusive: false, whole: [1, 2, 4], core: [1, 4], enhancing: 4}\n",
    )


def tilted(root: Path) -> Path:
    """Slices that lean, as under a tilted gantry: no rectangular grid."""
    geometry = affine((0.9, 0.9, 3.0), origin=(40, 20, -60))
    geometry[1, 2] = 3.0 * np.sin(np.radians(15))
    for number in range(3):
        image, mask = blobs(np.random.default_rng(number), (7, 12, 14))
        write_nifti(root / "images" / f"t{number}.nii.gz", np.int16(1000 * image), geometry)
        write_nifti(root / "labels" / f"t{number}.nii.gz", mask, geometry)
    return declare(root, "labels: {bleeding: 1}\n")


def studies(root: Path) -> Path:
    """Oblique CT as DICOM, two studies of one patient, with segmentations whose segments cover each other."""
    geometry = oblique()
    for number, patient in enumerate(("P-1", "P-1", "P-2", "P-3")):
        image, mask = phantom((8, 14, 16))
        slices = write_series(
            root / f"visit{number}", np.int16(image), geometry, patient=patient, study=f"s{number}", syntax=RLELossless
        )
        whole, spot = mask > 0, mask == 2
        pixels = np.stack([whole, spot], axis=-1).astype(np.uint8)
        write_seg(root / f"visit{number}" / "drawn.dcm", slices, {1: "Liver", 2: f"GTV-{number}"}, pixels)
    return declare(root, "labels: {liver: Liver, tumour: ['GTV*'], overlap: last}\n")


def oblique() -> np.ndarray:
    """(depth, height, width) → LPS mm."""
    stored = affine((0.7, 0.8, 2.5), origin=(-120.5, 33.25, 870.0), degrees=(12, -7, 30))
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ stored[:, [2, 1, 0, 3]]


def readers(root: Path) -> Path:
    """Two readers, patients in folders."""
    for number in range(6):
        image, mask = blobs(np.random.default_rng(number), (32, 36))
        folder = root / f"p{number // 2}"
        write_raster(folder / f"e{number}_image.png", np.uint8(255 * image))
        write_raster(folder / f"e{number}_anna.png", 255 * mask)
        write_raster(folder / f"e{number}_ben.png", 255 * np.roll(mask, 1, axis=0))
    return declare(
        root,
        "image: '{patient}/{case}_image.png'\n"
        "label: {anna: '{patient}/{case}_anna.png', ben: '{patient}/{case}_ben.png'}\nlabels: {vessel: 255}\n",
    )


MADE: dict[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (
        pictures,
        wide_pictures,
        float_pictures,
        oblique_volumes,
        tilted,
        regions,
        studies,
        readers,
        nnunet,
        listed,
    )
}


def make(name: str, folder: Path) -> Path:
    root = MADE[name](folder / name)
    return root / "cases.csv" if name == "listed" else root


@pytest.fixture(scope="module", params=MADE)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(request.param, tmp_path_factory.mktemp("source"))


def meant(path: Path, image: Image, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Which classes each pixel belongs to, and where nothing is known."""
    codes = encode(formats.read_label(path, image, labels), labels, where=str(path))
    return membership(labels)[codes], codes == IGNORED


def labels_of(dataset: Dataset) -> Labels:
    return dataset.labels or Labels.model_validate({"classes": [{"name": "foreground", "values": [255]}]})


@targets
def test_our_own_reader_finds_the_same_again(source: Path, to: str, tmp_path: Path) -> None:
    done = cpfnet.convert(source, tmp_path / "out", to=to)
    before, after = load(source), load(tmp_path / "out")
    assert done.failures == {}
    assert not after.problems
    assert after.name == before.name
    assert [c.id for c in after.cases] == [c.id for c in before.cases] == list(done.cases)
    old_labels, new_labels = labels_of(before), labels_of(after)
    assert [c.name for c in new_labels.classes] == [c.name for c in old_labels.classes]
    assert new_labels.exclusive == old_labels.exclusive
    assert bool(new_labels.ignore) == bool(old_labels.ignore)
    if to != "nnunet":
        assert [c.patient for c in after.cases] == [c.patient for c in before.cases]
        tested = [c.split == "test" or not c.labels for c in before.cases]
        assert [c.split == "test" or not c.labels for c in after.cases] == tested
        assert [c.split == "val" for c in after.cases] == [c.split == "val" for c in before.cases]
    for old, new in zip(before.cases, after.cases, strict=True):
        image, again = formats.read(old.images), formats.read(new.images)
        np.testing.assert_array_equal(again.array, image.array)
        assert geometry_difference(again.shape, again.affine, image.shape, image.affine) is None
        kept = len(old.labels) if to == "csv" else 1  # the others know one label a case
        assert len(new.labels) == min(kept, len(old.labels))
        for (_, there), (_, here) in zip(old.labels.items(), new.labels.items(), strict=False):
            for expected, found in zip(meant(there, image, old_labels), meant(here, again, new_labels), strict=True):
                np.testing.assert_array_equal(found, expected)
            assert formats.read_label(here).array.max() <= len(old_labels.classes) + bool(old_labels.ignore)


def folds_of_training(dataset: Path, folder: Path) -> list[tuple[set[str], set[str]]]:
    plan = cpfnet.plan(dataset, settings=["training.workers=0"])
    data, parts = load(dataset), []
    count = 1 if any(c.split == "val" for c in data.cases) else plan.folds.count
    for fold in range(count):
        train, val = split(data, plan, None if count == 1 else fold)
        parts.append(({c.id for c in train}, {c.id for c in val}))
    return parts


@targets
def test_the_folds_are_those_of_training(source: Path, to: str, tmp_path: Path) -> None:
    cpfnet.convert(source, tmp_path / "out", to=to)
    expected = folds_of_training(source, tmp_path)
    if to == "nnunet":
        written = json.loads((tmp_path / "out" / "splits_final.json").read_text())
        assert [(set(part["train"]), set(part["val"])) for part in written] == expected
    else:
        assert folds_of_training(tmp_path / "out", tmp_path) == expected


def test_nnunet_is_told_what_it_asks_for(tmp_path: Path) -> None:
    cpfnet.convert(regions(tmp_path / "brains"), tmp_path / "Dataset007_Brains", to="nnunet")
    told = json.loads((tmp_path / "Dataset007_Brains" / "dataset.json").read_text())
    assert told["channel_names"] == {"0": "T1", "1": "FLAIR"}
    assert told["labels"] == {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "enhancing": 3}
    assert told["regions_class_order"] == [2, 1, 3]
    assert told["numTraining"] == len(list((tmp_path / "Dataset007_Brains" / "labelsTr").iterdir())) == 4
    assert told["file_ending"] == ".nii.gz"
    files = sorted(path.name for path in (tmp_path / "Dataset007_Brains" / "imagesTr").iterdir())
    assert files == [f"b{n}_{channel:04d}.nii.gz" for n in range(4) for channel in range(2)]


def test_ct_keeps_its_units_in_nnunet(tmp_path: Path) -> None:
    cpfnet.convert(oblique_volumes(tmp_path / "scans"), tmp_path / "out", to="nnunet")
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert told["channel_names"] == {"0": "CT"}
    assert told["labels"] == {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}


@pytest.mark.parametrize(("make", "reader"), [(tilted, "NibabelIO"), (oblique_volumes, None)])
def test_nnunet_reads_tilted_volumes_by_the_one_reader_that_can(
    tmp_path: Path, make: Callable[[Path], Path], reader: str | None
) -> None:
    cpfnet.convert(make(tmp_path / "scans"), tmp_path / "out", to="nnunet")
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert told.get("overwrite_image_reader_writer") == reader


def test_outside_the_region_nnunet_learns_nothing_but_where_no_picture_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_images_dataset(tmp_path / "eyes", cases=4, size=(48, 52), channels=1, roi=True)
    dark, black = (tmp_path / "eyes" / "images" / f"case_0{n}.png" for n in (0, 1))
    inside = np.asarray(Pillow.open(root / "roi" / "case_01.png")) > 0
    pixels = np.asarray(Pillow.open(black)).copy()
    write_raster(black, np.uint8(np.where(inside, np.maximum(pixels, 30), 0)))
    cpfnet.convert(root, tmp_path / "out", to="nnunet")
    assert any("region of interest" in line for line in caplog.messages)
    for image, name, outside in ((dark, "case_00", 2), (black, "case_01", 0)):
        written = np.asarray(Pillow.open(tmp_path / "out" / "labelsTr" / f"{name}.png"))
        drawn = np.asarray(Pillow.open(root / "masks" / image.name)) == 255
        np.testing.assert_array_equal(written[inside], drawn[inside])
        assert (written[~inside & ~drawn] == outside).all()


@pytest.mark.parametrize("to", ["monai", "csv"])
def test_regions_of_interest_go_along(tmp_path: Path, to: str) -> None:
    root = make_images_dataset(tmp_path / "eyes", cases=3, size=(32, 36), roi=True)
    cpfnet.convert(root, tmp_path / "out", to=to)
    for old, new in zip(load(root).cases, load(tmp_path / "out").cases, strict=True):
        assert old.roi is not None
        assert new.roi is not None
        np.testing.assert_array_equal(formats.read(new.roi).array > 0, formats.read(old.roi).array > 0)


@targets
def test_the_labels_of_other_readers_are_kept(tmp_path: Path, to: str) -> None:
    root = readers(tmp_path / "eyes")
    cpfnet.convert(root, tmp_path / "out", to=to)
    folder = {"nnunet": "labelsTr_ben", "monai": "labels_ben", "csv": "labels_ben"}[to]
    for case in load(root).cases:
        drawn = np.asarray(Pillow.open(case.labels["ben"])) == 255
        np.testing.assert_array_equal(np.asarray(Pillow.open(tmp_path / "out" / folder / f"{case.id}.png")), drawn)


def test_monai_reads_its_datalist(tmp_path: Path) -> None:
    from monai.data import load_decathlon_datalist
    from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged

    root = regions(tmp_path / "brains")
    cpfnet.convert(root, tmp_path / "out", to="monai")
    items = load_decathlon_datalist(tmp_path / "out" / "dataset.json", True, "training")
    assert [item["case"] for item in items] == ["b0", "b1", "b2", "b3"]
    assert {item["fold"] for item in items} == {0, 1, 2, 3}
    read = Compose([LoadImaged(["image", "label"]), EnsureChannelFirstd(["image", "label"])])
    for item in items:
        loaded = read(item)
        original = nibabel.load(root / "images" / f"{item['case']}.nii.gz")
        np.testing.assert_array_equal(np.moveaxis(loaded["image"].numpy(), 0, -1), original.get_fdata(dtype=np.float32))
        assert loaded["label"].shape == (1, *original.shape[:3])


def test_monai_gets_test_cases_without_label(tmp_path: Path) -> None:
    from monai.data import load_decathlon_datalist

    cpfnet.convert(nnunet(tmp_path / "scans"), tmp_path / "out", to="monai")
    items = load_decathlon_datalist(tmp_path / "out" / "dataset.json", True, "test")
    assert [(item["case"], "label" in item) for item in items] == [("scan_008", False), ("scan_009", False)]
    assert all(Path(image).is_file() for item in items for image in item["image"])


def test_nnunet_finds_no_fault(tmp_path: Path) -> None:
    reason = "nnU-Net brings gigabytes and is not installed"
    integrity = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity", reason=reason)
    for number, name in enumerate(MADE):
        converted = tmp_path / f"Dataset{number:03}_Any"
        cpfnet.convert(make(name, tmp_path / "sources"), converted, to="nnunet")
        integrity.verify_dataset_integrity(str(converted), 1)


@settings(max_examples=25, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(0.2, 6)] * 3),
    origin=st.tuples(*[st.floats(-900, 900)] * 3),
    degrees=st.tuples(*[st.floats(-60, 60)] * 3),
    axes=st.permutations((0, 1, 2)),
    signs=st.tuples(*[st.sampled_from((1, -1))] * 3),
    seed=st.integers(0, 99),
)
def test_another_reader_finds_image_and_label_where_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    degrees: tuple[float, float, float],
    axes: tuple[int, int, int],
    signs: tuple[int, int, int],
    seed: int,
) -> None:
    root = tmp_path_factory.mktemp("any")
    geometry = affine(spacing, origin=origin, degrees=degrees, axes=axes, signs=signs)
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 9, 3))
    write_nifti(root / "images" / "a.nii.gz", rng.integers(-1000, 1000, shape).astype(np.int16), geometry)
    write_nifti(root / "labels" / "a.nii.gz", rng.integers(0, 3, shape).astype(np.uint8) * 5, geometry)
    declare(root, "labels: {one: 5, two: 10}\n")
    cpfnet.convert(root, root / "out", to="nnunet")
    for old, new, factor in (("images/a", "imagesTr/a_0000", 1), ("labels/a", "labelsTr/a", 5)):
        before, after = (SimpleITK.ReadImage(root / f"{name}.nii.gz") for name in (old, f"out/{new}"))
        np.testing.assert_array_equal(
            SimpleITK.GetArrayFromImage(before), factor * SimpleITK.GetArrayFromImage(after).astype(int)
        )
        for corner in ((0, 0, 0), tuple(int(n) - 1 for n in before.GetSize())):
            np.testing.assert_allclose(
                before.TransformIndexToPhysicalPoint(corner), after.TransformIndexToPhysicalPoint(corner), atol=1e-3
            )


def test_dicom_comes_out_as_simpleitk_reads_it(tmp_path: Path) -> None:
    cpfnet.convert(studies(tmp_path / "studies"), tmp_path / "out", to="nnunet")
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert told["channel_names"] == {"0": "CT"}
    assert told["labels"] == {"background": 0, "liver": 1, "tumour": 2}
    folder, reader = str(tmp_path / "studies" / "visit2"), SimpleITK.ImageSeriesReader
    found = [reader.GetGDCMSeriesFileNames(folder, uid) for uid in reader.GetGDCMSeriesIDs(folder)]
    before = SimpleITK.ReadImage(max(found, key=len))
    image, label = (
        SimpleITK.ReadImage(tmp_path / "out" / name)
        for name in ("imagesTr/visit2_0000.nii.gz", "labelsTr/visit2.nii.gz")
    )
    for index in ((0, 0, 0), (15, 0, 7), (3, 13, 4)):
        point = before.TransformIndexToPhysicalPoint(index)
        assert image.TransformPhysicalPointToIndex(point) == index
        assert image[index] == before[index]
        np.testing.assert_allclose(label.TransformIndexToPhysicalPoint(index), point, atol=1e-3)
    mask = phantom((8, 14, 16))[1]
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(label), np.where(mask == 2, 2, mask > 0))


@targets
def test_nothing_private_leaves_the_studies(tmp_path: Path, to: str, caplog: pytest.LogCaptureFixture) -> None:
    done = cpfnet.convert(studies(tmp_path / "studies"), tmp_path / "out", to=to)
    written = [
        gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in done.folder.rglob("*.*")
    ]
    names = [str(path.relative_to(tmp_path)) for path in done.folder.rglob("*")]
    everything = b"\n".join([*written, "\n".join([*names, *caplog.messages]).encode()])
    for secret in (*PRIVATE.values(), "P-1", "P-2"):
        assert secret.encode() not in everything


def test_nothing_of_the_source_header_but_its_geometry_goes_along(tmp_path: Path) -> None:
    root = make_volumes_dataset(tmp_path / "scans", cases=2, shape=(10, 9, 6))
    for path in root.glob("*/*.nii.gz"):
        image = nibabel.load(path)
        image.header["descrip"], image.header["db_name"] = b"DOE^JANE", b"19500101"
        nibabel.save(image, path)
    cpfnet.convert(root, tmp_path / "out", to="csv")
    for path in (tmp_path / "out").glob("*/*.nii.gz"):
        header = nibabel.load(path).header
        assert (header["descrip"].item(), header["db_name"].item()) == (b"", b"")


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.text(min_size=1, max_size=140), unique=True, max_size=8))
def test_every_id_becomes_a_file_name_of_its_own(ids: list[str]) -> None:
    names = file_names(ids)
    assert len({name.casefold() for name in names.values()}) == len(ids)
    for name in names.values():
        assert not set(name) & set('/\\:*?"<>|; \0\n')
        assert not name.startswith(".")
        assert len(name) <= 110


def test_ids_that_are_no_file_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "scans"
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "image", "label", "patient"])
        for number, case in enumerate(["left; eye", "left: eye", "Ünal", "../up"]):
            image, mask = blobs(np.random.default_rng(number), (32, 32))
            write_raster(root / f"{number}.png", np.uint8(255 * image))
            write_raster(root / f"{number}_mask.png", 255 * mask)
            writer.writerow([case, f"scans/{number}.png", f"scans/{number}_mask.png", f"p{number}"])
    table = list(csv.reader((tmp_path / "cases.csv").open()))
    table[1][3], table[2][0], table[2][3] = "=cmd", "-left: eye", "-0.5"
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    for to in ("csv", "monai"):
        cpfnet.convert(tmp_path / "cases.csv", tmp_path / to, to=to)
        assert {c.patient for c in load(tmp_path / to).cases} == {"=cmd", "-0.5", "p2", "p3"}
        assert {c.id for c in load(tmp_path / to).cases} == {c.id for c in load(tmp_path / "cases.csv").cases}
        assert {path.parent.name for path in tmp_path.glob(f"{to}/**/*.png")} == {"images", "labels"}
    written = list(csv.DictReader((tmp_path / "csv/cases.csv").open()))
    assert {row["case"] for row in written} >= {"'-left: eye"}  # no spreadsheet computes it
    assert {row["patient"] for row in written} == {"'=cmd", "-0.5", "p2", "p3"}
    assert all((tmp_path / "csv" / row[column]).is_file() for row in written for column in ("image", "label"))
    cpfnet.convert(tmp_path / "cases.csv", tmp_path / "nnunet", to="nnunet")
    assert any("another name" in line for line in caplog.messages)
    assert len(load(tmp_path / "nnunet").cases) == 4


def harm(root: Path, what: str) -> str:
    """Spoil case_02 of a data set of volumes; what its failure must name."""
    image, label = (root / folder / "case_02.nii.gz" for folder in ("images", "labels"))
    if what == "cut image":
        image.write_bytes(image.read_bytes()[:200])
        return "images/case_02.nii.gz"
    if what == "no label file":
        label.write_bytes(b"<!DOCTYPE html><html></html>")
        return "HTML page"
    values = np.asarray(nibabel.load(label).dataobj).T
    if what == "label off the grid":
        write_nifti(label, values, affine((1, 1, 2), origin=(0, 0, 3)))
        return "does not lie on its image's grid"
    if what == "unknown value":
        write_nifti(label, values * 9, affine((1, 1, 2)))
        return "unexpected label values 9"
    if what == "other channels":
        write_nifti(image, np.stack([values.astype(np.int16)] * 2), affine((1, 1, 2)))
        return "2 channels and 3 spatial axes"
    write_nifti(image, np.where(values == 1, np.nan, 3).astype(np.float32), affine((1, 1, 2)))
    return "NaN"


@pytest.mark.parametrize(
    "what", ["cut image", "no label file", "label off the grid", "unknown value", "other channels", "NaN"]
)
@targets
def test_a_bad_case_is_named_and_left_out(tmp_path: Path, to: str, what: str) -> None:
    root = declare(make_volumes_dataset(tmp_path / "scans", cases=5, shape=(12, 10, 6)), "labels: {a: 1, b: 2}\n")
    named = harm(root, what)
    done = cpfnet.convert(root, tmp_path / "out", to=to)
    assert list(done.failures) == ["case_02"]
    assert named in done.failures["case_02"]
    assert "→" in done.failures["case_02"]
    again = load(tmp_path / "out")
    assert [c.id for c in again.cases] == list(done.cases) == ["case_00", "case_01", "case_03", "case_04"]
    assert not again.problems
    assert not [path for path in (tmp_path / "out").rglob("*") if "case_02" in path.name]
    assert "case_02" not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.*"))


def test_where_no_case_is_left_nothing_is_written(tmp_path: Path) -> None:
    root = declare(make_volumes_dataset(tmp_path / "scans", cases=2, shape=(12, 10, 6)), "labels: {organ: 9}\n")
    with pytest.raises(DatasetError, match=r"none of 2 cases .* that failed: .*unexpected label values"):
        cpfnet.convert(root, tmp_path / "out", to="nnunet")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("declaration", ["labels: {lesion: 255}\n", "name: pictures\n"])
@pytest.mark.parametrize(("folder", "rest"), [("masks", ""), ("images", " and can be converted; the first of 2")])
def test_where_nothing_can_be_learnt_the_reason_is_told(
    tmp_path: Path, folder: str, rest: str, declaration: str
) -> None:
    root = declare(make_images_dataset(tmp_path / "pictures", cases=2, size=(32, 32)), declaration)
    for path in (root / folder).iterdir():
        path.unlink() if folder == "masks" else path.write_bytes(b"")
    with pytest.raises(DatasetError, match=f"none of 2 cases has a label to learn from{rest}"):
        cpfnet.convert(root, tmp_path / "out", to="csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["background", "ignore"])
def test_classes_called_as_settings_are_refused(tmp_path: Path, name: str) -> None:
    root = make_volumes_dataset(tmp_path / "scans", cases=2, shape=(12, 10, 6), classes=1)
    declare(root, f"labels: {{classes: [{{name: {name}, values: 1}}]}}\n")
    with pytest.raises(DatasetError, match=f"called '{name}'"):
        cpfnet.convert(root, tmp_path / "out", to="nnunet")
    cpfnet.convert(root, tmp_path / "out", to="csv")
    again = load(tmp_path / "out").labels
    assert again is not None
    assert [c.name for c in again.classes] == [name]


def test_what_the_user_made_is_never_replaced(tmp_path: Path) -> None:
    root = make_images_dataset(tmp_path / "pictures", cases=3, size=(32, 32))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="not empty"):
            cpfnet.convert(root, tmp_path / "thesis", to="csv", overwrite=overwrite)
        with pytest.raises(OutputError, match="the data set itself"):
            cpfnet.convert(root, root, to="csv", overwrite=overwrite)
        with pytest.raises(OutputError, match="no folder"):
            cpfnet.convert(root, tmp_path / "thesis" / "chapter.txt", to="csv", overwrite=overwrite)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_an_earlier_conversion_is_replaced_on_request(tmp_path: Path) -> None:
    out = tmp_path / "out"
    cpfnet.convert(make_images_dataset(tmp_path / "a", cases=4, size=(32, 32)), out, to="nnunet")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="earlier conversion"):
        cpfnet.convert(tmp_path / "a", out, to="csv")
    cpfnet.convert(make_images_dataset(tmp_path / "b", cases=3, size=(32, 32)), out, to="csv", overwrite=True)
    assert {path.name for path in out.iterdir()} == {"images", "labels", "cases.csv", "dataset.yaml", "notes.txt"}
    assert len(load(out).cases) == 3


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    cpfnet.convert(make_images_dataset(tmp_path / "a", cases=3, size=(32, 32)), tmp_path / "out", to="csv")
    assert len(load(tmp_path / "out").cases) == 3


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    root = make_images_dataset(tmp_path / "a", cases=3, size=(32, 32))
    (root / "images" / "case_00.png").rename(root / "images" / "the first.png")
    (root / "masks" / "case_00.png").rename(root / "masks" / "the first.png")

    class Interrupt(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "another name" in record.getMessage():
                raise KeyboardInterrupt

    interrupt, logger = Interrupt(), logging.getLogger("cpfnet.data")
    logger.addHandler(interrupt)
    with pytest.raises(KeyboardInterrupt):
        cpfnet.convert(root, tmp_path / "out", to="nnunet")
    logger.removeHandler(interrupt)
    assert not (tmp_path / "out").exists()


def run(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nfrom cpfnet.cli.app import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        timeout=120,
    )


def test_the_command_ends_with_1_where_a_case_failed(tmp_path: Path) -> None:
    root = make_volumes_dataset(tmp_path / "scans", cases=3, shape=(12, 10, 6))
    done = run("convert", root, "--to", "monai", "-o", tmp_path / "good")
    assert (done.returncode, done.stderr) == (0, f"3 of 3 cases converted, in {tmp_path / 'good'}\n")
    harm(root, "cut image")
    done = run("convert", root, "--to", "monai", "-o", tmp_path / "rest")
    assert done.returncode == 1
    assert "2 of 3 cases converted" in done.stderr
    assert "case_02" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    root = make_volumes_dataset(tmp_path / "scans", cases=3, shape=(40, 36, 30))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    done = run("convert", root, "--to", "nnunet", "-o", tmp_path / "out", before=limit)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_plan_decides_about_labels_and_folds(tmp_path: Path) -> None:
    root = make_volumes_dataset(tmp_path / "scans", cases=6, shape=(20, 18, 8))
    plan = cpfnet.plan(root, modality="ct", settings=["folds.count=3"])
    both = Labels.model_validate({"classes": [{"name": "organ", "values": [1, 2]}]})
    cpfnet.convert(root, tmp_path / "out", to="nnunet", plan=plan.model_copy(update={"labels": both}))
    told = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert told["labels"] == {"background": 0, "organ": 1}
    assert told["channel_names"] == {"0": "CT"}
    assert len(json.loads((tmp_path / "out" / "splits_final.json").read_text())) == 3


@pytest.mark.parametrize("target", ["nnunet2", "NNUNET", ""])
def test_unknown_targets_are_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(CpfnetError, match="choose one of nnunet, monai, csv"):
        cpfnet.convert(make_images_dataset(tmp_path / "a", cases=2, size=(32, 32)), tmp_path / "out", to=target)

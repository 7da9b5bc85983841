"""Lists of cases as people and spreadsheets write them: columns, back slashes, encodings, values in quotes."""

from __future__ import annotations

import csv
import io
import json
import os
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.data.dataset_yaml import full_labels
from cpfnet.data.sources.list_columns import role
from cpfnet.errors import CpfnetError, DatasetError
from cpfnet.planning import Labels
from tests import synthetic

POSIX = pytest.mark.skipif(os.name == "nt", reason="there, a back slash is what parts folders")


def pairs(root: Path, names: list[str]) -> list[tuple[str, str]]:
    """Files ``scans/NAME.png`` and ``drawn/NAME.png``, relative paths of images and labels."""
    for number, name in enumerate(names):
        synthetic.write_raster(
            root / "scans" / f"{name}.png", np.random.default_rng(number).integers(0, 255, (9, 9), np.uint8)
        )
        synthetic.write_raster(
            root / "drawn" / f"{name}.png", np.uint8(255 * (np.arange(81).reshape(9, 9) % (number + 2) == 0))
        )
    return [(f"scans/{name}.png", f"drawn/{name}.png") for name in names]


def table(columns: list[str], rows: list[tuple[str, ...]], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows([columns, *rows])
    return text.getvalue()


def right(listing: Path, names: list[str]) -> bool:
    root = listing.parent
    cases = load(listing).cases
    assert [(c.images, c.labels) for c in sorted(cases, key=lambda c: c.images)] == [
        ((root / "scans" / f"{name}.png",), {"label": root / "drawn" / f"{name}.png"}) for name in sorted(names)
    ]
    assert [f for f in check(listing) if f.severity == "error"] == []
    return True


NAMES = ["a", "b", "c"]


@pytest.mark.parametrize("image", ["image", "Image", "images", "img", "image_path", "Image File"])
@pytest.mark.parametrize(
    "label",
    [
        *("label", "mask", "Mask", "masks", "seg", "segmentation", "annotation", "ground_truth", "Ground Truth", "gt"),
        *("mask_path", "label_file", "groundtruth"),
    ],
)
def test_columns_called_otherwise(tmp_path: Path, image: str, label: str) -> None:
    listing = tmp_path / "cases.csv"
    listing.write_text(table([image, label], pairs(tmp_path, NAMES)))
    assert right(listing, NAMES)
    told = [f.what for f in load(listing).problems]
    assert told == [
        f"the column {column!r} is taken for `{known}`"
        for column, known in ((image, "image"), (label, "label"))
        if column != known
    ]
    (tmp_path / "list.json").write_text(
        json.dumps({"training": [dict(zip((image, label), pair, strict=True)) for pair in pairs(tmp_path, NAMES)]})
    )
    assert right(tmp_path / "list.json", NAMES)


def test_two_columns_that_could_be_the_labels(tmp_path: Path) -> None:
    rows = [(image, label, label) for image, label in pairs(tmp_path, NAMES)]
    listing = tmp_path / "cases.csv"
    listing.write_text(table(["image", "mask", "gt"], rows))
    with pytest.raises(DatasetError, match="'mask' and 'gt' could each be the label") as caught:
        load(listing)
    assert caught.value.fix == "rename the one that is meant to `label`"
    listing.write_text(table(["image", "mask", "label"], [(i, "nowhere.png", m) for i, m, _ in rows]))
    assert right(listing, NAMES)


def test_readers_and_further_columns_keep_their_meaning(tmp_path: Path) -> None:
    rows = [(f"p_{n}", image, label, label, "F", "fov.png") for n, (image, label) in enumerate(pairs(tmp_path, NAMES))]
    (tmp_path / "cases.csv").write_text(table(["case", "image", "label_anna", "label_ben", "sex", "FOV"], rows))
    case = load(tmp_path / "cases.csv").cases[0]
    assert (case.id, list(case.labels), case.roi) == ("p_0", ["anna", "ben"], tmp_path / "fov.png")


@given(word=st.text(max_size=12))
def test_any_word_is_one_role_or_none(word: str) -> None:
    assert role(word) in ("image", "label", "roi", "")
    assert role(word) == role(word.upper()) or word.upper().lower() != word.lower()


def test_a_list_without_labels_says_which_column_lacks(tmp_path: Path) -> None:
    listing = tmp_path / "cases.csv"
    listing.write_text(table(["image", "outline"], pairs(tmp_path, NAMES)))
    (finding,) = [f for f in check(listing) if f.severity == "error"]
    assert "add a column `label`" in finding.fix
    assert "`cases.csv`" in finding.fix


@POSIX
@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_back_slashes(tmp_path: Path, suffix: str) -> None:
    rows = [tuple(name.replace("/", "\\") for name in pair) for pair in pairs(tmp_path, NAMES)]
    listing = tmp_path / f"cases.{suffix}"
    content = {"training": [{"image": i, "label": m} for i, m in rows]}
    listing.write_text(table(["image", "label"], rows) if suffix == "csv" else json.dumps(content))
    assert right(listing, NAMES)
    assert [case.id for case in load(listing).cases] == NAMES
    # A file whose own name holds one is that file.
    for folder in ("scans", "drawn"):
        (tmp_path / folder / "a.png").rename(tmp_path / f"{folder}\\a.png")
    assert (tmp_path / "scans\\a.png",) in [case.images for case in load(listing).cases]


def test_back_slashes_that_json_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text('{"training": [{"image": "scans\\a.png"}]}'.replace("\\a", "\\c"))
    with pytest.raises(DatasetError, match="not valid JSON") as caught:
        load(tmp_path / "list.json")
    assert caught.value.fix == "write paths with / in place of \\"


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-bom"])
@pytest.mark.parametrize("hint", [False, True])
def test_separators_and_marks(tmp_path: Path, delimiter: str, encoding: str, hint: bool, suffix: str) -> None:
    names = ["a", "图像2", "Müller"]
    text = table(["image", "mask"], pairs(tmp_path, names), delimiter)
    text = f"sep={delimiter}\r\n{text}" if hint else text
    listing = tmp_path / f"cases.{suffix}"
    listing.write_bytes(b"\xfe\xff" + text.encode("utf-16-be") if encoding.endswith("bom") else text.encode(encoding))
    assert right(listing, names)


@pytest.mark.parametrize(
    ("encoding", "words", "names"),
    [
        ("gbk", "GBK", ["张伟", "病例2", "c3"]),
        ("gbk", "GBK", ["喆镕", "图像10", "瞭望"]),  # rarer characters, of GBK alone
        ("gb18030", "GBK", ["a", "b𠀀"]),
        ("cp932", "Shift-JIS", ["症例1", "テスト"]),
        ("cp949", "EUC-KR", ["환자1", "환자2"]),
        ("cp1252", "Windows-1252", ["Müller", "Ångström"]),
    ],
)
def test_encodings_of_spreadsheets(tmp_path: Path, encoding: str, words: str, names: list[str]) -> None:
    """Of files that exist, the names tell in which encoding the list was written."""
    listing = tmp_path / "cases.csv"
    listing.write_bytes(table(["image", "mask"], pairs(tmp_path, names)).encode(encoding))
    assert right(listing, names)
    (note,) = [f for f in load(listing).problems if f.kind == "encoding"]
    assert f"read as {words}" in note.what


def test_ids_in_gbk_beside_plain_file_names(tmp_path: Path) -> None:
    rows = [(f"患者{n}", *pair) for n, pair in enumerate(pairs(tmp_path, NAMES))]
    (tmp_path / "cases.csv").write_bytes(table(["case", "image", "label"], rows).encode("gbk"))
    assert [case.id for case in load(tmp_path / "cases.csv").cases] == ["患者0", "患者1", "患者2"]


def test_names_on_disk_that_are_no_text_are_found_by_their_bytes(tmp_path: Path) -> None:
    pairs(tmp_path, NAMES)
    name = b"scans/caf\xe9.png"
    try:
        (tmp_path / "scans" / "a.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / "cases.csv").write_bytes(b"image,label\n" + name + b",drawn/a.png\n")
    (case,) = load(tmp_path / "cases.csv").cases
    assert os.fsencode(case.images[0]) == os.fsencode(tmp_path) + b"/" + name
    assert case.images[0].exists()


@pytest.mark.parametrize(
    ("short", "values", "background"),
    [
        ({"lesion": "255"}, {"lesion": (255,)}, (0,)),
        ({"lesion": ["1", 2, "0x3"][:2]}, {"lesion": (1, 2)}, (0,)),
        ({"background": "0", "lesion": "255", "ignore": "7"}, {"lesion": (255,)}, (0,)),
        ({"lesion": " 255 "}, {"lesion": (255,)}, (0,)),
        ({"lesion": "-1"}, {"lesion": (-1,)}, (0,)),
        ({255: "lesion"}, {"lesion": (255,)}, (0,)),
        ({"0": "background", "1": "liver", "2": "spleen"}, {"liver": (1,), "spleen": (2,)}, (0,)),
        ({1: "organ", 2: "organ"}, {"organ": (1, 2)}, (0,)),
        ({"classes": [{"name": "lesion", "values": ["255"]}]}, {"lesion": (255,)}, (0,)),
        ({"lesion": {"values": "255"}}, {"lesion": (255,)}, (0,)),
    ],
)
def test_label_values_in_quotes_or_the_other_way_round(
    short: dict[object, object], values: dict[str, tuple[int, ...]], background: tuple[int, ...]
) -> None:
    labels = Labels.model_validate(full_labels(short))
    assert {c.name: c.values for c in labels.classes} == values
    assert all(c.names == () for c in labels.classes)
    assert labels.background == background


def test_names_of_structures_stay_names() -> None:
    labels = Labels.model_validate(
        full_labels({"tumour": "GTV*", "lung": ["Lung 1", "lungs"], "one": {"values": 5, "names": ["1"]}})
    )
    assert [(c.values, c.names) for c in labels.classes] == [
        ((1,), ("GTV*",)),
        ((2,), ("Lung 1", "lungs")),
        ((5,), ("1",)),
    ]


@pytest.mark.parametrize("value", ["two", "2.5", "1e2", "", "0x10", "٣"])
def test_what_is_no_number_is_no_value(value: str) -> None:
    with pytest.raises((CpfnetError, ValueError)):
        Labels.model_validate({"classes": [{"name": "a", "values": [value]}]})


def test_masks_of_a_quoted_value_are_right(tmp_path: Path) -> None:
    """Nothing is to be replaced in them."""
    synthetic.make_images_dataset(tmp_path, cases=6)
    (tmp_path / "dataset.yaml").write_text('labels: {lesion: "255"}\n')
    assert [f for f in check(tmp_path) if f.severity == "error"] == []


def test_a_bare_list_is_a_datalist(tmp_path: Path) -> None:
    rows = pairs(tmp_path, [f"c{k}" for k in range(6)])
    (tmp_path / "list.json").write_text(json.dumps([{"image": image, "seg": label} for image, label in rows]))
    found = load(tmp_path / "list.json").cases
    assert [(case.images[0], case.labels["label"]) for case in found] == [
        (tmp_path / image, tmp_path / label) for image, label in rows
    ]


@POSIX
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_letters_parted_from_their_accents(tmp_path: Path, suffix: str, form: Literal["NFC", "NFD"]) -> None:
    other: Literal["NFC", "NFD"] = "NFC" if form == "NFD" else "NFD"
    rows = pairs(tmp_path, [unicodedata.normalize(other, f"Größe {k}") for k in range(6)])
    listed = [tuple(unicodedata.normalize(form, name) for name in row) for row in rows]
    path = tmp_path / f"list{suffix}"
    if suffix == ".csv":
        path.write_text(table(["image", "label"], listed), encoding="utf-8")
    else:
        path.write_text(json.dumps({"training": [{"image": a, "label": b} for a, b in listed]}), encoding="utf-8")
    assert [case.images[0] for case in load(path).cases] == [tmp_path / image for image, _ in rows]
    assert "missing-file" not in {f.kind for f in check(path)}


@pytest.mark.parametrize("before", ["D:\\data\\", "C:/Users/me/", "/home/me/data/"])
def test_paths_of_another_computer_are_named_as_such(tmp_path: Path, before: str) -> None:
    rows = pairs(tmp_path, [f"c{k}" for k in range(6)])
    back = "\\" in before
    listed = [tuple(before + (name.replace("/", "\\") if back else name) for name in row) for row in rows]
    (tmp_path / "list.csv").write_text(table(["image", "label"], listed))
    found = [f for f in check(tmp_path / "list.csv") if f.kind == "missing-file"]
    assert found
    assert all("another computer" in f.what for f in found)
    assert found[0].fix.startswith(f"write `drawn/c0.png` in place of `{before.replace(chr(92), '/')}drawn/c0.png`")


def test_a_label_that_is_a_diagnosis_is_no_mask(tmp_path: Path) -> None:
    rows = [(image, mask, "benign") for image, mask in pairs(tmp_path, [f"c{k}" for k in range(6)])]
    (tmp_path / "list.csv").write_text(table(["image", "mask", "label"], rows))
    dataset = load(tmp_path / "list.csv")
    assert [case.labels["label"] for case in dataset.cases] == [tmp_path / mask for _, mask, _ in rows]
    assert ["'mask' is taken for `label`" in f.what for f in dataset.problems] == [True]

"""How a DATASET is understood: layouts, lists and patterns become the same cases."""

from __future__ import annotations

import contextlib
import json
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from cpfnet.data.case import dataset_warnings
from cpfnet.data.dataset import load
from cpfnet.data.dataset_yaml import Declaration, full_labels, short_labels
from cpfnet.errors import CpfnetError, DatasetError, PlanError
from cpfnet.planning import Labels


def touch(root: Path, *names: str) -> Path:
    """Files without content: to find cases, none is read."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def declare(root: Path, text: str) -> Path:
    (root / "dataset.yaml").write_text(text)
    return root


def test_plain_folders_in_natural_order_without_litter(tmp_path: Path) -> None:
    names = ["im10.png", "im9.png", "im1.PNG"]
    touch(tmp_path, *(f"Images/{n}" for n in names), *(f"masks/{n[:-4]}.tif" for n in names), "fov/im9.gif")
    touch(tmp_path, "Images/._im1.png", "Images/.DS_Store", "Images/Thumbs.db", "Images/readme.txt", "masks/.im.png")
    data = load(tmp_path)
    assert [case.id for case in data.cases] == ["im1", "im9", "im10"]
    assert data.cases[1].labels == {"label": tmp_path / "masks/im9.tif"}
    assert data.cases[1].roi == tmp_path / "fov/im9.gif"
    assert data.problems == ()
    assert data.name == tmp_path.name


@pytest.mark.parametrize("order", ["{split}/{kind}", "{kind}/{split}"])
def test_splits_above_or_below(tmp_path: Path, order: str) -> None:
    for split in ("train", "valid", "test"):
        for kind in ("images", "labels"):
            if (split, kind) != ("test", "labels"):
                touch(tmp_path, f"{order.format(split=split, kind=kind)}/{split}_1.nii.gz")
    data = load(tmp_path)
    assert [(case.id, case.split, len(case.labels)) for case in data.cases] == [
        ("test_1", "test", 0),
        ("train_1", "train", 1),
        ("valid_1", "val", 1),
    ]


def test_same_name_in_two_splits_is_two_cases(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{s}/{k}/001.png" for s in ("train", "test") for k in ("images", "masks")))
    assert [(c.id, c.patient, c.split) for c in load(tmp_path).cases] == [
        ("test_001", "test_001", "test"),
        ("train_001", "train_001", "train"),
    ]


@pytest.mark.parametrize("ending", ["_mask", "-mask", "_segmentation", "_Label", " seg", "_gt", ""])
def test_usual_endings_of_masks(tmp_path: Path, ending: str) -> None:
    touch(tmp_path, "images/a.png", "images/a_b.png", f"masks/a{ending}.png", f"masks/a_b{ending}.png")
    assert [case.labels["label"].stem for case in load(tmp_path).cases] == [f"a{ending}", f"a_b{ending}"]


def test_names_that_are_no_text_and_names_from_a_mac(tmp_path: Path) -> None:
    accent = "Müller"
    touch(
        tmp_path,
        f"images/{unicodedata.normalize('NFC', accent)}.png",
        f"masks/{unicodedata.normalize('NFD', accent)}.png",
    )
    try:
        for folder in ("images", "masks"):
            Path(os.fsdecode(os.fsencode(tmp_path / folder) + b"/caf\xe9.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data = load(tmp_path)
    assert [case.id for case in data.cases] == ["caf\\xe9", unicodedata.normalize("NFC", accent)]
    assert all(case.labels for case in data.cases)
    json.dumps([case.id for case in data.cases]).encode("ascii")


def test_nnunet_with_regions(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"imagesTr/b_{n}_000{c}.nii.gz" for n in (1, 2) for c in (0, 1)),
        *(f"labelsTr/b_{n}.nii.gz" for n in (1, 2)),
    )
    touch(tmp_path, "imagesTs/b_3_0000.nii.gz", "imagesTs/b_3_0001.nii.gz")
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
        "regions_class_order": [1, 2, 3],
        "file_ending": ".nii.gz",
        "name": "Brain",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data = load(tmp_path)
    assert [(c.id, len(c.images), len(c.labels), c.split) for c in data.cases] == [
        ("b_1", 2, 1, None),
        ("b_2", 2, 1, None),
        ("b_3", 2, 0, "test"),
    ]
    assert (data.name, data.modality, data.channels) == ("Brain", "mr", ("T1", "FLAIR"))
    assert data.labels is not None
    assert not data.labels.exclusive
    assert [(c.name, c.values, c.written) for c in data.labels.classes] == [
        ("whole", (1, 2, 3), 1),
        ("core", (2, 3), 2),
        ("enhancing", (3,), 3),
    ]
    assert data.labels.ignore == (4,)
    assert load(tmp_path / "dataset.json").cases == data.cases


def test_decathlon_and_monai_datalists(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "imagesTr/a.nii.gz",
        "imagesTr/b.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/b.nii.gz",
        "imagesTs/c.nii.gz",
    )
    content = {
        "name": "Hippocampus",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "training": [
            {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", "fold": 0},
            {"image": ["./imagesTr/b.nii.gz"], "label": "./labelsTr/b.nii.gz", "fold": 1},
        ],
        "test": ["./imagesTs/c.nii.gz"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    data = load(tmp_path)
    assert [(c.id, c.split, c.fold) for c in data.cases] == [("a", None, 0), ("b", None, 1), ("c", "test", None)]
    assert data.labels is not None
    assert [(c.name, c.values) for c in data.labels.classes] == [("Anterior", (1,)), ("Posterior", (2,))]
    assert (data.modality, data.layout) == ("mr", "datalist JSON")


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_manifest(tmp_path: Path, delimiter: str) -> None:
    rows = [
        ["case", "image", "label_anna", "label_bo", "patient", "split", "age"],
        ["", "a_t1.nii.gz; a_t2.nii.gz", "a1.nii.gz", "a2.nii.gz", "p", "Validation", "63"],
        ["x/y", "b_t1.nii.gz;b_t2.nii.gz", "b1.nii.gz", "", "", "", ""],
    ]
    text = "\ufeff" + "\r\n".join(delimiter.join(row) for row in rows) + "\r\n\r\n"
    (tmp_path / "cases.csv").write_bytes(text.encode())
    first, second = load(tmp_path / "cases.csv").cases
    assert (first.id, first.patient, first.split) == ("a_t1", "p", "val")
    assert first.images == (tmp_path / "a_t1.nii.gz", tmp_path / "a_t2.nii.gz")
    assert first.labels == {"anna": tmp_path / "a1.nii.gz", "bo": tmp_path / "a2.nii.gz"}
    assert (second.id, second.patient, list(second.labels)) == ("x_y", "x_y", ["anna"])
    assert {finding.kind for finding in load(tmp_path / "cases.csv").problems} == {"missing-file"}


def test_patterns_with_patients_channels_readers_and_splits(tmp_path: Path) -> None:
    for patient in ("P1", "P2"):
        for case in ("007", "011"):
            touch(tmp_path, f"{patient}/day_a/{case}_T1.nii", f"{patient}/day_a/{case}_T2.nii")
            touch(tmp_path, f"truth/{patient}-{case}-anna.nii", f"truth/{patient}-{case}-bo.nii")
    declare(
        tmp_path,
        """
name: Two days
image:
  T1: "{patient}/day_*/{case}_T1.nii"
  T2: "{patient}/day_*/{case}_T2.nii"
label:
  anna: truth/{patient}-{case}-anna.nii
  bo: truth/{patient}-{case}-bo.nii
labels: {background: 0, wall: [1, 2], lumen: '#FF0000', tubular: lumen, ignore: 9}
split: {test: P2, val: [P1_007]}
""",
    )
    data = load(tmp_path)
    assert [(c.id, c.patient, c.split) for c in data.cases] == [
        ("P1_007", "P1", "val"),
        ("P1_011", "P1", "train"),
        ("P2_007", "P2", "test"),
        ("P2_011", "P2", "test"),
    ]
    assert [path.name for path in data.cases[0].images] == ["007_T1.nii", "007_T2.nii"]
    assert list(data.cases[0].labels) == ["anna", "bo"]
    assert data.channels == ("T1", "T2")
    assert data.labels is not None
    assert [(c.name, c.values, c.tubular) for c in data.labels.classes] == [
        ("wall", (1, 2), False),
        ("lumen", ("#ff0000",), True),
    ]
    assert data.problems == ()


def test_one_declaration_for_data_elsewhere_and_one_that_only_adds(tmp_path: Path) -> None:
    touch(tmp_path / "data", *(f"{k}/{c}.png" for k in ("images", "masks") for c in ("p1_L", "p1_R", "p2_L", "21")))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("root: data\npatient: '^(p[0-9]+|21)'\nlabels: {lesion: 255}\nsplit: {val: 21}\n")
    data = load(recipe)
    assert [(c.id, c.patient, c.split) for c in data.cases] == [
        ("21", "21", "val"),
        ("p1_L", "p1", "train"),
        ("p1_R", "p1", "train"),
        ("p2_L", "p2", "train"),
    ]
    assert data.declaration == recipe


def test_pattern_finds_two_files_or_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png", "m/a_1.gif", "m/a_2.gif", "m/c_1.gif")
    declare(tmp_path, "image: '{case}.png'\nlabel: m/{case}_*.gif\n")
    data = load(tmp_path)
    assert [(c.id, c.labels) for c in data.cases] == [("b", {})]
    assert sorted((f.kind, f.where) for f in data.problems) == [
        ("ambiguous-label", "m/a_1.gif"),
        ("no-image", "m/c_1.gif"),
    ]


BAD = {
    "image: ../{case}.png": ("line 1: image", "without '..'"),
    "image: /etc/{case}.png": ("line 1", "relative to `root`"),
    r"image: C:\data\{case}.png": ("line 1", "relative to `root`"),
    "image: images/{id}.png": ("'{id}'", "{case} and {patient}"),
    "image: ['images/{case}.png', 3]": ("line 1: image: 3 is no pattern",),
    "image: {}": ("line 1: image", "is no pattern"),
    "image: images/{case}.png\nlabel: {ann: 'masks/{cse}.png'}": ("line 2: label: '{cse}'",),
    "image: images/one.png": ("neither {case} nor {patient}",),
    "image: scans/{case}.png": ("finds no file", "it holds dataset.yaml, images, masks"),
    "image: images/{case}.png\nlabel: masks/{patient}.png": ("shares no placeholder",),
    "name: x\nimages: images/{case}.png": ("line 2: images: unknown key", "did you mean 'image'"),
    "label: masks/{case}.png": ("needs `image`",),
    "root: nowhere": ("no such folder",),
    "manifest: nothing.csv": ("no such file",),
    "labels: {}": ("no class is named",),
    "labels: {a: 1, tubular: [b]}": ("`tubular` names ['b']",),
    "labels: {a: 1, b: 1}": ("belongs to class 'a'",),
    "labels: {a: '#red'}": ("line 1", "'#red' is neither"),
    "split: {val: [a, z]}": ("no case 'z'",),
    "split: {val: a, test: a}": ("stands in val and in test",),
    "patient: '('": ("not a regular expression",),
    "patient: '^x'": ("matches nothing in the case id 'a'",),
    "image: [": ("line 1", "YAML"),
    "label: {ann: masks/{case}.png}": ("line 1", "may need quotes"),
    "- a": ("holds no settings",),
}


@pytest.mark.parametrize("text", BAD, ids=list(BAD))
def test_bad_declarations_say_where_and_what(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png")
    declare(tmp_path, text)
    with pytest.raises((PlanError, DatasetError)) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert "function" not in message  # the words of pydantic's own types
    assert str(tmp_path / "dataset.yaml") in message
    assert all(part in message for part in BAD[text]), message
    assert caught.value.fix


BAD_LISTS = {
    "a.csv": [
        ("", "no column 'image'"),
        ("imag,label\na,b", "rename the column 'imag'"),
        ("image,lable\na,b", "did you mean 'label'"),
        ("image,label\n\n,b", "line 3: no image"),
        ("image,image\na,b", "columns repeat"),
        ("image,split\na,dev", "line 2: split 'dev'"),
        ("image,fold\na,one", "line 2: fold 'one'"),
        ("image\n", "lists no case"),
        ('image,label\n"a,b', "not valid CSV"),
        ("image,label\na,b,c,d", None),
        ("\x00\x01\x02", "no plain text, or UTF-16"),
    ],
    "a.json": [
        ("", "not valid JSON: line 1"),
        ("[1]", "JSON list, expected an object"),
        ("{}", "lists no case"),
        ('{"training": 3}', "is not a list"),
        ('{"training": [{"label": "a"}]}', "training[0]: names no image"),
        ('{"training": [{"image": "a.png", "label": 3}]}', "must be file names"),
        ('{"training": [null]}', "training[0]: names no image"),
        ('{"training": [{"image": "a.png", "fold": "x"}]}', "fold 'x'"),
        ("[" * 100_000, "nested too deeply"),
        ("\udcff", "not a UTF-8"),
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "expected"), [(name, *item) for name, items in BAD_LISTS.items() for item in items]
)
def test_bad_lists_say_where_and_what(tmp_path: Path, name: str, text: str, expected: str | None) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    if expected is None:
        assert len(load(tmp_path / name).cases) == 1  # surplus cells are nobody's
        return
    with pytest.raises(CpfnetError) as caught:
        load(tmp_path / name)
    assert expected in str(caught.value), str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "cannot be understood"),
        (["a.png"], "cannot be understood"),
        (["images/a.png"], "neither masks/ nor labels/"),
        (["images/a.png", "mask/a.png"], "folders found: images, mask"),
        (["images/a.png", "masks/a.png", "labels/a.png"], "holds both masks/ and labels/"),
        (["images/a.mnc", "masks/a.mnc"], "ends in .mnc, which is no format that is read"),
        (["images/p1/a.png", "masks/p1/a.png"], "folders images/p1"),
        (["imagesTr/a_0000.nii.gz"], "no labelsTr"),
        (["images/a.png", "masks/b_mask.png", "masks/a.png", "masks/a_mask.png"], "holds no usable case"),
    ],
)
def test_folders_that_cannot_be_understood(tmp_path: Path, files: list[str], expected: str) -> None:
    touch(tmp_path, *files)
    with pytest.raises(DatasetError) as caught:
        load(tmp_path)
    assert expected in str(caught.value), str(caught.value)
    assert caught.value.fix


def test_wrong_path_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "hearts").mkdir()
    with pytest.raises(DatasetError, match="did you mean 'hearts'"):
        load(tmp_path / "heart")


def test_damaged_nnunet_declaration(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a_0000.png", "labelsTr/a.png")
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "a": 1, "b": 1}}')
    with pytest.raises(PlanError, match="belongs to class 'a'"):
        load(tmp_path)
    for labels in ('{"0": "background", "1": ["x"]}', '{"a": {"b": 2}}', '{"a": null}'):
        (tmp_path / "dataset.json").write_text(f'{{"labels": {labels}}}')
        with pytest.raises(CpfnetError):
            load(tmp_path)


@pytest.mark.parametrize(
    "short",
    [
        {"vessel": 255},
        {"background": [0, 3], "a b": [1, 2], "on": "#00ff00", "ignore": 9, "tubular": ["a b"]},
        {"whole": [1, 2], "core": 2, "exclusive": False},
        {"wall": 1, "lumen": {"values": [2, 3], "write": 5}},
        {"lungs": 255, "threshold": 127},
        {
            "GTV": ["GTV-1", "gross tumour's *"],
            "lung": {"values": 7, "names": ["Lung*"]},
            "overlap": "first",
            "fraction": 0.25,
        },
        {"null": 1, "True": 2, "colour": {"values": 3, "colour": "#ff0000", "type": {"value": "1", "meaning": "it's"}}},
        {
            "classes": [
                {"name": "Ignore", "values": [1], "names": ["it's"]},
                {"name": "ignore", "values": [2], "tubular": True},
                {"name": "classes", "values": [3], "category": {"value": "2", "meaning": "Tissue"}},
            ],
            "overlap": "last",
        },
    ],
)
def test_short_labels_read_back(tmp_path: Path, short: dict[str, object]) -> None:
    labels = Labels.model_validate(full_labels(short))
    text = f"labels: {short_labels(labels)}\n"
    (tmp_path / "d.yaml").write_text(text)
    from cpfnet.settings import read_yaml

    assert read_yaml(Declaration, tmp_path / "d.yaml").labels == labels


def test_a_class_of_names_alone_takes_the_next_free_value() -> None:
    labels = Labels.model_validate(full_labels({"a": "GTV*", "b": 1, "c": ["x", 3], "d": ["y", "z"]}))
    assert [(c.values, c.names) for c in labels.classes] == [
        ((2,), ("GTV*",)),
        ((1,), ()),
        ((3,), ("x",)),
        ((4,), ("y", "z")),
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "training",
                    "test",
                    "image",
                    "label",
                    "fold",
                    "labels",
                    "background",
                    "ignore",
                    "channel_names",
                    "0",
                    "1",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(content=JSON)
def test_any_json_is_understood_or_refused(tmp_path: Path, content: object) -> None:
    touch(tmp_path, "imagesTr/a_0000.png", "labelsTr/a.png")
    for name in ("dataset.json", "list.json"):
        (tmp_path / name).write_text(json.dumps(content))
        with contextlib.suppress(CpfnetError):
            load(tmp_path / name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    content=st.dictionaries(
        st.sampled_from([*Declaration.model_fields, "other"]),
        JSON | st.text(alphabet="ab{}case/*?.\\", max_size=12),
        max_size=3,
    )
)
@example(content={"label": []})
def test_any_declaration_is_understood_or_refused(tmp_path: Path, content: dict[str, object]) -> None:
    written = json.dumps(content)
    assume('"/' not in written and ".." not in written)  # a walk through the whole machine, which is another test's
    touch(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "dataset.yaml").write_text(written)
    with contextlib.suppress(CpfnetError):
        load(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(rows=st.lists(st.text(alphabet='a,;\t"\r\n \x00é/.', max_size=20), max_size=4))
def test_any_manifest_is_understood_or_refused(tmp_path: Path, rows: list[str]) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["image,label,roi,patient", *rows]), newline="")
    with contextlib.suppress(CpfnetError):
        load(tmp_path / "a.csv")


def test_a_split_that_names_a_case_left_out_says_why(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "masks/a.png", "images/c.png", "masks/c.png", "masks/c_mask.png")
    declare(tmp_path, "split: {val: [c]}")
    with pytest.raises(DatasetError, match=r"no case 'c'; .* could be the label of case c") as caught:
        load(tmp_path)
    assert "move" in str(caught.value.fix)
    declare(tmp_path, "split: {val: [aa]}")
    with pytest.raises(DatasetError, match="no case 'aa'") as caught:
        load(tmp_path)
    assert caught.value.fix == "did you mean 'a'?; 1 more could not be taken: `cpfnet check` without `split` tells why"
    declare(tmp_path, "split: {val: ['c*']}")
    with pytest.raises(DatasetError, match="could be the label of case c"):
        load(tmp_path)


def test_warnings_name_the_first_problems(tmp_path: Path) -> None:
    touch(tmp_path, *(f"images/{n}.png" for n in "abcdefg"), "masks/a.png")
    touch(tmp_path, *(f"masks/alone_{n}.png" for n in "abcdefg"))
    problems, unlabelled = dataset_warnings(load(tmp_path))
    assert unlabelled.startswith("6 cases without a label that could be taken: b, c, d, e, f, g;")
    first, *named = problems.splitlines()
    assert first == "7 problems of the dataset; `cpfnet check` says how to fix them, the first ones:"
    assert named[0] == "  masks/alone_a.png: no image belongs to it"
    assert len(named) == 5

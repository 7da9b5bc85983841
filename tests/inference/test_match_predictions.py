"""Which prediction belongs to which case: the rule in the slowest words, and folders whose right pairs are known."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cpfnet
from cpfnet.data.case import Case
from cpfnet.data.dataset import load
from cpfnet.errors import CpfnetError, DatasetError
from cpfnet.inference.dataset_predictions import load_predictions
from cpfnet.inference.match_predictions import match
from tests import synthetic
from tests.inference.oracle import bright, make_model

PART = st.sampled_from(["a", "A", "b", "image", "a_b"])
PLACE = st.lists(PART, min_size=1, max_size=3).map(tuple)


@st.composite
def a_dataset(draw: st.DrawFn) -> list[Case]:
    ids = draw(st.lists(st.sampled_from(["a", "A", "b", "a_b", "image", "a_image", "c"]), unique=True, max_size=5))
    places = draw(st.lists(PLACE, unique=True, min_size=len(ids), max_size=len(ids)))
    return [Case(i, i, (Path("/data", *place[:-1], f"{place[-1]}.png"),)) for i, place in zip(ids, places, strict=True)]


def means(file: tuple[str, ...], case: Case, rank: int) -> bool:
    """Is the file called as the case, in this rank of likeness?"""
    place = ("data", *(part.removesuffix(".png") for part in case.images[0].parts[1:]))
    small = tuple(part.lower() for part in file)
    return [
        file == (case.id,),
        "_".join(small) == case.id.lower(),
        place[-len(file) :] == file,
        tuple(part.lower() for part in place)[-len(small) :] == small,
    ][rank]


@given(cases=a_dataset(), files=st.sets(PLACE, max_size=8), scored=st.sets(st.sampled_from(["a", "A", "b", "a_b"])))
def test_the_rule(cases: list[Case], files: set[tuple[str, ...]], scored: set[str]) -> None:
    matched = match(cases, files, scored)
    owner: dict[tuple[str, ...], tuple[str, int]] = {}
    for file in files:
        ranks = [[case.id for case in cases if means(file, case, rank)] for rank in range(4)]
        first = next((rank for rank in range(4) if ranks[rank]), None)
        assert (file in matched.claims) == (
            first is not None and len(ranks[first]) > 1 and (first < 2 or len(scored & set(ranks[first])) != 1)
        )
        if first is not None and file not in matched.claims:
            mine = ranks[first] if len(ranks[first]) == 1 else [c for c in ranks[first] if c in scored]
            owner[file] = mine[0], first
    for case in cases:
        own = sorted((rank, file) for file, (name, rank) in owner.items() if name == case.id)
        best = [file for rank, file in own if rank == own[0][0]]
        assert matched.files.get(case.id) == (best[0] if len(best) == 1 else None)
        assert sorted(matched.several.get(case.id, [])) == (best if len(best) > 1 else [])
    # Nothing is used twice, nothing is lost.
    several = [file for group in matched.several.values() for file in group]
    everything = Counter([*matched.files.values(), *several, *matched.claims, *matched.unused])
    assert everything == Counter(files)


def mask(number: int) -> np.ndarray:
    """Of each case another: any two share no pixel, so Dice is 1 for a case's own and 0 for any other's."""
    array = np.zeros((16, 16), np.uint8)
    array[2 * number : 2 * number + 2] = 255
    return array


def picture(path: Path, number: int) -> Path:
    return synthetic.write_raster(path, np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8))


def listed(root: Path, images: dict[str, str], split: dict[str, str] | None = None) -> Path:
    """A manifest of case → image; the label of the n-th is ``mask(n)``."""
    lines = ["case,image,label,split"]
    for number, (case, image) in enumerate(images.items()):
        picture(root / image, number)
        synthetic.write_raster(root / "manual" / f"{number}.png", mask(number))
        lines.append(f"{case},{image},manual/{number}.png,{(split or {}).get(case, '')}")
    (root / "cases.csv").write_text("\n".join(lines))
    return root / "cases.csv"


def predicted(out: Path, files: dict[str, int]) -> Path:
    """A folder of predictions: name → whose mask."""
    for name, number in files.items():
        if name.endswith(".nii.gz"):
            synthetic.write_nifti(out / name, mask(number)[None])
        else:
            synthetic.write_raster(out / name, mask(number))
    return out


def dice(dataset: Path, out: Path, **options: object) -> dict[str, float]:
    scores = cpfnet.evaluate(dataset, out, **options)
    return {row["case"]: row["dice"] for row in scores.rows if row["class"] == "foreground"}


FOLDERS = {f"case{n}": f"data/case{n}/image.png" for n in range(4)}
STEMS = {f"c{n}": f"images/c{n}.png" for n in range(4)}
PERMUTED = {f"c{(n + 1) % 4}": f"images/c{n}.png" for n in range(4)}
NAMED = {f"p{n}": f"images/scan{n}.png" for n in range(4)}
INSIDE = {"case1": "x/image.png", "other": "case1/image.png", "x": "y/picture.png"}
"""The id of one case is the folder that another's image lies in."""


@pytest.mark.parametrize(
    ("images", "files"),
    [
        (FOLDERS, {f"case{n}.png": n for n in range(4)}),
        (FOLDERS, {f"case{n}/image.png": n for n in range(4)}),
        (FOLDERS, {f"data/case{n}/image.png": n for n in range(4)}),
        (FOLDERS, {f"Case{n}/Image.PNG": n for n in range(4)}),
        (FOLDERS, {"image.png": 3, **{f"case{n}.png": n for n in range(4)}}),
        (PERMUTED, {f"c{(n + 1) % 4}.png": n for n in range(4)}),
        (PERMUTED, {f"images/c{n}.png": n for n in range(4)}),
        (NAMED, {f"p{n}.png": n for n in range(4)}),
        (NAMED, {f"scan{n}.png": n for n in range(4)}),
        (NAMED, {f"P{n}.png": n for n in range(4)}),
        (NAMED, {f"p{n}.png": n for n in range(4)} | {f"scan{n}.png": (n + 1) % 4 for n in range(4)}),
        (STEMS, {f"c{n}.png": n for n in range(4)} | {"old/c0.png": 3, "mean.png": 1}),
        (INSIDE, {"case1.png": 0, "case1/image.png": 1, "x.png": 2}),
        (INSIDE, {"x/image.png": 0, "other.png": 1, "y/picture.png": 2}),
        ({"q1/s0": "i/0.png", "q2/s0": "i/1.png"}, {"q1/s0.png": 0, "q2/s0.png": 1}),
        ({"q1/s0": "i/0.png", "q2/s0": "i/1.png"}, {"q1_s0.png": 0, "q2_s0.png": 1}),
        ({"a": "i/0.png", "A": "i/1.png"}, {"a.png": 0, "A.png": 1}),
    ],
)
def test_right_pairs(tmp_path: Path, images: dict[str, str], files: dict[str, int]) -> None:
    manifest = listed(tmp_path / "set", images)
    assert set(dice(manifest, predicted(tmp_path / "out", files)).values()) == {1.0}


@pytest.mark.parametrize(
    ("images", "files", "expected"),
    [
        (FOLDERS, {"image.png": 0}, "image.png could be the prediction of 4 cases (case0, case1, case2, case3)"),
        (FOLDERS, {"image.png": 0, "case1.png": 1}, "`case0/image.png`"),
        (STEMS, {f"c{n}.png": n for n in range(4)} | {"c1.nii.gz": 1}, "2 predictions fit: `c1.nii.gz` and `c1.png`"),
        (NAMED, {"scan0.png": 0, "images/scan0.png": 0}, "2 predictions fit: `images/scan0.png` and `scan0.png`"),
        (STEMS, {"c1.mgz": 1}, "convert it to NIfTI"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_what_cannot_be_told_apart_is_refused(
    tmp_path: Path, images: dict[str, str], files: dict[str, int], expected: str, missing: bool
) -> None:
    out = predicted(tmp_path / "out", {name: n for name, n in files.items() if not name.endswith(".mgz")})
    for name in (name for name in files if name.endswith(".mgz")):
        out.mkdir(exist_ok=True)
        (out / name).write_bytes(b"mrtrix image\n")
    with pytest.raises(DatasetError) as caught:
        dice(listed(tmp_path / "set", images), out, allow_missing=missing)
    assert expected in str(caught.value)
    assert not str(caught.value.fix).startswith("delete")


def test_a_case_without_prediction_takes_no_neighbours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = listed(tmp_path / "set", PERMUTED)
    out = predicted(tmp_path / "out", {f"c{(n + 1) % 4}.png": n for n in range(3)})  # of the last, c0, none
    assert dice(manifest, out, allow_missing=True) == {"c0": 0, "c1": 1, "c2": 1, "c3": 1}
    predicted(out, {"C_0.png": 3})
    with pytest.raises(CpfnetError, match="c0"):
        cpfnet.evaluate(manifest, out)
    assert "not used: `C_0.png`" in caplog.messages[0]


def test_a_file_of_a_case_that_is_not_scored_is_not_free(tmp_path: Path) -> None:
    manifest = listed(tmp_path / "set", PERMUTED, split={"c1": "test", "c0": "train", "c2": "train", "c3": "train"})
    out = predicted(tmp_path / "out", {"c0.png": 3, "c2.png": 1})  # c1, whose image is c0.png, was not predicted
    assert dice(manifest, out, split="all", allow_missing=True) == {"c0": 1, "c1": 0, "c2": 1, "c3": 0}
    with pytest.raises(DatasetError, match="no file is called as a case"):
        dice(manifest, out, allow_missing=True)


def test_extra_files_are_named(tmp_path: Path) -> None:
    out = predicted(tmp_path / "out", {f"p{n}.png": n for n in range(4)} | {"scan1.png": 1, "mean.png": 0})
    (out / "p1.seg.mif").write_bytes(b"mrtrix image\n")
    scores = cpfnet.evaluate(listed(tmp_path / "set", NAMED), out)
    (told,) = [line for line in scores.warnings if "not used" in line]
    assert (
        "3 files are the prediction of no case that could be told, and not used: "
        "`mean.png`, `scan1.png` and `p1.seg.mif`" in told
    )


@pytest.mark.parametrize("layout", ["nnunet", "folders"])
def test_the_same_names_for_training_and_test(tmp_path: Path, layout: str) -> None:
    """No training case takes a mask made of the test image that is called alike, and the other way round."""
    root = tmp_path / "set"
    names = {
        "nnunet": ("imagesTr/{}_0000.png", "labelsTr/{}.png", "imagesTs/{}_0000.png"),
        "folders": ("train/images/{}.png", "train/masks/{}.png", "test/images/{}.png"),
    }[layout]
    for number, name in enumerate(["s0", "s1"]):
        picture(root / names[0].format(name), number)
        synthetic.write_raster(root / names[1].format(name), mask(number))
        picture(root / names[2].format(name), 9 - number)
    of_test = predicted(tmp_path / "of_test", {"s0.png": 6, "s1.png": 7})
    with pytest.raises(DatasetError, match=r"s0.png could be the prediction of 2 cases \(test_s0, train_s0\)"):
        dice(root, of_test)
    by_id = predicted(
        tmp_path / "by_id", {f"{kind}_s{n}.png": n + 4 * (kind == "test") for kind in ("train", "test") for n in (0, 1)}
    )
    assert dice(root, by_id) == {"train_s0": 1.0, "train_s1": 1.0}
    folder = Path(names[0]).parent
    by_place = predicted(tmp_path / "by_place", {f"{folder}/s{n}.png": n for n in (0, 1)})
    assert dice(root, by_place) == {"train_s0": 1.0, "train_s1": 1.0}
    # With labels, the test cases are what is scored: their masks need no other name, and it is said.
    labels = Path(names[1].replace("Tr", "Ts").replace("train", "test"))
    for number, name in enumerate(["s0", "s1"]):
        synthetic.write_raster(root / str(labels).format(name), mask(6 + number))
    scores = cpfnet.evaluate(root, of_test)
    assert {row["case"]: row["dice"] for row in scores.rows if row["class"] == "foreground"} == {
        "test_s0": 1,
        "test_s1": 1,
    }
    assert any("called as cases of other splits, too (s0.png: test_s0, train_s0)" in line for line in scores.warnings)
    with pytest.raises(DatasetError, match="could be the prediction of 2 cases"):
        dice(root, of_test, split="all")


@pytest.mark.parametrize("given", [".", "images", ".."])
@pytest.mark.parametrize("nested", [True, False])
def test_what_predict_wrote_is_found_from_any_folder_above(tmp_path: Path, given: str, nested: bool) -> None:
    """With its probabilities, and whatever else it writes beside the masks."""
    root = tmp_path / "above" / "set"
    for number in range(3):
        name = f"case{number}/image" if nested else f"case{number}"
        synthetic.write_raster(root / "images" / f"{name}.png", bright(mask(number) // 255, 1))
        synthetic.write_raster(root / "masks" / f"case{number}.png", mask(number))
    if nested:
        (root / "dataset.yaml").write_text('image: "images/{case}/image.png"\nlabel: "masks/{case}.png"\n')
    out = tmp_path / "out"
    model = make_model(source="images", values=(255,))
    outcomes = cpfnet.predict_files(
        model,
        [root / given],
        out,
        cpfnet.PredictorOptions(force=True, device="cpu"),
        output=cpfnet.OutputOptions(probabilities=True, uncertainty=True, overlays=True),
    )
    assert [outcome.status for outcome in outcomes] == ["done"] * 3, outcomes[0].message
    dataset = load(root)
    items, warnings = load_predictions(dataset, dataset.cases, out)
    assert warnings == []
    assert [(item.prediction is not None, item.probabilities is not None) for item in items] == [(True, True)] * 3
    assert dice(root, out) == {"case0": 1.0, "case1": 1.0, "case2": 1.0}


RECORDED = {
    "ids that are the names of other images": {"b": "a.png", "c": "b.png", "a": "c.png"},
    "an id that is the name of another image": {"b": "a.png", "c": "b.png", "d": "c.png"},
    "images that differ in their suffix": {"x": "a.png", "y": "a.tif"},
    "numbers like those of channels": {"x": "a.png", "y": "a_0000.png", "z": "a_0001.png"},
    "underscores and folders": {"p": "a_1.png", "q": "a/1.png", "r": "A/1.png"},
}


@pytest.mark.parametrize("images", RECORDED.values(), ids=RECORDED)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_predict_wrote_belongs_to_the_case_whose_image_it_was_made_from(
    tmp_path: Path, images: dict[str, str], one_by_one: bool
) -> None:
    """Perfect predictions, but for the one case whose label was drawn elsewhere.

    Its Dice, of two boxes that meet in half, is 1/2.
    """
    lines = ["case,image,label"]
    for number, (case, name) in enumerate(images.items()):
        mask = np.zeros((40, 48), np.uint8)
        mask[8:16, 4 * number : 4 * number + 8] = 1
        synthetic.write_raster(tmp_path / "images" / name, bright(mask, 1))
        if number == 0:
            mask = np.roll(mask, 4, axis=0)
        synthetic.write_raster(tmp_path / "labels" / f"{number}.png", mask)
        lines.append(f"{case},images/{name},labels/{number}.png")
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    files = [tmp_path / "images" / name for name in images.values()]
    given = files if one_by_one else sorted({file.parent for file in files})
    outcomes = cpfnet.predict_files(
        make_model(source="images", values=(1,)),
        given,
        options=cpfnet.PredictorOptions(device="cpu"),
        out=tmp_path / "out",
    )
    assert [outcome.message for outcome in outcomes] == [""] * len(images)
    scores = cpfnet.evaluate(tmp_path / "cases.csv", tmp_path / "out", split="all")
    dice = {row["case"]: row["dice"] for row in scores.rows if row["class"] == "(mean)"}
    assert dice == pytest.approx(dict.fromkeys(images, 1.0) | {next(iter(images)): 0.5})

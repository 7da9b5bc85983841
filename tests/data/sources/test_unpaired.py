"""Images and masks that are there, but unread or called otherwise: what is said is the cause, and doing it helps."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.data.finding import Finding
from cpfnet.errors import DatasetError, PlanError
from tests import synthetic

COUNT = 5


def mask(number: int) -> np.ndarray:
    """Of each case another."""
    array = np.zeros((16, 16), np.uint8)
    array[3 * number : 3 * number + 2, 2:9] = 255
    return array


def put(path: Path, number: int, label: bool) -> None:
    """A readable file for a known suffix, else some bytes."""
    noise = np.random.default_rng(number).integers(0, 255, (16, 16), np.uint8)
    pixels = mask(number) if label else noise
    if path.name.endswith((".nii", ".nii.gz")):
        synthetic.write_nifti(path, (pixels // 255 if label else pixels.astype(np.int16))[None].repeat(3, axis=0))
    elif path.suffix in (".jfif", ".jpe"):
        synthetic.write_raster(path, pixels, format="JPEG")
    elif path.suffix in (".png", ".jpg", ".tif"):
        synthetic.write_raster(path, pixels)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"NRRD0004\n")


def make(root: Path, images: str, *labels: str, ids: list[str] | None = None, **texts: str) -> Path:
    """``images`` (parted by &) and ``labels`` hold {} for the id; ``texts``: ``dataset_yaml`` is dataset.yaml."""
    for number, name in enumerate(ids or [f"c{n}" for n in range(COUNT)]):
        for pattern in images.split(" & "):
            put(root / pattern.format(name), number, label=False)
        for pattern in labels:
            put(root / pattern.format(name), number, label=True)
    for name, text in texts.items():
        (root / name.replace("_", ".")).write_text(text)
    return root


def told(root: Path) -> tuple[str, str]:
    """What is wrong, and what to do about it: of the one error of `check`, or of loading."""
    try:
        errors = [finding for finding in check(root) if finding.severity == "error"]
    except (DatasetError, PlanError) as error:
        return str(error), str(error.fix)
    assert len({finding.kind for finding in errors}) == 1, errors
    return "\n".join(f"{f.where}: {f.what}" for f in errors), errors[0].fix


def backticked(text: str) -> list[str]:
    return re.findall(r"`([^`]*)`", text)


def right(root: Path, ids: list[str] | None = None) -> bool:
    """Every case has the mask that was drawn for it, and nothing is wrong."""
    dataset = load(root)
    assert len(dataset.cases) == len(ids or range(COUNT))
    from cpfnet import formats

    for number, case in enumerate(dataset.cases):
        drawn = formats.read_label(case.labels["label"]).array[0].reshape(-1, 16, 16)[0] > 0
        np.testing.assert_array_equal(drawn, mask(number) > 0)
    assert [f for f in check(root) if f.severity == "error"] == []
    return True


UNREAD = (
    ".nii.bz2",
    ".nrrd.gz",
    ".gipl",
    ".mgz",
    ".seg.mif",
    ".mnc",
    ".vti",
    ".img",
    ".npy",
    ".avif",
    ".jpx",
    ".heic",
    ".MGZ",
)


@pytest.mark.parametrize("suffix", UNREAD)
@pytest.mark.parametrize("which", ["masks", "images"])
def test_unread_formats_are_named_with_their_count(tmp_path: Path, suffix: str, which: str) -> None:
    unread, read = f"{which}/{{}}{suffix}", f"{'images' if which == 'masks' else 'masks'}/{{}}.nii.gz"
    make(tmp_path, *((read, unread) if which == "masks" else (unread, read)))
    what, fix = told(tmp_path)
    assert f"{which}: {COUNT} files end in {suffix.lower()}, which is no format that is read" in what
    assert fix.startswith("convert them to ")
    old, new = (tmp_path / name for name in backticked(fix)[:2])
    assert old.name == f"c0{suffix}"
    for number in range(COUNT):
        put(new.with_name(new.name.replace("c0", f"c{number}")), number, label=which == "masks")
    if new.suffix == ".gz":  # the other half is made of volumes
        assert right(tmp_path)


def test_only_what_lacks_is_told(tmp_path: Path) -> None:
    """Beside masks that are read, the same in another format is no news; a case that has no other mask is."""
    make(tmp_path, "images/{}.png", "masks/{}.png", "masks/{}.seg.mif")
    assert right(tmp_path)
    (tmp_path / "masks/c3.png").unlink()
    what, fix = told(tmp_path)
    assert what.startswith("masks/c3.seg.mif: 1 file ends in .seg.mif")
    assert "`masks/c3.nii.gz`" in fix
    put(tmp_path / "masks/c3.png", 3, label=True)
    put(tmp_path / "images/c9.heic", 9, label=False)
    put(tmp_path / "masks/c9.png", 4, label=True)
    what, fix = told(tmp_path)
    assert what == "images/c9.heic: 1 file ends in .heic, which is no format that is read: it is left out"
    assert fix == "convert it to PNG: `images/c9.heic` to `images/c9.png`"


@pytest.mark.parametrize(("suffix", "words"), [("", "no suffix"), (".png.bak", ".bak"), (".nii.gz.tmp", ".tmp")])
def test_masks_without_suffix_or_with_another_behind_it(tmp_path: Path, suffix: str, words: str) -> None:
    make(tmp_path, "images/{}.png", "masks/{}.png")
    for path in sorted((tmp_path / "masks").iterdir()):
        path.rename(path.with_name(path.stem + suffix))
    what, fix = told(tmp_path)
    assert f"masks: {COUNT} files end in {words}, which is no format that is read" in what
    assert f"`masks/c0{suffix}` to `masks/c0.png`" in fix


def test_voxels_beside_their_header_count_once(tmp_path: Path) -> None:
    what, _ = told(make(tmp_path, "images/{}.img", "masks/{}.nii.gz"))
    assert f"{COUNT} files end in .img, which" in what


def test_annotations_in_place_of_masks(tmp_path: Path) -> None:
    what, fix = told(make(tmp_path, "images/{}.png & images/{}.txt", "masks/{}.json"))
    assert f"{COUNT} files end in .json" in what
    assert fix.startswith("convert them to NIfTI (volumes) or PNG (pictures): `masks/c0.json` to `masks/c0.png`")


@pytest.mark.parametrize("pattern", ["{0}/image.mgz & {0}/mask.mgz", "{0}.mnc", "scans/{0}_0000.vti"])
def test_unread_formats_where_nothing_is_understood(tmp_path: Path, pattern: str) -> None:
    what, fix = told(make(tmp_path, pattern))
    assert re.search(r"\d+ files end in \.\w+, which is no format that is read", what)
    assert fix.startswith("convert them to NIfTI")


def test_an_unread_label_among_dicom_studies(tmp_path: Path) -> None:
    for patient in ("a", "b"):
        synthetic.write_series(
            tmp_path / patient, np.zeros((3, 16, 16), np.uint16) + np.arange(16, dtype=np.uint16), patient=patient
        )
        put(tmp_path / patient / "seg.mgz", 0, label=True)
    (finding,) = [f for f in load(tmp_path).problems if f.severity == "error"]
    assert "2 files end in .mgz" in finding.what
    assert "convert them to NIfTI: `a/seg.mgz` to `a/seg.nii.gz`" in finding.fix
    assert not any(f.kind == "no-label" and "none of" in f.what for f in check(tmp_path))


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JFIF"])
def test_jpeg_under_its_other_names(tmp_path: Path, suffix: str) -> None:
    assert right(make(tmp_path, f"images/{{}}{suffix.lower()}", "masks/{}.png"))


IDS = (
    ["c0", "c1", "c2", "c3", "c4"],
    ["0", "1", "2", "3", "10"],
    ["A", "Bb", "Ccc", "d_1", "e_22"],
    ["im-1", "im-2", "im-3", "im-4", "im-5"],
)


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("{}_image.png", "{}_mask.png"),
        ("{}_img.png", "{}_seg.png"),
        ("{}-image.jpg", "{}-label.png"),
        ("image_{}.png", "mask_{}.png"),
        ("{} scan.tif", "{} gt.png"),
        ("{}.png", "{}_mask.png"),
        ("images/{}_image.png", "masks/{}_mask.png"),
        ("images/img_{}.png", "labels/lbl_{}.png"),
        ("image/{}.png", "mask/{}.png"),
        ("data/scans/{}.png", "data/annotations/{}_annotation.png"),
        ("{0}/image.nii.gz", "{0}/mask.nii.gz"),
        ("{0}/{0}_ct_image.nii.gz", "{0}/{0}_ct_seg.nii.gz"),
        ("images/{}.nii.gz", "masks/liver/{}.nii.gz"),
        ("images/{}.nii.gz", "masks/{}/liver.nii.gz"),
        ("images/{}.nii.gz", "labels/{}/mask.nii.gz"),
    ],
)
def test_the_proposed_lines_make_it_load(tmp_path: Path, images: str, labels: str, ids: list[str]) -> None:
    root = make(tmp_path, images, labels, ids=ids)
    _, fix = told(root)
    assert fix.startswith("write `image: ")
    *lines, file = backticked(fix.split("; or ")[0])
    assert file == "dataset.yaml"
    (root / file).write_text("\n".join(lines))
    assert right(root, ids)


def test_several_structures_are_offered_one_by_one(tmp_path: Path) -> None:
    root = make(tmp_path, "images/{}.nii.gz", "masks/liver/{}.nii.gz", "masks/spleen/{}.nii.gz")
    what, fix = told(root)
    assert "masks: holds no mask itself, but in folders: liver (5), spleen (5)" in what
    first, second, last = fix.split("; or ")
    assert "one label map a case" in last
    for way, name in ((first, "liver"), (second, "spleen")):
        *lines, file = backticked(way)
        (root / file).write_text("\n".join(lines))
        assert all(case.labels["label"].parent.name == name for case in load(root).cases)


@pytest.mark.parametrize("ids", IDS)
@pytest.mark.parametrize("roi", ["fov/{}.png", "fov/f_{}_fov.png", "fov/{}/region.png"])
@pytest.mark.parametrize("pattern", ["fov/*{case}*", "fov/{case}_*x", "roi/{case}.png", "fov/*/*{case}.png"])
def test_a_pattern_that_finds_no_case_is_the_cause(tmp_path: Path, ids: list[str], roi: str, pattern: str) -> None:
    text = "image: 'images/{case}.png'\nlabel: 'masks/{case}.png'\n"
    root = make(tmp_path, "images/{}.png", "masks/{}.png", roi, ids=ids, dataset_yaml=f"{text}roi: '{pattern}'\n")
    try:
        found = [case.roi for case in load(root).cases]
        assert all(path is not None and str(case) in str(path) for case, path in zip(ids, found, strict=True))
        return  # the pattern is right for these names
    except DatasetError as error:
        what, fix = str(error), str(error.fix)
    assert f"roi: {pattern!r} finds" in what
    assert "move" not in fix
    if "but none of an image" in what:
        (line, *_) = backticked(fix)
        (root / "dataset.yaml").write_text(f"{text}{line}\n")
        for number, case in enumerate(load(root).cases):
            assert case.roi == root / roi.format(ids[number])


def test_an_image_pattern_that_tells_nothing_apart(tmp_path: Path) -> None:
    text = "image: 'images/*_{case}.png'\nlabel: 'masks/{case}.png'\n"
    root = make(tmp_path, "images/{}_x.png", "masks/{}_x.png", dataset_yaml=text)
    what, fix = told(root)
    assert "image: 'images/*_{case}.png' finds 5 images, but only 1 name for them" in what
    *lines, _ = backticked(fix.split("; or ")[0])
    (root / "dataset.yaml").write_text("\n".join(lines))
    assert right(root)


def test_a_single_stray_is_laid_on_the_pattern_first(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        "images/{}.png",
        "masks/{}_m.png",
        dataset_yaml="image: 'images/{case}.png'\nlabel: 'masks/{case}_m.png'\n",
    )
    put(root / "masks/z_m.png", 0, label=True)
    (finding,) = [f for f in load(root).problems if f.kind == "no-image"]
    assert "the pattern finds it as 'z'" in finding.what
    assert finding.fix.startswith("correct the pattern")


def declared(**content: object) -> str:
    return json.dumps({"labels": {"background": 0, "x": 1}, "file_ending": ".nii.gz", **content})


@pytest.mark.parametrize(
    ("images", "labels", "cause", "first", "wanted"),
    [
        (
            "imagesTr/{}.nii.gz",
            "labelsTr/{}.nii.gz",
            "lacks the channel number",
            "imagesTr/c0.nii.gz",
            "imagesTr/c0_0000.nii.gz",
        ),
        (
            "imagesTr/{}.0000.nii.gz",
            "labelsTr/{}.nii.gz",
            "lacks the channel number",
            "imagesTr/c0.0000.nii.gz",
            "imagesTr/c0_0000.nii.gz",
        ),
        (
            "imagesTr/{}-0000.nii.gz",
            "labelsTr/{}.nii.gz",
            "lacks the channel number",
            "imagesTr/c0-0000.nii.gz",
            "imagesTr/c0_0000.nii.gz",
        ),
        ("imagesTr/{}.png", "labelsTr/{}.png", "lacks the channel number", "imagesTr/c0.png", "imagesTr/c0_0000.png"),
        (
            "imagesTr/{}_0000.nii.gz",
            "labelsTr/{}_0000.nii.gz",
            "a label carries no channel number",
            "labelsTr/c0_0000.nii.gz",
            "labelsTr/c0.nii.gz",
        ),
        (
            "imagesTr/{}_0000.png",
            "labelsTr/{}.0000.png",
            "a label carries no channel number",
            "labelsTr/c0.0000.png",
            "labelsTr/c0.png",
        ),
        (
            "imagesTr/{}_0000.mgz",
            "labelsTr/{}.nii.gz",
            "5 files end in .mgz",
            "imagesTr/c0_0000.mgz",
            "imagesTr/c0_0000.nii.gz",
        ),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.mnc", "5 files end in .mnc", "labelsTr/c0.mnc", "labelsTr/c0.nii.gz"),
    ],
)  # fmt: skip
def test_names_of_nnunet(tmp_path: Path, images: str, labels: str, cause: str, first: str, wanted: str) -> None:
    root = make(tmp_path, images, labels)
    what, fix = told(root)
    assert cause in what
    assert backticked(fix)[:2] == [first, wanted]
    for number in range(COUNT):
        old, new = (root / name.replace("c0", f"c{number}") for name in (first, wanted))
        old.unlink()
        put(new, number, label="labels" in wanted)
    assert right(root)


def test_one_image_of_nnunet_without_number(tmp_path: Path) -> None:
    root = make(tmp_path, "imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz")
    (root / "imagesTr/c2_0000.nii.gz").rename(root / "imagesTr/c2.nii.gz")
    findings: list[Finding] = [f for f in check(root) if f.severity == "error"]
    assert [(f.kind, f.where) for f in findings] == [("channel-number", "imagesTr/c2.nii.gz")]


@pytest.mark.parametrize("ending", [".nii", ".mgz", ".png", "nii"])
def test_a_file_ending_that_no_image_has(tmp_path: Path, ending: str) -> None:
    root = make(tmp_path, "imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz", dataset_json=declared(file_ending=ending))
    what, fix = told(root)
    assert f"file_ending is '{ending}', but none of the 5 images in imagesTr/ ends so: c0_0000.nii.gz" in what
    assert fix.startswith('write "file_ending": ".nii.gz"')
    (root / "dataset.json").write_text(declared(file_ending=".nii.gz"))
    assert right(root)


def test_images_of_another_ending_are_named(tmp_path: Path) -> None:
    root = make(tmp_path, "imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz", dataset_json=declared())
    put(root / "imagesTr/c0_0000.png", 0, label=False)
    (finding,) = [f for f in load(root).problems if f.kind == "file-ending"]
    assert finding.where == "imagesTr/c0_0000.png"
    assert right(root)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ({"0": "T1", "1": "FLAIR"}, ("T1", "FLAIR")),
        ({"T1": 0, "FLAIR": 1}, ("T1", "FLAIR")),
        ({"FLAIR": "1", "T1": "0"}, ("T1", "FLAIR")),
        ({"1": "FLAIR", "0": "T1"}, ("T1", "FLAIR")),
        (["T1", "FLAIR"], ("T1", "FLAIR")),
        ({str(n): f"m{n}" for n in range(12)}, tuple(f"m{n}" for n in range(12))),
        ({"T1": 0, "FLAIR": 0}, None),
        ({"T1": "FLAIR"}, None),
        ({"T1": None}, None),
        ({"0": "T1", "FLAIR": 1}, None),
    ],
)
def test_channel_names_either_way_round(tmp_path: Path, named: object, expected: tuple[str, ...] | None) -> None:
    images = " & ".join(f"imagesTr/{{}}_{n:04d}.nii.gz" for n in range(len(expected or "ab")))
    root = make(tmp_path, images, "labelsTr/{}.nii.gz", dataset_json=declared(channel_names=named))
    if expected is not None:
        assert load(root).channels == expected
        return
    with pytest.raises(DatasetError, match="does not number the channels") as caught:
        load(root)
    assert '"channel_names": {"0": "T1"' in str(caught.value.fix)


def test_a_star_beside_a_name_takes_no_part_of_it(tmp_path: Path) -> None:
    """fov_21 is none of case 1, whose own is not there."""
    text = "image: 'images/{case}.png'\nlabel: 'masks/{case}.png'\nroi: 'fov/*{case}.png'\n"
    root = make(tmp_path, "images/{}.png", "masks/{}.png", "fov/f_{}.png", ids=["1", "2", "21"], dataset_yaml=text)
    assert [case.roi for case in load(root).cases] == [root / f"fov/f_{n}.png" for n in (1, 2, 21)]
    (root / "fov/f_1.png").unlink()
    (root / "images/21.png").unlink()
    (root / "masks/21.png").unlink()
    dataset = load(root)
    assert [case.roi for case in dataset.cases] == [None, root / "fov/f_2.png"]
    assert [f.where for f in dataset.problems] == ["fov/f_21.png"]


@pytest.mark.parametrize("listed", ["pattern", "list"])
def test_unread_files_that_are_named(tmp_path: Path, listed: str) -> None:
    root = make(tmp_path, "images/{}.nii.gz", "masks/{}.seg.mif")
    if listed == "pattern":
        (root / "dataset.yaml").write_text("image: 'images/{case}.nii.gz'\nlabel: 'masks/{case}.seg.mif'\n")
    else:
        lines = [f"images/c{n}.nii.gz,masks/c{n}.seg.mif" for n in range(COUNT)]
        (root / "dataset.yaml").write_text("manifest: cases.csv\n")
        (root / "cases.csv").write_text("\n".join(["image,label", *lines]))
    what, fix = told(root)
    assert "masks/c0.seg.mif: .seg.mif is no format that is read" in what
    assert fix.startswith("convert it to NIfTI: `masks/c0.seg.mif` to `masks/c0.nii.gz`, and name that in ")


def test_masks_that_no_name_pairs(tmp_path: Path) -> None:
    root = make(tmp_path, "images/{}.png")
    for number in range(COUNT):
        put(root / f"masks/{'vwxyz'[number]}.png", number, label=True)
    what, fix = told(root)
    assert "masks: no mask is called as an image: `masks/v.png` and `images/c0.png`" in what
    assert fix.startswith("give each mask the name of its image")

"""Planted defects are found where they are, and every printed fix, followed literally, clears them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from ruamel.yaml import YAML
from scipy import ndimage

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.data.checks.check import check
from cpfnet.data.checks.file_summary import examine
from tests.data.checks.follow_fixes import _edit, _rows, follow
from tests.data.conftest import BASES
from tests.synthetic import affine, make_volumes_dataset, orientations, shared, write_nifti, write_raster


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(path: Path) -> None:
    path.write_text("not an image")


def _nan(path: Path) -> None:
    _edit(path, lambda a: np.where(a == a.max(), np.nan, a.astype(np.float32)).astype(np.float32))


def _fill(value: float) -> Callable[[Path], None]:
    return lambda path: _edit(path, lambda a: np.full_like(a, value))


def _dot(value: int) -> Callable[[Path], None]:
    def plant(array: np.ndarray) -> np.ndarray:
        array[(slice(2, 4),) * array.ndim] = value
        return array

    return lambda path: _edit(path, lambda a: plant(a.copy()))


def _crop(path: Path) -> None:
    _edit(path, lambda a: np.ascontiguousarray(a[:-3]))


def _shift(path: Path) -> None:
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[:3, 3] += 0.01
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)


def _spacing(path: Path) -> None:
    for name in (path, path.parents[1] / "labels" / path.name):
        image = nibabel.load(name)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), np.diag([1.0, 1.0, 9.0, 1.0])), name)


def _pointer(path: Path) -> None:
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")


def _page(path: Path) -> None:
    path.write_text("<!DOCTYPE html>\n<html><body>404 Not Found</body></html>")


def _affine(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def plant(path: Path) -> None:
        image = nibabel.load(path)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), change(image.affine)), path)

    return plant


def _turned(path: Path) -> None:
    """The same label at the same place, stored from the other side."""
    image = nibabel.load(path)
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = image.shape[0] - 1
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[::-1], image.affine @ flip), path)


def _four(path: Path) -> None:
    _edit(path, lambda a: np.stack([a, a + 1, a + 2], axis=-1))


def _jpeg(path: Path) -> None:
    Pillow.open(path).save(path.with_suffix(".jpg"), quality=60)
    softened = np.array(Pillow.open(path.with_suffix(".jpg")))
    path.with_suffix(".jpg").unlink()
    write_raster(path, softened)


def _grey(path: Path) -> None:
    Pillow.open(path).convert("L").save(path)


def _deep(path: Path) -> None:
    write_raster(path, np.array(Pillow.open(path)).astype(np.uint16) * 257)


def _onto(other: str) -> Callable[[Path], None]:
    return lambda path: shutil.copy(path, path.parents[1] / other) and None


def _row(case: str, **changes: str) -> Callable[[Path], None]:
    return lambda path: _rows(path, lambda rows: [{**r, **changes} if r["case"] == case else r for r in rows])


def _twice(path: Path) -> None:
    _rows(path, lambda rows: [*rows, {**rows[4], "case": rows[3]["case"]}])
    _rows(path, lambda rows: [r for i, r in enumerate(rows) if i != 4])


def _ignoring(path: Path) -> None:
    content = {"labels": {"edema": 1, "core": 2, "ignore": 9}}
    YAML().dump(content, path.parents[1] / "dataset.yaml")
    _fill(9)(path)


def _third(path: Path) -> None:
    content = json.loads(path.read_text())
    content["labels"]["necrosis"] = 3
    path.write_text(json.dumps(content))


def _few(path: Path) -> None:
    for number in range(3, 8):
        for folder in ("images", "masks", "roi"):
            (path.parents[1] / folder / f"case_{number:02d}.png").unlink()


def _declared_wrongly(path: Path) -> None:
    YAML().dump({"manifest": "cases.csv", "labels": {"vessel": 1}}, path.parent / "dataset.yaml")


DEFECTS: list[tuple[str, str, str, Callable[[Path], None], str]] = [
    # name, base, file that is harmed, how, kind that must be found there
    ("cut image", "pictures", "images/case_03.png", _cut, "unreadable"),
    ("text named png", "pictures", "masks/case_03.png", _text, "unreadable"),
    ("no label", "pictures", "masks/case_02.png", Path.unlink, "no-label"),
    ("no image", "pictures", "images/case_02.png", Path.unlink, "no-image"),
    ("no roi", "pictures", "roi/case_02.png", Path.unlink, "no-roi"),
    ("mask too small", "pictures", "masks/case_01.png", _crop, "size"),
    ("roi too small", "pictures", "roi/case_01.png", _crop, "size"),
    ("odd value", "pictures", "masks/case_04.png", _dot(7), "label-values"),
    ("soft mask", "pictures", "masks/case_05.png", _jpeg, "soft-label"),
    ("empty mask", "pictures", "masks/case_06.png", _fill(0), "empty-label"),
    ("empty roi", "pictures", "roi/case_06.png", _fill(0), "empty-roi"),
    ("soft roi", "pictures", "roi/case_05.png", _jpeg, "soft-roi"),
    ("black image", "pictures", "images/case_07.png", _fill(0), "constant"),
    ("grey among colours", "pictures", "images/case_00.png", _grey, "channels"),
    ("copied image", "pictures", "images/case_00.png", _onto("images/case_05.png"), "duplicate"),
    ("two masks for one", "pictures", "masks/case_00.png", _onto("masks/case_00_mask.png"), "ambiguous-label"),
    ("too few cases", "pictures", "images/case_00.png", _few, "few-cases"),
    ("Git LFS pointer", "pictures", "images/case_03.png", _pointer, "lfs-pointer"),
    ("error page", "volumes", "labels/case_03.nii.gz", _page, "html-page"),
    (
        "LPS for RAS",
        "volumes",
        "labels/case_02.nii.gz",
        _affine(lambda a: np.diag([-1.0, -1, 1, 1]) @ a),
        "flip",
    ),
    (
        "label beside the image",
        "volumes",
        "labels/case_02.nii.gz",
        _affine(lambda a: a + np.outer([1.0, 0, 0, 0], [0, 0, 0, 9])),
        "outside",
    ),
    ("several time points", "volumes", "images/case_06.nii.gz", _four, "fourth-axis"),
    (
        "other units",
        "volumes",
        "images/case_06.nii.gz",
        lambda path: _edit(path, lambda a: np.float32(a / 4000)),
        "intensity",
    ),
    (
        "CT numbers without offset",
        "volumes",
        "images/case_06.nii.gz",
        lambda path: _edit(path, lambda a: a + 1024),
        "intensity",
    ),
    (
        "class in one case",
        "nnunet",
        "labelsTr",
        lambda path: [
            _edit(file, lambda a: np.where(a == 2, 1, a).astype(a.dtype)) for file in sorted(path.iterdir())[1:]
        ],
        "rare-class",
    ),
    ("cut volume", "volumes", "images/case_03.nii.gz", _cut, "unreadable"),
    ("label moved by 0.01 mm", "volumes", "labels/case_03.nii.gz", _shift, "affine"),
    ("label of other size", "volumes", "labels/case_02.nii.gz", _crop, "size"),
    ("NaN in image", "volumes", "images/case_01.nii.gz", _nan, "non-finite"),
    ("NaN in label", "volumes", "labels/case_01.nii.gz", _nan, "non-finite"),
    ("thick slices by mistake", "volumes", "images/case_04.nii.gz", _spacing, "spacing"),
    ("constant volume", "volumes", "images/case_05.nii.gz", _fill(13), "constant"),
    ("channel missing", "nnunet", "imagesTr/scan_003_0001.nii.gz", Path.unlink, "missing-channel"),
    ("channel moved", "nnunet", "imagesTr/scan_004_0001.nii.gz", _shift, "affine"),
    ("undeclared value", "nnunet", "labelsTr/scan_005.nii.gz", _dot(3), "label-values"),
    ("class that never occurs", "nnunet", "dataset.json", _third, "absent-class"),
    ("wholly ignored", "nnunet", "labelsTr/scan_006.nii.gz", _ignoring, "ignored-label"),
    (
        "label without image",
        "nnunet",
        "imagesTr/scan_007_0000.nii.gz",
        lambda p: [p.unlink(), p.with_name("scan_007_0001.nii.gz").unlink()],
        "no-image",
    ),
    ("listed file missing", "listed", "drawn/p2L_vessel.png", Path.unlink, "missing-file"),
    ("no label listed", "listed", "cases.csv", _row("p3R", label=""), "no-label"),
    ("patient in two splits", "listed", "cases.csv", _row("p1R", split="test"), "patient-split"),
    ("training image in test", "listed", "scans/p0L.png", _onto("scans/p7R.png"), "leakage"),
    ("case listed twice", "listed", "cases.csv", _twice, "duplicate-case"),
    ("deeper pixels", "listed", "scans/p4L.png", _deep, "bit-depth"),
]

ELSEWHERE = {  # what is reported is not the file that was harmed
    "no label": "images/case_02.png",
    "no image": "masks/case_02.png",
    "no roi": "images/case_02.png",
    "copied image": "images/case_05.png",
    "too few cases": "pictures",
    "channel missing": "imagesTr/scan_003_0000.nii.gz",
    "class that never occurs": "nnunet",
    "class in one case": "nnunet",
    "label without image": "labelsTr/scan_007.nii.gz",
    "no label listed": "scans/p3R.png",
    "patient in two splits": "scans/p1R.png",
}


@pytest.mark.parametrize("base", BASES)
def test_clean_sets_give_no_finding(base: str, good: dict[str, Path]) -> None:
    assert check(good[base] / BASES[base][1]) == []


@pytest.mark.parametrize(("base", "file", "harm", "kind"), [d[1:] for d in DEFECTS], ids=[d[0] for d in DEFECTS])
def test_defect_is_found_and_every_fix_clears_it(
    base: str,
    file: str,
    harm: Callable[[Path], None],
    kind: str,
    good: dict[str, Path],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    harmed = tmp_path / "harmed" / base
    shutil.copytree(good[base], harmed)
    harm(harmed / file)
    findings = check(harmed / BASES[base][1])
    assert [finding.kind for finding in findings] == [kind], findings
    (finding,) = findings
    assert finding.where == ELSEWHERE.get(request.node.callspec.id, file)
    for number, way in enumerate(finding.fix.split("; or ")):
        root = tmp_path / str(number) / base
        shutil.copytree(harmed, root)
        if way == "add cases that show it":
            continue  # no copy of this data set has any
        dataset = follow(way, root, root / BASES[base][1], good[base])
        assert check(dataset) == [], way


def test_a_label_stored_from_the_other_side_is_turned_and_said(good: dict[str, Path], tmp_path: Path) -> None:
    root, name = tmp_path / "set", "labels/case_02.nii.gz"
    shutil.copytree(good["volumes"], root)
    _turned(root / name)
    (finding,) = check(root)
    assert (finding.severity, finding.kind, finding.where) == ("note", "reading-note", name)
    assert finding.what == "its axes run otherwise than its image's, in the same voxels: turned to them"
    image = formats.read(root / name.replace("labels", "images"))
    original = formats.read_label(good["volumes"] / name, image)
    np.testing.assert_array_equal(formats.read_label(root / name, image).array, original.array)


@pytest.mark.parametrize("degrees", [(0.0, 0.0, 0.0), (10.0, -20.0, 30.0)])
def test_lps_taken_for_ras_is_said_in_any_orientation(degrees: tuple[float, float, float], tmp_path: Path) -> None:
    matrix = affine((1.0, 1.5, 2.0), origin=(-20.0, 13.0, 40.0), degrees=degrees)
    make_volumes_dataset(tmp_path, cases=5, shape=(20, 18, 8), affine_ras=matrix)
    _affine(lambda a: np.diag([-1.0, -1, 1, 1]) @ a)(tmp_path / "labels" / "case_03.nii.gz")
    (finding,) = check(tmp_path)
    assert finding.kind == "flip"
    assert "left–right and front–back: LPS taken for RAS?" in finding.what


def test_how_much_of_a_label_lies_outside(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["volumes"], root)
    label = root / "labels" / "case_02.nii.gz"
    array = np.zeros((20, 18, 8), np.uint8)
    array[10:20, 4:8, 3] = 1  # 40 voxels of 1 mm in x; 5 mm further, half of them lie beyond the 20 mm of the image
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1, 2, 1]) + np.outer([5, 0, 0, 0], [0, 0, 0, 1])), label)
    findings = {finding.kind: finding for finding in check(root)}
    assert "50% of what is drawn (20 of 40 voxels) lies outside the image" in findings["outside"].what
    _affine(lambda a: a + np.outer([500.0, 0, 0, 0], [0, 0, 0, 1]))(label)
    (finding,) = [f for f in check(root) if f.kind == "outside"]
    assert finding.fix.startswith("replace `labels/case_02.nii.gz` by the label of `images/case_02.nii.gz`")


@given(
    orientation=st.sampled_from(list(orientations())),
    degrees=st.tuples(*[st.floats(-80, 80)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    shift=st.tuples(*[st.integers(-7, 7)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_share_outside_in_any_orientation(
    orientation: tuple[tuple[int, int, int], tuple[int, int, int]],
    degrees: tuple[float, float, float],
    spacing: tuple[float, float, float],
    shift: tuple[int, int, int],
    seed: int,
) -> None:
    axes, signs = orientation
    matrix = affine(spacing, origin=(-11.0, 5.0, 60.0), degrees=degrees, axes=axes, signs=signs)
    move = np.eye(4)
    move[:3, 3] = shift
    label = np.random.default_rng(seed).random((5, 6, 7)) > 0.8  # stored (x, y, z)
    label[2, 3, 4] = True
    with tempfile.TemporaryDirectory() as folder:
        image, drawn = Path(folder) / "image.nii", Path(folder) / "label.nii"
        nibabel.save(nibabel.Nifti1Image(np.arange(210, dtype=np.float32).reshape(5, 6, 7), matrix), image)
        nibabel.save(nibabel.Nifti1Image(label.astype(np.uint8), matrix @ move), drawn)
        content = examine(Case("a", "a", (image,), {"label": drawn})).labels["label"]
    places = np.argwhere(label) + shift
    outside = int(((places < 0) | (places >= label.shape)).any(axis=1).sum())
    assert content.outside == ((outside, int(label.sum())) if any(shift) else (0, 0))


def test_fourth_axis_of_all_volumes(tmp_path: Path) -> None:
    make_volumes_dataset(tmp_path, cases=6, shape=(20, 18, 8), channels=2)
    (finding,) = check(tmp_path)
    assert (finding.severity, finding.kind) == ("warning", "fourth-axis")
    assert "every volume has a fourth axis of 2, which is read as channels" in finding.what
    assert check(follow(finding.fix.split("; or ")[0], tmp_path, tmp_path, tmp_path)) == []


def test_two_codings_of_one_structure(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["pictures"], root)
    for number in range(4):
        _edit(root / "masks" / f"case_{number:02d}.png", lambda a: a // 255)
    (finding,) = check(root)
    assert finding.kind == "label-coding"
    assert "4 with 1" in finding.what
    assert "4 with 255" in finding.what
    for number, way in enumerate(finding.fix.split("; or ")):
        copy = tmp_path / str(number)
        shutil.copytree(root, copy)
        assert check(follow(way, copy, copy, good["pictures"])) == []


def test_labels_declared_with_the_wrong_value(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "listed"
    shutil.copytree(good["listed"], root)
    _declared_wrongly(root / "cases.csv")
    (finding,) = check(root / "dataset.yaml")
    assert (finding.severity, finding.kind, len(finding.files)) == ("error", "label-values", 16)
    for way in finding.fix.split(" (this is for the first")[0].split("; or "):
        assert not way.startswith(("replace", "delete"))  # all that is drawn would be lost
    way = finding.fix.split("; or ")[0]
    assert check(follow(way, root, root / "dataset.yaml", good["listed"])) == []


def test_one_systematic_cause_is_one_finding(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "listed"
    shutil.copytree(good["listed"], root)
    for path in sorted((root / "scans").iterdir())[:12]:
        path.write_bytes(b"")
    (finding,) = check(root / "cases.csv")
    assert finding.kind == "unreadable"
    assert len(finding.files) == 12
    assert json.loads(json.dumps(finding.as_dict()))["files"][0] == "scans/p0L.png"


def test_probabilities_in_place_of_labels(tmp_path: Path) -> None:
    root = make_volumes_dataset(tmp_path, cases=6, shape=(20, 18, 8), classes=1)
    for path in (root / "labels").iterdir():
        _edit(path, lambda a: ndimage.gaussian_filter(a.astype(np.float32), 0.6) * 0.98)
    (finding,) = check(root)
    assert (finding.severity, finding.kind, len(finding.files)) == ("warning", "soft-label", 6)
    assert check(follow(finding.fix, root, root, root)) == []


def test_a_threshold_that_would_erase_other_labels_is_not_proposed(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["pictures"], root)
    for number in range(8):
        mask = root / "masks" / f"case_{number:02d}.png"
        _jpeg(mask) if number == 3 else _edit(mask, lambda a: a // 255)
    (finding,) = check(root)
    assert (finding.kind, finding.where) == ("soft-label", "masks/case_03.png")
    assert finding.fix.startswith("export `masks/case_03.png` again, without loss")


def test_colours_under_a_threshold(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["pictures"], root)
    (root / "dataset.yaml").write_text("labels: {lesion: 255, threshold: 127}\n")
    for name, value in (("case_01", (255, 0, 0)), ("case_02", (9, 9, 9))):
        write_raster(root / "masks" / f"{name}.png", np.full((32, 36, 3), value, np.uint8))
    (finding,) = check(root)
    assert (finding.kind, finding.where) == ("empty-label", "masks/case_02.png")


def test_labels_that_lie_below_the_threshold(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["pictures"], root)
    (root / "dataset.yaml").write_text("labels: {lesion: 255, threshold: 127}\n")
    _edit(root / "masks" / "case_03.png", lambda a: a // 255)
    (finding,) = check(root)
    assert (finding.severity, finding.kind, finding.where) == ("error", "label-values", "masks/case_03.png")
    assert "0, 1 all lie below the threshold 127" in finding.what
    for number, way in enumerate(finding.fix.split("; or ")):
        copy = tmp_path / str(number)
        shutil.copytree(root, copy)
        assert check(follow(way, copy, copy, good["pictures"])) == []


def test_names_that_are_no_text(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["volumes"], root)
    name = os.fsdecode(b"caf\xe9.nii.gz")
    for folder in ("images", "labels"):
        try:
            (root / folder / "case_00.nii.gz").rename(root / folder / name)
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    assert check(root) == []
    (root / "labels" / name).write_bytes(b"")
    (finding,) = check(root)
    assert finding.where == "labels/caf\\xe9.nii.gz"
    json.dumps(finding.as_dict(), ensure_ascii=False).encode("utf-8")


def test_link_that_leads_nowhere(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["volumes"], root)
    (root / "images" / "case_00.nii.gz").unlink()
    (root / "images" / "case_00.nii.gz").symlink_to("annex/objects/abc")
    (finding,) = check(root)
    assert (finding.kind, finding.where) == ("unreadable", "images/case_00.nii.gz")
    assert check(follow(finding.fix.split("; or ")[1], root, root, root)) == []


def test_workers_and_progress_change_nothing(
    good: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["pictures"], root)
    _fill(0)(root / "masks" / "case_03.png")
    assert check(root, workers=1) == check(root, workers=4, progress=True)
    assert capsys.readouterr().out == ""


def test_declared_channels(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["nnunet"], root)
    content = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps({**content, "channel_names": {"0": "CT"}}))
    (finding,) = check(root)
    assert finding.kind == "channels"
    assert "1 channels declared (CT), but the images have 2" in finding.what
    assert check(follow(finding.fix, root, root, good["nnunet"])) == []


def test_spacing_that_differs_is_only_noted(tmp_path: Path) -> None:
    for number in range(6):
        rng = np.random.default_rng(number)
        spacing = (1.0, 1.0, 1.0 + 0.3 * number)
        write_nifti(tmp_path / "images" / f"{number}.nii.gz", rng.normal(size=(6, 8, 10)), spacing=spacing)
        write_nifti(tmp_path / "labels" / f"{number}.nii.gz", np.uint8(rng.random((6, 8, 10)) > 0.5), spacing=spacing)
    (finding,) = check(tmp_path)
    assert (finding.severity, finding.kind) == ("note", "spacing")
    assert "1 × 1 × 2.5 mm" in finding.what


def test_many_classes_are_no_soft_edges(tmp_path: Path) -> None:
    """Thirty classes lie between the lowest and the highest value, too, yet in patches."""
    grid = np.kron(np.arange(36).reshape(6, 6), np.ones((8, 8)))
    for number in range(6):
        rng = np.random.default_rng(number)
        write_raster(tmp_path / "images" / f"{number}.png", np.uint8(rng.integers(0, 255, (96, 96))))
        mask = np.zeros((96, 96), np.uint8)
        mask[:48, :48] = grid * 3
        mask[60:, 60:] = 105
        write_raster(tmp_path / "masks" / f"{number}.png", mask)
    assert check(tmp_path) == []


def test_image_in_place_of_label(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["volumes"], root)
    shutil.copy(root / "images" / "case_03.nii.gz", root / "labels" / "case_03.nii.gz")
    (finding,) = check(root)
    assert (finding.severity, finding.kind, finding.where) == ("error", "label-values", "labels/case_03.nii.gz")
    assert "an image, not a label?" in finding.what


@pytest.mark.parametrize(
    ("name", "expected"), [("STARE_10", []), ("PH2", []), ("Hippocampus", ["intensity"]), ("ChestXray", ["soft-label"])]
)
@pytest.mark.slow
def test_real_sets(name: str, expected: list[str]) -> None:
    findings = check(shared(name))
    assert [finding.kind for finding in findings] == expected
    assert all("labels.threshold: 127" in f.fix for f in findings if f.kind == "soft-label")
    assert all(f.severity == "note" for f in findings if f.kind == "intensity")  # MR in the units of several scanners


def test_drive_by_its_recipe(tmp_path: Path) -> None:
    recipe = (Path(__file__).parents[3] / "recipes" / "drive.yaml").read_text()
    (tmp_path / "drive.yaml").write_text(f"{recipe}\nroot: {shared('DRIVE')}\n")
    assert check(tmp_path / "drive.yaml") == []


def test_patient_torn_by_folders(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "train", "train", "train", "val")):
        rng = np.random.default_rng(number)
        name = f"{split}/{{}}/p{min(number, 4)}_{number}.png"
        write_raster(tmp_path / name.format("images"), np.uint8(rng.integers(0, 255, (32, 32))))
        write_raster(tmp_path / name.format("masks"), np.uint8(rng.integers(0, 2, (32, 32))))
    assert check(tmp_path) == []
    (tmp_path / "dataset.yaml").write_text("patient: '^(p[0-9]+)_'\n")
    findings = check(tmp_path)
    assert [(f.severity, f.kind) for f in findings] == [("error", "patient-split")]
    assert "patient p4 stands in several splits (1 in train, 1 in val)" in findings[0].what
    assert check(follow(findings[0].fix, tmp_path, tmp_path, tmp_path)) == []


@pytest.mark.parametrize("layout", ["nnunet", "datalist", "patterns", "splits in folders"])
def test_patient_torn_in_every_layout(layout: str, good: dict[str, Path], tmp_path: Path) -> None:
    root = dataset = tmp_path / "set"
    if layout == "nnunet":
        shutil.copytree(good["nnunet"], root)
        (root / "dataset.yaml").write_text("patient: '^scan_00([0-9])'\n")
        for channel in ("0000", "0001"):  # a second scan of patient 8, who is in the test set
            image = root / "imagesTr" / f"scan_007_{channel}.nii.gz"
            image.rename(image.with_name(f"scan_008b_{channel}.nii.gz"))
        (root / "labelsTr" / "scan_007.nii.gz").rename(root / "labelsTr" / "scan_008b.nii.gz")
    elif layout == "datalist":
        shutil.copytree(good["volumes"], root)
        names = [f"case_{number:02d}.nii.gz" for number in range(8)]
        entries = [{"image": f"images/{n}", "label": f"labels/{n}", "patient": n[:7]} for n in names]
        entries[7]["patient"] = "case_00"
        dataset = root / "list.json"
        dataset.write_text(json.dumps({"training": entries[:6], "test": entries[6:]}))
    elif layout == "patterns":
        shutil.copytree(good["pictures"], root)
        (root / "dataset.yaml").write_text(
            "image: images/{case}.png\nlabel: masks/{case}.png\nroi: roi/{case}.png\n"
            "patient: '^(case_00)|.*'\nsplit: {test: [case_00_right]}\n"
        )
        for folder in ("images", "masks", "roi"):
            (root / folder / "case_00.png").rename(root / folder / "case_00_left.png")
            (root / folder / "case_07.png").rename(root / folder / "case_00_right.png")
    else:
        for split, names in (("train", range(7)), ("test", [7])):
            for folder in ("images", "masks"):
                for number in names:
                    target = root / split / folder / f"p{number % 7}_{number}.png"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(good["pictures"] / folder / f"case_{number:02d}.png", target)
        (root / "dataset.yaml").write_text("patient: '^(p[0-9])_'\n")
    torn = [finding for finding in check(dataset) if finding.kind == "patient-split"]
    assert [finding.severity for finding in torn] == ["error"]
    assert "stands in several splits" in torn[0].what
    after = check(follow(torn[0].fix, root, dataset, root))
    assert "patient-split" not in {finding.kind for finding in after}


def test_listed_in_json(good: dict[str, Path], tmp_path: Path) -> None:
    root = tmp_path / "set"
    shutil.copytree(good["volumes"], root)
    names = [f"case_{number:02d}.nii.gz" for number in range(8)]
    entries = [{"image": f"images/{name}", "label": f"labels/{name}"} for name in names]
    (root / "list.json").write_text(json.dumps({"training": entries}))
    assert check(root / "list.json") == []
    _fill(0)(root / "labels" / names[2])
    (finding,) = check(root / "list.json")
    assert finding.fix.endswith("; or remove the entry of case `case_02` from `list.json`")
    (root / "list.json").write_text(json.dumps({"training": entries[:2] + entries[3:]}))
    assert check(root / "list.json") == []


def test_unlabelled_sets_and_one_case(tmp_path: Path) -> None:
    make_volumes_dataset(tmp_path, cases=1, shape=(20, 18, 8))
    assert [f.kind for f in check(tmp_path)] == ["few-cases"]
    (tmp_path / "dataset.yaml").write_text("image: images/{case}.nii.gz\n")
    assert [(f.severity, f.kind) for f in check(tmp_path)] == [("error", "no-label")]

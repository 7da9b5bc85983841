"""The page of findings: all that the command says, with pictures in which a label lies where its geometry places it."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

import cpfnet
from cpfnet.cli.app import app
from cpfnet.data.checks.case_picture import picture_of
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError, OutputError
from tests.synthetic import affine, write_nifti, write_raster


def _run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.output


def test_page_says_all_that_the_command_says(good: dict[str, Path], tmp_path: Path) -> None:
    root, page = tmp_path / "set", tmp_path / "new" / "check.html"
    shutil.copytree(good["pictures"], root)
    write_raster(root / "masks" / "case_02.png", np.zeros((32, 36), np.uint8))
    (root / "images" / "case_03.png").write_bytes(b"")
    code, said = _run("check", root, "--html", page)
    assert code == 1
    text = page.read_text()
    for finding in cpfnet.check(root):
        assert finding.where in text
        assert finding.where in said
    titles = re.findall(r"<h2>(.*?)</h2>", text)
    assert titles == ["Summary", "Errors", "Warnings"]
    assert text.count("<img ") == 1  # the unreadable image has none
    assert re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,|#)', text) == []
    assert "nothing of the label to be seen" in text


def test_page_of_a_clean_set_and_no_page_in_place_of_another(good: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "check.html"
    assert cpfnet.check(good["volumes"], html=page) == []
    assert "Nothing found: the dataset is fine." in page.read_text()
    with pytest.raises(OutputError, match="exists already"):
        cpfnet.check(good["volumes"], html=page)
    cpfnet.check(good["volumes"], html=page, overwrite=True)
    assert list(tmp_path.iterdir()) == [page]
    with pytest.raises(DatasetError, match="no such file or folder"):
        cpfnet.check(tmp_path / "nowhere", html=tmp_path / "other.html")
    assert list(tmp_path.iterdir()) == [page]


def test_all_files_of_one_cause_are_listed(good: dict[str, Path], tmp_path: Path) -> None:
    root, page = tmp_path / "listed", tmp_path / "check.html"
    shutil.copytree(good["listed"], root)
    for path in sorted((root / "scans").iterdir())[:12]:
        path.write_bytes(b"")
    cpfnet.check(root / "cases.csv", html=page)
    assert "<summary>all 12</summary>" in page.read_text()


def _outline(uri: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the first class's line lies, as shares of height and width: (top, left) and (bottom, right)."""
    pixels = np.array(Pillow.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), dtype=int)
    line = (pixels[..., 2] - pixels[..., 0] > 100) & (pixels[..., 1] > 150)
    places = np.argwhere(line) / np.array(pixels.shape[:2])
    return places.min(axis=0), places.max(axis=0)


def test_picture_shows_the_label_where_its_affine_places_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros((6, 40, 50), np.uint8)
    label[3, 4:12, 10:20] = 1  # rows from 10 % to 30 %, columns from 20 % to 40 %
    matrix = affine((1.0, 1.0, 5.0))
    for name, placed in (("same", matrix), ("moved", affine((1.0, 1.0, 5.0), origin=(10.0, 0.0, 0.0)))):
        write_nifti(tmp_path / "images" / f"{name}.nii.gz", rng.normal(0, 1, label.shape), matrix)
        write_nifti(tmp_path / "labels" / f"{name}.nii.gz", label, placed)
    cases = {case.id: case for case in load(tmp_path).cases}
    uri, seen = picture_of(cases["same"])
    assert seen == "slice 4 of 6"
    # x grows to the patient's right here, y to the front: seen from the feet, with the front up, both axes are turned.
    low, high = _outline(uri)
    np.testing.assert_allclose([low, high], [[0.7, 0.6], [0.9, 0.8]], atol=0.015)
    low, high = _outline(picture_of(cases["moved"])[0])
    np.testing.assert_allclose([low, high], [[0.7, 0.4], [0.9, 0.6]], atol=0.015)


def test_picture_of_a_photograph(tmp_path: Path) -> None:
    picture, mask = np.full((60, 80, 3), (90, 60, 50), np.uint8), np.zeros((60, 80), np.uint8)
    mask[6:30, 8:40] = 255
    write_raster(tmp_path / "images" / "a.png", picture)
    write_raster(tmp_path / "masks" / "a.png", mask)
    (case,) = load(tmp_path).cases
    uri, seen = picture_of(case)
    assert seen == ""
    np.testing.assert_allclose(_outline(uri), [[0.1, 0.1], [0.5, 0.5]], atol=0.015)

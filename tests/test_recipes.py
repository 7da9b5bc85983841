"""Recipes understand the layouts that they are for, on made-up files of the same names."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import cpfnet
from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from tests import synthetic

RECIPES = Path(__file__).parents[1] / "recipes"
SIZE = (48, 44)


def fundus(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photograph, its vessels, and its field of view."""
    rng = np.random.default_rng(number)
    y, x = np.indices(SIZE)
    field = np.hypot(y - 23.5, x - 21.5) < 21
    grey, vessels = synthetic.blobs(rng, SIZE)
    vessels = vessels.astype(bool) & field
    photograph = np.stack([200 * grey, 120 * grey, 60 * grey], axis=-1) * field[..., None]
    return photograph.astype(np.uint8), vessels * np.uint8(255), field * np.uint8(255)


def drive(root: Path, *parts: str) -> None:
    for part, first in (("training", 21), ("test", 1)):
        for number in range(first, first + 20) if part in parts else ():
            name = f"{number:02d}"
            photograph, vessels, field = fundus(number)
            synthetic.write_raster(root / part / f"images/{name}_{part}.tif", photograph)
            synthetic.write_raster(root / part / f"1st_manual/{name}_manual1.gif", vessels)
            synthetic.write_raster(root / part / f"mask/{name}_{part}_mask.gif", field)
            if part == "test":
                second = Pillow.fromarray((np.roll(vessels, 1, axis=1) > 0).astype(np.uint8), "P")
                second.putpalette([4, 2, 4, 252, 254, 252])  # as DRIVE's own: nearly black and nearly white
                (root / part / "2nd_manual").mkdir(exist_ok=True)
                second.save(root / part / f"2nd_manual/{name}_manual2.gif")


def stare(root: Path) -> None:
    for number in (1, 2, 44, 139):
        photograph, vessels, _ = fundus(number)
        synthetic.write_raster(root / f"stare-images/im{number:04d}.png", photograph)
        for reader, shift in (("ah", 0), ("vk", 1)):
            label = np.repeat(
                np.roll(vessels, shift, axis=0)[..., None], 3, axis=-1
            )  # from a PPM: grey, in three channels
            synthetic.write_raster(root / f"labels-{reader}/im{number:04d}.{reader}.png", label)


def chestxray(root: Path) -> None:
    for number in range(4):
        grey, lungs = synthetic.blobs(np.random.default_rng(number), SIZE)
        synthetic.write_raster(root / f"images/CHNCXR_{number:04d}_0.jpg", np.uint8(255 * grey))
        synthetic.write_raster(root / f"masks/CHNCXR_{number:04d}_0.jpg", lungs * np.uint8(255))


def used(name: str, root: Path, make: Callable[..., None], *options: str) -> Path:
    make(root, *options)
    shutil.copy(RECIPES / f"{name}.yaml", root / "dataset.yaml")
    return root


@pytest.mark.parametrize(
    ("name", "make", "options", "splits", "readers"),
    [
        ("drive", drive, ("training",), {"train": 16, "val": 4}, {"label"}),
        ("drive", drive, ("training", "test"), {"train": 16, "val": 4}, {"label"}),
        ("drive-test", drive, ("training", "test"), {"train": 16, "val": 4, "test": 20}, {"first", "second"}),
        ("stare", stare, (), {None: 4}, {"ah", "vk"}),
        ("chestxray", chestxray, (), {None: 4}, {"label"}),
    ],
)
def test_the_layout_is_understood(tmp_path, name, make, options, splits, readers):
    root = used(name, tmp_path, make, *options)
    cases = load(root).cases
    assert Counter(case.split for case in cases) == splits
    assert {reader for case in cases for reader in case.labels} == readers
    assert not [f for f in check(root) if f.severity == "error"]


def test_drive_whole_has_both_readers_of_the_test_photographs_alone(tmp_path):
    cases = {case.id: case for case in load(used("drive-test", tmp_path, drive, "training", "test")).cases}
    assert list(cases["01"].labels) == ["first", "second"]
    assert list(cases["21"].labels) == ["first"]
    assert cases["20"].roi == tmp_path / "test/mask/20_test_mask.gif"
    assert (cases["37"].split, cases["09"].split, cases["20"].split, cases["36"].split) == (
        "val",
        "test",
        "test",
        "train",
    )
    findings = check(tmp_path)
    assert [(f.severity, len(f.files)) for f in findings] == [("note", 20)] * len(findings)
    assert "#040204" in findings[0].what


def test_drive_tested_beside_the_second_reader(tmp_path):
    root = used("drive-test", tmp_path / "DRIVE", drive, "training", "test")
    for number in range(1, 21):
        synthetic.write_raster(tmp_path / f"masks/{number:02d}.png", np.roll(fundus(number)[1], 2, axis=1))
    scores = cpfnet.evaluate(root, tmp_path / "masks")
    assert scores.protocol["chosen"] == "the test split"
    assert scores.protocol["cases"] == "20, of 20 patients"
    assert scores.protocol["region"] == "inside the region of interest only"
    model, reader = (
        next(
            a
            for a in scores.aggregates
            if (a["prediction"], a["reader"], a["class"], a["metric"]) == (who, "first", "vessel", "dice")
        )
        for who in ("prediction", "second")
    )
    assert model["count"] == reader["count"] == 20
    # By hand: both readers, within the field of view.
    own = [(v > 0, np.roll(v, 1, axis=1) > 0, f > 0) for _, v, f in map(fundus, range(1, 21))]
    dice = [2 * (a & b & f).sum() / ((a & f).sum() + (b & f).sum()) for a, b, f in own]
    assert reader["mean"] == pytest.approx(np.mean(dice))
    assert model["mean"] < reader["mean"]

"""Stacks of pictures as volumes, declared in dataset.yaml or a list, and as inputs of predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from cpfnet import formats
from cpfnet.cli.app import app
from cpfnet.data.case import placed
from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.inference.batch.inputs import collect
from tests.synthetic import write_raster

STACK = "stack=5x0.8x0.7"
SHAPE = (6, 32, 34)


def case(folder: Path, seed: int) -> np.ndarray:
    """A scan of pictures, numbered without leading zeros from 5, and its mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:5, 8:20, 8 + seed : 20 + seed] = 1
    scan = rng.integers(0, 60, SHAPE) + 120 * mask
    for index in range(SHAPE[0]):
        write_raster(folder / "scan" / f"{index + 5}.png", scan[index].astype(np.uint8))
        write_raster(folder / "mask" / f"{index + 5}.png", 255 * mask[index])
    return mask


def test_stacks_are_declared(tmp_path):
    masks = [case(tmp_path / f"p{number}", number) for number in range(3)]
    (tmp_path / "dataset.yaml").write_text(f"image: '{{case}}/scan/{STACK}'\nlabel: '{{case}}/mask/{STACK}'\n")
    dataset = load(tmp_path)
    assert [one.id for one in dataset.cases] == ["p0", "p1", "p2"]
    for one, mask in zip(dataset.cases, masks, strict=True):
        image = formats.read(one.images)
        assert image.spacing == (5, 0.8, 0.7)
        np.testing.assert_array_equal(placed(one.labels["label"], image).array[0], 255 * mask)
    assert [str(f) for f in check(tmp_path) if f.severity == "error"] == []
    (tmp_path / "cases.csv").write_text(f"case,image,label\na,p0/scan/{STACK},p0/mask/{STACK}\n")
    assert load(tmp_path / "cases.csv").cases[0].images == (tmp_path / "p0" / "scan" / STACK,)


def test_a_slice_that_is_missing_is_a_finding(tmp_path):
    for number in range(3):
        case(tmp_path / f"p{number}", number)
    (tmp_path / "p1" / "scan" / "7.png").unlink()
    (tmp_path / "dataset.yaml").write_text(f"image: '{{case}}/scan/{STACK}'\nlabel: '{{case}}/mask/{STACK}'\n")
    (error,) = [finding for finding in check(tmp_path) if finding.severity == "error"]
    assert "lacks the slices 7, between 6.png and 8.png" in error.what
    assert CliRunner().invoke(app, ["check", str(tmp_path)]).exit_code == 1


def test_a_stack_as_input(tmp_path):
    case(tmp_path / "p0", 0)
    (item,) = collect([tmp_path / "p0" / "scan" / STACK], channels=1, source="volumes")
    assert (item.name, item.error) == ("scan", None)
    assert len(collect([tmp_path / "p0" / "scan"], channels=1)) == SHAPE[0]  # as it stands, a folder of pictures

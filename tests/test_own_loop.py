"""The page for loops of one's own: its program trains on made pictures, and its parts run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from cpfnet.network.encoder import ResNetEncoder
from cpfnet.network.pretrained import store
from tests.test_docs import ROOT, blocks

PROGRAM, DRIVE, CHANGED, PARTS = blocks(ROOT / "docs/how-to/own-loop.md", "python")


def make(folder: Path, cases: int, seed: int) -> None:
    """Bright discs on dark noise."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for case in range(cases):
        row, column = rng.integers(24, 40, 2)
        rows, columns = np.ogrid[:64, :64]
        mask = (rows - row) ** 2 + (columns - column) ** 2 < 14**2
        picture = np.clip(40 + 150 * mask[..., None] + rng.normal(0, 15, (64, 64, 3)), 0, 255)
        Image.fromarray(picture.astype(np.uint8)).save(folder / "images" / f"{case}.png")
        Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "masks" / f"{case}.png")


def test_it_is_at_most_60_lines() -> None:
    assert len([line for line in PROGRAM.splitlines() if line.strip()]) <= 60


@pytest.mark.slow
def test_the_programs_of_the_page_run_and_the_network_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, cases in (("train", 8), ("test", 3)):
        make(tmp_path / split, cases, seed=cases)
    torch.manual_seed(0)
    state = ResNetEncoder(3).state_dict()
    safetensors.torch.save_file(state, tmp_path / "made.safetensors")
    monkeypatch.setenv("CPFNET_CACHE", str(tmp_path / "cache"))
    store.import_file(tmp_path / "made.safetensors")  # in ImageNet's place
    short = PROGRAM.replace("= 40, 4, 0.01", "= 6, 4, 0.05")
    assert short != PROGRAM
    program = f"import torch\ntorch.manual_seed(0)\n{short}\n{PARTS}"
    said = scores(tmp_path, program)
    assert said["dice"] > 0.8
    assert said["hd95"] < 10
    assert (tmp_path / "network.pt").exists()


def scores(folder: Path, program: str) -> dict[str, float]:
    """What a program prints last."""
    (folder / "program.py").write_text(program, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
    said = (line.split(" ", 1) for line in run.stdout.splitlines() if line.startswith(("dice", "hd95")))
    return {name: float(value) for name, value in said}


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.mark.slow
def test_drive_is_brought_into_the_layout_and_learned_from(tmp_path: Path) -> None:
    """One picture to train on and one kept apart, as DRIVE has them, but small; their edge is outside the field."""
    rng, field = np.random.default_rng(0), np.zeros((100, 90), bool)
    field[10:90, 10:80] = True
    for number in (36, 37):
        vessels = np.zeros((100, 90), bool)
        vessels[rng.integers(30, 70) :, 40:44] = vessels[30:34] = True
        picture = np.clip(180 - 100 * vessels[..., None] + rng.normal(0, 10, (100, 90, 3)), 0, 255).astype(np.uint8)
        for name, array in (
            (f"images/{number}_training.tif", picture),
            (f"1st_manual/{number}_manual1.gif", 255 * vessels.astype(np.uint8)),
            (f"mask/{number}_training_mask.gif", 255 * field.astype(np.uint8)),
        ):
            (tmp_path / "DRIVE/training" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "DRIVE/training" / name)
    prepare = replaced(DRIVE, ("range(21, 41)", "(36, 37)"), (", 192\n", ", 64\n"))
    program = PROGRAM
    for line in replaced(CHANGED, ("= 12,", "= 2,"), ("width=32", "width=8")).splitlines():
        (old,) = (own for own in PROGRAM.splitlines() if own.startswith(line.partition("=")[0] + "="))
        program = replaced(program, (f"{old}\n", f"{line}\n"))
    said = scores(tmp_path, f"{prepare}\nimport torch\ntorch.manual_seed(0)\n{program}")
    assert 0 <= said["dice"] <= 1
    assert len(list((tmp_path / "train/images").iterdir())) == 16
    (mask,) = ((np.asarray(Image.open(path))) for path in (tmp_path / "test/masks").iterdir())
    assert np.array_equal(mask == 128, ~field)
    assert set(np.unique(mask)) == {0, 128, 255}

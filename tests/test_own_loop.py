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

PROGRAM, PARTS = blocks(ROOT / "docs/how-to/own-loop.md", "python")


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
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
    said = dict(line.split(" ", 1) for line in run.stdout.splitlines() if line.startswith(("dice", "hd95")))
    assert float(said["dice"]) > 0.8, run.stdout
    assert float(said["hd95"]) < 10
    assert (tmp_path / "network.pt").exists()

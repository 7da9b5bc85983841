"""The picture of 16 augmented samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from cpfnet.data.dataset import load
from cpfnet.data.draft import GIB, Memory
from cpfnet.data.fingerprint import fingerprint
from cpfnet.data.proposal import propose
from cpfnet.errors import OutputError
from cpfnet.planning import Plan
from cpfnet.training.preview import preview
from tests import data


@pytest.mark.parametrize("kind", ["images", "2.5d", "3d"])
def test_sixteen_samples_in_one_picture(tmp_path: Path, kind: str) -> None:
    if kind == "images":
        root = data.make_images_dataset(tmp_path / "d", cases=3, roi=True)
    else:
        root = data.make_volumes_dataset(tmp_path / "d", cases=2, shape=(40, 36, 32), spacing=(1.0, 1.0, 1.0))
    dataset = load(root)
    memory = Memory(16 * GIB, "cuda" if kind == "3d" else "cpu")
    plan: Plan = propose(fingerprint(dataset), dataset, memory=memory)[0]
    assert kind == "images" or plan.spatial.mode == kind
    out = preview(dataset, plan, tmp_path / "out" / "preview.png")
    picture = np.asarray(Pillow.open(out).convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 600
    line = np.abs(picture - (0, 0xE5, 0xFF)).max(axis=2) < 40  # outlines of the first class
    for row in np.array_split(line, 4):
        for panel in np.array_split(row, 4, axis=1):
            assert panel.sum() > 10 or kind != "images"
    first = out.read_bytes()
    preview(dataset, plan, out)
    assert out.read_bytes() == first
    assert [p.name for p in out.parent.iterdir()] == ["preview.png"]


def test_an_unwritable_place(tmp_path: Path) -> None:
    dataset = load(data.make_images_dataset(tmp_path / "d", cases=1))
    plan = propose(fingerprint(dataset), dataset, memory=Memory(16 * GIB, "cpu"))[0]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        preview(dataset, plan, tmp_path / "file" / "preview.png")

"""The picture of 16 augmented samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from cpfnet.data.dataset import load
from cpfnet.errors import OutputError
from cpfnet.planner.costs import GIB
from cpfnet.planner.fingerprint import fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planner.proposal import propose
from cpfnet.planning import LabelClass, Plan
from cpfnet.report.figures import line_colours
from cpfnet.training.samples.preview import preview
from tests import synthetic


@pytest.mark.parametrize("kind", ["images", "2.5d", "3d"])
def test_sixteen_samples_in_one_picture(tmp_path: Path, kind: str) -> None:
    if kind == "images":
        root = synthetic.make_images_dataset(tmp_path / "d", cases=3, roi=True)
    else:
        root = synthetic.make_volumes_dataset(tmp_path / "d", cases=2, shape=(40, 36, 32), spacing=(1.0, 1.0, 1.0))
    dataset = load(root)
    memory = Memory(16 * GIB, "cuda" if kind == "3d" else "cpu")
    network = "cpfnet" if kind == "2.5d" else None
    plan: Plan = propose(fingerprint(dataset), dataset, memory=memory, network=network)[0]
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


def test_a_legend_of_many_classes_has_them_all_below_the_samples(tmp_path: Path) -> None:
    dataset = load(synthetic.make_images_dataset(tmp_path / "d", cases=1))
    plan = propose(fingerprint(dataset), dataset, memory=Memory(16 * GIB, "cpu"))[0]
    named = [*plan.labels.classes, *(LabelClass(name=f"structure {n}", values=(n,)) for n in range(2, 33))]
    shapes = []
    for count in (1, 32):
        labels = plan.labels.model_copy(update={"classes": tuple(named[:count])})
        out = preview(dataset, plan.model_copy(update={"labels": labels}), tmp_path / "preview.png")
        picture = np.asarray(Pillow.open(out).convert("RGB")).astype(int)
        shapes.append(picture.shape)
    assert shapes[0][1] == shapes[1][1]
    assert shapes[1][0] > shapes[0][0]  # the legend takes its room from nobody
    legend = picture[shapes[0][0] - 60 :]
    for colour in line_colours(32):
        assert (legend == list(bytes.fromhex(colour[1:]))).all(axis=2).any(), colour


def test_an_unwritable_place(tmp_path: Path) -> None:
    dataset = load(synthetic.make_images_dataset(tmp_path / "d", cases=1))
    plan = propose(fingerprint(dataset), dataset, memory=Memory(16 * GIB, "cpu"))[0]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        preview(dataset, plan, tmp_path / "file" / "preview.png")

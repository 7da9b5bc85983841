"""The demonstration: real data from a dependency, slabs that lie apart, and the whole way to a report."""

from __future__ import annotations

import logging
import re
import shutil
import socket
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from cpfnet import demo as demonstration
from cpfnet.data.dataset import load
from cpfnet.demo import build_dataset, demo
from cpfnet.errors import CpfnetError, OutputError

pytest.importorskip("nilearn", reason="the demonstration's data come with nilearn")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def refuse(*_: object) -> None:
        raise AssertionError("the demonstration must not use the network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return build_dataset(tmp_path_factory.mktemp("demo") / "dataset")


def extent(path: Path) -> tuple[float, float]:
    """Lowest and highest z of the slices' centres, mm."""
    image = nibabel.load(path)
    ends = [(image.affine @ (0, 0, index, 1))[2] for index in (0, image.shape[2] - 1)]
    return min(ends), max(ends)


def test_what_is_held_out_lies_10_mm_and_more_from_what_trains(dataset: Path) -> None:
    found = load(dataset)
    assert found.problems == ()
    assert found.modality == "mr"
    by_split = {
        name: [extent(c.images[0]) for c in found.cases if c.split == name] for name in ("train", "val", "test")
    }
    assert {name: len(extents) for name, extents in by_split.items()} == {"train": 4, "val": 1, "test": 2}
    for one, other in (("test", "train"), ("val", "train"), ("test", "val")):
        for low, high in by_split[one]:
            assert all(low - end >= 10 or start - high >= 10 for start, end in by_split[other])


def test_slabs_are_the_template_where_it_lies(dataset: Path) -> None:
    from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template

    template = load_mni152_template(resolution=1)
    grey, white = (f(resolution=1).get_fdata() for f in (load_mni152_gm_template, load_mni152_wm_template))
    for case in load(dataset).cases:
        image, label = nibabel.load(case.images[0]), nibabel.load(case.labels["label"])
        assert np.array_equal(image.affine, label.affine)
        offset = np.linalg.inv(template.affine) @ image.affine
        assert np.allclose(offset[:3, :3], np.eye(3))
        first = round(offset[2, 3])
        part = np.s_[:, :, first : first + image.shape[2]]
        assert np.allclose(image.get_fdata(), template.get_fdata()[part] * 255, atol=1e-3)
        codes = np.asarray(label.dataobj)
        assert set(np.unique(codes)) == {0, 1, 2}
        assert (grey[part][codes == 1] >= white[part][codes == 1]).all()
        assert (white[part][codes == 2] > grey[part][codes == 2]).all()
        assert ((grey + white)[part][codes == 0] < 0.5).all()


def test_nothing_is_overwritten(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        build_dataset(dataset)
    (tmp_path / "mine.txt").write_text("keep")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="exists already"):
            demo(tmp_path, overwrite=overwrite)
    shutil.copytree(dataset, tmp_path / "earlier" / "dataset")
    with pytest.raises(OutputError, match="--overwrite"):
        demo(tmp_path / "earlier")
    assert (tmp_path / "mine.txt").read_text() == "keep"
    assert (tmp_path / "earlier" / "dataset" / "images").is_dir()


def test_without_nilearn_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(CpfnetError, match=r"pip install \"cpfnet\[demo\]\""):
        build_dataset(tmp_path / "dataset")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="free space"):
        build_dataset(tmp_path / "file" / "dataset")


@pytest.mark.slow
def test_the_whole_way_with_little_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    brief = (*demonstration.SETTINGS, "training.epochs=1", "training.samples=8", "training.workers=0")
    monkeypatch.setattr(demonstration, "SETTINGS", brief)
    out = tmp_path / "demo"
    scores = demo(out, progress=False)
    assert {row["case"] for row in scores.rows} == {"slab4", "slab6"}
    for path in ("evaluation/report.html", "predictions/slab4.nii.gz", "model/weights.safetensors", "plan.yaml"):
        assert (out / path).is_file()
    said = caplog.messages
    assert said[0] == demonstration.HONESTY
    steps = [line for line in said if re.match(r"\d/5 ", line)]
    assert [line.split()[0] for line in steps] == [f"{k}/5" for k in (1, 1, 2, 2, 3, 3, 4, 4, 5, 5)]
    assert all(re.fullmatch(r"\d/5 \w+ took \d+ s", line) for line in steps[1::2])
    assert "Mean Dice of 2 held-out slabs" in said[-1]
    assert str(out / "evaluation" / "report.html") in said[-1]


def test_how_long_it_will_take_is_measured_in_its_first_epoch(caplog: pytest.LogCaptureFixture) -> None:
    clock = iter([0.0, 100.0, 130.0])  # it begins, has prepared its cases, and has finished an epoch
    training = logging.getLogger("cpfnet.training.run")
    with demonstration._estimating(8, lambda: next(clock)):
        for line in ("Training cpfnet (1 weights)", "epoch 1/8  loss 1", "epoch 2/8  loss 1"):
            training.info(line)
    training.info("epoch 1/8  loss 1")
    (estimate,) = (record.message for record in caplog.records if record.name == "cpfnet.demo")
    assert estimate == "The first epoch took 30 s: the other 7 end in about 3.5 minutes."
    assert len(caplog.records) == 5

"""Checkpoints: whole or not at all, no code inside, and refused where they do not belong."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from cpfnet.errors import OutputError, TrainingError
from cpfnet.training import checkpoint
from cpfnet.training.checkpoint import RunFolder
from tests.training.conftest import full_disk, images_plan


def claim(folder: RunFolder, *, resume: bool) -> None:
    folder.check(resume=resume)
    folder.make()


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    state = {"weights": {"a": torch.randn(3)}, "number": 5, "best": None, "history": [{"dice": 0.1 + 0.2}]}
    checkpoint.save(state, path)
    found = checkpoint.load(path)
    assert torch.equal(found["weights"]["a"], state["weights"]["a"])
    assert (found["number"], found["best"], found["history"]) == (5, None, [{"dice": 0.1 + 0.2}])
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    checkpoint.save({"number": 1}, path)
    with full_disk(100_000), pytest.raises(OutputError, match=r"last\.ckpt.*: cannot be written: File too large"):
        checkpoint.save({"weights": torch.zeros(1_000_000)}, path)
    assert checkpoint.load(path)["number"] == 1
    assert list(tmp_path.iterdir()) == [path]


class _Evil:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("evil",))


@pytest.mark.parametrize("content", ["cut", "text", "empty", "pickle", "other"])
def test_what_is_no_checkpoint_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    checkpoint.save({"weights": torch.zeros(1000)}, path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif content == "text":
        path.write_text("hello")
    elif content == "empty":
        path.write_bytes(b"")
    elif content == "pickle":
        path.write_bytes(pickle.dumps(_Evil(), protocol=2))
    else:
        torch.save({"layout": -1}, path)
    with pytest.raises(TrainingError, match=r"last\.ckpt"):
        checkpoint.load(path)
    assert not (tmp_path / "evil").exists()


def test_every_key_that_differs_is_named() -> None:
    plan = images_plan()
    checkpoint.check_same(plan, images_plan(epochs=9, workers=1), Path("out"))
    other = plan.with_settings(["training.batch=3", "network.options.widths=[4, 4, 8, 8, 16]", "channels.0.name=r"])
    with pytest.raises(TrainingError) as caught:
        checkpoint.check_same(plan, other, Path("out"))
    said = str(caught.value)
    assert "training.batch: 2 then, 3 now" in said
    assert "network.options.widths: [4, 4, 8, 8, 8] then, [4, 4, 8, 8, 16] now" in said
    assert "channels.0.name: 'red' then, 'r' now" in said
    assert "epochs" not in said


def test_every_case_that_differs_is_named() -> None:
    checkpoint.check_data({"train/a": "1"}, {"train/a": "1"}, Path("out"))
    with pytest.raises(TrainingError, match="added: train/c; missing: train/b; changed: train/a"):
        checkpoint.check_data({"train/a": "1", "train/b": "2"}, {"train/a": "3", "train/c": "2"}, Path("out"))


class TestClaim:
    def test_new_and_empty_folders_are_taken(self, tmp_path: Path) -> None:
        claim(RunFolder(tmp_path / "a" / "b"), resume=False)
        (tmp_path / "empty").mkdir()
        claim(RunFolder(tmp_path / "empty"), resume=False)

    @pytest.mark.parametrize("resume", [False, True])
    def test_foreign_files_are_never_joined(self, tmp_path: Path, resume: bool) -> None:
        (tmp_path / "thesis.txt").touch()
        with pytest.raises(OutputError, match=r"holds thesis\.txt") as caught:
            claim(RunFolder(tmp_path), resume=resume)
        assert "nothing is overwritten" in str(caught.value)
        assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]

    def test_an_interrupted_run_is_only_resumed(self, tmp_path: Path) -> None:
        folder = RunFolder(tmp_path)
        claim(folder, resume=False)
        claim(folder, resume=False)  # killed before anything was begun
        claim(folder, resume=True)
        images_plan().save(folder.plan)
        with pytest.raises(OutputError, match=r"exists already and holds \.work.*\n.*--resume"):
            claim(folder, resume=False)
        (tmp_path / "weights.safetensors").touch()  # its first Model comes before its first checkpoint
        (tmp_path / ".saving-0123abcd").mkdir()  # half written when the power went
        (tmp_path / ".saving-0123abcd" / "weights.safetensors").touch()
        claim(folder, resume=True)
        assert {p.name for p in tmp_path.iterdir()} == {".work", "weights.safetensors"}
        with pytest.raises(OutputError, match="--resume"):
            claim(folder, resume=False)

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for out in (tmp_path / "file", tmp_path / "file" / "out"):
            with pytest.raises(OutputError, match="cannot be written"):
                claim(RunFolder(out), resume=False)

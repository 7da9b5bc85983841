"""Killed without warning, in mid-epoch and while a checkpoint is being written, a run ends with the same weights."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cpfnet.data.case import Dataset
from cpfnet.planning import Plan
from cpfnet.training import checkpoint
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from tests.training.conftest import images_plan

_RUN = """
import logging, sys
from pathlib import Path
from cpfnet.data.dataset import load
from cpfnet.planning import Plan
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
logging.basicConfig(level=logging.INFO, format="%(message)s")
data, plan, out = map(Path, sys.argv[1:])
train(load(data), Plan.load(plan), out, TrainOptions(device="cpu", resume=True, checkpoint_every=0.0))
"""


def plan() -> Plan:
    # Wide at the bottom: checkpoints are large enough (some 25 MB) to be caught half written.
    made = images_plan(epochs=3, samples=15, batch=2, accumulate=3, ema=0.9, workers=2, precision="auto")
    return made.with_settings(["network.options.widths=[4, 4, 8, 8, 400]"])


def kill(data: Path, settings: Path, out: Path, now: Callable[[], bool], number: int = signal.SIGKILL) -> str:
    """Start or resume a run, send it and all that it started a signal as soon as ``now`` says so; what it had said."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", _RUN, str(data), str(settings), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not now():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the run did not come so far in two minutes"
        time.sleep(0.002)
    os.killpg(process.pid, number)
    return process.communicate()[0]


def digest(out: Path) -> str:
    return hashlib.sha256((out / "weights.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(
    images: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = plan().training.samples
    plan().save(tmp_path / "plan.yaml")
    train(images, plan(), tmp_path / "whole", TrainOptions(device="cpu"))

    out = tmp_path / "cut"
    last, temporary = out / ".work" / "last.ckpt", out / ".work" / "last.ckpt.tmp"

    def number() -> int:
        return checkpoint.load(last)["number"] if last.exists() else 0

    def version() -> int:
        return last.stat().st_ino if last.exists() else 0

    seen = 0

    def in_mid_epoch() -> bool:
        nonlocal seen
        if version() == seen:
            return False
        seen = version()
        return number() % samples > 0  # whatever moment it is read at, a checkpoint is whole

    while number() % samples == 0:  # the run may have reached the epoch's end before the signal came
        kill(images.root, tmp_path / "plan.yaml", out, in_mid_epoch)

    reached, begun = number(), version()
    while True:  # at least once: the first kill may have left a half-written checkpoint, too
        kill(images.root, tmp_path / "plan.yaml", out, lambda: temporary.exists() and version() != begun)
        if temporary.exists():  # likewise, the checkpoint may be complete by then
            break
    assert reached < number() < plan().training.epochs * samples

    train(images, plan(), out, TrainOptions(device="cpu", resume=True))
    assert any(line.startswith("Going on after step") for line in caplog.messages)
    assert digest(out) == digest(tmp_path / "whole")
    ends = [checkpoint.load(folder / ".work" / "last.ckpt") for folder in (tmp_path / "whole", out)]
    rows = [[(r["epoch"], r["loss"], r["dice"], r["learning_rate"]) for r in end["history"]] for end in ends]
    assert rows[0] == rows[1]
    assert not temporary.exists()


@pytest.mark.slow
def test_a_terminated_run_stops_with_a_checkpoint(images: Dataset, tmp_path: Path) -> None:
    plan().with_settings(["training.epochs=1000"]).save(tmp_path / "plan.yaml")
    last = tmp_path / "out" / ".work" / "last.ckpt"
    said = kill(images.root, tmp_path / "plan.yaml", tmp_path / "out", last.exists, signal.SIGTERM)
    assert "Stopped. The same command with --resume goes on from here" in said
    assert checkpoint.load(last)["number"] > 0

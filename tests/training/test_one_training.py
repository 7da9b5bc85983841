"""`cpfnet train` beside another in the same folder, and where its terminal is closed."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cpfnet.data.case import Dataset
from cpfnet.training import checkpoint
from tests.training.conftest import images_plan

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def start(images: Dataset, tmp_path: Path, out: Path) -> Iterator[Start]:
    """Start a training that would take an hour."""
    plan = tmp_path / "plan.yaml"
    images_plan(epochs=10_000, samples=8, workers=2).save(plan)
    command = [sys.executable, "-m", "cpfnet", "train", str(images.root), "-o", str(out), "--device", "cpu"]
    started: list[subprocess.Popen[bytes]] = []

    def run(*more: str, **how: Any) -> subprocess.Popen[bytes]:
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True, **how}
        started.append(subprocess.Popen([*command, *(more or ("--plan", str(plan)))], **how))
        return started[-1]

    yield run
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(what: Callable[[], object]) -> None:
    end = time.monotonic() + 120
    while not what():
        assert time.monotonic() < end, "not within two minutes"
        time.sleep(0.05)


def learns(out: Path) -> None:
    """Wait until a training has finished an epoch."""
    wait((out / "logs" / "history.csv").is_file)


def goes_on(out: Path) -> None:
    """Wait until it has finished more epochs."""
    history = out / "logs" / "history.csv"
    rows = history.read_text().count("\n")
    wait(lambda: history.read_text().count("\n") > rows + 2)


@pytest.mark.slow
def test_a_second_one_is_refused_and_the_first_goes_on(start: Start, tmp_path: Path, out: Path) -> None:
    plan = ("--plan", str(tmp_path / "plan.yaml"))
    first = start(*plan, "--devices", "2", stdout=subprocess.DEVNULL)  # several processes, one holder
    learns(out)
    second = start(*plan)
    said = second.communicate(timeout=120)[0].decode()
    assert second.returncode == 1
    assert f"is being trained by process {first.pid} on this machine, since 2" in said
    assert "or train into another folder" in said
    assert (out / ".work" / "cache").is_dir()
    goes_on(out)
    first.terminate()
    assert first.wait(timeout=120) == 128 + signal.SIGTERM
    assert not (out / ".work" / "holder.json").exists()
    assert checkpoint.load(out / ".work" / "last.ckpt")["number"] > 0


@pytest.mark.slow
def test_a_closed_terminal_ends_it_with_a_checkpoint(start: Start, out: Path) -> None:
    ours, theirs = pty.openpty()

    def take() -> None:  # as a login shell does; the system then sends SIGHUP to all in the foreground
        import fcntl
        import termios

        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = start(stdin=theirs, stdout=theirs, stderr=theirs, preexec_fn=take)
    os.close(theirs)
    seen = b""
    while not (out / "logs" / "history.csv").is_file():
        seen += os.read(ours, 65536)  # a full terminal would stop it
    assert b"epoch 1/10000" in seen
    os.close(ours)
    assert process.wait(timeout=120) == 128 + signal.SIGHUP
    state = checkpoint.load(out / ".work" / "last.ckpt")
    assert state["number"] > 0
    assert not (out / ".work" / "holder.json").exists()
    again = start("--resume", "--epochs", str(len(state["history"]) + 1))
    said = again.communicate(timeout=120)[0].decode()
    assert again.returncode == 0
    assert "Going on after step" in said
    # The last Dice on screen is the report's.
    dice = re.search(r"^Report: .*report\.html; Dice (\d\.\d{3}), the mean of 2 validation cases", said, re.MULTILINE)
    assert dice is not None
    assert "Dice" not in said[dice.end() :]
    assert re.search(rf">\s*{re.escape(dice[1])}\s*<", (out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_under_nohup_and_where_nobody_reads_any_more_it_goes_on(start: Start, out: Path) -> None:
    heard = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does; children inherit it
    try:
        process = start()
    finally:
        signal.signal(signal.SIGHUP, heard)
    learns(out)
    assert process.stdout is not None
    process.stdout.close()
    os.killpg(process.pid, signal.SIGHUP)
    goes_on(out)
    process.terminate()
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    assert checkpoint.load(out / ".work" / "last.ckpt")["number"] > 0

"""Who trains in a folder, when several try: real processes, started at once, killed, and on machines of other names."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cpfnet.errors import OutputError
from cpfnet.files import sweep
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.lock import Holder, locked

_HOLD = """
import logging, multiprocessing, sys, time
from pathlib import Path
from cpfnet.errors import OutputError
from cpfnet.training.signals import leave_signals
from cpfnet.training.lock import locked

def help_out():
    leave_signals()
    time.sleep(600)

logging.basicConfig(level=logging.INFO, format="said %(message)s", stream=sys.stdout)
work, begin, helpers = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
time.sleep(max(0.0, begin - time.time()))
try:
    with locked(work):
        for _ in range(helpers):
            multiprocessing.get_context("fork").Process(target=help_out, daemon=True).start()
        print("held", flush=True)
        sys.stdin.read()
except OutputError as error:
    print("refused", " ".join(str(error).split()), flush=True)
"""


Starter = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start a process that holds ``tmp_path/out`` until its standard input ends."""
    with ExitStack() as ending:

        def run(begin: float = 0.0, helpers: int = 0) -> subprocess.Popen[str]:
            command = [sys.executable, "-c", _HOLD, str(tmp_path / "out" / ".work"), str(begin), str(helpers)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            ending.callback(process.communicate)
            ending.callback(process.kill)
            return process

        yield run


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_many_that_start_at_once_one_trains(start: Starter, tmp_path: Path) -> None:
    begin = time.time() + 6
    processes = [start(begin) for _ in range(8)]
    said = [line(process) for process in processes]
    assert said.count("held") == 1
    holder = processes[said.index("held")]
    for refused in set(said) - {"held"}:
        assert f"out: is being trained by process {holder.pid} on this machine, since " in refused
        assert f"→ wait until it ends, stop it (kill {holder.pid}: it leaves a checkpoint)" in refused
    holder.communicate("")
    assert not (tmp_path / "out" / ".work").exists()  # nothing was begun
    next_one = start()
    assert line(next_one) == "held"


@pytest.mark.parametrize("helpers", [0, 2])
def test_what_a_killed_one_held_is_told_and_taken_over(start: Starter, tmp_path: Path, helpers: int) -> None:
    first = start(helpers=helpers)
    assert line(first) == "held"
    first.kill()  # not yet waited for: a zombie trains no more
    second = start()
    told = line(second)
    assert told.startswith(f"said The training that held this folder ended without a word (process {first.pid} on this")
    assert line(second) == "held"
    holder = json.loads((tmp_path / "out" / ".work" / "holder.json").read_text())
    assert (holder["host"], holder["pid"]) == (socket.gethostname(), second.pid)


def leave(tmp_path: Path, **changes: object) -> Path:
    """The record of a killed process that had this one's place, but for ``changes``."""
    record = tmp_path / ".work" / "holder.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(Holder.this().model_copy(update=changes).model_dump_json())
    return record


@pytest.mark.parametrize("changes", [{"host": "node7"}, {"boot": "another"}], ids=["another", "of the same name"])
def test_what_another_machine_held_is_never_taken(tmp_path: Path, changes: dict[str, object]) -> None:
    record = leave(tmp_path, pid=4711, **changes)
    before = record.read_bytes()
    name = changes.get("host", platform.node())
    for _ in range(2):
        with (
            pytest.raises(OutputError, match=f"process 4711 on {name}, since ") as caught,
            locked(record.parent),
        ):
            raise AssertionError("taken")
        assert str(record) in caught.value.fix
        assert caught.value.fix.startswith(f"look on {name} whether process 4711 still trains")
    assert record.read_bytes() == before
    record.unlink()  # as the message says
    with locked(record.parent):
        assert json.loads(record.read_text())["pid"] == os.getpid()


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": 2**22 - 3},
        {"started": 1000.0},
        {"boot": "before", "began": 1000.0},
    ],
    ids=["ended", "its number is another process' now", "before the machine was started again"],
)
def test_the_dead_of_this_machine_hold_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, object]
) -> None:
    record = leave(tmp_path, **changes)
    with locked(record.parent):
        pass
    assert [line.split(" (")[0] for line in caplog.messages] == [
        "The training that held this folder ended without a word"
    ]
    assert not record.exists()


def test_where_locks_do_not_reach_the_record_still_tells(tmp_path: Path) -> None:
    record = leave(tmp_path)  # of a process that lives, but holds no lock
    with pytest.raises(OutputError, match=f"is being trained by process {os.getpid()}"), locked(record.parent):
        raise AssertionError("taken")


def test_a_damaged_record_stops_nobody(tmp_path: Path) -> None:
    record = leave(tmp_path)
    record.write_bytes(record.read_bytes()[:20])
    with locked(record.parent):
        assert Holder.model_validate_json(record.read_bytes()).alive


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"), locked(tmp_path / "out" / ".work", print):
        raise AssertionError("taken")


_WRITE = """
import sys, time
from pathlib import Path
from cpfnet.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writes", flush=True)
    time.sleep(600)
"""


def test_strays_of_the_dead_are_swept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    targets = [
        tmp_path / "weights.safetensors",
        folder.logs / "history.csv",
        folder.work / "plan.yaml",
        tmp_path / "card.md",
    ]
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITE, str(target)], stdout=subprocess.PIPE, text=True)
        for target in targets
    ]
    try:
        assert [line(writer) for writer in writers] == ["writes"] * 4
        for writer in writers[:3]:
            writer.kill()
            writer.wait()
        for file in (folder.work / "last.ckpt.tmp", folder.cache / ".case-0.4711" / "image.npy"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        kept = [
            tmp_path / ".git-0123abcd-x",
            tmp_path / "4711-0123abcd-notes.txt",
            folder.cache / "case-1" / "meta.json",
        ]
        for file in [*kept, folder.checkpoint]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4 + 2 + 4
        folder.make()
        left = {path for path in tmp_path.rglob("*") if path.is_file()} - {*kept, folder.checkpoint}
        assert [path.name.startswith(f".{writers[3].pid}-") for path in left] == [True]  # it still writes
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    sweep(tmp_path / "nothing here")

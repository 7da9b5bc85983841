"""Runs that end early: killed at any call, ended by any signal, two in one folder, a list that cannot be written.

Nothing is lost or made up.
"""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cpfnet.errors import OutputError
from cpfnet.inference.batch.signals import Ended, ending, telling
from cpfnet.inference.torch_backend.onnx_graph import prepared
from cpfnet.model import Quality
from tests import synthetic
from tests.inference.batch.test_run import images_model, picture, tree
from tests.inference.oracle import oracle
from tests.predicting import predict_files

KNOWS = {"quality": Quality(cases=5, lowest=0.9, found=())}
COUNT = 40

EACH_CALL = """
import os, signal, sys
from pathlib import Path
from tests.predicting import predict_files
from tests.inference.oracle import oracle
from tests.inference.batch.test_killed import KNOWS, images_model

inputs, root = map(Path, sys.argv[1:])
model = images_model(fitted=KNOWS)

def run(out):
    more = {"overlays": True, "resume": True, "backend": oracle, "device": "cpu"}
    return predict_files([model], [inputs], out, **more)

def killed(out, last):
    "Run in a child that kills itself at a call that changes the disk; was it so?"
    child = os.fork()
    if not child:
        left = [last]
        def heard(call):
            def one(*args, **more):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **more)
            return one
        for name in ("fsync", "replace", "unlink", "mkdir"):
            setattr(os, name, heard(getattr(os, name)))
        run(out)
        os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL

last = 1
while killed(root / str(last), last):
    assert {o.status for o in run(root / str(last))} == {"done"}, last
    last += 1
"""


def photographs(folder: Path, count: int, start: int = 0) -> Path:
    for number in range(start, start + count):
        synthetic.write_raster(folder / f"{number}.png", picture(number % 20)[0])
    return folder


def listed(out: Path) -> list[str]:
    with (out / "quality.csv").open(newline="") as file:
        return sorted(row["mask"] for row in csv.DictReader(file))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_at_any_call_it_goes_on_to_the_same_files(tmp_path):
    inputs = photographs(tmp_path / "in", 2)
    command = [sys.executable, "-c", EACH_CALL, inputs, tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    *cut, last = sorted((tmp_path / "out").iterdir(), key=lambda path: int(path.name))
    assert len(cut) > 30
    for out in cut:
        assert tree(out) == tree(last)
        for name in tree(last):
            assert (out / name).read_bytes() == (last / name).read_bytes(), (out, name)
        hidden = {path.name for path in out.rglob(".*")}
        assert hidden == {".cpfnet"}, out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Model that the command can load, and images."""
    root = tmp_path_factory.mktemp("killed")
    model = images_model(fitted=KNOWS)
    model.save(root / "model")
    prepared(model)
    photographs(root / "in", COUNT)
    return root


def start(folder: Path, out: Path, *more: object, inputs: str = "in", **options) -> subprocess.Popen:
    command = ["env", "--default-signal", sys.executable, "-m", "cpfnet", "predict", "model", inputs, "-o", out]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    more = ("--backend", "onnx", "--uncertainty", *more)
    return subprocess.Popen(list(map(str, (*command, *more))), cwd=folder, **pipes, **options)


def wait_for(process: subprocess.Popen, now: Callable[[], bool]) -> None:
    while not now():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_ends_it_with_what_it_did_listed(folder, tmp_path, name):
    number, out = getattr(signal, name), tmp_path / "out"
    process = start(folder, out)
    wait_for(process, lambda: len(list(out.glob("*.png"))) > 4)
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, said + errors
    masks = sorted(path.name for path in out.glob("*.png"))
    assert 4 < len(masks) < COUNT
    assert listed(out) == masks
    assert f"Stopped: {len(masks)} of {COUNT} done" in errors
    assert "Traceback" not in errors
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    again = start(folder, out, "--resume")
    said, errors = again.communicate(timeout=60)
    assert again.returncode == 0, said + errors
    assert f"{COUNT} of {COUNT} done ({len(masks)} of them by an earlier run" in errors
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert listed(out) == sorted(f"{number}.png" for number in range(COUNT))


@pytest.mark.slow
def test_two_runs_in_one_folder_lose_no_row(folder, tmp_path):
    for name, numbers in (("left", range(0, COUNT, 2)), ("right", range(1, COUNT, 2))):
        (folder / f"{name}.txt").write_text("\n".join(f"in/{number}.png" for number in numbers))
    both = [start(folder, tmp_path, inputs=f"{name}.txt") for name in ("left", "right")]
    for process in both:
        said, errors = process.communicate(timeout=90)
        assert process.returncode == 0, said + errors
    assert listed(tmp_path) == sorted(f"{number}.png" for number in range(COUNT))


@pytest.mark.slow
def test_two_runs_over_the_same_inputs_leave_records_of_what_lies_there(folder, tmp_path):
    """A scheduler that starts a job twice."""
    both = [start(folder, tmp_path, "--resume", "--overwrite") for _ in range(2)]
    for process in both:
        said, errors = process.communicate(timeout=90)
        assert process.returncode == 0, said + errors
    third = start(folder, tmp_path, "--resume")
    said, errors = third.communicate(timeout=60)
    assert f"{COUNT} of {COUNT} done ({COUNT} of them by an earlier run" in errors
    assert listed(tmp_path) == sorted(f"{number}.png" for number in range(COUNT))


def run(inputs: Path, out: Path, *, at: int, act: Callable[[], None], **options):
    """Predict, and do something when an image goes through the network."""
    calls = []

    def backend(model):
        inner = oracle(model)

        def one(x):
            calls.append(x)
            if len(calls) == at:
                act()
            return inner(x)

        return one

    return predict_files([images_model(fitted=KNOWS)], [inputs], out, device="cpu", backend=backend, **options)


class TestListThatCannotBeWritten:
    def test_it_does_not_hide_which_inputs_failed(self, tmp_path):
        inputs, said = photographs(tmp_path / "in", 3), []
        (inputs / "bad.png").write_text("no image")
        out = tmp_path / "out"
        outcomes = run(inputs, out, at=2, act=lambda: (out / "quality.csv").mkdir(parents=True), listen=said.append)
        assert sorted(o.status for o in outcomes) == ["done", "done", "done", "failed"]
        assert any("quality.csv" in text for text in said)

    def test_it_is_an_error_where_all_else_is_done(self, tmp_path):
        inputs, out = photographs(tmp_path / "in", 3), tmp_path / "out"
        with pytest.raises(OutputError, match="is not a list that predict wrote") as caught:
            run(inputs, out, at=2, act=lambda: (out / "quality.csv").mkdir(parents=True))
        assert caught.value.where == str(out / "quality.csv")
        assert tree(out) == ["0.png", "1.png", "2.png"]


class TestSignals:
    @pytest.fixture(autouse=True)
    def defaults(self):
        numbers = (signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def test_what_was_ignored_stays_so(self):
        """As under nohup."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with ending(), telling(pytest.fail):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_the_first_one_is_raised_and_all_is_as_before(self, number):
        with pytest.raises(Ended) as caught, ending():
            signal.raise_signal(number)
        assert caught.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL

    def test_while_the_list_is_written_it_waits(self, tmp_path):
        inputs, out = photographs(tmp_path / "in", 3), tmp_path / "out"

        def listen(text: str) -> None:
            if text.startswith("Made again"):  # said just before
                os.kill(os.getpid(), signal.SIGTERM)

        run(inputs, out, at=0, act=lambda: None)
        (out / "1.png").write_bytes(b"")
        (out / "quality.csv").unlink()
        with pytest.raises(Ended):
            run(inputs, out, at=0, act=lambda: None, resume=True, listen=listen)
        assert listed(out) == ["0.png", "1.png", "2.png"]

"""Inputs spread over a Ray cluster: the results are those of one process, whatever workers and machines are lost."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path, PosixPath

import numpy as np
import psutil
import pytest

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.inference.batch import records
from cpfnet.inference.batch.item import Item
from cpfnet.inference.batch.job import Job, Order
from cpfnet.inference.batch.ray_cluster import connected, spread
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.quality.review_list import read_list
from cpfnet.inference.torch_backend.onnx_graph import prepared
from cpfnet.model import Model, Quality
from tests import synthetic
from tests.inference.batch.test_run import images_model, picture, run, tree
from tests.predicting import messages_to, predict_files

pytest.importorskip("ray")
COUNT = 40
SMALL = {"object_store_memory": 80 * 2**20}


@pytest.fixture(scope="module")
def cluster():
    """The head, with one CPU."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as short:  # sockets lie in it
        patch.setenv("RAY_TMPDIR", short)
        patch.setenv("RAY_worker_niceness", "0")  # 15 by default, which starves them beside other tests
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **SMALL})
        yield made
        made.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A Model with its graph, images, and what one process makes of them."""
    root = tmp_path_factory.mktemp("cluster")
    model = images_model(fitted={"quality": Quality(cases=5, lowest=0.9, found=())})
    model.save(root / "model")
    prepared(model)
    for number in range(COUNT):
        noise = np.random.default_rng(number).integers(0, 8, (480, 576), np.uint8)
        synthetic.write_raster(
            root / "in" / f"{number}.png", np.kron(picture(number % 20)[0], np.ones((12, 12), np.uint8)) + noise
        )
    (root / "in" / "text.png").write_text("this is text")
    synthetic.write_raster(root / "in" / "black.png", np.zeros((40, 40), np.uint8))
    outcomes = run(model, [root / "in"], root / "one", backend="onnx")
    assert sum(outcome.status == "done" for outcome in outcomes) == COUNT
    return root


def check_same_as_one(folder: Path, out: Path) -> None:
    assert tree(out) == tree(folder / "one")
    for file in (folder / "one").glob("*.png"):
        assert (out / file.name).read_bytes() == file.read_bytes(), file.name
    rows, expected = (read_list(place / "quality.csv") for place in (out, folder / "one"))
    assert rows == expected


def done(out: Path) -> dict[Path, int]:
    """The masks that records say are whole, and when each was written."""
    masks = [out / f"{name}.png" for name, _ in records.each(out)]
    return {mask: mask.stat().st_mtime_ns for mask in masks}


def start(folder: Path, out: Path, address: str, **more) -> subprocess.Popen:
    # A shell that runs the tests in its background has them ignore Ctrl-C, and what they start, too.
    untouched = ["env", "--default-signal=INT"]
    command = [sys.executable, "-m", "cpfnet", "predict", "model", "in", "-o", out, "--backend", "onnx"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    engine = ["--engine", "ray", "--address", address]
    return subprocess.Popen(list(map(str, [*untouched, *command, *engine])), cwd=folder, **pipes, **more)


def wait_for(count: int, out: Path, process: subprocess.Popen) -> None:
    while len(list(out.glob("[0-9]*.png"))) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_machine_lose_nothing(folder, cluster, tmp_path):
    second = cluster.add_node(num_cpus=1, **SMALL)
    out = tmp_path / "out"
    process = start(folder, out, cluster.address)
    wait_for(8, out, process)  # both work by then
    raylet = psutil.Process(cluster.head_node.all_processes["raylet"][0].process.pid)
    (worker,) = (child for child in raylet.children() if child.name().startswith("ray::Worker"))
    worker.kill()
    wait_for(12, out, process)
    cluster.remove_node(second, allow_graceful=False)
    before = done(out)
    assert len(before) > 8
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1  # two of the inputs are bad
    assert f"{COUNT} of {COUNT + 2} done" in errors
    assert errors.count("was lost; what it had") in (1, 2)  # one, where the second had not begun
    assert re.search(r"in/text.png +failed +is a text file", said)
    assert re.search(r"in/black.png +refused +channel", said)
    assert "ray" not in (said + errors).lower().replace(str(folder), "").replace(str(out), "")
    assert {file: file.stat().st_mtime_ns for file in before} == before  # nothing was done twice
    check_same_as_one(folder, out)


def listening(process: psutil.Process) -> dict[str, set[str]]:
    """Process → addresses that it and its children listen on."""
    found: dict[str, set[str]] = {}
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it ended
            of_one = {socket.laddr.ip for socket in one.net_connections("inet") if socket.status == psutil.CONN_LISTEN}
            found[" ".join(one.cmdline()[:1]).rpartition("/")[2]] = of_one
    return found


@pytest.mark.slow
def test_a_cluster_that_the_command_starts_listens_to_this_machine_alone(folder, tmp_path):
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "cpfnet",
                "predict",
                "model",
                "in",
                "-o",
                tmp_path / "out",
                "--backend",
                "onnx",
                "--engine",
                "ray",
            ],
            cwd=folder,
            env=environment | {"RAY_TMPDIR": short},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        found: dict[str, set[str]] = {}
        while process.poll() is None:
            for name, addresses in listening(psutil.Process(process.pid)).items():
                found.setdefault(name, set()).update(addresses)
            time.sleep(0.1)
        assert f"{COUNT} of {COUNT + 2} done" in process.stderr.read()
    assert {"gcs_server", "raylet"} <= {name for name, addresses in found.items() if addresses}
    assert any(name.startswith("ray::Worker") and addresses for name, addresses in found.items())
    assert set.union(*found.values()) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_cleanly_and_goes_on(folder, cluster, tmp_path, number):
    out = tmp_path / "out"
    process = start(folder, out, cluster.address)
    wait_for(5, out, process)
    process.send_signal(number)
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said + errors
    assert "Stopped: " in errors
    assert "Traceback" not in said + errors
    made = {file: file.stat().st_mtime_ns for file in out.glob("[0-9]*.png")}
    assert len(made) < COUNT
    assert made == done(out)
    assert sorted(tree(out)) == sorted([*(file.name for file in made), "quality.csv"])  # nothing is half there
    files = [folder / "in" / f"{number}.png" for number in range(COUNT)]
    outcomes = predict(folder, files, out, cluster, resume=True)
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert {file: file.stat().st_mtime_ns for file in made} == made
    check_same_as_one(folder, out)


def predict(folder: Path, inputs: list, out: Path, cluster, **more):
    more.setdefault("listen", pytest.fail)
    where = {"engine": "ray", "address": cluster.address}
    return predict_files([Model.load(folder / "model")], inputs, out, backend="onnx", **where, **more)


def test_every_outcome_is_that_of_one_process(folder, cluster, tmp_path):
    inputs = [folder / "in" / f"{name}.png" for name in (3, "text", 5, "black", "none", 4)]
    models = [Model.load(folder / "model")]
    here = predict_files(models, inputs, tmp_path / "here", backend="onnx", listen=pytest.fail)
    there = predict(folder, inputs, tmp_path / "there", cluster)
    assert [o.status for o in there] == ["done", "failed", "done", "refused", "failed", "done"]
    for one, other in zip(here, there, strict=True):
        for name in ("path", "status", "message", "warnings", "quality"):
            assert getattr(one, name) == getattr(other, name)
        assert (one.output is None) == (other.output is None)
        assert other.output is None or other.output.read_bytes() == one.output.read_bytes()
    again = predict(folder, inputs[:1], tmp_path / "there", cluster)
    assert "exists already" in again[0].message


def test_workers_look_at_what_is_done_as_one_process_does(folder, cluster, tmp_path):
    names, said = ("one", "same", "other", "empty", "edited"), []
    for name in names:
        shutil.copy(folder / "in" / "3.png", tmp_path / f"{name}.png")
    inputs, out = [tmp_path / f"{name}.png" for name in names], tmp_path / "out"
    assert {o.status for o in predict(folder, inputs, out, cluster)} == {"done"}
    shutil.copy(folder / "in" / "4.png", tmp_path / "other.png")
    (out / "empty.png").write_bytes(b"")
    shutil.copy(folder / "one" / "5.png", out / "edited.png")
    records.path_of(out, "one").write_text("{}")
    again = predict(folder, inputs, out, cluster, resume=True, listen=said.append)
    assert [(o.status, o.already_done, o.again) for o in again] == [
        ("done", False, "the record of how it was made was damaged"),
        ("done", True, ""),
        ("done", False, "its input was another one"),
        ("done", False, "its mask was empty"),
        ("failed", False, ""),
    ]
    assert "was changed after it was made" in again[4].message
    assert "Made again: other: its input was another one" in said
    assert (out / "other.png").read_bytes() == (folder / "one" / "4.png").read_bytes()
    assert (out / "edited.png").read_bytes() == (folder / "one" / "5.png").read_bytes()
    assert (out / "empty.png").read_bytes() == (folder / "one" / "3.png").read_bytes()


def test_what_workers_log_is_logged_here_and_once(folder, cluster, tmp_path):
    """Both workers load the Models, and find the same."""
    said: list[str] = []
    inputs = [folder / "in" / f"{number}.png" for number in range(6)]
    outcomes = predict(folder, inputs, tmp_path / "out", cluster, tta=True, listen=said.append)
    assert {outcome.status for outcome in outcomes} == {"done"}
    assert said == ["--tta does nothing: inference.mirror is empty and inference.quarter_turns is false"]


class Deadly(PosixPath):
    """An image that ends every process which it comes to."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_an_input_that_ends_its_workers_is_given_up_and_no_other(folder, cluster, tmp_path):
    names = ["1", "text", "2", "3"]
    jobs = [Job(Item((folder / "in" / f"{name}.png",), name)) for name in names]
    jobs[1] = Job(Item((Deadly(folder / "in" / "text.png"),), "text"))
    order = Order(tmp_path, PredictorOptions(backend="onnx", device="cpu"))
    said = []
    with connected(cluster.address), messages_to(said.append):
        spread([Model.load(folder / "model")], jobs, order, (), lambda *progress: None)
    assert [job.outcome.status for job in jobs] == ["done", "failed", "done", "done"]
    assert "3 workers were lost over it" in jobs[1].outcome.message
    assert len(said) == 3
    assert sorted(tree(tmp_path)) == ["1.png", "2.png", "3.png"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="takes paths that mean something else in every process")
@pytest.mark.parametrize("hidden", ["model", "in", "out"])
def test_what_the_machines_do_not_see_is_named(folder, cluster, tmp_path, hidden):
    paths = {"model": folder / "model", "in": folder / "in", "out": tmp_path}
    number = os.open(paths[hidden], os.O_RDONLY)
    os.dup2(number, 250)
    os.close(number)
    try:
        paths[hidden] = Path("/proc/self/fd/250")  # a folder here, and nothing in the worker
        with pytest.raises(CpfnetError, match=f"cannot be seen from {socket.gethostname()}") as caught:
            cpfnet.predict_files(
                paths["model"],
                [paths["in"] / "1.png"],
                paths["out"],
                PredictorOptions(backend="onnx"),
                engine="ray",
                address=cluster.address,
            )
    finally:
        os.close(250)
    assert "/proc/self/fd/250" in caught.value.where
    assert "under the same path" in caught.value.fix
    assert tree(tmp_path) == []


def test_a_model_that_cannot_work_ends_it(folder, cluster, tmp_path):
    with pytest.raises(CpfnetError, match="unknown device 'abacus'"):
        cpfnet.predict_files(
            folder / "model",
            [folder / "in"],
            tmp_path,
            PredictorOptions(backend="onnx", device="abacus"),
            engine="ray",
            address=cluster.address,
        )


def test_a_wrong_address_is_said_in_seconds(folder, tmp_path):
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        hurry = {"RAY_gcs_rpc_server_connect_timeout_s": "1", "RAY_py_gcs_connect_timeout_s": "1"}
        process = start(folder, tmp_path, address, env=os.environ | hurry)
        said, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == ""
    assert errors.startswith(f"error: {address}: no Ray cluster can be joined: ")
    assert "\n  → give the address that" in errors
    assert errors.count("\n") == 2
    assert tree(tmp_path) == []


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CpfnetError, match="this takes Ray") as caught:
        cpfnet.predict_files(images_model(), ["scan.png"], tmp_path, engine="ray")
    assert caught.value.fix == 'pip install "cpfnet[cluster]"'


@pytest.mark.parametrize(
    ("options", "found"),
    [({"address": "10.0.0.1:6379"}, "no engine that has one"), ({"engine": "spark"}, "unknown engine 'spark'")],
)
def test_what_cannot_be_meant_is_refused(tmp_path, options, found):
    with pytest.raises(CpfnetError, match=found):
        cpfnet.predict_files(images_model(), ["scan.png"], tmp_path, **options)

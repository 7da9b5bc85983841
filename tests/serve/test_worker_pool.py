"""Workers: processes that segment as `cpfnet predict` does, are replaced when they die, and end with their server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import psutil
import pytest

import cpfnet
from cpfnet.model import Model
from cpfnet.serve.files import manifest
from cpfnet.serve.image_process import ImageProcess
from cpfnet.serve.jobs.job import FINISHED, Job, Request
from cpfnet.serve.jobs.options import JobOptions
from cpfnet.serve.store import Store, StoreOptions, serving
from cpfnet.serve.worker import Setting
from cpfnet.serve.worker_pool import WorkerPool
from tests.synthetic import write_raster

pytestmark = pytest.mark.slow


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 50)) -> Path:
    return write_raster(path, np.random.default_rng(seed).integers(0, 200, (*size, 3), dtype=np.uint8))


def until(test: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end
        time.sleep(0.02)


@contextmanager
def pool_of(store: Store, model: Model, **changes: object) -> Iterator[tuple[WorkerPool, SimpleQueue[str]]]:
    values: dict[str, object] = {
        "name": "",
        "model": model.folder,
        "digest": model.digest,
        "store": StoreOptions(store.folder),
        "device": "cpu",
        "backend": "onnx",
        "most_voxels": 10_000,
    }
    failures: SimpleQueue[str] = SimpleQueue()
    with WorkerPool([Setting(**values | changes)], store.jobs, failures.put) as pool:
        yield pool, failures


def submit(store: Store, model: Model, *files: Path, **options: object) -> Job:
    with store.files.adding() as batch:
        listed = {path.name: batch.add([path.read_bytes()]) for path in files}
        digest = batch.add([manifest(listed)])
    return store.jobs.submit(Request(digest, model.digest, JobOptions(**options).as_json()))[0]


def ended(store: Store, pool: WorkerPool, job: Job) -> Job:
    pool.wake()
    until(lambda: (store.jobs.get(job.id) or job).state in FINISHED)
    found = store.jobs.get(job.id)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving(StoreOptions(tmp_path_factory.mktemp("served") / "store")) as made:
        yield made


@pytest.fixture(scope="module")
def pool(store: Store, model: Model) -> Iterator[WorkerPool]:
    with pool_of(store, model) as (made, _):
        until(lambda: made.ready)
        yield made


def test_masks_and_more_are_those_of_predict(store: Store, pool: WorkerPool, model: Model, tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    options = {"overlay": True, "probabilities": True, "tta": True}
    job = ended(store, pool, submit(store, model, path, **options))
    assert job.state == "done", job.message
    cpfnet.predict_files(
        model,
        [path],
        tmp_path / "out",
        cpfnet.PredictorOptions(backend="onnx", device="cpu", tta=True),
        cpfnet.OutputOptions(overlays=True, probabilities=True),
    )
    assert job.results.pop("labels").name == ".labels.npz"
    expected = {"mask": "a.png", "probabilities": "probabilities/a.tif", "overlay": "overlays/a.png"}
    assert {kind: one.name for kind, one in job.results.items()} == {k: Path(v).name for k, v in expected.items()}
    for kind, name in expected.items():
        assert store.files.path(job.results[kind].digest).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert len(np.unique(cpfnet.read(tmp_path / "out" / "a.png").array)) > 1


def test_modules_in_the_current_folder_are_not_run(
    store: Store, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(tmp_path / "elsewhere.png", 9)
    (tmp_path / "json.py").write_text("raise SystemExit('the current folder was looked through')")
    monkeypatch.chdir(tmp_path)
    with pool_of(store, model) as (pool, _):
        until(lambda: pool.ready)
        job = ended(store, pool, submit(store, model, path))
    assert job.state == "done", job.message
    images = ImageProcess(store.files, store.work)
    found = asyncio.run(images.do("describe", model.folder, input=job.request.input))
    assert found == {"images": ["elsewhere.png"], "patient": ""}


@pytest.mark.parametrize(
    ("name", "content", "state", "message"),
    [
        ("a.png", b"no picture", "failed", "a.png: is a text file, not a PNG image"),
        ("b.txt", b"nothing", "failed", "no image"),
        ("big.png", (200, 200), "failed", "has 120000 voxels, and this server takes up to 10000"),
        ("flat.png", "flat", "refused", "the model was fitted for 0 … 200"),
    ],
)
def test_what_cannot_be_done_says_why_and_names_no_folder(
    store: Store, pool: WorkerPool, model: Model, tmp_path: Path, name: str, content: object, state: str, message: str
) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, tuple):
        picture(path, size=content)
    else:
        write_raster(path, np.full((40, 50, 3), 7, np.uint8))
    job = ended(store, pool, submit(store, model, path))
    assert (job.state, job.results) == (state, {})
    assert message in job.message
    assert str(store.folder) not in job.message
    assert [*store.work.iterdir()] == []


def test_one_job_is_one_image(store: Store, pool: WorkerPool, model: Model, tmp_path: Path) -> None:
    job = ended(store, pool, submit(store, model, picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 1)))
    assert job.state == "failed"
    assert "2 images were sent: a, b" in job.message


def test_no_torch_is_in_a_worker(pool: WorkerPool) -> None:
    (worker,) = pool.processes
    libraries = {Path(one.path).name for one in psutil.Process(worker).memory_maps()}
    assert any("onnxruntime" in name for name in libraries)
    assert not any("torch" in name for name in libraries)


def test_a_worker_that_is_killed_is_replaced_and_its_job_is_done(
    store: Store, pool: WorkerPool, model: Model, tmp_path: Path
) -> None:
    job = submit(store, model, picture(tmp_path / "a.png", 3))
    (before,) = pool.processes
    os.kill(before, signal.SIGKILL)
    assert ended(store, pool, job).state == "done"
    until(lambda: pool.ready)
    assert pool.processes != [before]
    assert pool.restarts >= 1


def test_a_model_that_cannot_be_served_is_said(store: Store, model: Model) -> None:
    with pool_of(store, model, digest="0" * 64) as (_, failures):
        assert "was changed while it was served" in failures.get(timeout=60)


def test_workers_end_with_a_server_that_is_killed(store: Store, model: Model, tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from cpfnet.serve.jobs.job_store import JobStore
from cpfnet.serve.store import StoreOptions
from cpfnet.serve.worker import Setting
from cpfnet.serve.worker_pool import WorkerPool
options = StoreOptions(Path({str(store.folder)!r}))
setting = Setting("", Path({str(model.folder)!r}), {model.digest!r}, options, "cpu", "onnx", 10)
with WorkerPool([setting], JobStore.open({f"sqlite:///{tmp_path / 'own.sqlite'}"!r}), print) as pool:
    while not pool.ready:
        time.sleep(0.05)
    print(*pool.processes, flush=True)
    time.sleep(60)
"""
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    worker = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)

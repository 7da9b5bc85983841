"""`cpfnet serve` from its start to its end: the masks of predict, and nothing lost whatever is killed."""

from __future__ import annotations

import json
import random
import re
import runpy
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.model import Model
from cpfnet.serve.options import ServeOptions
from cpfnet.serve.server import serve
from cpfnet.serve.store import StoreOptions, serving
from tests.serve.http.doors import Program, form, zipped
from tests.serve.test_worker_pool import picture, until
from tests.synthetic import write_raster

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Program]:
    made = Program(tmp_path_factory.mktemp("server") / "store", model.folder)
    made.until_ready()
    yield made
    assert made.stop() == 0


def masks(model: Model, out: Path, *inputs: Path, **output: Any) -> Path:
    cpfnet.predict_files(
        model,
        inputs,
        out,
        cpfnet.PredictorOptions(backend="onnx", device="cpu"),
        cpfnet.OutputOptions(**output),
    )
    return out


def test_masks_are_those_of_predict_whichever_way_the_image_comes(
    program: Program, model: Model, tmp_path: Path
) -> None:
    path = picture(tmp_path / "a.png")
    expected = (masks(model, tmp_path / "out", path) / "a.png").read_bytes()
    assert len(np.unique(cpfnet.read(tmp_path / "out" / "a.png").array)) > 1
    kind, body = form({"a.png": path.read_bytes()})
    ways = [
        (path.read_bytes(), "a.png", "text/plain"),
        (body, "", kind),
        (zipped({"x/a.png": path.read_bytes()}), "z.zip", ""),
    ]
    ids = set()
    for content, name, sort in ways:
        answer = program.client.raw(f"name={name}&wait=60", content, content_type=sort)
        assert (answer.status, answer.json["state"]) == (200, "done"), answer.body
        result = program.client.get(answer.json["results"]["mask"]["url"])
        assert result.body == expected
        assert result.headers["content-disposition"] == 'attachment; filename="a.png"'
        assert int(result.headers["content-length"]) == len(expected)
        ids.add(answer.json["id"])
    assert len(ids) == 1  # the same image, however it came


def test_other_formats_and_what_else_is_made(program: Program, model: Model, tmp_path: Path) -> None:
    path = picture(tmp_path / "b.png", 1)
    out = masks(model, tmp_path / "out", path, format="tiff", overlays=True)
    job = program.client.raw("name=b.png&format=tiff&overlay=true&wait=60", path.read_bytes()).json
    assert {*job["results"]} == {"mask", "overlay"}
    for format, file in (("mask", "b.tif"), ("tiff", "b.tif"), ("overlay", "overlays/b.png")):
        answer = program.client.get(f"/api/v1/jobs/{job['id']}/result?format={format}")
        assert answer.body == (out / file).read_bytes()
    own = masks(model, tmp_path / "nrrd", path, format="seg-nrrd") / "b.seg.nrrd"
    for _ in range(2):  # written once it is asked for, and kept
        answer = program.client.get(f"/api/v1/jobs/{job['id']}/result?format=seg-nrrd")
        assert answer.headers["content-disposition"] == 'attachment; filename="b.seg.nrrd"'
        assert answer.body == own.read_bytes()
    for format, status, word in (
        ("dicom-seg", 422, "no DICOM"),
        ("uncertainty", 404, "the job made no uncertainty"),
        ("labels", 422, "format"),
    ):
        answer = program.client.get(f"/api/v1/jobs/{job['id']}/result?format={format}")
        assert (answer.status, word in answer.json["detail"]) == (status, True), answer.body
    assert {*program.client.get(f"/api/v1/jobs/{job['id']}").json["results"]} == {"mask", "overlay", "seg-nrrd"}


def test_what_the_model_refuses_is_a_state_with_its_reason(program: Program) -> None:
    path = write_raster(Path(program.log).with_name("flat.png"), np.full((40, 50, 3), 7, np.uint8))
    job = program.client.raw("name=flat.png&wait=60", path.read_bytes())
    assert (job.status, job.json["state"]) == (200, "refused")
    assert "the model was fitted for" in job.json["message"]
    assert "check that this is the kind of image" in job.json["hint"]
    forced = program.client.raw("name=flat.png&wait=60&force=true", path.read_bytes())
    assert forced.json["state"] == "done"


def test_progress_is_told_until_the_end(program: Program, tmp_path: Path) -> None:
    id = program.client.raw("name=c.png", picture(tmp_path / "c.png", 2).read_bytes()).json["id"]
    answer = program.client.get(f"/api/v1/jobs/{id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(text) for text in re.findall(r"^data: (.*)$", answer.body.decode(), re.MULTILINE)]
    assert told[-1]["state"] == "done"
    assert [one["progress"] for one in told] == sorted(one["progress"] for one in told)


def test_many_ranges_bring_no_more_than_the_file(program: Program, tmp_path: Path) -> None:
    job = program.client.raw("name=d.png&wait=60", picture(tmp_path / "d.png", 3).read_bytes()).json
    url = job["results"]["mask"]["url"]
    whole = program.client.get(url).body
    assert program.client.get(url, range="bytes=2-5").body == whole[2:6]
    many = program.client.get(url, range="bytes=" + ",".join(["0-"] * 2000))
    assert many.status < 500
    assert len(many.body) <= 2 * len(whole) + 1000


def test_the_api_is_described(program: Program) -> None:
    found = program.client.get("/api/v1/openapi.json").json
    assert {"/api/v1/jobs", "/api/v1/jobs/{id}/result", "/api/v1/models", "/health/ready"} <= found["paths"].keys()
    assert {"application/octet-stream", "multipart/form-data"} == {
        *found["paths"]["/api/v1/jobs"]["post"]["requestBody"]["content"]
    }


def test_the_client_of_the_docs(program: Program, model: Model, tmp_path: Path) -> None:
    (text,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/how-to/serve.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(text.splitlines()) <= 60
    path = picture(tmp_path / "e.png", 4)
    (tmp_path / "client.py").write_text(text)
    client = runpy.run_path(str(tmp_path / "client.py"))["Client"](f"http://127.0.0.1:{program.client.port}")
    assert [one["id"] for one in client.models()] == ["oracle"]
    written = client.segment([path], tmp_path / "mask.png")
    assert written.read_bytes() == (masks(model, tmp_path / "out", path) / "e.png").read_bytes()
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(RuntimeError, match=r"bad.png: is a text file.*\n.*give the image file itself"):
        client.segment([tmp_path / "bad.png"], tmp_path / "bad-mask.png")


def test_a_store_in_use_and_a_model_that_cannot_run_end_in_a_sentence(
    program: Program, model: Model, tmp_path: Path
) -> None:
    def start(store: Path, backend: str) -> None:
        options = ServeOptions(port=0, store=StoreOptions(store), backend=backend, device="cpu")
        serve([model], options, lambda address, entrance: None)

    with pytest.raises(CpfnetError, match="another server uses this store"):
        start(program.log.with_suffix(""), "onnx")
    with pytest.raises(CpfnetError, match="the network was not quantised"):
        start(tmp_path / "own", "openvino-int8")


def hunt(program: Program, kills: list[str], stop: threading.Event, draw: random.Random) -> None:
    """Kill a worker now and then."""
    while not stop.wait(draw.random() * 1.2):
        try:
            workers = psutil.Process(program.process.pid).children()
            if workers:
                draw.choice(workers).send_signal(signal.SIGKILL)
                kills.append("worker")
        except psutil.NoSuchProcess:
            pass


def killed_at_random(folder: Path, model: Model, jobs: int, seed: int) -> list[str]:
    """Serve so many jobs while workers and the server are killed at random moments; returns who was killed.

    Every job is done once, its result is that of predict, and the store holds just that.
    """
    draw, kills = random.Random(seed), list[str]()
    paths = [picture(folder / "in" / f"{number}.png", number) for number in range(jobs)]
    out = masks(model, folder / "out", *paths)
    program = Program(folder / "store", model.folder, workers=2, max_attempts=1000)
    ids: dict[str, str] = {}
    while len(ids) < jobs or kills.count("server") < jobs // 4:
        stop = threading.Event()
        hunter = threading.Thread(target=hunt, args=(program, kills, stop, draw))
        hunter.start()
        end = time.monotonic() + 1 + 2 * draw.random()
        while time.monotonic() < end:
            for path in paths:
                if path.name not in ids and time.monotonic() < end and draw.random() < 0.5:
                    ids[path.name] = program.client.raw(f"name={path.name}", path.read_bytes()).json["id"]
            time.sleep(0.05)
        program.process.kill()
        program.process.wait()
        kills.append("server")
        stop.set()
        hunter.join()
        program = Program(folder / "store", model.folder, workers=2, max_attempts=1000)
    until(lambda: all(program.client.get(f"/api/v1/jobs/{id}").json["state"] == "done" for id in ids.values()))
    for name, id in ids.items():
        assert program.client.get(f"/api/v1/jobs/{id}/result").body == (out / name).read_bytes()
    assert program.stop() == 0
    with serving(StoreOptions(folder / "store")) as store:
        assert sorted(job.id for job in store.jobs.each()) == sorted(ids.values())
        assert all(store.files.path(digest).is_file() for digest in store.wanted())
    return kills


def test_workers_and_server_killed_at_random_moments_lose_nothing(model: Model, tmp_path: Path) -> None:
    kills = killed_at_random(tmp_path, model, jobs=10, seed=1)
    assert {*kills} == {"worker", "server"}

"""The store is a data set: images that were kept, with the labels that count, as `check` and `evaluate` take them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

import cpfnet
from cpfnet.data.dataset import load
from cpfnet.image import Assessment
from cpfnet.model import Model
from cpfnet.serve.cases.case import Case, Label
from cpfnet.serve.files import manifest
from cpfnet.serve.store import StoreOptions, serving
from tests.inference.oracle import make_model
from tests.serve.http.doors import Answer, Client, Program, door
from tests.serve.test_worker_pool import picture
from tests.synthetic import write_series

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, model: Model) -> Iterator[Program]:
    made = Program(tmp_path_factory.mktemp("cases") / "store", model.folder)
    yield made
    assert made.stop() == 0


def kept(client: Client, path: Path, **more: str) -> dict[str, Any]:
    """A case made of an image."""
    job = client.raw(f"name={path.name}&wait=60", path.read_bytes()).json
    query = "&".join(f"{name}={value}" for name, value in {"job": job["id"], **more}.items())
    answer = client.ask("POST", f"/api/v1/cases?{query}")
    assert answer.status == 201, answer.body
    mask = client.get(job["results"]["mask"]["url"]).body
    return answer.json | {"mask": mask, "job": job["id"]}


def put(client: Client, case: dict[str, Any], label: bytes, version: int, query: str = "") -> Answer:
    url = f"/api/v1/cases/{case['id']}/labels?name=mask.png{query}"
    return client.ask("PUT", url, label, if_match=f'"{version}"')


def corrected(mask: bytes, folder: Path) -> bytes:
    """The mask of a Model with a square that somebody drew."""
    path = folder / "mask.png"
    path.write_bytes(mask)
    array = np.array(Pillow.open(path))
    array[5:15, 5:15] = 2
    Pillow.fromarray(array).save(path)
    return path.read_bytes()


def test_a_corrected_mask_becomes_a_label_of_the_data_set(program: Program, model: Model, tmp_path: Path) -> None:
    client, store = program.client, program.log.with_suffix("")
    image = picture(tmp_path / "secret.png", 11)
    case = kept(client, image, patient="p1")
    assert (case["patient"], case["version"], case["labels"]) == ("p1", 0, [])
    (found,) = load(store).cases
    assert (found.id, found.patient, found.labels) == (case["id"], "p1", {})
    assert found.images[0].read_bytes() == image.read_bytes()

    assert "secret" not in (store / "cases.csv").read_text()

    untouched = put(client, case, case["mask"], 0)
    assert (untouched.status, untouched.headers["etag"]) == (201, '"1"')
    assert untouched.json["labels"][0] | {"counts": False, "untouched": True} == untouched.json["labels"][0]
    assert load(store).cases[0].labels == {}

    label = corrected(case["mask"], tmp_path)
    assert put(client, case, label, 1, "&state=draft").status == 201
    assert load(store).cases[0].labels == {}
    answer = put(client, case, label, 2)
    assert answer.json["labels"][-1] | {"counts": True, "made_from": "oracle"} == answer.json["labels"][-1]
    assert load(store).cases[0].labels["label"].read_bytes() == label
    assert client.get(answer.json["labels"][-1]["url"]).body == label

    stale = put(client, case, label, 2)
    assert (stale.status, stale.json["detail"]) == (412, "the newest label of this case is version 3, not 2")
    assert client.ask("PUT", f"/api/v1/cases/{case['id']}/labels?name=mask.png", label).status == 428
    assert [finding for finding in cpfnet.check(store) if finding.severity == "error"] == []
    assert load(store).labels == model.plan.labels
    scores = cpfnet.evaluate(store, model, cpfnet.PredictorOptions(backend="onnx", device="cpu"))
    assert scores is not None

    assert client.ask("DELETE", f"/api/v1/jobs/{case['job']}").status == 204
    assert client.get(f"/api/v1/cases/{case['id']}").json["version"] == 3


def test_a_label_that_does_not_belong_is_refused(program: Program, tmp_path: Path) -> None:
    case = kept(program.client, picture(tmp_path / "b.png", 12))
    answer = put(program.client, case, b"nothing", 0)
    assert (answer.status, answer.json["detail"]) == (422, "is a text file, not a PNG image")
    assert program.client.get(f"/api/v1/cases/{case['id']}").json["version"] == 0


def test_what_was_drawn_from_nothing_says_so_unless_it_is_the_mask_of_the_model(
    program: Program, tmp_path: Path
) -> None:
    client, drawn = program.client, kept(program.client, picture(tmp_path / "c.png", 13))
    answer = put(client, drawn, corrected(drawn["mask"], tmp_path), 0, "&origin=nothing")
    assert answer.json["labels"][0]["made_from"] is None
    assert put(client, drawn, drawn["mask"], 1).json["labels"][1]["made_from"] is None  # as the one it was made from
    same = kept(client, picture(tmp_path / "d.png", 14))
    assert put(client, same, same["mask"], 0, "&origin=nothing").json["labels"][0]["made_from"] == "oracle"


def test_cases_come_a_page_at_a_time_the_most_urgent_first(tmp_path: Path) -> None:
    with door(tmp_path / "store", [make_model()]) as here:
        for number, (confidence, look, split) in enumerate(
            [(0.9, "", None), (0.2, "", "test"), (0.8, "dark", None), (0.5, "", None)]
        ):
            quality = Assessment(confidence, look=look)
            digest = "0" * 64
            here.store.cases.add(Case(f"{number}", digest, ("a",), "p", split, "m", digest, quality, 0.0))
        label = Label(0, "", "accepted", False, None, "a.png", "0" * 64, 0.0)
        here.store.cases.add_label("1", 0, label)

        def ids(query: str) -> list[str]:
            return [case["id"] for case in here.client.get(f"/api/v1/cases?{query}").json["cases"]]

        assert ids("") == ["2", "3", "0", "1"]
        assert ids("sort=oldest&limit=2&offset=1") == ["1", "2"]
        assert ids("sort=newest&labelled=false") == ["3", "2", "0"]
        assert ids("labelled=true") == ids("split=test") == ["1"]
        assert here.client.get("/api/v1/cases?limit=1").json["total"] == 4


def test_lists_that_were_not_written_before_the_server_died_are_written_at_its_start(tmp_path: Path) -> None:
    """Of a DICOM series, too, whose folder is named."""
    write_series(tmp_path / "in", np.zeros((3, 8, 8), np.int16))
    with serving(StoreOptions(tmp_path / "store")) as store:
        with store.files.adding() as batch:
            listed = {path.name: batch.add([path.read_bytes()]) for path in (tmp_path / "in").iterdir()}
            digest = batch.add([manifest(listed)])
        quality = Assessment(0.5)
        store.cases.add(Case("case-1", digest, tuple(listed), "patient-1", "test", "m", digest, quality, 0.0))
    assert not (tmp_path / "store" / "dataset.yaml").exists()
    with door(tmp_path / "store", [make_model()]):
        (found,) = load(tmp_path / "store").cases
    assert (found.id, found.patient, found.split) == ("case-1", "patient-1", "test")
    assert cpfnet.read(found.images[0]).array.shape == (1, 3, 8, 8)


def test_models_of_several_tasks_make_no_data_set(tmp_path: Path) -> None:
    models = [make_model(), make_model(values=(4,))]
    with door(tmp_path / "store", models) as here:
        answer = here.client.ask("POST", "/api/v1/cases?job=x")
        assert (answer.status, "different labels" in answer.json["detail"]) == (409, True)


def test_a_store_of_another_task_is_left_as_it_is(tmp_path: Path) -> None:
    with door(tmp_path / "store", [make_model()]):
        pass
    (tmp_path / "store" / "dataset.yaml").write_text("labels: {vessel: 255}\n")
    with door(tmp_path / "store", [make_model()]) as here:
        answer = here.client.ask("POST", "/api/v1/cases?job=x")
        assert (answer.status, "other labels" in answer.json["detail"]) == (409, True)
    assert (tmp_path / "store" / "dataset.yaml").read_text() == "labels: {vessel: 255}\n"

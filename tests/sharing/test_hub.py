"""Models to a hub and back, over HTTP to a hub on this machine."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from ruamel.yaml import YAML

from cpfnet.model import Model
from tests.inference.oracle import make_model
from tests.sharing import client
from tests.sharing.hub import Hub

FILES = {"plan.yaml", "weights.safetensors", "fitted.yaml", "metrics.json", "card.md"}
Call = Callable[..., client.Answer]


def made(folder: Path, **fitted: Any) -> Model:
    model = make_model(source="images", values=(1, 2), fitted={"validation_dice": 0.75, **fitted})
    model.state = {"sharpness": torch.arange(50_000.0)}
    model.metrics = {
        "cases": {"train": ["smith_john", "case_7"], "validation": ["doe_jane"]},
        "validation": {
            "dice": 0.75,
            "classes": {"class 1": 0.5, "class 2": 1.0},
            "cases": {"doe_jane": {"class 1": 0.5}},
        },
    }
    model.save(folder)
    return model


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def process(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPoolExecutor]:
    home = tmp_path_factory.mktemp("hf")
    settings = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "NO_PROXY": "*"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, client.begin, (settings,)) as pool:
        yield pool


@pytest.fixture
def call(hub: Hub, process: ProcessPoolExecutor) -> Call:
    hub.requests.clear()
    hub.cuts.clear()
    hub.damaged.clear()

    def run(verb: str, *arguments: Any, token: str | None = None, **keywords: Any) -> client.Answer:
        return process.submit(client.call, verb, arguments, keywords, token).result(timeout=60)

    return run


def shared(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in FILES}


def test_what_is_pushed_is_pulled_byte_for_byte(hub: Hub, call: Call, tmp_path: Path) -> None:
    model = made(tmp_path / "model")
    for beside in ("report.html", "logs/history.csv", ".work/last.ckpt", "exports/network.onnx"):
        (tmp_path / "model" / beside).parent.mkdir(exist_ok=True)
        (tmp_path / "model" / beside).write_text("smith_john")
    sent = call("push", str(tmp_path / "model"), "anna/vessels", token="hf_anna")
    assert not sent.error
    stored = hub.repositories["anna/vessels"]
    commit, files = stored.commits[-1]
    assert sent.value == f"hf://anna/vessels@{commit}"
    assert stored.private
    assert set(files) == FILES | {"README.md", "config.json", ".gitattributes"}
    assert not any(name in content for content in files.values() for name in (b"smith_john", b"case_7", b"doe_jane"))
    told = "\n".join(sent.messages)
    assert "private, no licence stated" in told
    assert all(name in told for name in FILES)
    assert "Not sent: .work, exports, logs, report.html" in told

    got = call("pull", f"anna/vessels@{commit}", str(tmp_path / "pulled"), token="hf_anna")
    assert not got.error
    assert shared(tmp_path / "pulled") == {name: files[name] for name in FILES}
    before = shared(tmp_path / "model")
    assert {name for name, one in shared(tmp_path / "pulled").items() if one != before[name]} == {"metrics.json"}
    assert json.loads(files["metrics.json"])["cases"] == {
        "train": [],
        "validation": [],
        "withheld": {"train": 2, "validation": 1},
    }
    assert Model.load(tmp_path / "pulled").digest == model.digest
    origin = YAML(typ="safe").load(tmp_path / "pulled" / "origin.yaml")
    assert (origin["repository"], origin["commit"]) == ("anna/vessels", commit)
    assert len(hub.asked("GET", "/config.json")) == 1  # what the hub counts as a download
    assert all("torch/" not in headers["user-agent"] for *_, headers in hub.requests)

    assert "exists already" in call("pull", "anna/vessels", str(tmp_path / "pulled"), token="hf_anna").error
    again = call("push", str(tmp_path / "pulled"), "anna/again", token="hf_anna")  # what was pulled can be pushed
    assert not again.error
    assert hub.repositories["anna/again"].commits[-1][1]["metrics.json"] == files["metrics.json"]


def test_the_readme_tells_the_hub_what_it_is_and_states_no_licence_unasked(
    hub: Hub, call: Call, tmp_path: Path
) -> None:
    made(tmp_path / "model")
    for name, licence in (("anna/none", None), ("anna/some", "cc-by-4.0")):
        assert not call("push", str(tmp_path / "model"), name, licence=licence, public=True, token="hf_anna").error
        assert not hub.repositories[name].private
        text = hub.repositories[name].commits[-1][1]["README.md"].decode()
        _, front, body = text.split("---\n", 2)
        data = YAML(typ="safe").load(front)
        assert data.get("license") == licence
        assert (data["library_name"], data["pipeline_tag"]) == ("cpfnet", "image-segmentation")
        results = ModelCard(text).data.eval_results  # as the hub's own library reads it
        assert [(one.task_type, one.metric_type, one.metric_value) for one in results] == [
            ("image-segmentation", "dice", value) for value in (0.75, 0.5, 1.0)
        ]
        (result,) = data["model-index"][0]["results"]
        assert "1 validation cases, on the network's grid" in result["metrics"][0]["name"]
        assert (tmp_path / "model" / "card.md").read_text().rstrip() in body
        assert ("None is stated" in body) == (licence is None)
    refused = call("push", str(tmp_path / "model"), "anna/y", licence="nonsense", token="hf_anna").error
    assert 'README.md. - "license" must be one of apache-2.0, mit\n  → correct --license' in refused
    assert "no licence's short name" in call("push", str(tmp_path), "anna/x", licence="My own!", token="hf_anna").error


def test_who_may_not_and_what_is_not_there(hub: Hub, call: Call, tmp_path: Path) -> None:
    folder = str(made(tmp_path / "model").folder)
    assert not call("push", folder, "anna/secret", token="hf_anna").error
    commits = len(hub.repositories["anna/secret"].commits)
    cases = {
        "takes a token of the hub, and there is none\n  → log in": call("push", folder, "anna/new"),
        "the hub does not accept your token": call("push", folder, "anna/new", token="hf_old"),
        "your token may not do this: You don't have the rights": call("push", folder, "anna/new", token="hf_bob"),
        "holds a Model, or a card, already\n  → choose another name, or add --overwrite": call(
            "push", folder, "anna/secret", token="hf_anna"
        ),
        "is private, and its earlier versions": call(
            "push", folder, "anna/secret", public=True, overwrite=True, token="hf_anna"
        ),
        "or a private one, and you are not logged in": call("pull", "anna/secret", str(tmp_path / "x")),
        "or one that your token may not see": call("pull", "anna/secret", str(tmp_path / "x"), token="hf_bob"),
        "has no revision 'v9'": call("pull", "anna/secret@v9", str(tmp_path / "x"), token="hf_anna"),
        "is no address of a Model": call("pull", "../secret", str(tmp_path / "x"), token="hf_anna"),
    }
    for expected, answer in cases.items():
        assert expected in answer.error
        assert "hf_" not in answer.error
    assert not (tmp_path / "x").exists()
    assert "anna/new" not in hub.repositories
    assert len(hub.repositories["anna/secret"].commits) == commits
    hub.repositories["anna/secret"].private = False
    answer = call("push", folder, "anna/secret", overwrite=True, token="hf_anna")
    assert "is public, so that everybody would see the Model" in answer.error
    hub.repositories["anna/secret"].gated = True
    assert "gives access to those who ask" in call("pull", "anna/secret", str(tmp_path / "x"), token="hf_bob").error
    hub.make("anna/other", {"pytorch_model.bin": b"pickle"})
    assert "is no Model of cpfnet: it has no plan.yaml" in call("pull", "anna/other", str(tmp_path / "x")).error


def test_overwriting_is_one_commit_and_removes_parts_of_the_earlier_model(hub: Hub, call: Call, tmp_path: Path) -> None:
    made(tmp_path / "model", temperature=2.0)
    found = hub.make("anna/folds", {"fold-0/card.md": b"old", "notes.md": b"theirs"}, private=True)
    assert not call("push", str(tmp_path / "model"), "anna/folds", overwrite=True, token="hf_anna").error
    files = found.commits[-1][1]
    assert len(found.commits) == 2
    assert set(files) == FILES | {"README.md", "config.json", ".gitattributes", "notes.md"}


@pytest.mark.parametrize("name", ["scan.nii.gz", "patients.csv", "train.log", "weights.pth"])
def test_a_folder_with_anything_else_is_refused_before_anything_is_sent(
    hub: Hub, call: Call, tmp_path: Path, name: str
) -> None:
    made(tmp_path / "model")
    (tmp_path / "model" / name).write_text("x")
    answer = call("push", str(tmp_path / "model"), "anna/refused", token="hf_anna")
    assert f"may be data, identifiers or logs: {name}; nothing was sent" in answer.error
    assert hub.requests == []


def test_a_card_that_names_cases_is_refused(hub: Hub, call: Call, tmp_path: Path) -> None:
    made(tmp_path / "model")
    with (tmp_path / "model" / "card.md").open("a") as card:
        card.write("\nWorst on smith_john.\n")
    answer = call("push", str(tmp_path / "model"), "anna/refused", token="hf_anna")
    assert "names 1 case of the training data: smith_john; nothing was sent" in answer.error
    assert hub.requests == []


@pytest.fixture
def public(hub: Hub, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, dict[str, bytes]]:
    """A repository of the test's own, with a Model whose weights are the test's own, too."""
    name = "anna/" + hashlib.sha1(request.node.name.encode()).hexdigest()[:8]
    model = make_model(source="images", values=(1, 2))
    model.state = {"sharpness": torch.full((3_000_000,), float(int(name[5:9], 16)))}
    model.save(tmp_path / "source")
    files = shared(tmp_path / "source") | {"config.json": b"{}"}
    hub.make(name, files)
    return name, files


def test_a_cut_download_goes_on_where_it_was(
    hub: Hub, call: Call, tmp_path: Path, public: tuple[str, dict[str, bytes]]
) -> None:
    name, files = public
    hub.cuts = [11_000_000]  # huggingface_hub writes what has arrived every 10 MiB
    assert not call("pull", name, str(tmp_path / "pulled")).error
    assert [headers.get("range") for headers in hub.asked("GET", "/cdn/")] == [None, f"bytes={10 * 2**20}-"]
    assert shared(tmp_path / "pulled") == {key: one for key, one in files.items() if key in FILES}


def test_the_next_call_goes_on_where_a_killed_one_was(
    hub: Hub, call: Call, tmp_path: Path, public: tuple[str, dict[str, bytes]], process: ProcessPoolExecutor
) -> None:
    name, files = public
    weights = files["weights.safetensors"]
    cache = Path(process.submit(client.cache_of, name).result(timeout=60))
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / f"{hashlib.sha256(weights).hexdigest()}.part").write_bytes(weights[:1000])
    assert not call("pull", name, str(tmp_path / "pulled")).error
    assert [headers.get("range") for headers in hub.asked("GET", "/cdn/")] == ["bytes=1000-"]
    assert (tmp_path / "pulled" / "weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize("file", ["weights.safetensors", "fitted.yaml"])
def test_a_file_with_another_hash_is_refused_and_nothing_is_left(
    hub: Hub, call: Call, tmp_path: Path, public: tuple[str, dict[str, bytes]], file: str
) -> None:
    name, _ = public
    hub.damaged = {file}
    answer = call("pull", name, str(tmp_path / "here" / "pulled"))
    assert f"{file} is not what the hub lists" in answer.error
    assert list((tmp_path / "here").iterdir()) == []
    hub.damaged.clear()
    assert not call("pull", name, str(tmp_path / "here" / "pulled")).error  # nothing wrong stayed in the cache


def test_a_model_whose_own_hashes_disagree_is_refused(
    hub: Hub, call: Call, tmp_path: Path, public: tuple[str, dict[str, bytes]]
) -> None:
    name, files = public
    other = files["weights.safetensors"][:-1] + b"\x01"
    hub.make(name, files | {"weights.safetensors": other})
    assert "are damaged, or those of another training" in call("pull", name, str(tmp_path / "pulled")).error
    assert not (tmp_path / "pulled").exists()


def test_predict_opens_an_address_and_says_which_commit(
    hub: Hub, call: Call, tmp_path: Path, public: tuple[str, dict[str, bytes]], process: ProcessPoolExecutor
) -> None:
    name, _ = public
    commit = hub.repositories[name].commits[-1][0]
    hub.repositories[name].tags["v1"] = commit
    digest = Model.load(tmp_path / "source").digest

    def opened(address: str) -> Any:
        return process.submit(client.opened, address).result(timeout=60)

    found, messages = opened(f"hf://{name}@v1")
    assert found == [(digest, "0o700")]
    assert f"hf://{name}@v1 is commit {commit}" in messages[0]
    assert f"hf://{name}@{commit} means these for ever" in messages[1]
    hub.requests.clear()
    found, messages = opened(f"hf:/{name}@{commit}")  # as pathlib writes it
    assert found == [(digest, "0o700")]
    assert len(messages) == 1
    assert hub.asked("GET", "/cdn/") == []  # in the cache


def test_without_a_connection_a_commit_in_the_cache_serves(
    hub: Hub, call: Call, tmp_path: Path, public: tuple[str, dict[str, bytes]], process: ProcessPoolExecutor
) -> None:
    name, files = public
    commit = hub.repositories[name].commits[-1][0]
    assert not call("pull", name, str(tmp_path / "first")).error
    process.submit(client.go_to, "http://127.0.0.1:9").result(timeout=60)  # nothing listens
    try:
        assert not call("pull", f"{name}@{commit}", str(tmp_path / "second")).error
        assert shared(tmp_path / "second") == {key: one for key, one in files.items() if key in FILES}
        assert "no connection to http://127.0.0.1:9" in call("pull", name, str(tmp_path / "third")).error
    finally:
        process.submit(client.go_to, hub.url).result(timeout=60)

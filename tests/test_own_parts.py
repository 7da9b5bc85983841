"""A network, an encoder and a loss of the user's own: named by a plan, recorded, and run only where that is allowed."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cpfnet
from cpfnet import losses
from cpfnet.cli.app import main
from cpfnet.errors import CodeError, CpfnetError, NetworkError, PlanError
from cpfnet.inference.batch.job import Order
from cpfnet.inference.batch.ray_worker import Setting, Worker
from cpfnet.model import Model
from cpfnet.monai_bundle import run as bundle
from cpfnet.network import zoo
from cpfnet.network.encoder_zoo import ENCODERS
from cpfnet.planning import Plan
from cpfnet.serve import worker as server
from cpfnet.serve.store import StoreOptions
from cpfnet.settings import write_yaml
from cpfnet.training import loss
from cpfnet.training.own_parts import own_parts
from tests import synthetic
from tests.training.conftest import images_plan

MODULE = """
import os
import torch
from torch import nn

if os.environ.get("PARTS_RAN"):
    open(os.environ["PARTS_RAN"], "a").write("ran\\n")


def net(in_channels, classes, *, spatial_dims, width=4):
    return nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, classes, 1))


class Encoder(nn.Module):
    channels, strides = (4, 4, 4, 6, 8), (2, 4, 8, 16, 32)

    def __init__(self, in_channels, *, spatial_dims):
        super().__init__()
        counts = (in_channels, *self.channels)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(counts, counts[1:]))

    def forward(self, x):
        maps = []
        for step in self.steps:
            x = step(x).relu()
            maps.append(x)
        return maps


def squared(batch, *, scale=1.0):
    return scale * batch.mean(((batch.probabilities - batch.target) ** 2).sum(1))


def pooled(batch):
    return batch.probabilities.mean()
"""
ENCODED = {"network.name": "cpfnet", "network.options": {"width": 4, "encoder": "their_parts:Encoder"}}
OWN = {"network.name": "their_parts:net", "network.options": {}, "training.loss.name": "their_parts:squared"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The module, and images to train on."""
    root = tmp_path_factory.mktemp("parts")
    (root / "their_parts.py").write_text(MODULE)
    synthetic.make_images_dataset(root / "data", cases=6)
    return root


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A Model that was trained with network and loss of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        plan = images_plan(epochs=1).with_settings(OWN)
        trained = cpfnet.train(folder / "data", folder / "model", plan=plan, device="cpu", allow_import="their_parts")
        cpfnet.predict(trained, folder / "data" / "images" / "case_00.png")  # what train gave is allowed already
        sys.modules.pop("their_parts", None)
    return folder / "model"


@pytest.fixture
def ran(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that the module writes to whenever it is imported; it could be found, and is not imported yet."""
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PARTS_RAN", str(tmp_path / "ran"))
    sys.modules.pop("their_parts", None)
    yield tmp_path / "ran"
    sys.modules.pop("their_parts", None)


def image(folder: Path) -> Path:
    return sorted((folder / "data" / "images").iterdir())[0]


def test_the_model_records_where_its_code_came_from(model: Path) -> None:
    parts = json.loads((model / "metrics.json").read_text())["parts"]
    assert parts == {
        "network": "their_parts:net (module their_parts)",
        "loss": "their_parts:squared (module their_parts)",
    }
    named = "; ".join(f"{kind} {name}" for kind, name in parts.items())
    assert f"Trained with code that does not come with cpfnet: {named}." in (model / "card.md").read_text()
    assert "allow" not in (model / "plan.yaml").read_text() + (model / "fitted.yaml").read_text()


DOORS: dict[str, Callable[[Path, Path, Path, dict[str, Any]], object]] = {
    "network": lambda model, data, out, allow: Model.load(model, **allow).network(),
    "predict": lambda model, data, out, allow: cpfnet.predict(
        model, image(data), cpfnet.PredictorOptions(backend="torch", **allow)
    ),
    "predict_files": lambda model, data, out, allow: cpfnet.predict_files(
        model, [image(data)], out, cpfnet.PredictorOptions(**allow)
    ),
    "evaluate": lambda model, data, out, allow: cpfnet.evaluate(data / "data", model, cpfnet.PredictorOptions(**allow)),
    "export": lambda model, data, out, allow: cpfnet.export(model, "onnx", out=out / "net.onnx", **allow),
    "train again": lambda model, data, out, allow: cpfnet.train(
        data / "data", out, plan=model / "plan.yaml", device="cpu", **allow
    ),
    "fine-tune": lambda model, data, out, allow: cpfnet.train(
        data / "data", out, init=model, device="cpu", epochs=1, settings={"training.samples": 2}, **allow
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_no_door_runs_a_strangers_code(door: str, model: Path, folder: Path, tmp_path: Path, ran: Path) -> None:
    with pytest.raises(CodeError, match=r"code in the module their_parts(.|\n)*--allow-import their_parts") as caught:
        DOORS[door](model, folder, tmp_path / "out", {})
    assert not ran.exists()
    if door in ("network", "predict", "predict_files", "evaluate", "export"):
        assert caught.value.where == str(model)
        assert "it was trained with network their_parts:net" in str(caught.value.fix)


@pytest.mark.parametrize("door", ["predict", "predict_files", "evaluate", "export", "train again"])
def test_every_door_opens_where_the_module_is_named(
    door: str, model: Path, folder: Path, tmp_path: Path, ran: Path
) -> None:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "new" if door == "train again" else tmp_path / "out"
    DOORS[door](model, folder, out, {"allow_import": "their_parts"})
    assert ran.exists()


def test_loading_runs_nothing_whatever_a_model_names(model: Path, ran: Path) -> None:
    found = Model.load(model)
    assert found.card()
    assert found.digest
    assert found.plan.network.name == "their_parts:net"
    assert not ran.exists()
    with pytest.raises(CodeError):
        pickle.loads(pickle.dumps(found)).network()
    assert not ran.exists()


def test_no_file_of_a_model_can_allow_its_code(model: Path, folder: Path, tmp_path: Path, ran: Path) -> None:
    """Wherever its author writes it: the plan is refused, other files are not asked."""
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    metrics = json.loads((copy / "metrics.json").read_text()) | {"allow_import": ["their_parts"]}
    (copy / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(CodeError):
        Model.load(copy).network()
    for text in ("allow_import: [their_parts]\n", "network:\n  allow_import: [their_parts]\n"):
        (copy / "plan.yaml").write_text((model / "plan.yaml").read_text() + text)
        with pytest.raises(CpfnetError):
            Model.load(copy).network()
    plan = Plan.load(model / "plan.yaml")
    sly = plan.model_copy(
        update={"network": plan.network.model_copy(update={"options": {"allow_import": ["their_parts"]}})}
    )
    (tmp_path / "sly").mkdir()
    write_yaml(sly, tmp_path / "sly" / "plan.yaml")
    with pytest.raises(CpfnetError):
        cpfnet.train(folder / "data", tmp_path / "out", plan=tmp_path / "sly" / "plan.yaml", device="cpu")
    assert not ran.exists()


def test_what_is_allowed_for_a_model_is_allowed_for_its_first_stage(model: Path, ran: Path) -> None:
    second = replace(Model.load(model), first_stage=(Model.load(model),))
    with pytest.raises(CodeError):
        second.first_stage[0].network()
    assert not ran.exists()
    assert second.allowing(["their_parts"]).first_stage[0].network() is not None


def test_an_exported_graph_takes_no_code(model: Path, folder: Path, tmp_path: Path, ran: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model, copy)
    options = cpfnet.PredictorOptions(backend="onnx", allow_import=["their_parts"])
    allowed = cpfnet.predict(copy, image(folder), options).array
    ran.unlink()
    sys.modules.pop("their_parts")
    without = cpfnet.predict(copy, image(folder), cpfnet.PredictorOptions(backend="onnx")).array
    np.testing.assert_array_equal(without, allowed)
    assert not ran.exists()


def test_a_bundle_can_neither_hold_it_nor_allow_it(model: Path, folder: Path, tmp_path: Path, ran: Path) -> None:
    with pytest.raises(CodeError, match="a bundle cannot allow it"):
        cpfnet.export(model, "bundle", out=tmp_path / "bundle", allow_import="their_parts")
    with pytest.raises(SystemExit, match="a bundle cannot allow modules"):
        bundle.predict(str(model), str(image(folder)), str(tmp_path / "out"), allow_import=["their_parts"])
    assert not ran.exists()


def test_a_server_imports_none_and_says_what_to_do_instead(model: Path, tmp_path: Path, ran: Path) -> None:
    setting = server.Setting(
        "worker", model, Model.load(model).digest, StoreOptions(tmp_path / "store"), "cpu", "torch", 10**6
    )
    with pytest.raises(CpfnetError, match="is code in the module their_parts") as refused:
        server.run(setting, threading.Event(), io.StringIO())
    assert refused.value.fix is not None
    assert "export the Model" in refused.value.fix
    assert "--allow-import" not in refused.value.fix  # which serve has not
    assert not ran.exists()


def test_a_worker_on_another_machine_is_handed_what_is_allowed(model: Path, tmp_path: Path, ran: Path) -> None:
    for allowed, answer in (((), CodeError), (("their_parts",), str)):
        options = cpfnet.PredictorOptions(backend="torch", allow_import=allowed)
        order = pickle.loads(pickle.dumps(Order(tmp_path, options)))
        setting = Setting((model,), (Model.load(model).fitted,), order, Path.cwd(), tmp_path, logging.INFO)
        assert isinstance(Worker().start(setting), answer)
    assert ran.exists()


@pytest.mark.slow
def test_processes_that_train_together_are_handed_what_is_allowed(folder: Path, tmp_path: Path, ran: Path) -> None:
    plan = images_plan(epochs=1, samples=4, batch=2, accumulate=1).with_settings(OWN)
    with pytest.raises(CodeError):
        cpfnet.train(folder / "data", tmp_path / "no", plan=plan, device="cpu", devices=2)
    model = cpfnet.train(
        folder / "data", tmp_path / "out", plan=plan, device="cpu", devices=2, allow_import=["their_parts"]
    )
    assert ran.read_text().count("ran") >= 3  # here, and in both processes
    assert model.network() is not None


def test_a_network_on_an_encoder_of_ones_own(folder: Path, tmp_path: Path, ran: Path) -> None:
    plan = images_plan(epochs=1, samples=2, batch=2, accumulate=1).with_settings(ENCODED)
    with pytest.raises(CodeError, match=r"network\.options\.encoder"):
        cpfnet.train(folder / "data", tmp_path / "model", plan=plan, device="cpu")
    assert not ran.exists()
    cpfnet.train(folder / "data", tmp_path / "model", plan=plan, device="cpu", allow_import="their_parts")
    assert own_parts(plan) == {"encoder": "their_parts:Encoder (module their_parts)"}
    with pytest.raises(CodeError, match="it was trained with encoder their_parts:Encoder"):
        Model.load(tmp_path / "model").network()
    options = cpfnet.PredictorOptions(allow_import="their_parts")
    assert cpfnet.predict(tmp_path / "model", image(folder), options).array.any() in (True, False)


def test_the_commands_take_it_from_the_folder_they_run_in(model: Path, folder: Path, tmp_path: Path) -> None:
    """``cpfnet`` as people start it: no PYTHONPATH that leads to the module."""
    command = [sys.executable, "-m", "cpfnet", "predict", str(model), str(image(folder)), "-o", str(tmp_path / "masks")]
    done = subprocess.run(
        [*command, "--backend", "torch", "--allow-import", "their_parts"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PARTS_RAN": str(tmp_path / "ran"), "PYTHONSAFEPATH": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "command",
    [
        "predict MODEL IMAGE -o OUT",
        "evaluate DATA MODEL",
        "export MODEL --to onnx -o OUT/net.onnx",
        "train DATA -o OUT/new --plan MODEL/plan.yaml",
        "plan DATA -o OUT/plan.yaml --set training.loss.name=their_parts:squared --set training.loss.options={}",
    ],
    ids=lambda command: command.split()[0],
)
def test_a_command_says_what_to_add(
    command: str,
    model: Path,
    folder: Path,
    tmp_path: Path,
    ran: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"MODEL": model, "IMAGE": image(folder), "DATA": folder / "data", "OUT": tmp_path}
    words = [re.sub("MODEL|IMAGE|DATA|OUT", lambda found: str(places[found[0]]), word) for word in command.split()]
    monkeypatch.setattr(sys, "argv", ["cpfnet", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "--allow-import their_parts" in " ".join("".join(capsys.readouterr()).split())
    assert not ran.exists()


@pytest.mark.usefixtures("ran")
def test_a_loss_of_ones_own() -> None:
    logits, codes = torch.randn(3, 2, 8, 8), torch.randint(0, 2, (3, 8, 8), dtype=torch.uint8)
    codes[:, :2] = 255  # ignored
    plan = images_plan(loss={"name": "their_parts:squared", "options": {"scale": 2.0}})
    with pytest.raises(CodeError, match=r"training\.loss\.name: the loss their_parts:squared"):
        loss.build(plan)
    found = loss.build(plan, ["their_parts"])(logits, codes)
    target = torch.nn.functional.one_hot(codes[:, 2:].long(), 2).movedim(-1, 1)
    expected = 2 * ((logits.softmax(1)[:, :, 2:] - target) ** 2).sum(1).flatten(1).mean(1)
    torch.testing.assert_close(found, expected)
    # Deep supervision: each size by itself.
    both = loss.build(plan, ["their_parts"])([logits, logits[..., ::2, ::2]], codes)
    assert both.shape == (3,)
    with pytest.raises(PlanError, match="unexpected keyword argument 'alpha'"):
        loss.build(images_plan(loss={"name": "their_parts:squared", "options": {"alpha": 1}}), ["their_parts"])
    mean = loss.build(images_plan(loss={"name": "their_parts:pooled"}), ["their_parts"])
    with pytest.raises(NetworkError, match=r"gave \(\) for a batch of 3(.|\n)*return \(N,\)"):
        mean(logits, codes)
    with pytest.raises(PlanError, match="unknown loss 'dise'"):
        loss.build(images_plan(loss={"name": "dise"}))


def test_registered_parts_are_named_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (loss.OWN, zoo.NETWORKS, ENCODERS):
        monkeypatch.setattr(registry, "_registered", dict(registry.registered()))

    def halved(batch: loss.Batch) -> torch.Tensor:
        return loss.dice(batch) / 2

    losses.register("halved", halved)
    logits, codes = torch.randn(2, 2, 8, 8), torch.randint(0, 2, (2, 8, 8), dtype=torch.uint8)
    plan = images_plan(loss={"name": "halved"})
    whole = loss.build(images_plan(loss={"name": "dice"}))(logits, codes)
    torch.testing.assert_close(loss.build(plan)(logits, codes), whole / 2)
    assert own_parts(plan) == {"loss": f"halved (registered by {__name__})"}
    assert own_parts(images_plan()) == {}
    with pytest.raises(PlanError, match="comes with cpfnet"):
        loss.register("dice", halved)
    with pytest.raises(PlanError, match="cannot be called with a batch"):
        loss.register("none", lambda: None)  # type: ignore[arg-type, misc]

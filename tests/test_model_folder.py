"""Whatever happened to a Model folder, what loads is one Model: interrupted saving, foreign and hostile files."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from cpfnet.errors import CpfnetError, NetworkError, OutputError, WeightsError
from cpfnet.image import Image
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model, Quality, untrained
from cpfnet.monai_bundle.metadata import describe
from cpfnet.planning import NetworkPlan, content_hash
from tests.inference.oracle import make_model

FILES = {"plan.yaml", "weights.safetensors", "fitted.yaml", "metrics.json", "card.md"}


def made(sharpness: float, **fitted: Any) -> Model:
    model = make_model(source="images", values=(1, 2), fitted=fitted)
    model.state = {"sharpness": torch.tensor([sharpness])}
    model.metrics = {"cases": {"train": [f"case{sharpness:g}"]}}
    return model


def saved(folder: Path, sharpness: float = 100.0, **fitted: Any) -> Model:
    return Model.load(made(sharpness, **fitted).save(folder))


def sharpness(model: Model) -> float:
    return float(model.network().state_dict()["sharpness"])


def test_the_file_with_what_was_fitted_names_the_weights_by_their_hash(tmp_path: Path) -> None:
    saved(tmp_path)
    (line,) = (line for line in (tmp_path / "fitted.yaml").read_text().splitlines() if "weights_hash" in line)
    assert hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest() in line


@pytest.mark.parametrize("way", ["another", "damaged", "one bit", "none said"])
def test_weights_that_do_not_belong_are_refused(tmp_path: Path, way: str) -> None:
    saved(tmp_path / "model")
    saved(tmp_path / "other", 200.0)
    file = tmp_path / "model" / "weights.safetensors"
    if way == "another":
        shutil.copy(tmp_path / "other" / "weights.safetensors", file)
    elif way == "damaged":
        file.write_bytes(file.read_bytes()[:-2])
    elif way == "one bit":
        save_file({"sharpness": torch.tensor([100.00001])}, file)
    else:
        fitted = file.with_name("fitted.yaml")
        lines = fitted.read_text().splitlines(keepends=True)
        fitted.write_text("".join(line for line in lines if not line.startswith("weights_hash")))
    with pytest.raises(
        WeightsError, match=r"are damaged, or those of another training|may be of any training"
    ) as caught:
        Model.load(tmp_path / "model")
    assert "copy the Model folder again" in str(caught.value)


def test_weights_that_are_replaced_after_loading_are_refused(tmp_path: Path) -> None:
    model = saved(tmp_path)
    saved(tmp_path, 200.0)  # another training ends in the same folder
    with pytest.raises(WeightsError, match="those of another training"):
        model.network()


def test_the_digest_tells_models_apart_and_is_the_same_wherever_they_are(tmp_path: Path) -> None:
    model = make_model(source="images", values=(1, 2))
    digest = model.digest
    model.network()
    assert model.digest == digest
    loaded = Model.load(model.save(tmp_path / "a"))
    assert (model.digest, loaded.digest) == (digest, digest)
    loaded.network()
    loaded.save(tmp_path / "b")
    assert (loaded.digest, Model.load(tmp_path / "b").digest) == (digest, digest)
    assert (tmp_path / "b" / "weights.safetensors").read_bytes() == (
        tmp_path / "a" / "weights.safetensors"
    ).read_bytes()
    loaded.state = {"sharpness": torch.tensor([999.0])}
    others = [
        loaded,
        make_model(source="images", values=(1, 3)),
        make_model(source="images", values=(1, 2), fitted={"temperature": 1.1}),
    ]
    assert len({digest, *(other.digest for other in others)}) == 4


SAVE = """
import os, shutil, signal, sys
from pathlib import Path
from tests.test_model_folder import made

root = Path(sys.argv[1])
made(100.0, temperature=1.5).save(root / "old")
point, new = 0, made(200.0, threshold=0.25)
while True:
    out = shutil.copytree(root / "old", root / str(point))
    child = os.fork()
    if not child:
        count = 0

        def hook(event, arguments):
            global count
            if event in ("os.rename", "os.mkdir", "os.rmdir", "os.remove") and str(out) in str(arguments[0]):
                if count == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        sys.addaudithook(hook)
        new.save(out)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    point += 1
print(point)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of one process")
def test_saving_that_is_killed_at_any_moment_leaves_the_old_model_or_the_new_one(tmp_path: Path) -> None:
    """Before each file or folder that it renames, makes or removes."""
    done = subprocess.run([sys.executable, "-c", SAVE, str(tmp_path)], capture_output=True, text=True, check=True)
    points = int(done.stdout)
    assert points > 10
    kinds = set()
    for point in range(points + 1):
        folder = tmp_path / str(point)
        model = Model.load(folder)
        found = sharpness(model), model.fitted.temperature, model.fitted.threshold, model.metrics["cases"]["train"]
        assert found in ((100, 1.5, (0.5,), ["case100"]), (200, 1, (0.25,), ["case200"])), point
        kinds.add(found[0])
        if point % 5 == 0:  # the next one finds nothing in its way
            assert sharpness(saved(folder, 300.0)) == 300
            assert {path.name for path in folder.iterdir() if not path.name.startswith(".saving-")} == FILES
    assert kinds == {100, 200}


def test_a_folder_that_cannot_be_written_keeps_its_model(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / ".new").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written") as caught:
        saved(tmp_path, 200.0)
    assert caught.value.where == str(tmp_path)
    assert sharpness(Model.load(tmp_path)) == 100
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, ".new"}


# Hostile folders: refused in words, or a Model that predicts; never anything else.

NESTED: list[Any] = []
for _ in range(60):
    NESTED = [NESTED]
WRONG = (None, True, -1, 10**30, float("nan"), "\x1b[31m", [], {"x": 1}, NESTED)


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested data, inner ones too."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from leaves(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = copy.deepcopy(tree)
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return tree


def written(tree: Any) -> str:
    """JSON, which is YAML as well but for what is no number."""
    return json.dumps(tree).replace("NaN", ".nan")


def outcome(folder: Path) -> str:
    """Refused, or loaded and used; raises on anything else."""
    try:
        model = Model.load(folder)
        describe(model)
        predictor = Predictor([model], PredictorOptions(device="cpu", backend="torch", force=True))
        predictor.predict(Image(np.full((1, 40, 40), 100, np.uint8), None, channels=("channel0",)))
        return "used"
    except CpfnetError as error:
        if len(str(error)) < 5000 and (error.where is not None or isinstance(error, NetworkError)):
            return "refused"
        return f"badly said: {error}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Model with all that there can be in it."""
    folder = tmp_path_factory.mktemp("whole")
    quality = Quality(cases=5, lowest=0.9, found=("class 1",), factor=1.5, error=0.1)
    model = saved(folder, quality=quality, validation_dice=0.5)
    model.metrics = {
        "validation": {"dice": 0.5, "classes": {"class 1": 0.5, "class 2": None}, "cases": {"c": 0.5}},
        "cases": {"train": ["a", "b"], "validation": ["c"]},
        "history": [{"epoch": 1, "loss": 0.5, "dice": None, "seconds": 1.5}],
        "fitting": {"quality": "none: too few", "temperature": "1"},
        "calibration": {"cases": 1},
        "mine": [1],
    }
    model.save(folder)
    assert outcome(folder) == "used"
    return folder


def test_wrong_values_in_what_was_fitted(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    tree = YAML(typ="safe", pure=True).load(whole / "fitted.yaml")
    found = {}
    for path in leaves(tree):
        for number, value in enumerate(WRONG):
            (folder / "fitted.yaml").write_text(written(replaced(tree, path, value)))
            found[(*path, number)] = outcome(folder)
    assert set(found.values()) == {"refused", "used"}
    assert found["validation_dice", 0] == "used"  # null: not known
    names = ("temperature", "cases", "weights_hash", "plan_hash", "channels", "quality")
    numbers = [number for number, value in enumerate(WRONG) if value not in (None, 1, 10**30)]
    assert {found[name, number] for name in names for number in numbers} == {"refused"}


def test_wrong_values_in_the_scores(whole: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    tree = json.loads((whole / "metrics.json").read_text())
    found = {}
    for path in leaves(tree):
        for number, value in enumerate(WRONG):
            (folder / "metrics.json").write_text(json.dumps(replaced(tree, path, value)))
            found[(*path, number)] = outcome(folder)
    assert set(found.values()) == {"refused", "used"}
    others = [number for number, value in enumerate(WRONG) if not isinstance(value, str)]
    assert {found["fitting", "quality", number] for number in others} == {"refused"}
    assert {found["cases", "train", 0, number] for number in others} == {"refused"}
    assert {found["mine", number] for number in range(len(WRONG) - 1)} == {"used"}  # what is not used may be anything …
    assert found["mine", len(WRONG) - 1] == "refused"  # … that is not nested without end


@pytest.mark.parametrize(
    "path",
    [
        ("spatial", "longest"),
        ("spatial", "size"),
        ("network", "options", "widths"),
        ("network", "options", "widths", 0),
    ],
)
def test_wrong_values_in_a_plan_that_names_its_hash(tmp_path: Path, path: tuple[Any, ...]) -> None:
    options = {"widths": [4, 4, 8, 8, 8]}
    network = NetworkPlan(name="unet", options=options, weights="none")
    model = make_model(source="images", change=lambda plan: plan.model_copy(update={"network": network}))
    model.state = untrained(model.plan).state_dict()
    model.save(tmp_path)
    tree, fitted = model.plan.model_dump(mode="json"), (tmp_path / "fitted.yaml").read_text()
    for value in (*WRONG, [10**30] * 2, [2**70] * 5, [0] * 5, ["x"] * 5):
        changed = replaced(tree, path, value)
        (tmp_path / "plan.yaml").write_text(written(changed))
        (tmp_path / "fitted.yaml").write_text(fitted.replace(model.plan.hash, content_hash(changed)))
        expected = {"used"} if value is None and path[0] == "spatial" else {"refused"}
        assert outcome(tmp_path) in (expected | {"used"} if value is True else expected), value  # 1, or refused


@pytest.mark.parametrize("name", ["metrics.json", "fitted.yaml", "plan.yaml"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "(should be a valid dictionary|holds no settings)"),
        (b"5", "(should be a valid dictionary|holds no settings)"),
        (b"[" * 50_000, "not valid"),
        (b'{"x":' * 50_000, "not valid"),
        (b'{"fitting": "\xff"}', "(not valid JSON|not a UTF-8)"),
        (b'{"fitting": {"quality": "\\ud800"}}', "."),
        (b"9" * 100_000, "."),
        (b"\0" * 1000, "."),
        (None, "holds 500000000 bytes"),
    ],
    ids=["list", "number", "lists", "mappings", "no UTF-8", "half a pair", "digits", "nulls", "huge"],
)
def test_what_is_no_mapping_is_refused(
    whole: Path, tmp_path: Path, name: str, text: bytes | None, message: str
) -> None:
    folder = shutil.copytree(whole, tmp_path / "model")
    if text is None:
        os.truncate(folder / name, 500_000_000)  # takes no room on the disk
    else:
        (folder / name).write_bytes(text)
    with pytest.raises(CpfnetError, match=message) as caught:
        Model.load(folder)
    assert caught.value.where == str(folder / name)
    assert len(str(caught.value)) < 5000


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # such names may not be long


PLACES: dict[str, Callable[[Path], Any]] = {
    "folder": Path.mkdir,
    "pipe": pipe,
    "socket": listening,
    "link to nowhere": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to the folder": lambda path: path.symlink_to("."),
}


@pytest.mark.skipif(os.name != "posix", reason="makes pipes and devices")
@pytest.mark.parametrize("made", PLACES)
@pytest.mark.parametrize("name", [*sorted(FILES), ".new"])
def test_what_stands_in_place_of_a_file(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, made: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(whole, tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    PLACES[made](folder / name)
    needed = name in ("plan.yaml", "fitted.yaml", "weights.safetensors")
    there = name == "metrics.json" and made != "link to nowhere"
    assert outcome(folder) == ("refused" if needed or there else "used")

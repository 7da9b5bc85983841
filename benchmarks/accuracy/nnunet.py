"""nnU-Net v2 on the same cases, with the same budget, mirroring and tile step, judged by `cpfnet evaluate`.

It lives in an environment of its own (README.md says how to make it), because its requirements are not ours.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import cpfnet
from benchmarks.accuracy import machine
from benchmarks.accuracy.budget import Pace, Schedule
from benchmarks.accuracy.runs import Bench, Row, judgement, row_name, scores_name, write_json
from cpfnet import labels
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError, TrainingError
from cpfnet.inference.torch_backend.network import pick_device
from cpfnet.planning import Plan

HERE = Path(__file__).parent
PYTHON = HERE.parent / ".venv-nnunet" / "bin" / "python"
EPOCHS = 50
"""Into so many epochs a budget is divided; nnU-Net lowers its learning rate after each."""


def run(bench: Bench, configuration: str, *, fold: int, seed: int, full: bool) -> Row:
    """Convert, prepare, train, predict and judge; the row, from before where the run was done before.

    Args:
        bench: data set, budget and place; its ``settings`` do not apply.
        configuration: ``"2d"`` or ``"3d_fullres"``.
        fold, seed: as for all runs; nnU-Net repeats a seed only roughly.
        full: nnU-Net's own 1,000 epochs of 250 iterations instead of the budget.

    Raises:
        TrainingError: the environment is not there, or nnU-Net failed (its log says why).
    """
    name = f"nnunet-{configuration}" + "-full" * full
    place = bench.folder / name / f"fold-{fold}-seed-{seed}"
    row = place / row_name(bench.mirrored)
    dataset = bench.dataset(fold)
    if row.is_file():
        bench.say(f"{place}: done before")
        return json.loads(row.read_text(encoding="utf-8"))
    place.mkdir(parents=True, exist_ok=True)
    shared = bench.folder / f"nnunet-fold-{fold}"
    raw = shared / "raw" / f"Dataset001_{bench.protocol.name}"
    if not raw.exists():
        cpfnet.convert(dataset, raw, to="nnunet")
    worker = _Worker(bench, configuration, shared, place)
    worker.once("prepare", shared / f"prepared-{configuration}.json")
    wanted = None if full else _asked(bench, worker, place.parent)
    asked: dict[str, Any] = {"epochs": wanted and wanted.epochs, "iterations": wanted and wanted.steps}
    trained = worker.once("train", place / "trained.json", device=worker.device, seed=seed, **asked)
    if wanted is not None and wanted != Schedule(trained["epochs"], trained["iterations"]):
        raise TrainingError(
            "a run with another budget lies here", where=place, fix="give the budget of then, or another --out"
        )

    judged = place / scores_name(bench.mirrored)
    numbered, masks = judged / "numbered", judged / "predictions"
    plan = cpfnet.plan(dataset, weights="none")  # for its mirroring and overlap alone
    began = time.monotonic()
    worker.once(
        "predict",
        judged / "predicted.json",
        device=worker.device,
        source=str(raw / "imagesTs"),
        out=str(numbered),
        step=1 - plan.inference.overlap,
        axes=_axes(plan, configuration) if bench.mirrored else [],
    )
    _named(dataset, numbered, masks)
    scores = cpfnet.evaluate(dataset, masks, out=judged, split="test", overwrite=True)
    content = {
        **bench.head(name, fold, seed),
        "budget": {"full": True} if full else bench.asked(),
        "network": name,
        "settings": [],
        "parameters": trained["parameters"],
        "plan": None,
        "steps": trained["epochs"] * trained["iterations"],
        "batch": f"{trained['batch']} × {'×'.join(map(str, trained['patch']))}",
        "epoch": "the last",
        **judgement(dataset, scores),
        "seconds": {"training": round(trained["seconds"], 1), "judging": round(time.monotonic() - began, 1)},
        "gpu_gib": trained["gpu_gib"],
        "hardware": machine.hardware(str(pick_device(bench.device))),
        "versions": machine.versions() | trained["versions"],
    }
    write_json(row, content)
    return content


class _Worker:
    """Calls nnunet_worker.py in nnU-Net's environment."""

    def __init__(self, bench: Bench, configuration: str, shared: Path, place: Path):
        self.bench = bench
        self.configuration = configuration
        self.shared = shared
        self.place = place
        self.device = pick_device(bench.device).type

    def once(self, do: str, result: Path, *, results: Path | None = None, **options: Any) -> dict[str, Any]:
        """Do it and keep what it gave in ``result``; where that lies there already, do nothing."""
        if not result.is_file():
            result.parent.mkdir(parents=True, exist_ok=True)
            self.bench.say(f"nnU-Net: {do} …")
            self._call(
                {"do": do, "configuration": self.configuration, **options}, result, results or self.place / "model"
            )
        return json.loads(result.read_text(encoding="utf-8"))

    def _call(self, options: dict[str, Any], result: Path, results: Path) -> None:
        if not PYTHON.is_file():
            raise TrainingError(
                "nnU-Net's environment is not there",
                where=PYTHON,
                fix="make it, as benchmarks/accuracy/README.md says",
            )
        half = result.with_suffix(".half")
        options |= {"result": str(half.resolve()), "threads": torch.get_num_threads()}
        places = {
            "nnUNet_raw": self.shared / "raw",
            "nnUNet_preprocessed": self.shared / "preprocessed",
            "nnUNet_results": results,
        }
        log = self.place / "log.txt"
        with log.open("a", encoding="utf-8") as file:
            done = subprocess.run(
                [PYTHON, HERE / "nnunet_worker.py", json.dumps(options)],
                env=os.environ | {key: str(path.resolve()) for key, path in places.items()},
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode:
            raise TrainingError(f"nnU-Net ended with code {done.returncode}", where=log, fix="its last lines say why")
        half.replace(result)


def course(minutes: float, pace: Pace) -> Schedule:
    """At most `EPOCHS` epochs that end with ``minutes``, each of iterations (``pace.step``) and one that validates.

    Raises:
        TrainingError: not even one epoch does.
    """
    seconds = 60 * minutes
    iterations = max(1, math.ceil((seconds / EPOCHS - pace.validation) / pace.step))
    epochs = math.floor(seconds / (iterations * pace.step + pace.validation))
    if epochs < 1:
        raise TrainingError(
            f"{minutes:g} minutes are too few: an iteration takes {pace.step:.2g} s",
            where="--minutes",
            fix="give more minutes",
        )
    return Schedule(epochs, iterations)


def _asked(bench: Bench, worker: _Worker, place: Path) -> Schedule:
    """Epochs and iterations as asked for; timed once for all seeds and folds, where minutes are given."""
    if bench.steps is not None:
        epochs = min(EPOCHS, bench.steps)
        return Schedule(epochs, round(bench.steps / epochs))
    assert bench.minutes is not None
    with TemporaryDirectory(prefix="trial-", dir=place) as trial:
        found = worker.once("time", place / "pace.json", results=Path(trial), device=worker.device)
    return course(bench.minutes, Pace(found["iteration"], found["validation"]))


def _axes(plan: Plan, configuration: str) -> list[int]:
    """The axes that cpfnet mirrors, counted as nnU-Net does along its patch."""
    names = ("height", "width") if configuration == "2d" else ("depth", "height", "width")
    return [names.index(axis) for axis in plan.inference.mirror if axis in names]


def _named(dataset: Path, numbered: Path, out: Path) -> None:
    """nnU-Net's numbers (1 … n) as the values of the data set's own files, so that its own labels judge."""
    definitions = load(dataset).labels
    if definitions is None:
        raise DatasetError("declares no labels", where=dataset, fix="name them in the recipe")
    for path in sorted(p for p in numbered.iterdir() if p.name.endswith((".png", ".tif", ".nii.gz"))):
        image = cpfnet.read(path)
        values = labels.decode(image.array[0].astype(int), definitions)
        cpfnet.write(
            cpfnet.Segmentation(values, affine=image.affine, source=image.source), out / path.name, overwrite=True
        )

"""One run: plan, train, judge, and a row with all results. Finished work is not repeated; interrupted work goes on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import cpfnet
from benchmarks.accuracy import budget, machine
from benchmarks.accuracy.budget import Pace, Schedule
from benchmarks.accuracy.protocol import Protocol, write_dataset
from benchmarks.accuracy.variants import Variant
from cpfnet.data.dataset import load
from cpfnet.errors import OutputError
from cpfnet.evaluation.scores import PREDICTION, Scores
from cpfnet.files import replacing
from cpfnet.inference.torch_backend.network import pick_device
from cpfnet.planning import Plan

Say = Callable[[str], None]
Row = dict[str, Any]
"""What is written of one run, as JSON."""


@dataclass(frozen=True)
class Bench:
    """A data set, and how it is worked on.

    Attributes:
        protocol: of the data set.
        data: its folder.
        out: where everything is kept: ``DATASET/fold-F.yaml``, ``DATASET/VARIANT/course.json``, and for each run
            ``DATASET/VARIANT/fold-F-seed-S/`` with ``plan.yaml``, ``log.txt``, ``model/``, ``scores/`` and
            ``row.json``.
        minutes, steps: the budget of a run; one of them.
        device: as for `cpfnet.train`.
        memory: as for `cpfnet.plan`: where several runs share a GPU, what is free says little.
        mirrored: average predictions over mirrored copies: `cpfnet predict --tta` without its quarter turns, as nnU-Net
            does it.
        settings: ``section.key=value`` for every variant.
        say: where messages go.
    """

    protocol: Protocol
    data: Path
    out: Path
    minutes: float | None = None
    steps: int | None = None
    device: str = "auto"
    memory: str | None = None
    mirrored: bool = False
    settings: tuple[str, ...] = ()
    say: Say = print

    @property
    def folder(self) -> Path:
        return self.out / self.protocol.name

    def dataset(self, fold: int) -> Path:
        """The dataset.yaml of a fold, written where it is not there."""
        return write_dataset(self.protocol, self.data, fold, self.folder / f"fold-{fold}.yaml")

    def asked(self) -> dict[str, Any]:
        """The budget as asked for; it stands in every row."""
        return {"minutes": self.minutes} if self.steps is None else {"steps": self.steps}

    def run(self, variant: Variant, *, fold: int, seed: int) -> Row:
        """Train and judge one variant; the row, from before where the run was done before.

        Raises:
            CpfnetError: what `cpfnet` says, or a run with other settings lies there.
        """
        place = self.folder / variant.name / f"fold-{fold}-seed-{seed}"
        dataset = self.dataset(fold)
        row = place / row_name(self.mirrored)
        wanted = [*variant.settings, *self.settings, f"training.seed={seed}", f"network.name={variant.network}"]
        plan = self._plan(dataset, place, variant, wanted)
        if row.is_file():
            self.say(f"{place}: done before")
            return json.loads(row.read_text(encoding="utf-8"))
        with _noting(self.say, place / "log.txt") as note:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            note(f"{variant.name}, fold {fold}, seed {seed}: {plan.training.epochs} epochs, {_steps(plan)} steps")
            model = cpfnet.train(
                dataset, place / "model", plan=plan, device=self.device, resume=(place / "model").exists()
            )
            if self.mirrored:
                model.plan = model.plan.with_settings(["inference.quarter_turns=false"])
            began = time.monotonic()
            scores = cpfnet.evaluate(
                dataset,
                model,
                cpfnet.PredictorOptions(device=self.device, tta=self.mirrored),
                out=place / scores_name(self.mirrored),
                split="test",
                threshold_on=self.protocol.threshold_on,
                overwrite=True,  # what an interrupted run left
            )
            judged = time.monotonic() - began
        device = str(pick_device(self.device))
        seconds = {"training": sum(epoch["seconds"] for epoch in model.metrics["history"]), "judging": judged}
        content = {
            **self.head(variant.name, fold, seed),
            "network": variant.network,
            "settings": [*variant.settings, *self.settings],
            "parameters": sum(weight.numel() for weight in model.network().parameters()),
            "plan": plan.hash,
            "steps": _steps(plan),
            "batch": f"{plan.training.batch * plan.training.accumulate} × {'×'.join(map(str, plan.spatial.patch))}",
            "epoch": f"{model.fitted.epochs} of {plan.training.epochs}",
            **judgement(dataset, scores),
            "seconds": {name: round(value, 1) for name, value in seconds.items()},
            "gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if device.startswith("cuda") else None,
            "hardware": machine.hardware(device),
            "versions": machine.versions(),
        }
        write_json(row, content)
        return content

    def head(self, name: str, fold: int, seed: int) -> dict[str, Any]:
        """What a row begins with: which run it is."""
        return {
            "dataset": self.protocol.name,
            "variant": name,
            "fold": fold,
            "seed": seed,
            "budget": self.asked(),
            "mirrored": self.mirrored,
        }

    def _plan(self, dataset: Path, place: Path, variant: Variant, wanted: list[str]) -> Plan:
        """The run's plan: the proposed one with all settings, or the one that it began with."""
        file = place / "plan.yaml"
        if file.is_file():
            plan = Plan.load(file)
        else:
            proposed = cpfnet.plan(
                dataset,
                network=variant.network,
                weights="none",
                device=self.device,
                memory=self.memory,
                settings=wanted,
            )
            plan = proposed.with_settings(self._course(dataset, proposed, place.parent).settings(proposed))
            place.mkdir(parents=True, exist_ok=True)
            plan.save(file)
            return plan
        course = self._course(dataset, plan, place.parent)
        if plan.with_settings([*wanted, *course.settings(plan)]) != plan:
            raise OutputError(
                "a run with other settings lies here", where=place, fix="give the settings of then, or another --out"
            )
        return plan

    def _course(self, dataset: Path, plan: Plan, place: Path) -> Schedule:
        """The same for all seeds and folds of a variant; timed once, where minutes are given."""
        if self.steps is not None:
            return budget.of_steps(self.steps)
        assert self.minutes is not None
        file, device = place / "course.json", str(pick_device(self.device))
        asked = {"minutes": self.minutes, "device": device, "network": plan.network.model_dump(mode="json")}
        if not file.is_file():
            place.mkdir(parents=True, exist_ok=True)
            self.say(f"Timing {2 * budget.TRIED} steps of {plan.network.name} …")
            measured = budget.pace(dataset, plan, device=self.device, scratch=place)
            write_json(file, {**asked, **asdict(measured), "hardware": machine.hardware(device)})
        found = json.loads(file.read_text(encoding="utf-8"))
        if any(found.get(key) != value for key, value in asked.items()):
            raise OutputError(
                f"steps were counted for {found['minutes']:g} minutes on {found['device']} of {found.get('network')}, "
                f"not for {self.minutes:g} on {device} of {asked['network']}",
                where=file,
                fix="give the budget of then, or another --out",
            )
        return budget.of_minutes(self.minutes, Pace(found["step"], found["validation"]))


def judgement(dataset: Path, scores: Scores) -> dict[str, Any]:
    """The part of a row that says who judged, how, and with what result."""
    whole = scores.as_dict()
    cases = load(dataset).cases
    names = {split: [case.id for case in cases if case.labels and case.split == split] for split in ("train", "val")}
    return {
        "cases": {
            "train": len(names["train"]),
            "choose": names["val"],
            "judge": list(dict.fromkeys(row["case"] for row in scores.rows)),
        },
        "protocol": whole["protocol"],
        "warnings": whole["warnings"],
        "scores": judged_scores(scores),
        "guide": [entry for entry in whole["guide"] if entry["reader"] == scores.reader],
    }


def judged_scores(scores: Scores) -> list[dict[str, Any]]:
    """The aggregates of the prediction against the reader that counts, as JSON data."""
    whole = scores.as_dict()["aggregates"]
    return [entry for entry in whole if (entry["prediction"], entry["reader"]) == (PREDICTION, scores.reader)]


def row_name(mirrored: bool) -> str:
    return "row-mirrored.json" if mirrored else "row.json"


def scores_name(mirrored: bool) -> str:
    return "scores-mirrored" if mirrored else "scores"


def rows(out: Path) -> list[Row]:
    """All rows below a folder, each with its ``place``; in the order of their names."""
    found = sorted([*out.rglob("row.json"), *out.rglob("row-mirrored.json")])
    return [json.loads(path.read_text(encoding="utf-8")) | {"place": path.parent} for path in found]


def write_json(path: Path, content: Any) -> None:
    with replacing(path, overwrite=True) as file:
        file.write_text(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _steps(plan: Plan) -> int:
    training = plan.training
    return training.epochs * training.samples // (training.batch * training.accumulate)


@contextmanager
def _noting(say: Say, file: Path) -> Iterator[Say]:
    """Say it, and keep it with the time; so what cpfnet logs meanwhile."""
    with file.open("a", encoding="utf-8") as log:

        def note(message: str) -> None:
            say(message)
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
            log.flush()

        logger, handler = logging.getLogger("cpfnet"), _Notes(note)
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        try:
            yield note
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before


class _Notes(logging.Handler):
    def __init__(self, note: Say):
        super().__init__()
        self.note = note

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.getMessage())

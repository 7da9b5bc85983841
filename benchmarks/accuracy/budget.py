"""How many optimiser steps a run has: as asked for, or as many as end with a number of minutes."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import cpfnet
from cpfnet.errors import TrainingError
from cpfnet.planning import Plan

TRIED = 10
"""Optimiser steps of each of two epochs of a trial; the first warms up, the second is timed."""

MOST_EPOCHS = 20
VALIDATING = 0.1
"""Share of the minutes that validation may take; where it would take more, there are fewer epochs."""


@dataclass(frozen=True)
class Schedule:
    """Epochs, each followed by validation, and optimiser steps in each."""

    epochs: int
    steps: int

    @property
    def total(self) -> int:
        return self.epochs * self.steps

    def settings(self, plan: Plan) -> list[str]:
        """What `cpfnet train --set` needs to hear to follow it."""
        samples = self.steps * plan.training.batch * plan.training.accumulate
        return [f"training.epochs={self.epochs}", f"training.samples={samples}"]


@dataclass(frozen=True)
class Pace:
    """Seconds that one optimiser step and one validation take."""

    step: float
    validation: float


def of_steps(total: int) -> Schedule:
    """``total`` steps in at most `MOST_EPOCHS` epochs of equal length; the number of epochs is rounded."""
    epochs = min(MOST_EPOCHS, total)
    return Schedule(epochs, round(total / epochs))


def of_minutes(minutes: float, pace: Pace) -> Schedule:
    """As many steps as end, with their validations, within ``minutes``.

    Raises:
        TrainingError: not even one step and one validation do.
    """
    seconds = 60 * minutes
    affordable = math.floor(VALIDATING * seconds / max(pace.validation, 1e-3))
    epochs = min(max(1, affordable), MOST_EPOCHS)
    steps = math.floor((seconds / epochs - pace.validation) / pace.step)
    if steps < 1:
        raise TrainingError(
            f"{minutes:g} minutes are too few: a step takes {pace.step:.2g} s and a validation {pace.validation:.2g} s",
            where="--minutes",
            fix="give more minutes",
        )
    return Schedule(epochs, steps)


def pace(dataset: Path, plan: Plan, *, device: str, scratch: Path) -> Pace:
    """Time real optimiser steps and a validation, by a brief training that is thrown away.

    Args:
        dataset: to train on.
        plan: of the run to come.
        device: as for `cpfnet.train`.
        scratch: folder to work in.
    """
    course = Schedule(2, TRIED)
    with TemporaryDirectory(prefix="trial-", dir=scratch) as folder:
        out = Path(folder) / "model"
        cpfnet.train(dataset, out, plan=plan, settings=course.settings(plan), device=device)
        with (out / "logs" / "history.csv").open(encoding="utf-8", newline="") as file:
            first, second = csv.DictReader(file)
    samples = TRIED * plan.training.batch * plan.training.accumulate
    # The rate is over all samples so far: learning alone, without validation.
    learning = 2 * samples / float(second["images_per_second"]) - samples / float(first["images_per_second"])
    return Pace(learning / TRIED, max(0.0, float(second["seconds"]) - learning))

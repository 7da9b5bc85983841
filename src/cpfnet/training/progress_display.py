"""What a run shows: a bar on a terminal, and one message an epoch."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from cpfnet.progress import Bar
from cpfnet.training.samples.patches import Schedule
from cpfnet.training.signals import Interruption

logger = logging.getLogger(__name__)

MEASURED = 60.0
"""Seconds of training after which its pace is known well enough to say how long it will take …"""

WORTH_SAYING = 300.0
"""… if that is more than this."""


class Display:
    """Use as a context; `step` after every optimiser step, `epoch` after every validation.

    Args:
        schedule: how far it is.
        start: sample number that the run goes on from.
        dice: the last validation Dice, if any.
        bar: show a bar where there is a terminal.
    """

    def __init__(self, schedule: Schedule, *, start: int, dice: float | None, bar: bool):
        self.schedule = schedule
        self._dice = dice
        self._start = self._number = start
        self._began = time.monotonic()
        self._paused = 0.0
        self._told = False
        self._progress = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            show=bar,
        )
        self._task = self._progress.add_task("", total=schedule.steps_per_epoch, figures="")

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    @property
    def rate(self) -> float:
        """Images a second while learning, since the run went on."""
        elapsed = time.monotonic() - self._began - self._paused
        return (self._number - self._start) / elapsed if elapsed > 0 else 0.0

    @property
    def left(self) -> str:
        """Time left, validation included, at the pace so far."""
        done = self._number - self._start
        if done == 0:
            return "?"
        seconds = (time.monotonic() - self._began) / done * (self.schedule.samples - self._number)
        return str(timedelta(seconds=round(seconds)))

    def _tell_duration(self) -> None:
        """Once, the time that the run takes on this machine: the plan could only estimate it."""
        elapsed = time.monotonic() - self._began - self._paused
        if self._told or elapsed < MEASURED:
            return
        self._told = True
        seconds = (self.schedule.samples - self._number) / self.rate
        if seconds > WORTH_SAYING:
            logger.info(
                f"{self.rate:.1f} images/s on this machine: training takes {timedelta(seconds=round(seconds))} more, "
                "and validation comes on top (--resume goes on after a stop)"
            )

    def _name(self, number: int) -> str:
        return f"epoch {(number - 1) // self.schedule.training.samples + 1}/{self.schedule.training.epochs}"

    def step(self, number: int, loss: float, rate: float) -> None:
        """``number`` samples are learned from; the last step's loss and learning rate."""
        self._number = number
        self._tell_duration()
        dice = "" if self._dice is None else f"  Dice {self._dice:.4f}"
        self._progress.update(
            self._task,
            description=self._name(number),
            completed=self.schedule.step(number - 1) % self.schedule.steps_per_epoch + 1,
            figures=f"loss {loss:.4f}{dice}  lr {rate:.2e}  {self.rate:.1f} images/s  {self.left} left",
        )

    def validating(self, done: int, total: int) -> None:
        """``done`` of ``total`` cases are validated."""
        self._progress.update(self._task, figures=f"validating {done}/{total}")

    def pause(self, seconds: float) -> None:
        """``seconds`` passed that were not learning."""
        self._paused += seconds

    def epoch(self, row: dict[str, Any], *, best: bool) -> None:
        """One line for what an epoch brought."""
        self._dice = row["dice"]
        dice = "–" if self._dice is None else f"{self._dice:.4f}"
        logger.info(
            f"{self._name(self._number)}  loss {row['loss']:.4f}  Dice {dice}{' (best)' if best else ''}"
            f"  lr {row['learning_rate']:.2e}  {row['images_per_second']:.1f} images/s  {self.left} left"
        )


class CaseCounter:
    """A bar for work of a known number of cases, which stops when it is asked to; use as a context, call case by case.

    Args:
        what: the work.
        bar: show it where there is a terminal.
        interruption: looked at before every case.
    """

    def __init__(self, what: str, bar: bool, interruption: Interruption):
        self._bar = Bar(TextColumn(what), BarColumn(), MofNCompleteColumn(), show=bar)
        self._task = self._bar.add_task("")
        self._interruption = interruption

    def __enter__(self) -> CaseCounter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` cases are done.

        Raises:
            Stopped: a signal came.
        """
        self._bar.update(self._task, completed=done, total=total)
        self._interruption.check()

"""Train the folds of a cross-validation, each in a process of its own: several at once, and one that fails alone.

A fold is an ordinary run in a folder of its own, and goes on where one was begun there: whatever moment a process is
killed at, the next one takes up what it left. It ends when the one that started it is killed.
"""

from __future__ import annotations

import csv
import logging
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from cpfnet.data.case import Case
from cpfnet.environment import environment
from cpfnet.errors import CpfnetError, TrainingError, redacted_message
from cpfnet.inference.cross_validation import fold_name
from cpfnet.model import Model
from cpfnet.planning import Plan
from cpfnet.progress import Bar
from cpfnet.training import checkpoint
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.child_messages import log_to_parent, logged_here
from cpfnet.training.distributed.process_group import ProcessGroup
from cpfnet.training.from_dataset import train_on_dataset
from cpfnet.training.options import PlanOptions, TrainOptions
from cpfnet.training.samples.cache import Cached
from cpfnet.training.signals import Interruption, Stopped, leave_signals

logger = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds in which the helpers of a fold's process may end after it."""

LOOK = 0.5
"""Seconds after which it is looked again how far the folds are."""

Parts = Sequence[tuple[Sequence[Case], Sequence[Case]]]
"""Of each fold the cases to train on, and those to validate on."""


@dataclass(frozen=True)
class FoldRuns:
    """What is to be trained.

    Attributes:
        dataset: as `cpfnet.train` takes it.
        out: the cross-validation's folder.
        plan: of all folds; ``plan_file`` holds it.
        plan_file: the same on disk.
        parts: the folds.
        options: how a run is carried out; each fold gets its number.
        jobs: folds at once; they divide the threads, and take turns on the GPUs.
    """

    dataset: Path
    out: Path
    plan: Plan
    plan_file: Path
    parts: Parts
    options: TrainOptions
    jobs: int

    def place(self, number: int) -> Path:
        """The folder of a fold's run."""
        return self.out / fold_name(number)


def new_flag() -> Any:
    """Where an `Interruption` notes that the folds' processes should stop."""
    return multiprocessing.get_context("spawn").RawValue("b", 0)


def check_epochs(runs: FoldRuns) -> None:
    """Refuse fewer epochs than a fold has behind it, before its plan is replaced.

    Raises:
        TrainingError: they are asked for.
    """
    asked = runs.plan.training.epochs
    done = max(len(_history(runs.place(number) / "logs" / "history.csv")) for number in range(len(runs.parts)))
    if asked < done:
        raise TrainingError(
            f"{asked} epochs are asked for, and a fold has {done} behind it",
            where=runs.out,
            fix="ask for as many (--epochs), or begin a cross-validation in another folder",
        )


def check_content(runs: FoldRuns, cached: Sequence[Cached]) -> None:
    """Refuse folds that learned from images or labels which were others than they are now.

    Args:
        runs: folds that have ended.
        cached: their cases.

    Raises:
        TrainingError: a fold did so, as its checkpoint tells.
    """
    now = {case.id: case.digest for case in cached}
    for number in range(len(runs.parts)):
        folder = RunFolder(runs.place(number))
        if not folder.checkpoint.is_file():
            continue
        then = checkpoint.load(folder.checkpoint)["digests"]
        digests = {f"train/{case.id}": now[case.id] for case in runs.parts[number][0]}
        digests |= {f"validation/{case.id}": now[case.id] for case in runs.parts[number][1]}
        checkpoint.check_data(then, digests, folder.out)


def train_folds(runs: FoldRuns, interruption: Interruption, flag: Any) -> None:
    """Train what is not there yet.

    Args:
        runs: all folds.
        interruption: notes signals in ``flag``.
        flag: of `new_flag`.

    Raises:
        TrainingError: folds that failed, once the others have ended; or a fold that was trained on other cases.
        KeyboardInterrupt: a signal came; the folds that were being trained have left a checkpoint.
    """
    waiting = deque(number for number in range(len(runs.parts)) if not _is_done(runs, number))
    unfinished = {*waiting}
    running: dict[int, _Child] = {}
    failed: dict[int, str] = {}
    columns = (TextColumn("Training folds"), BarColumn(), TextColumn("{task.fields[figures]}"), TimeRemainingColumn())
    with Bar(*columns, show=runs.options.progress) as bar:
        task = bar.add_task("", total=len(runs.parts) * runs.plan.training.epochs, figures="")
        try:
            while waiting or running:
                while waiting and len(running) < runs.jobs and not interruption.asked:
                    slot = min(set(range(runs.jobs)) - {child.slot for child in running.values()})
                    number = waiting.popleft()
                    running[number] = _Child.start(runs, number, slot, flag)
                if not running:
                    break
                wait([child.process.sentinel for child in running.values()], timeout=LOOK)
                for number in [number for number, child in running.items() if not child.process.is_alive()]:
                    if why := running.pop(number).failure():
                        failed[number] = why
                        logger.error("%s failed: %s", fold_name(number), why)
                    elif not interruption.asked:
                        unfinished.remove(number)
                epochs, figures = _progress(runs, running, unfinished)
                bar.update(task, completed=epochs, figures=figures)
        finally:
            for child in running.values():
                child.process.kill()
    interruption.check()
    if failed:
        names = ", ".join(map(fold_name, sorted(failed)))
        raise TrainingError(
            f"{len(failed)} of {len(runs.parts)} folds failed ({names}): {failed[min(failed)]}",
            where=runs.out,
            fix="correct that; the same command with --resume trains what is missing, and leaves the rest as it is",
        )


@dataclass
class _Child:
    """A process that trains a fold."""

    process: BaseProcess
    slot: int
    errors: Any
    listening: ExitStack

    @classmethod
    def start(cls, runs: FoldRuns, number: int, slot: int, flag: Any) -> _Child:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        errors, listening = context.SimpleQueue(), ExitStack()
        threads = max(1, torch.get_num_threads() // runs.jobs)
        given = (runs, number, threads, flag, errors, there)
        changes = {"OMP_NUM_THREADS": str(threads)}
        if runs.jobs > 1:  # threads that wait for their next work would take the cores of the others
            changes |= {"OMP_WAIT_POLICY": "passive"}
            if gpus := gpus_of(runs.options.device):
                changes["CUDA_VISIBLE_DEVICES"] = gpus[slot % len(gpus)]
        process = context.Process(target=_train, args=(*given, logger.getEffectiveLevel()), name=fold_name(number))
        with environment(changes):  # libraries look at it once, while they load
            process.start()
        there.close()  # the child holds this end alone: its end is the end of what it logs
        listening.enter_context(logged_here(here, GRACE))
        return cls(process, slot, errors, listening)

    def failure(self) -> str:
        """Why a process that has ended did not do its work; "" where it did, or was asked to stop."""
        self.process.join()
        self.listening.close()
        code = self.process.exitcode or 0
        if not self.errors.empty():
            return str(self.errors.get())
        if code < 0:
            return f"it was killed ({signal.Signals(-code).name}), perhaps for want of memory"
        return f"it ended with code {code}; its messages before tell why" if code else ""


def _train(runs: FoldRuns, number: int, threads: int, flag: Any, errors: Any, parent: Any, level: int) -> None:
    """In a process of its own."""
    leave_signals()
    log_to_parent(parent, level, f"{fold_name(number)}: ")
    torch.set_num_threads(threads)
    begun = RunFolder(runs.place(number)).plan.is_file()
    options = replace(runs.options, fold=number, resume=begun, progress=False)
    try:
        train_on_dataset(
            runs.dataset, runs.place(number), PlanOptions(runs.plan_file), options, ProcessGroup(flag=flag)
        )
    except Stopped:
        return
    except CpfnetError as error:
        errors.put(str(error))
    except Exception as error:
        if os.environ.get("CPFNET_DEBUG"):
            traceback.print_exc()
        errors.put(f"unexpected {type(error).__name__}: {redacted_message(error)}")


def gpus_of(device: str) -> list[str]:
    """Those that folds can be dealt out to, as CUDA_VISIBLE_DEVICES calls them; none where one device is named."""
    if device not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))


def _is_done(runs: FoldRuns, number: int) -> bool:
    """Has a fold's run ended, its report included?

    Raises:
        TrainingError: it was trained on other cases.
    """
    place = runs.place(number)
    try:
        model = Model.load(place)
    except CpfnetError:  # not yet; or damaged, which its run says
        return False
    if model.plan.hash != runs.plan.hash or "history" not in model.metrics or not (place / "report.html").is_file():
        return False
    train, validation = runs.parts[number]
    for kind, cases in (("train", train), ("validation", validation)):
        if differing := {case.id for case in cases}.symmetric_difference(model.metrics["cases"][kind]):
            raise TrainingError(
                f"was trained when the data set had other cases ({', '.join(sorted(differing)):.200})",
                where=place,
                fix="go on with the data set as it was, or begin a cross-validation in another folder",
            )
    return True


def _progress(runs: FoldRuns, running: Collection[int], unfinished: Collection[int]) -> tuple[int, str]:
    """Epochs that all folds have behind them, and where those are that are being trained."""
    every, done, figures = runs.plan.training.epochs, 0, []
    for number in range(len(runs.parts)):
        if number not in unfinished:
            done += every
            continue
        rows = _history(runs.place(number) / "logs" / "history.csv")
        done += len(rows)
        if number in running:
            dice = f", Dice {float(rows[-1]['dice']):.4f}" if rows and rows[-1]["dice"] else ""
            figures.append(f"{fold_name(number)}: epoch {min(len(rows) + 1, every)}/{every}{dice}")
    ended = len(runs.parts) - len(unfinished)
    return done, "; ".join([f"{ended} of {len(runs.parts)} done", *figures])


def _history(file: Path) -> list[dict[str, str]]:
    """The rows of a run's history, one an epoch."""
    with suppress(OSError), file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
    return []

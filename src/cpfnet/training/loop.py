"""The loop: learn, validate, keep the best, and leave a checkpoint wherever the run may stop."""

from __future__ import annotations

import csv
import logging
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning_fabric.loggers import TensorBoardLogger

from cpfnet.errors import NetworkError, TrainingError
from cpfnet.files import replacing
from cpfnet.inference.sliding_window import predict_array
from cpfnet.inference.torch_backend.network import torch_backend
from cpfnet.model import Fitted, FittedChannel, Model, Range
from cpfnet.planning import Plan
from cpfnet.training import checkpoint
from cpfnet.training.calibrate.fit import Findings, fit
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from cpfnet.training.hardware.precision import choose_precision
from cpfnet.training.own_parts import own_parts
from cpfnet.training.progress_display import CaseCounter, Display
from cpfnet.training.samples.cache import Cached, disk_error
from cpfnet.training.samples.patches import Patches, Sample, batches
from cpfnet.training.samples.validation_subset import Window, choose_cases, choose_pieces
from cpfnet.training.signals import Interruption, Stopped
from cpfnet.training.train_step import OutOfMemory, Task
from cpfnet.training.validation import validate

logger = logging.getLogger(__name__)

FRESH = 20.0
"""Seconds for which a checkpoint is good enough at the end of an epoch.

On a GPU an epoch may take less than to write one.
"""


@dataclass
class Run:
    """A run between two of its checkpoints.

    Attributes:
        folder, plan, task: what is written where, how and what is learned.
        patches: training samples.
        validation: held-out cases; after an epoch all of them are scored, or the part that `training.validation` says.
            Where there are none, the last epoch is kept.
        digests: what the data were.
        group: this process among those of the run; the main one writes.
        first_stage: where the plan has one, the Models that stay with this one.
        findings: what is kept as fitted where no case validates.
        number: samples learned from so far; with the seed it says all about the data to come.
        micro_batch_size: samples in a batch: the plan's, or what memory was found to hold.
        losses: sum of the losses of this epoch's samples.
        seconds: spent on this epoch so far.
        history: one row an epoch.
        best: the highest validation Dice so far.
    """

    folder: RunFolder
    plan: Plan
    task: Task
    patches: Patches
    validation: Sequence[Cached]
    digests: dict[str, str]
    group: ProcessGroup = SINGLE_PROCESS
    first_stage: tuple[Model, ...] = ()
    findings: Findings | None = None
    number: int = 0
    losses: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    micro_batch_size: int = field(init=False)
    _first_stage: tuple[str, ...] = field(init=False)
    _scored: Sequence[Cached] = field(init=False)
    _pieces: dict[str, list[Window]] | None = field(init=False, default=None)
    _ticked: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.micro_batch_size = self.plan.training.batch
        self._first_stage = tuple(model.digest for model in self.first_stage)
        self._scored = self.validation
        if (part := self.plan.training.validation) is not None:
            self._scored = choose_cases(self.validation, part.cases)
            self._pieces = {case.id: choose_pieces(case, self.plan, part.pieces) for case in self._scored}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a checkpoint."""
        self.task.load_state_dict(state["task"])
        self.number, self.losses, self.seconds = state["number"], state["losses"], state["seconds"]
        self.history, self.best = state["history"], state["best"]
        if self._pieces is not None and state.get("pieces"):  # the same pixels, though the tile may be another now
            self._pieces = {
                case: [tuple(slice(*ends) for ends in window) for window in windows]
                for case, windows in state["pieces"].items()
            }
        self.micro_batch_size = min(self.micro_batch_size, state.get("share", self.micro_batch_size) * self.group.size)
        logger.info(f"Going on after step {self.task.schedule.step(self.number)} of {self.task.schedule.steps}.")

    def save(self) -> None:
        """Write a checkpoint: one for all, who differ in nothing."""
        self._tick()
        if self.group.is_main_process:
            checkpoint.save(self._state(), self.folder.checkpoint)
        self._saved = time.monotonic()

    def _state(self) -> dict[str, Any]:
        return {
            "plan": self.plan.model_dump(mode="json"),
            "task": self.task.state_dict(),
            "number": self.number,
            "losses": self.losses,
            "seconds": self.seconds,
            "history": self.history,
            "best": self.best,
            "pieces": self._pieces
            and {
                case: [[(part.start, part.stop) for part in window] for window in windows]
                for case, windows in self._pieces.items()
            },
            "share": self.micro_batch_size // self.group.size,
            "digests": self.digests,
            "device": self.task.fabric.device.type,
            "precision": choose_precision(self.plan.training, self.task.fabric.device),
            "threads": torch.get_num_threads(),
            "processes": self.group.size,
        }

    def fit(self, interruption: Interruption, *, bar: bool, checkpoint_every: float) -> None:
        """Learn and validate to the end; on an interruption write a checkpoint and stop.

        Where memory does not hold a batch, the step is done again in smaller ones. The first step is the trial: only
        real samples under the real optimiser tell what a step takes, and what does not fit later is met in the same
        way.
        """
        schedule, training = self.task.schedule, self.plan.training
        dice = self.history[-1]["dice"] if self.history else None
        self.task.record(self.micro_batch_size)
        stream = self._stream()
        # What an interrupted run logged after its last checkpoint is overwritten.
        board = TensorBoardLogger(self.folder.logs, "tensorboard", "", purge_step=schedule.step(self.number) + 1)
        self._saved = self._ticked = time.monotonic()
        with ExitStack() as ending:
            ending.callback(board.finalize, "ended")  # its thread must not outlive a process that only trains
            display = ending.enter_context(Display(schedule, start=self.number, dice=dice, bar=bar))
            while True:
                try:
                    if self.group.any(bool(interruption.asked)):
                        raise Stopped(interruption.asked or signal.SIGTERM)  # one of the others was asked
                    if len(self.history) < self.number // training.samples:
                        self._end_epoch(display, board, interruption)
                        if self.number >= schedule.samples or self._unsaved >= min(FRESH, checkpoint_every):
                            self.save()
                except (Stopped, NetworkError):  # what cannot be validated as planned may be after --resume
                    self.save()
                    raise
                if self.number >= schedule.samples:
                    return
                size = schedule.group_size(self.number)
                try:
                    value = self.task.step(islice(stream, -(-size // self.micro_batch_size)), self.number, self.patches)
                except OutOfMemory as lack:
                    if not self.task.forget():
                        self._divide(min(self.micro_batch_size, size), str(lack))
                    stream = self._stream()
                    continue
                self.number += size
                self.losses += value * size
                display.step(self.number, value, self.task.optimiser.param_groups[0]["lr"])
                if self._unsaved >= checkpoint_every:
                    self.save()

    @property
    def _unsaved(self) -> float:
        """Seconds since the last checkpoint."""
        return time.monotonic() - self._saved

    def _stream(self) -> Iterator[Sample]:
        cuda = self.task.fabric.device.type == "cuda"
        return iter(
            batches(
                self.patches, self.number, group=self.group, micro_batch_size=self.micro_batch_size, pin_memory=cuda
            )
        )

    def _divide(self, tried: int, cause: str) -> None:
        """Make batches half as large as the one that was tried.

        Raises:
            TrainingError: it had one sample; or there are other processes, which wait for the rest of this step.
        """
        place = self.task.fabric.device
        patch = "×".join(map(str, self.plan.spatial.patch))
        pooled = bool(self.plan.training.loss.options.get("pooled"))
        if self.group.size > 1:
            half = max(1, tried // self.group.size // 2)
            raise TrainingError(
                f"the memory of device {self.group.rank + 1} of {self.group.size} does not hold its "
                f"{tried // self.group.size} of {tried} patches of {patch} ({cause})",
                fix=f"for a new run, set training.batch={half * self.group.size} and "
                f"training.accumulate={-(-self.task.schedule.group // (half * self.group.size))}: the steps stay the "
                f"same{' but for Dice: set training.loss.options.pooled=false, too' * pooled}; "
                "or train on more devices",
            )
        if tried == 1:
            raise TrainingError(
                f"the memory of {place} does not hold one patch of {patch} for {self.plan.network.name} ({cause})",
                fix="for a new run, choose a smaller spatial.patch or network, or a device with more memory",
            )
        self.micro_batch_size = (tried + 1) // 2
        parts = -(-self.task.schedule.group // self.micro_batch_size)
        logger.warning(
            f"{place} is out of memory with {tried} patches at once: going on with {self.micro_batch_size}, "
            f"{parts} times a step (training.batch={self.micro_batch_size}, training.accumulate={parts}), "
            f"from the same step ({cause}){'; Dice is pooled over these' * pooled}"
        )

    def _tick(self) -> None:
        now = time.monotonic()
        self.seconds, self._ticked = self.seconds + now - self._ticked, now

    def _end_epoch(self, display: Display, board: TensorBoardLogger, interruption: Interruption) -> None:
        began = time.monotonic()

        def advance(done: int, total: int) -> None:
            display.validating(done, total)
            interruption.check()

        scores = validate(self.task.segment, self._scored, self.plan, advance, self.group, self._pieces)
        better = self.best is None or (scores["dice"] is not None and scores["dice"] > self.best)
        epoch = len(self.history) + 1
        self._tick()
        self.history.append(
            {
                "epoch": epoch,
                "step": self.task.schedule.step(self.number),
                "loss": self.losses / self.plan.training.samples,
                "learning_rate": self.task.optimiser.param_groups[0]["lr"],
                "dice": scores["dice"],
                **{f"dice {name}": value for name, value in scores["classes"].items()},
                "images_per_second": display.rate,
                "seconds": self.seconds,
            }
        )
        self.losses = self.seconds = 0.0
        if better:
            self.best = scores["dice"]
        if better and self.group.is_main_process:
            self._model(scores, epoch).save(self.folder.out)
        if self.group.is_main_process:
            self._log(board)
        display.pause(time.monotonic() - began)
        display.epoch(self.history[-1], best=better and bool(self.validation))

    def _model(self, scores: dict[str, Any], epoch: int) -> Model:
        cases = self.patches.cases
        channels = [
            FittedChannel(
                name=channel.name,
                low=min(case.quantiles[k][0] for case in cases),
                high=max(case.quantiles[k][1] for case in cases),
                levels=_ranges([case.levels[k] for case in cases]),
            )
            for k, channel in enumerate(self.plan.channels)
        ]
        spacings = list(zip(*(c.spacing for c in cases if c.spacing is not None), strict=True))
        fitted = Fitted(
            plan_hash=self.plan.hash,
            cases=len(cases),
            epochs=epoch,
            channels=tuple(channels),
            spacing_low=tuple(map(min, spacings)) or None,
            spacing_high=tuple(map(max, spacings)) or None,
            validation_dice=scores["dice"] if self._pieces is None else None,
            first_stage=self._first_stage,
        )
        ids = {"train": [c.id for c in cases], "validation": [c.id for c in self.validation]}
        # Scores of pieces, half of them on structures, are not those of cases: `finish` has these.
        parts = own_parts(self.plan)
        metrics = {"cases": ids} | ({"validation": scores} if self._pieces is None else {})
        metrics |= {"parts": parts} if parts else {}
        return Model(self.plan, fitted, self.task.best.state_dict(), metrics, first_stage=self.first_stage)

    def _log(self, board: TensorBoardLogger) -> None:
        """The history as CSV, whole each time, and the last row for TensorBoard."""
        row = self.history[-1]
        with (
            replacing(self.folder.logs / "history.csv", overwrite=True) as path,
            path.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(row))
            writer.writeheader()
            writer.writerows(self.history)
        try:
            board.log_metrics({key: value for key, value in row.items() if value is not None}, row["step"])
            board.save()
        except OSError as error:
            raise disk_error(error, self.folder.logs) from None

    def finish(self, interruption: Interruption, *, bar: bool) -> Model:
        """Complete the best Model with what else can be fitted and the history.

        The cache goes, the checkpoint stays for more epochs.
        """
        self.task.forget()
        model = Model.load(self.folder.out, allow_import=self.task.allow_import)
        model.plan = self.plan
        scores, found = self._judge(model, interruption, bar)
        updates = {"plan_hash": self.plan.hash, "validation_dice": scores["dice"], **found.values}
        model.fitted = model.fitted.model_copy(update=updates)
        model.metrics |= {
            "history": self.history,
            "validation": scores,
            "fitting": found.notes,
            "calibration": found.calibration,
        }
        model.save(self.folder.out)
        shutil.rmtree(self.folder.cache, ignore_errors=True)
        logger.info(found.brief())
        none = model.fitted.validation_dice is None and bool(self.validation)
        no_class = " (no class was there to be found in the validation cases)" * none
        which = "best" if self.validation else "last"
        logger.info(f"Done: the {which} Model, of epoch {model.fitted.epochs}{no_class}, is in {self.folder.out}")
        return model

    def _judge(self, model: Model, interruption: Interruption, bar: bool) -> tuple[dict[str, Any], Findings]:
        """Scores of the best Model on whole cases, and what they tell."""
        backend = torch_backend(model, str(self.task.fabric.device))
        whole, scores = self.validation, model.metrics.get("validation", {})

        def segment(array: np.ndarray) -> np.ndarray:
            return predict_array(backend, array, self.plan)

        if (part := self.plan.training.validation) is not None:
            whole = choose_cases(self.validation, part.whole or len(self.validation))
            with CaseCounter("Scoring whole cases", bar, interruption) as advance:
                scores = validate(segment, whole, self.plan, advance)
        if not self.validation:
            return scores, self.findings or Findings.none("no case was held out")
        if {c.id for c in self.validation} <= {c.id for c in self.patches.cases}:
            return scores, Findings.none("the validation cases are the training cases")
        with CaseCounter("Fitting", bar, interruption) as advance:
            return scores, fit(
                lambda case: segment(np.asarray(case.image())), whole, self.plan, advance, self.patches.cases
            )


def _ranges(levels: Sequence[tuple[float, float, float] | None]) -> tuple[Range, Range, Range] | None:
    """Lowest and highest of each figure over the cases; None where one of them is not known."""
    known = [one for one in levels if one is not None]
    if len(known) < len(levels):
        return None
    low, median, high = ((min(values), max(values)) for values in zip(*known, strict=True))
    return low, median, high

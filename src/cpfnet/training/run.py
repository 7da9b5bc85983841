"""Train: from a dataset and a plan to a Model, interrupted and resumed at any moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpfnet.data.case import Case, Dataset
from cpfnet.data.splits import split
from cpfnet.errors import CpfnetError, NetworkError, TrainingError
from cpfnet.inference.backends.out_of_memory import cause, exhausted
from cpfnet.messages import merge_messages
from cpfnet.model import Model
from cpfnet.planning import Plan
from cpfnet.training import checkpoint
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from cpfnet.training.first_stage import FirstStage, find, open_first_stage
from cpfnet.training.hardware.malloc import kept_memory
from cpfnet.training.hardware.precision import choose_precision, fabric_for
from cpfnet.training.initial_weights import first_network, weights_of
from cpfnet.training.loop import Run
from cpfnet.training.options import TrainOptions
from cpfnet.training.progress_display import CaseCounter
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.cache import Cached
from cpfnet.training.samples.patches import Patches, explain
from cpfnet.training.signals import Interruption, Stopped
from cpfnet.training.train_step import Task

logger = logging.getLogger(__name__)

VISIBLE = 90.0
"""Seconds after which a network file system shows everywhere what was written on one machine."""


def train(
    dataset: Dataset, plan: Plan, out: Path, options: TrainOptions, group: ProcessGroup = SINGLE_PROCESS
) -> Model:
    """Train a Model; what plan and folder do not allow was refused before (`from_dataset`).

    Args:
        dataset: with labels.
        plan: as approved.
        out: the Model's folder.
        options: how to train; ``devices`` and ``nodes`` are those of ``group`` now.
        group: the processes that train it together, all of which call this; they have met.

    Returns:
        The best Model by validation Dice, as written to ``out``.

    Raises:
        CpfnetError: data, weights or device do not allow it; the loss diverged; the disk is full.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, once a checkpoint is written.
    """
    folder = RunFolder(Path(out))
    start = group.run_on_all(lambda: _start(dataset, plan, folder, options, group))
    group.run_on_main(lambda: _begin(folder, None if start.state else plan, options))
    if group.size > 1:
        group.run_on_all(lambda: _find(folder))
    with kept_memory(), Interruption(group.flag, listen=group.flag is None) as interruption:
        try:
            return _learn(start, plan, folder, options, group, interruption)
        except KeyboardInterrupt as stop:
            place = "here" if isinstance(stop, Stopped) else "its last checkpoint"
            logger.info(f"Stopped. The same command with --resume goes on from {place}, to the same result.")
            raise
        except (RuntimeError, MemoryError) as error:
            raise _explained(error, plan) or error from None


@dataclass(frozen=True)
class _Start:
    """What a run begins or goes on with.

    Attributes:
        device, precision: to compute on and in.
        state: the checkpoint that it goes on from; None: it begins.
        training, validation: cases.
        network: on the CPU, with its first weights.
        first_stage: whose masks it sees, if any.
    """

    device: torch.device
    precision: str
    state: dict[str, Any] | None
    training: Sequence[Case]
    validation: Sequence[Case]
    network: nn.Module
    first_stage: FirstStage


def _start(dataset: Dataset, plan: Plan, folder: RunFolder, options: TrainOptions, group: ProcessGroup) -> _Start:
    """Find what cannot be (a device, a network, its weights) before anything is written."""
    device = group.device(options.device)
    precision = choose_precision(plan.training, device)
    state = _resumed(folder, plan, device, precision, group) if options.resume else None
    if options.resume and state is None:  # it was stopped before its first checkpoint
        folder.check_init(weights_of(options.init))
    training, validation = split(dataset, plan, options.fold)
    first_stage = open_first_stage(options.first_stage, plan, training, validation, options.allow_import)
    random = state is not None or not group.is_main_process  # the main process' weights will be everybody's
    progress = options.progress and group.is_main_process
    network = first_network(
        plan, init=options.init, random=random, progress=progress, allow_import=options.allow_import
    )
    return _Start(device, precision, state, training, validation, network, first_stage)


def _begin(folder: RunFolder, plan: Plan | None, options: TrainOptions) -> None:
    folder.make()
    if plan is not None:
        folder.keep_init(weights_of(options.init))
        plan.save(folder.plan)


def _learn(
    start: _Start, plan: Plan, folder: RunFolder, options: TrainOptions, group: ProcessGroup, interruption: Interruption
) -> Model:
    progress = options.progress and group.is_main_process
    cases = [*start.training, *start.validation]
    shown = group.run_on_main(lambda: _first_stage(start, cases, plan, folder, progress, interruption))
    cached = group.run_on_main(lambda: _cached(cases, plan, folder, shown, progress, interruption))
    if start.state is None:
        for message in merge_messages((c.id, c.warnings) for c in cached):
            logger.warning(message)
    training, validation = cached[: len(start.training)], cached[len(start.training) :]
    digests = {f"train/{c.id}": c.digest for c in training} | {f"validation/{c.id}": c.digest for c in validation}
    if (state := start.state) is not None:
        group.run_on_main(lambda: _go_on(state, digests, plan, folder))
    fabric = fabric_for(start.device, start.precision, group)
    task = Task(start.network, plan, fabric, allow_import=options.allow_import)
    patches, kept = Patches(training, plan, Augmenter(plan)), start.first_stage.kept
    run = Run(folder, plan, task, patches, validation, digests, group, kept, options.findings)
    if state is None:
        size = sum(p.numel() for p in start.network.parameters())
        epochs, steps = plan.training.epochs, task.schedule.steps_per_epoch
        logger.info(
            f"Training {plan.network.name} ({size:,} weights) on {_named(start.device, group)} in {start.precision}: "
            f"{len(training)} case{'s' * (len(training) != 1)}, {len(validation)} for validation, "
            f"{epochs} epoch{'s' * (epochs != 1)} of {steps} step{'s' * (steps != 1)}"
        )
    else:
        run.restore(state)
    run.fit(interruption, bar=progress, checkpoint_every=options.checkpoint_every)
    return group.run_on_main(lambda: run.finish(interruption, bar=progress))


def _explained(error: RuntimeError | MemoryError, plan: Plan) -> CpfnetError | None:
    """What an error of PyTorch's means; None where that is not known."""
    if exhausted(error):  # where no smaller batch helps
        return TrainingError(
            f"memory does not suffice, and no smaller batch would help: {cause(error)}",
            fix="close other programs and go on with --resume; or choose a smaller network for a new run",
        )
    if "finished reduction in the prior iteration" in str(error):  # DDP's words
        return NetworkError(
            f"some weights of {plan.network.name} have no part in its output in training, and several devices wait for "
            "their gradients",
            fix="leave these layers out, switch off their gradients (requires_grad_(False)), or train on one device",
        )
    return explain(error) if isinstance(error, RuntimeError) else None


def _find(folder: RunFolder) -> None:
    """Make sure that all processes write to and read from the same place; network file systems show new files late."""
    end = time.monotonic() + VISIBLE
    while not folder.plan.is_file():
        if time.monotonic() > end:
            raise TrainingError(
                f"is not the same folder on all machines: after {VISIBLE:.0f} s one of them does not see what another "
                "wrote",
                where=folder.out,
                fix="choose a folder on a file system that all machines share",
            )
        time.sleep(0.2)


def _named(device: torch.device, group: ProcessGroup) -> str:
    if group.size == 1:
        return str(device)
    machines = group.size // group.local_size
    return f"{group.size} × {device.type}" + (f" ({machines} machines)" if machines > 1 else "")


def _go_on(state: dict[str, Any], digests: dict[str, str], plan: Plan, folder: RunFolder) -> None:
    checkpoint.check_data(state["digests"], digests, folder.out)
    plan.save(folder.plan)  # only now is it known that the run goes on under it


def _resumed(
    folder: RunFolder, plan: Plan, device: torch.device, precision: str, group: ProcessGroup
) -> dict[str, Any] | None:
    """The checkpoint to go on from, once it is known to fit; None where there is none yet."""
    if not folder.checkpoint.is_file():
        logger.info(f"No checkpoint in {folder.out}: starting from the beginning.")
        return None
    state = checkpoint.load(folder.checkpoint)
    old = checkpoint.plan_of(state, folder.checkpoint)
    checkpoint.check_same(old, plan, folder.out)
    if plan.training.epochs < state["number"] / plan.training.samples:
        raise TrainingError(
            f"{plan.training.epochs} epochs are asked for, and {state['number'] / plan.training.samples:.1f} are done",
            where=folder.out,
            fix="ask for more epochs; the Model of the best epoch so far lies in the folder",
        )
    if plan.training.epochs != old.training.epochs:
        logger.warning(
            f"{plan.training.epochs} epochs instead of {old.training.epochs}: the learning rate follows a schedule "
            "stretched to the new length from here on, so the result differs from a run planned so from the start."
        )
    then, now = (state["device"], state["precision"]), (device.type, precision)
    if then != now:
        logger.warning(
            f"The run began on {' in '.join(then)} and goes on on {' in '.join(now)}: results will differ slightly."
        )
    before = state.get("processes", 1)
    if before != group.size:
        logger.warning(
            f"The run began on {before} device{'s' * (before != 1)} and goes on on {group.size}: results differ by "
            "rounding."
        )
    elif device.type == "cpu" and state["threads"] != torch.get_num_threads():
        logger.info(f"Computing with {state['threads']} threads, as the run began.")
        torch.set_num_threads(state["threads"])
    return state


def _first_stage(
    start: _Start, cases: Sequence[Case], plan: Plan, folder: RunFolder, progress: bool, interruption: Interruption
) -> dict[str, Path]:
    """What the first stage finds in each case; empty where there is none."""
    if not plan.first_stage:
        return {}
    with CaseCounter("First stage", progress, interruption) as advance:
        place = folder.cache / "first_stage"
        return find(start.first_stage, cases, plan, place, device=str(start.device), advance=advance)


def _cached(
    cases: Sequence[Case],
    plan: Plan,
    folder: RunFolder,
    shown: dict[str, Path],
    progress: bool,
    interruption: Interruption,
) -> list[Cached]:
    with CaseCounter("Preparing cases", progress, interruption) as advance:
        return cache.build(cases, plan, folder.cache, first_stage=shown, advance=advance)

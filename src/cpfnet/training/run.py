"""Train: from a dataset and a plan to a Model, interrupted and resumed at any moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cpfnet.data.case import Case, Dataset
from cpfnet.data.splits import split
from cpfnet.errors import NetworkError, TrainingError
from cpfnet.inference.backends.out_of_memory import cause, exhausted
from cpfnet.inference.torch_backend.network import pick_device
from cpfnet.messages import merge_messages
from cpfnet.model import Model
from cpfnet.planning import Plan
from cpfnet.training import checkpoint, loss
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from cpfnet.training.hardware.malloc import kept_memory
from cpfnet.training.hardware.precision import choose_precision, fabric_for
from cpfnet.training.initial_weights import first_network
from cpfnet.training.loop import Run
from cpfnet.training.progress_display import counted
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.cache import Cached
from cpfnet.training.samples.patches import Patches, check_shares, explain
from cpfnet.training.signals import Interruption, Stopped
from cpfnet.training.train_step import Task

logger = logging.getLogger(__name__)

VISIBLE = 90.0
"""Seconds after which a network file system shows everywhere what was written on one machine."""


def train(
    dataset: Dataset,
    plan: Plan,
    out: Path,
    *,
    fold: int | None = None,
    device: str = "auto",
    resume: bool = False,
    init: Path | None = None,
    progress: bool = True,
    checkpoint_every: float = 300.0,
    team: ProcessGroup = SINGLE_PROCESS,
) -> Model:
    """Train a Model.

    Args:
        dataset: with labels.
        plan: as approved.
        out: the Model's folder; must not exist or be empty, unless ``resume``.
        fold: validate on this fold of the plan's cross-validation; default: the dataset's own split, else fold 0.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        resume: go on where the run in ``out`` stopped; on a CPU it ends with the same weights as without the stop.
        init: Model folder whose weights to start from.
        progress: show a bar where there is a terminal.
        checkpoint_every: seconds between checkpoints within an epoch; after an epoch there is one where the last is 20 seconds old.
        team: the processes that train it together, all of which call this; they have met.

    Returns:
        The best Model by validation Dice, as written to ``out``.

    Raises:
        CpfnetError: data, plan, weights, device or ``out`` do not allow it; the loss diverged; the disk is full.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP, once a checkpoint is written.
    """
    progress = progress and team.first
    chosen = pick_device(device) if team.size == 1 else team.device(device)
    folder = RunFolder(Path(out))

    def set_up() -> tuple[str, dict[str, Any] | None, Sequence[Case], Sequence[Case], nn.Module]:
        loss.build(plan)
        check_shares(plan.training, team.size)
        precision = choose_precision(plan.training, chosen)
        if team.first:
            folder.check(resume=resume)
        state = _resumed(folder, plan, chosen, precision, team) if resume else None
        training, validation = split(dataset, plan, fold)
        # What cannot be (a network, its weights) shows before anything is written. The first process' weights will be everybody's.
        random = state is not None or not team.first
        network = first_network(plan, init=init, random=random, progress=progress)
        return precision, state, training, validation, network

    precision, state, training, validation, network = team.each(set_up)

    def begin() -> None:
        folder.make()
        if state is None:
            plan.save(folder.plan)

    team.share(begin)
    if team.size > 1:
        team.each(lambda: _find(folder))
    with kept_memory(), Interruption(team.flag, listen=team.flag is None) as interruption:
        try:
            cached = team.share(lambda: _cached([*training, *validation], plan, folder, progress, interruption))
            if state is None:
                for note in merge_messages((c.id, c.notes) for c in cached):
                    logger.warning(note)
            cases, held_out = cached[: len(training)], cached[len(training) :]
            digests = {f"train/{c.id}": c.digest for c in cases} | {f"validation/{c.id}": c.digest for c in held_out}
            if state is not None:
                team.share(lambda: _go_on(state, digests, plan, folder))
            task = Task(network, plan, fabric_for(chosen, precision, team))
            run = Run(folder, plan, task, Patches(cases, plan, Augmenter(plan)), held_out, digests, team)
            if state is None:
                size = sum(p.numel() for p in network.parameters())
                epochs, steps = plan.training.epochs, task.course.steps_per_epoch
                logger.info(
                    f"Training {plan.network.name} ({size:,} weights) on {_named(chosen, team)} in {precision}: "
                    f"{len(cases)} case{'s' * (len(cases) != 1)}, {len(held_out)} for validation, "
                    f"{epochs} epoch{'s' * (epochs != 1)} of {steps} step{'s' * (steps != 1)}"
                )
            else:
                run.restore(state)
            run.go(interruption, bar=progress, checkpoint_every=checkpoint_every)
            return team.share(lambda: run.finish(interruption, bar=progress))
        except KeyboardInterrupt as stop:
            place = "here" if isinstance(stop, Stopped) else "its last checkpoint"
            logger.info(f"Stopped. The same command with --resume goes on from {place}, to the same result.")
            raise
        except (RuntimeError, MemoryError) as error:
            if exhausted(error):  # where no smaller batch helps
                raise TrainingError(
                    f"memory does not suffice, and no smaller batch would help: {cause(error)}",
                    fix="close other programs and go on with --resume; or choose a smaller network for a new run",
                ) from None
            if "finished reduction in the prior iteration" in str(error):  # DDP's words
                raise NetworkError(
                    f"some weights of {plan.network.name} have no part in its output in training, and several devices wait for "
                    "their gradients",
                    fix="leave these layers out, switch off their gradients (requires_grad_(False)), or train on one device",
                ) from None
            raise (explain(error) if isinstance(error, RuntimeError) else None) or error from None


def _find(folder: RunFolder) -> None:
    """Make sure that all processes write to and read from the same place; network file systems show new files late."""
    end = time.monotonic() + VISIBLE
    while not folder.plan.is_file():
        if time.monotonic() > end:
            raise TrainingError(
                f"is not the same folder on all machines: after {VISIBLE:.0f} s one of them does not see what another wrote",
                where=folder.out,
                fix="choose a folder on a file system that all machines share",
            )
        time.sleep(0.2)


def _named(device: torch.device, team: ProcessGroup) -> str:
    if team.size == 1:
        return str(device)
    machines = team.size // team.local_size
    return f"{team.size} × {device.type}" + (f" ({machines} machines)" if machines > 1 else "")


def plan_of_run(out: Path) -> Plan:
    """The plan that the run in ``out`` began with.

    Raises:
        TrainingError: no run began there.
    """
    folder = RunFolder(Path(out))
    if not folder.plan.is_file():
        raise TrainingError(
            "no training run began here", where=out, fix="give the folder of an interrupted run, or leave out --resume"
        )
    return Plan.load(folder.plan)


def _go_on(state: dict[str, Any], digests: dict[str, str], plan: Plan, folder: RunFolder) -> None:
    checkpoint.check_data(state["digests"], digests, folder.out)
    plan.save(folder.plan)  # only now is it known that the run goes on under it


def _resumed(
    folder: RunFolder, plan: Plan, device: torch.device, precision: str, team: ProcessGroup
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
            f"{plan.training.epochs} epochs instead of {old.training.epochs}: the learning rate follows a schedule stretched "
            "to the new length from here on, so the result differs from a run planned so from the start."
        )
    then, now = (state["device"], state["precision"]), (device.type, precision)
    if then != now:
        logger.warning(
            f"The run began on {' in '.join(then)} and goes on on {' in '.join(now)}: results will differ slightly."
        )
    before = state.get("processes", 1)
    if before != team.size:
        logger.warning(
            f"The run began on {before} device{'s' * (before != 1)} and goes on on {team.size}: results differ by rounding."
        )
    elif device.type == "cpu" and state["threads"] != torch.get_num_threads():
        logger.info(f"Computing with {state['threads']} threads, as the run began.")
        torch.set_num_threads(state["threads"])
    return state


def _cached(
    cases: Sequence[Case], plan: Plan, folder: RunFolder, progress: bool, interruption: Interruption
) -> list[Cached]:
    with counted("Preparing cases", progress) as bar:
        task = bar.add_task("")

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            interruption.check()

        return cache.build(cases, plan, folder.cache, advance=advance)

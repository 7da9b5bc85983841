"""Start the processes of a run on this machine, and end them together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.multiprocessing
from torch.multiprocessing.spawn import ProcessException

from cpfnet.errors import CpfnetError, TrainingError
from cpfnet.training.child_messages import log_to_parent, logged_here
from cpfnet.training.distributed.process_group import ProcessGroup, WorkerLost, announce, joined
from cpfnet.training.signals import Interruption, Stopped, leave_signals

Work = Callable[..., object]
"""Called in every process as ``work(group=…)``; it is pickled on its way there."""

GRACE = 10.0
"""Seconds in which the others may end by themselves, once one has ended; then they are ended."""


def start(work: Work, devices: int, *, device: str) -> None:
    """Run ``work`` in as many processes, one a device; on a CPU they divide the threads.

    Signals are heard here: the first one lets all stop with a checkpoint, the second one ends them. What the main
    process logs is logged here.

    Args:
        work: as `Work`.
        devices: how many.
        device: as `check_devices` allows it.

    Raises:
        CpfnetError: what ended one of them.
        TrainingError: one was killed.
        KeyboardInterrupt: they were stopped.
    """
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # the error below tells it
    context = torch.multiprocessing.get_context("spawn")
    flag, errors = context.RawValue("b", 0), context.SimpleQueue()
    setting = _Setting(
        devices,
        device,
        _free_port(),
        max(1, torch.get_num_threads() // devices),
        multiprocessing.get_start_method(),
        logging.getLogger("cpfnet").getEffectiveLevel(),
    )
    here, there = context.Pipe()
    with Interruption(flag), logged_here(here, GRACE):
        with there:  # the main process holds the other end alone: its end is the end of what it logs
            given = (setting, work, flag, errors, there)
            started = torch.multiprocessing.start_processes(_member, given, devices, join=False)
        try:
            while not started.join(grace_period=GRACE):
                pass
        except ProcessException as ended:
            raise (_first_error(errors) or _killed(ended, started.processes)) from None
        finally:
            for process in started.processes:
                if process.is_alive():
                    process.kill()
    stopped = _first_error(errors)
    if stopped is not None:
        raise stopped


@dataclass(frozen=True)
class _Setting:
    size: int
    device: str
    port: int
    threads: int
    helpers: str
    level: int


def _member(rank: int, setting: _Setting, work: Work, flag: Any, errors: Any, parent: Any) -> None:
    leave_signals()
    if rank == 0:
        log_to_parent(parent, setting.level)
    else:
        parent.close()
    # Else it would be spawn, which takes seconds for each.
    multiprocessing.set_start_method(setting.helpers, force=True)
    os.environ["OMP_NUM_THREADS"] = str(setting.threads)
    torch.set_num_threads(setting.threads)
    group = ProcessGroup(rank, setting.size, rank, setting.size, flag)
    announce(group, "127.0.0.1", setting.port)
    try:
        with joined(group, setting.device, errors.put):
            work(group=group)
    except WorkerLost:  # the other one, or who started it, says why
        sys.exit(1)
    except Stopped as stopped:
        if group.is_main_process:
            errors.put(stopped)
    except Exception as error:
        if not isinstance(error, CpfnetError):  # a defect, then
            error.add_note(traceback.format_exc())
        errors.put(error)
        sys.exit(1)


def _first_error(errors: Any) -> BaseException | None:
    """The error of the first that failed; those of the others follow from it."""
    return None if errors.empty() else errors.get()


def _killed(ended: ProcessException, processes: list[Any]) -> TrainingError:
    """Who ended without a word: the one that was noticed first, save where it only followed another."""
    codes = [process.exitcode for process in processes]
    index = ended.error_index
    if codes[index] >= 0:
        index = next((other for other, code in enumerate(codes) if code < 0), index)
    if codes[index] < 0:
        return TrainingError(
            f"process {index} of {len(codes)} was killed ({signal.Signals(-codes[index]).name}); the others were ended",
            fix="go on with --resume, from the last checkpoint; if memory ran out, set training.workers lower",
        )
    return TrainingError(
        f"process {index} of {len(codes)} ended with code {codes[index]}; the others were ended",
        fix="its messages before tell why; what was learned before can go on with --resume",
    )


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

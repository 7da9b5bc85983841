"""The workers of a server: started, told of new jobs, and started again when they die."""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy.exc import DBAPIError

from cpfnet.errors import redacted_message
from cpfnet.serve.jobs.job_store import JobStore
from cpfnet.serve.worker import Setting

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0
"""Seconds before a worker is started again that keeps dying without a job."""


@dataclass
class _Slot:
    """A place for a worker, in which one follows another."""

    setting: Setting
    process: subprocess.Popen[str] | None = None
    ready: bool = False


class WorkerPool:
    """Worker processes, each watched by a thread.

    Args:
        settings: one a worker; each process gets a name of its own.
        jobs: what dead workers held is given back to it.
        on_failure: called with the reason where a worker says that it can never work: a damaged Model, a runtime that
            is not installed.
    """

    def __init__(self, settings: Sequence[Setting], jobs: JobStore, on_failure: Callable[[str], None]):
        self.jobs, self.on_failure, self.restarts = jobs, on_failure, 0
        self._slots = [_Slot(setting) for setting in settings]
        self._threads = [threading.Thread(target=self._watch, args=(slot,), daemon=True) for slot in self._slots]
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def __enter__(self) -> WorkerPool:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers at once; their jobs are given back."""
        with self._starting:
            self._stopping.set()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()
        for thread in self._threads:
            thread.join()
        with suppress(DBAPIError):  # else the next server does it
            self.jobs.release_all()

    @property
    def ready(self) -> bool:
        """Does every Model have a worker that waits or works?"""
        return {slot.setting.digest for slot in self._slots if slot.ready} == {s.setting.digest for s in self._slots}

    @property
    def processes(self) -> list[int]:
        """Ids of the worker processes that run."""
        return [slot.process.pid for slot in self._slots if slot.process is not None and slot.process.poll() is None]

    def wake(self) -> None:
        """Tell the workers that there is something to do."""
        for slot in self._slots:
            with suppress(OSError, ValueError):  # where it has just died, its successor looks by itself
                if slot.ready and slot.process is not None and slot.process.stdin is not None:
                    slot.process.stdin.write("\n")
                    slot.process.stdin.flush()

    def _watch(self, slot: _Slot) -> None:
        pause = 0.0
        while True:
            setting = replace(slot.setting, name=secrets.token_hex(8))
            with self._starting:
                if self._stopping.is_set():
                    return
                slot.process = process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "cpfnet.serve.worker"],  # -P: no code of the current folder
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    start_new_session=True,  # Ctrl-C is the server's
                )
            failure = self._follow(slot, process, setting)
            worked, slot.ready = slot.ready, False
            if self._stopping.is_set():
                return
            if failure is not None:
                self.on_failure(failure)
                return
            self.restarts += 1
            self._give_back(setting.name)
            logger.warning("A worker ended by itself (%s) and is started again", _why(process.returncode))
            pause = 0.0 if worked else min(2 * pause + 1, LONGEST_PAUSE)
            self._stopping.wait(pause)

    def _follow(self, slot: _Slot, process: subprocess.Popen[str], setting: Setting) -> str | None:
        """Until the process ends; returns why it can never work, if it says so."""
        assert process.stdin is not None
        assert process.stdout is not None
        failure = None
        with suppress(OSError), process:  # it may die before it was told anything
            process.stdin.write(setting.to_json() + "\n")
            process.stdin.flush()
            for line in process.stdout:
                message = json.loads(line)
                slot.ready = slot.ready or bool(message.get("ready"))
                failure = message.get("error")
        return failure

    def _give_back(self, worker: str) -> None:
        while not self._stopping.is_set():
            try:
                self.jobs.worker_died(worker)
                return
            except DBAPIError as error:
                logger.warning("The job store does not answer: %s", redacted_message(error))
                self._stopping.wait(1)


def _why(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"

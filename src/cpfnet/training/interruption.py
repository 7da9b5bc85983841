"""Ctrl-C and termination, heard at a moment when nothing is half done."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType, SimpleNamespace, TracebackType
from typing import Any


class Stopped(KeyboardInterrupt):
    """Stopped where it was safe."""


class Interruption:
    """As a context: the first SIGINT or SIGTERM is only noted, the second one interrupts at once.

    Outside the main thread no signal can be caught, and nothing is.

    Args:
        say: where messages go.
        flag: where it is noted (``value``), so that other processes see it.
        listen: False: another process hears the signals, and notes them in ``flag``.
    """

    def __init__(self, say: Callable[[str], None], flag: Any = None, *, listen: bool = True):
        self._say = say
        self._flag = SimpleNamespace(value=0) if flag is None else flag
        self._listen = listen
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> bool:
        """A signal came; whoever works should stop where it is safe."""
        return bool(self._flag.value)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self._flag.value = 1
        self._say("Stopping after this step … (once more: at once; what was learned since the last checkpoint is lost)")

    def __enter__(self) -> Interruption:
        if self._listen and threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Stop here, if asked.

        Raises:
            Stopped: a signal came.
        """
        if self.asked:
            raise Stopped


def leave_signals() -> None:
    """In a helping process: Ctrl-C and termination are the parent's business, and its end is the helper's.

    Terminals, `timeout` and batch systems send signals to whole groups of processes; helpers that died of them would take
    the parent's last step, and its checkpoint, with them. What the parent itself sends still ends a helper.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        if sys.platform == "linux":
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # so that `_follow` hears it, with its sender
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: BaseProcess) -> None:
    while parent.is_alive():
        if sys.platform == "linux":
            heard = signal.sigtimedwait({signal.SIGTERM}, 1)
            if heard is not None and heard.si_pid == parent.pid:
                break
        else:
            time.sleep(1)
    os._exit(1)

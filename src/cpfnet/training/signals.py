"""Ctrl-C, termination and the loss of the terminal, heard at a moment when nothing is half done."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from types import FrameType, SimpleNamespace, TracebackType
from typing import Any

from cpfnet.terminal import leave_terminal

logger = logging.getLogger(__name__)

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The terminal, or the connection to it, was closed; there is no such signal on Windows."""


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal: Ctrl-C, termination or hang-up.

    Args:
        number: the signal's.
    """

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(number)
        self.number = number


class Stopped(Interrupted):
    """Stopped where it was safe."""


class Interruption:
    """As a context: the first SIGINT, SIGTERM or SIGHUP is only noted, the second one interrupts at once.

    Where SIGHUP is ignored, as under nohup, it stays so. Outside the main thread no signal can be caught, and nothing
    is.

    Args:
        flag: where its number is noted (``value``), so that other processes see it.
        listen: False: another process hears the signals, and notes them in ``flag``.
    """

    def __init__(self, flag: Any = None, *, listen: bool = True):
        self._flag = SimpleNamespace(value=0) if flag is None else flag
        self._listen = listen
        self._before: dict[int, Any] = {}

    @property
    def asked(self) -> int:
        """The number of the signal that came, else 0; whoever works should stop where it is safe."""
        return int(self._flag.value)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            leave_terminal()
            if self.asked:  # shells and terminals send it more than once, and nobody is there to be in a hurry
                return
        elif self.asked:
            raise Interrupted(number)
        self._flag.value = number
        logger.warning(
            "Stopping after this step … (once more: at once; what was learned since the last checkpoint is lost)"
        )

    def __enter__(self) -> Interruption:
        if self._listen and threading.current_thread() is threading.main_thread():
            heard = [int(signal.SIGINT), int(signal.SIGTERM)]
            if HANGUP is not None and signal.getsignal(HANGUP) is not signal.SIG_IGN:
                heard.append(HANGUP)
            self._before = {number: signal.signal(number, self._note) for number in heard}
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
            raise Stopped(self.asked)


def leave_signals() -> None:
    """In a helping process: Ctrl-C, termination and hang-up are the parent's business, and its end is the helper's.

    Terminals, `timeout` and batch systems send signals to whole groups of processes; helpers that died of them would
    take the parent's last step, and its checkpoint, with them. What the parent itself sends still ends a helper.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if HANGUP is not None:
        signal.signal(HANGUP, signal.SIG_IGN)
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

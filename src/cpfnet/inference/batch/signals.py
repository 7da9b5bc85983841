"""Termination and a closed terminal end a run as Ctrl-C does: what is done is listed first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from cpfnet.terminal import leave_terminal

_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(SystemExit):
    """A signal asked for the end; the exit code is 128 + its number, as shells have it."""


def end(number: int) -> NoReturn:
    """End as a signal asks for.

    Raises:
        KeyboardInterrupt: for SIGINT.
        Ended: for others.
    """
    raise KeyboardInterrupt if number == signal.SIGINT else Ended(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    for other in _ENDING:  # shells and batch systems send them more than once
        if signal.getsignal(other) is _raise:
            signal.signal(other, signal.SIG_IGN)
    if number != signal.SIGTERM:
        leave_terminal()
    end(number)


@contextmanager
def ending() -> Iterator[None]:
    """Raise `Ended` where SIGTERM or SIGHUP would end the process at once.

    Where they are ignored (``nohup``) or somebody else hears them, and outside the main thread, all stays as it is.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in _ENDING}
        before = {number: handler for number, handler in before.items() if handler is signal.SIG_DFL}
    with _heard(before, _raise):
        yield


@contextmanager
def _heard(before: dict[int, Any], by: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """These signals are heard by another handler meanwhile."""
    for number in before:
        signal.signal(number, by)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keeping() -> Iterator[None]:
    """What a library makes of signals in between is undone."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDING)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: not from Python
                signal.signal(number, handler)


@contextmanager
def telling(tell: Callable[[int], None]) -> Iterator[None]:
    """The first such signal, Ctrl-C included, is told rather than raised amid anything; the second one is raised."""
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDING)}
        before = {n: handler for n, handler in before.items() if handler in (_raise, signal.default_int_handler)}

    def first(number: int, frame: FrameType | None) -> None:
        for other, handler in before.items():
            signal.signal(other, handler)
        if number not in (signal.SIGINT, signal.SIGTERM):
            leave_terminal()
        tell(number)

    with _heard(before, first):
        yield

"""The progress bar of everything that takes a while: on standard error, and only in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn, TaskID

from cpfnet.text import printable


class Bar(Progress):
    """rich's progress bar, which vanishes when done and writes nothing into files and pipes.

    Descriptions are shown as they are: they name files and cases.

    Args:
        columns: default: description, bar, percentage and time left.
        show: False: never show it.
    """

    def __init__(self, *columns: ProgressColumn | str, show: bool):
        console = Console(stderr=True)
        super().__init__(*columns, console=console, disable=not (show and console.is_terminal), transient=True)

    def start(self) -> None:
        super().start()
        if not self.disable:
            _SHOWN.append(self)

    def add_task(self, description: str, *args: Any, **options: Any) -> TaskID:
        return super().add_task(escape(printable(description)), *args, **options)

    def update(self, task_id: TaskID, *, description: str | None = None, **changes: Any) -> None:
        shown = None if description is None else escape(printable(description))
        super().update(task_id, description=shown, **changes)

    def stop(self) -> None:
        if not self.disable:  # outside a terminal, rich ends even a disabled bar with an empty line
            super().stop()
            if self in _SHOWN:
                _SHOWN.remove(self)


_SHOWN: list[Bar] = []
"""Bars on this process' terminal."""


@contextmanager
def bars_hidden() -> Iterator[None]:
    """Take the bars away while another process writes to the same terminal."""
    shown = [*_SHOWN]
    for bar in shown:
        bar.stop()
    try:
        yield
    finally:
        for bar in shown:
            bar.start()

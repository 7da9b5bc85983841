"""The bar of everything that takes a while: on standard error, and only where that is a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn


class Bar(Progress):
    """rich's progress bar, which vanishes when done and writes nothing at all into files and pipes.

    Args:
        columns: default: description, bar, percentage and time left.
        show: False: never.
    """

    def __init__(self, *columns: ProgressColumn | str, show: bool):
        console = Console(stderr=True)
        super().__init__(*columns, console=console, disable=not (show and console.is_terminal), transient=True)

    def stop(self) -> None:
        if not self.disable:  # off a terminal rich ends even a disabled bar with an empty line
            super().stop()

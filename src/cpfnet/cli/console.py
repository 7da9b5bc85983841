"""What the commands print: messages on stderr, results on stdout.

It is the one door to a terminal: nothing passes it that a terminal would obey. rich loads when something is printed.
"""

from __future__ import annotations

import codecs
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cpfnet.text import printable, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_PLAIN = str.maketrans(
    {"…": "...", "×": "x", "→": "->", "−": "-", "–": "-", "∞": "inf", "±": "+/-", "µ": "u", "≤": "<="}
)
"""Signs of our own messages, for terminals and files that take only some hundred characters."""


def set_up_streams() -> None:
    """Let no character stop a command, and send what other libraries say through the door, too.

    Characters that an encoding lacks are replaced.
    """
    codecs.register_error("cpfnet.plain", _replaced)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # None without a console; and what tests and notebooks put there
            stream.reconfigure(errors="cpfnet.plain")
    own = warnings.formatwarning
    if own.__module__ == "warnings":
        warnings.formatwarning = lambda *args, **more: printable(own(*args, **more), keep="\n")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())


def _replaced(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)  # streams that are written to decode nothing
    found = error.object[error.start : error.end]
    return found.translate(_PLAIN).encode("ascii", "backslashreplace").decode(), error.end


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


@contextmanager
def messages(level: int = logging.INFO) -> Iterator[None]:
    """Print what the package logs, from this level on; other libraries' loggers stay as they are."""
    logger, handler = logging.getLogger("cpfnet"), _Stderr()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False  # a library may give the root logger a handler of its own
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def set_level(level: int) -> None:
    """Change what `messages` prints from here on."""
    logging.getLogger("cpfnet").setLevel(level)


def shows_progress() -> bool:
    """Whether a command shows bars: not with ``--quiet``."""
    return logging.getLogger("cpfnet").isEnabledFor(logging.INFO)


_PREFIXES = {
    logging.ERROR: ("error: ", "bold red"),
    logging.WARNING: ("warning: ", "yellow"),
    logging.DEBUG: ("debug: ", "dim"),
}


class _Stderr(logging.Handler):
    """Messages as a reader of a terminal likes them: a line each; a word in colour tells what is no plain message."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        _write(Text.assemble(_PREFIXES.get(record.levelno, ""), _text(self.format(record))))


def _write(text: Text) -> None:
    """To stderr; where nobody can read any more (a closed connection, a full disk) the work goes on without."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.capture() as written:  # rich itself ends the process where a pipe is closed
        console.print(text, soft_wrap=True)
    try:
        sys.stderr.write(written.get())
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def complain(text: str) -> None:
    """What ends a command, on stderr."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text.assemble(("error: ", "bold red"), _text(text)), soft_wrap=True)


def line(text: str, style: str = "") -> None:
    """A part of the result, on stdout."""
    _output().print(_text(text, style), soft_wrap=True)


def put(text: str) -> None:
    """A result that other programs take, such as a path, on stdout: into files and pipes as it is."""
    print(printable(text, keep="\n") if sys.stdout.isatty() else text)


def put_json(value: Any) -> None:
    """A result for programs, on stdout, in what its encoding has."""
    print(to_json(value, ascii=not (sys.stdout.encoding or "").lower().startswith("utf")))


def table(title: str, columns: list[str], rows: list[list[str]], *, styles: list[str] | None = None) -> None:
    """A result of rows and columns, on stdout."""
    from rich.table import Table

    heading: dict[str, Any] = {"title": _text(title, "table.title"), "title_justify": "left", "header_style": "bold"}
    grid = Table(box=None, pad_edge=False, **heading)
    for column in columns:
        grid.add_column(_text(column), overflow="fold")
    for number, row in enumerate(rows):
        grid.add_row(*map(_text, row), style=styles[number] if styles else None)
    _output().print(grid)


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(printable(text, keep="\n"), style)


def _output() -> Console:
    """Where results go. In files and pipes lines are not broken, so that paths can be found and copied."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=10_000)

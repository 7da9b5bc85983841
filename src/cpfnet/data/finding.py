"""What is wrong with a dataset: one `Finding` for each thing to fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from cpfnet.text import printable

Severity = Literal["error", "warning", "note"]


UNPAIRED = ("unread-format", "names", "channel-number")
"""Kinds that say why images or labels which are there were not found: nothing needs to be added or taken away."""


@dataclass(frozen=True)
class Finding:
    """One problem of a dataset.

    Attributes:
        severity: ``"error"``: training or evaluation would fail or lie; ``"warning"``: look at it; ``"note"``: good to
            know.
        kind: a stable word for programs, such as ``"unreadable"`` or ``"leakage"``.
        where: the file (relative to the dataset's root) or the case.
        what: what was found, with the values.
        fix: what to do, followed literally; ways to choose from are parted by "; or ". Paths stand in backticks,
            relative to the dataset's root.
        case: the case's id, if it is about one.
        files: every file concerned, where one finding stands for many.
        variants: names that mean the same, or nothing yet → the cases that use them.
    """

    severity: Severity
    kind: str
    where: str
    what: str
    fix: str
    case: str | None = None
    files: tuple[str, ...] = ()
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def shown(path: Path, root: Path) -> str:
    """A path as findings print it: relative to the dataset's root where it lies below it."""
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))


def quoted(paths: Iterable[Path], root: Path) -> str:
    """`` `a`, `b` and `c` ``."""
    names = [f"`{shown(path, root)}`" for path in paths]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def elsewhere(paths: Iterable[Path], root: Path) -> str:
    """Words for taking files out of a dataset: moved, for nobody here knows whether they are needed."""
    return f"move {quoted(paths, root)} elsewhere"

"""Which predictions a person should look at first, and the list of them beside the masks."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from cpfnet.errors import OutputError
from cpfnet.files import replacing
from cpfnet.image import Assessment
from cpfnet.inference.batch import records
from cpfnet.text import from_csv_cell, printable, to_csv_cell

COLUMNS = ("mask", "look", "estimated_dice", "estimate_error", "confidence")


def urgency(quality: Assessment) -> tuple[bool, float]:
    """Sorts what to look at first to the front: what has a reason, then by the estimate of Dice, else by confidence."""
    level = quality.confidence if quality.dice is None else quality.dice
    return not quality.look, -math.inf if level is None else level


FEW = 3
"""As many masks with one reason have a line each; more of them share one."""


def summary(judged: Mapping[str, Assessment]) -> list[tuple[str, str, str]]:
    """What to look at first, the most urgent on top: masks, their estimated Dice, and why.

    A reason that many share has one line.

    Args:
        judged: by the name of the mask.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(judged, key=lambda name: urgency(judged[name])):
        if judged[name].look:
            groups.setdefault(_reason(judged[name].look), []).append(name)
    rows = []
    for reason, names in groups.items():
        if len(names) <= FEW:
            rows += [(name, _estimate([judged[name]]), judged[name].look) for name in names]
        else:
            shown = f"{', '.join(names[:FEW])} and {len(names) - FEW} more"
            rows.append(
                (shown, _estimate([judged[name] for name in names]), f"{len(names)} masks: {'; '.join(reason)}")
            )
    return rows


def _reason(look: str) -> tuple[str, ...]:
    """Why to look, without the figures of the one mask."""
    return tuple(part.rpartition(": ")[0] or part for part in look.split("; "))


def _estimate(several: Sequence[Assessment]) -> str:
    known = sorted(quality.dice for quality in several if quality.dice is not None)
    if not known:
        return "not known"
    dice = f"{known[0]:.2f}" if len(several) == 1 else f"{known[0]:.2f} … {known[-1]:.2f}"
    error = next((quality.error for quality in several if quality.error is not None), None)
    return dice if error is None else f"{dice}, errs by {error:.2f}"


def read_list(path: Path) -> dict[str, dict[str, str]]:
    """The rows of an earlier list, by the name of their mask; none where there is no file.

    Raises:
        OutputError: another file is in the way.
    """
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [*reader]
            if tuple(reader.fieldnames or ()) == COLUMNS and all(map(_whole, rows)):
                return {from_csv_cell(row["mask"]): {k: from_csv_cell(v) for k, v in row.items()} for row in rows}
    except (OSError, ValueError, csv.Error, KeyError):
        pass
    raise OutputError(
        "is not a list that predict wrote, and would be replaced", where=path, fix="write to another folder (-o)"
    )


def write_list(path: Path) -> None:
    """Write one row for each mask in a folder, what to look at first on top, from the records beside them.

    Without masks nothing is written.

    Args:
        path: ``quality.csv`` in the folder of the masks. Several processes may write it at once: the last one sees all
            records.

    Raises:
        OutputError: another file is in the way, or it cannot be written.
    """
    with _one_at_a_time(path.parent):
        rows = []
        for name, record in records.each(path.parent):
            if record.mask is None or record.quality is None:
                continue
            mask = record.mask.replace("*", name, 1)
            if (path.parent / mask).exists():
                rows.append(_row(printable(mask), record.quality))
        if not read_list(path) and not rows:
            return
        with (
            replacing(path, overwrite=True) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows({k: to_csv_cell(v) for k, v in row.items()} for row in sorted(rows, key=_order))


@contextmanager
def _one_at_a_time(out: Path) -> Iterator[None]:
    """Nobody writes an older list over a newer one, where the file system has locks."""
    place = out / ".cpfnet" / "quality.lock"
    lock = FileLock(place, timeout=60)
    if place.parent.is_dir():  # else there is no record
        with suppress(OSError, NotImplementedError):  # Timeout, too: one that was stopped holds it
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _row(name: str, quality: Assessment) -> dict[str, str]:
    values = (quality.dice, quality.error, quality.confidence)
    texts = ("" if value is None else f"{value:.4f}" for value in values)
    return dict(zip(COLUMNS, (name, quality.look, *texts), strict=True))


def _whole(row: Mapping[str, str]) -> bool:
    """Has it these cells and no others? `ValueError` where one that should be a number is none."""
    _order(row)
    return tuple(row) == COLUMNS and None not in row.values()


def _order(row: Mapping[str, str]) -> tuple[bool, float]:
    dice, error, confidence = (float(row[name]) if row[name] else None for name in COLUMNS[2:])
    return urgency(Assessment(confidence, dice, error, row["look"]))

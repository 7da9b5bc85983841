"""Which predictions a person should look at first, and the list of them beside the masks."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from cpfnet.errors import OutputError
from cpfnet.files import replacing
from cpfnet.image import Assessment

COLUMNS = ("mask", "look", "estimated_dice", "estimate_error", "confidence")


def urgency(quality: Assessment) -> tuple[bool, float]:
    """Sorts what to look at first to the front: what has a reason, then by the estimate of Dice, else by confidence."""
    level = quality.confidence if quality.dice is None else quality.dice
    return not quality.look, -math.inf if level is None else level


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
            rows = {row["mask"]: row for row in reader}
            if tuple(reader.fieldnames or ()) == COLUMNS and all(map(_whole, rows.values())):
                return rows
    except (OSError, ValueError, csv.Error, KeyError):
        pass
    raise OutputError(
        "is not a list that predict wrote, and would be replaced", where=path, mend="write to another folder (-o)"
    )


def write_list(path: Path, judged: Mapping[str, Assessment]) -> None:
    """Write one row a mask, what to look at first on top; rows of other masks from an earlier list stay.

    Args:
        path: ``quality.csv`` in the folder of the masks.
        judged: by the name of the mask.

    Raises:
        OutputError: another file is in the way, or it cannot be written.
    """
    rows = read_list(path) | {name: _row(name, quality) for name, quality in judged.items()}
    with (
        replacing(path, overwrite=True) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(sorted(rows.values(), key=_order))


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

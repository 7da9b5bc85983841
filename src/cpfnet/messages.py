"""What is to be said about images and labels that were read: repaired, assumed, missing; of many, each thing once."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cpfnet.contour_gaps import gaps
from cpfnet.image import Image
from cpfnet.labels import missing_classes
from cpfnet.planning import Labels

_SHOWN = 5
_MOST_ALIKE = 3
"""More notes of one kind than these are told as one."""

_NUMBERS = re.compile(r"[0-9][0-9.,% ]*…?")


def of_label(label: Image, labels: Labels) -> tuple[str, ...]:
    """Everything to be said about one label: what was repaired, which classes nothing means, which slices a structure skips.

    Args:
        label: as read.
        labels: the Plan's.
    """
    return (*label.notes, *missing_classes(label, labels), *map(str, gaps(label, labels)))


def gathered(notes: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Each note once, with the cases that it is about; of many that differ in numbers alone, the first.

    Args:
        notes: name of a case and its notes (`cpfnet.image.Source.notes`).

    Returns:
        ``"CASE, CASE …: note"``, in the order in which they first came.
    """
    kinds: dict[str, dict[str, dict[str, None]]] = {}
    for name, said in notes:
        for note in said:
            kinds.setdefault(_NUMBERS.sub("", note), {}).setdefault(note, {})[name] = None
    out = []
    for alike in kinds.values():
        if len(alike) > _MOST_ALIKE:
            first, names = next(iter(alike)), dict.fromkeys(name for about in alike.values() for name in about)
            out.append(f"{_listed(names)}: {first} (the first; the others likewise)")
        else:
            out += [f"{_listed(names)}: {note}" for note, names in alike.items()]
    return out


def _listed(names: Iterable[str]) -> str:
    shown = [*names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"{', '.join(shown[:_SHOWN])}{more}"

"""Messages about images and labels that were read: what was repaired, assumed or missing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from cpfnet.contour_gaps import find_gaps
from cpfnet.image import Image
from cpfnet.labels import missing_classes
from cpfnet.planning import Labels

_SHOWN = 5
_MOST_SIMILAR = 3
"""More messages of one kind than these are shown as one."""

_NUMBERS = re.compile(r"[0-9][0-9.,% ]*…?")


def label_messages(label: Image, labels: Labels) -> tuple[str, ...]:
    """All messages about one label: what was repaired, classes that no structure means, slices that a structure skips.

    Args:
        label: as read.
        labels: the Plan's.
    """
    return (*label.warnings, *missing_classes(label, labels), *map(str, find_gaps(label, labels)))


def merge_messages(messages: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """Each message once, with the cases that it is about; of many that differ only in numbers, the first.

    Args:
        messages: name of a case and its messages (`cpfnet.image.Source.warnings`).

    Returns:
        ``"CASE, CASE …: message"``, in the order in which they first came.
    """
    kinds: dict[str, dict[str, dict[str, None]]] = {}
    for case, texts in messages:
        for text in texts:
            kinds.setdefault(_NUMBERS.sub("", text), {}).setdefault(text, {})[case] = None
    out = []
    for similar in kinds.values():
        if len(similar) > _MOST_SIMILAR:
            first, cases = next(iter(similar)), dict.fromkeys(case for group in similar.values() for case in group)
            out.append(f"{_listed(cases)}: {first} (the first; the others likewise)")
        else:
            out += [f"{_listed(cases)}: {text}" for text, cases in similar.items()]
    return out


def _listed(names: Iterable[str]) -> str:
    shown = [*names]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return f"{', '.join(shown[:_SHOWN])}{more}"

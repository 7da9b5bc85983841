"""What results are called: the path of their input below what was given, without suffix.

What lies beside an input has no part in it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

BESIDE_MASKS = ("probabilities", "uncertainty", "overlays")
"""Folders of the output folder that hold other results than masks."""


@dataclass(frozen=True)
class Name:
    """Of a result.

    Attributes:
        parts: all folders of its input, and the input itself without suffix.
        used: how many of them, from the end, make the name.
    """

    parts: tuple[str, ...]
    used: int

    def __str__(self) -> str:
        return "/".join(self.parts[-self.used :])


def below(given: Path, folder: Path, *last: str) -> Name:
    """The rule: the path of an input below the folder that was given, and its own name where it was given itself.

    Links are not followed: everything is called as the user calls it.

    Args:
        given: the folder, or the one that a file or archive which was given lies in.
        folder: of an input the folder that it lies in; of a DICOM series of several files the folder that it is.
        last: of an input that is a file its name without suffix.
    """
    parts = (*_parts(folder), *last)
    return Name(parts, max(len(parts) - len(_parts(given)), 1))


def _parts(folder: Path) -> tuple[str, ...]:
    return Path(os.path.abspath(folder)).parts[1:]  # noqa: PTH100 (resolve() follows links)


def distinct(names: Sequence[Name], suffixes: Sequence[str]) -> list[str]:
    """The names as text; only those that repeat grow.

    They grow by their suffix where even their folders are the same, else by as many folders as it takes.
    Inputs that no folder and no suffix tells apart keep one name.

    Args:
        names: of all inputs.
        suffixes: of their files.
    """
    often = Counter(name.parts for name in names)
    grown = [
        replace(name, parts=(*name.parts[:-1], name.parts[-1] + suffix.replace(".", "_")))
        if often[name.parts] > 1
        else name
        for name, suffix in zip(names, suffixes, strict=True)
    ]
    same = Counter(name.parts for name in grown)
    while True:
        texts = [str(name) for name in grown]
        count = Counter(texts)
        again = [
            number
            for number, (name, text) in enumerate(zip(grown, texts, strict=True))
            if (count[text] > 1 or (name.used > 1 and name.parts[-name.used] in BESIDE_MASKS))
            and name.used < len(name.parts)
            and same[name.parts] == 1
        ]
        if not again:
            return texts
        for number in again:
            grown[number] = replace(grown[number], used=grown[number].used + 1)

"""Structures that may overlap, in one label map: each set of structures that occurs in a pixel has a number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from cpfnet.errors import DatasetError, FormatError
from cpfnet.image import Image, Source, geometry_difference
from cpfnet.planning import Labels

_COMBINATIONS = 2**16


def select_structures(names: dict[int, str], labels: Labels | None, where: Path | None = None) -> dict[int, str]:
    """The structures that mean one of the classes; all of them without `labels`.

    Raises:
        DatasetError: none of them does.
    """
    if labels is None:
        return names
    selected = {number: name for number, name in names.items() if any(c.means(name) for c in labels.classes)}
    if selected:
        return selected
    classes = ", ".join(c.name for c in labels.classes)
    raise DatasetError(
        f"none of its structures ({', '.join(names.values()) or 'there are none'}) is one of the classes ({classes})",
        where=where,
        fix="add the name to `names` of its class under `labels`, such as `names: ['GTV*']`, or take the case out",
    )


def duplicate_names(names: Iterable[str], what: str) -> tuple[str, ...]:
    """Messages about structures that have the same name and become one."""
    return tuple(
        f"{count} {what} are named {name!r}: taken together" for name, count in Counter(names).items() if count > 1
    )


class OverlapMap:
    """A label map to which structures are added one by one, in any order; it takes the memory of one map.

    Args:
        shape: (depth, height, width).
        names: of the structures that may be added; the label knows even those that never are.
    """

    def __init__(self, shape: tuple[int, int, int], names: Iterable[str]):
        self._array = np.zeros(shape, dtype=np.uint16)
        self._numbers: dict[frozenset[str], int] = {}
        self._sets: list[frozenset[str]] = []
        self._number(frozenset())
        for name in names:
            self._number(frozenset({name}))

    @property
    def depth(self) -> int:
        """Slices."""
        return len(self._array)

    def _number(self, structures: frozenset[str]) -> int:
        if structures not in self._numbers:
            if len(self._sets) == _COMBINATIONS:
                raise FormatError(
                    f"its structures cover each other in more than {_COMBINATIONS} combinations",
                    fix="list only the structures that are wanted as classes",
                )
            self._numbers[structures] = len(self._sets)
            self._sets.append(structures)
        return self._numbers[structures]

    def add(self, name: str, index: int, mask: np.ndarray) -> None:
        """Add a structure to the pixels of a mask.

        Args:
            name: of the structure.
            index: the slice.
            mask: bool ``(height, width)``.
        """
        pixels = np.flatnonzero(mask)
        plane = self._array[index].reshape(-1)
        before = plane[pixels]
        lookup = np.zeros(len(self._sets), dtype=np.uint16)
        for number in np.flatnonzero(np.bincount(before)):
            lookup[number] = self._number(self._sets[number] | {name})
        plane[pixels] = lookup[before]

    def image(self, shape: tuple[int, ...], affine: np.ndarray | None, source: Source) -> Image:
        """The label: ``(1, *shape)`` uint8 or uint16 and its meanings."""
        array = self._array.astype(np.uint8) if len(self._sets) <= 2**8 else self._array
        return Image(array.reshape(1, *shape), affine, ("structures",), None, source, meanings=tuple(self._sets))


def overlaid(labels: Sequence[Image], paths: tuple[Path, ...]) -> Image:
    """Labels of one grid, each with structures of its own, as one.

    Raises:
        FormatError: they lie on different grids.
    """
    first = labels[0]
    depth, height, width = shape = (1, *first.shape)[-3:]
    out = OverlapMap(
        (depth, height, width), sorted({name for label in labels for names in label.meanings or () for name in names})
    )
    for label in labels:
        if difference := geometry_difference(first.shape, first.affine, label.shape, label.affine):
            raise FormatError(
                f"its labels lie on different grids: {difference}", fix="give the image that they were drawn on"
            )
        array, meanings = label.array.reshape(shape), label.meanings or ()
        drawn = np.flatnonzero(array.any(axis=(1, 2))).tolist()
        for name in sorted(frozenset[str]().union(*meanings)):
            numbers = [number for number, names in enumerate(meanings) if name in names]
            for index in drawn:
                out.add(name, index, np.isin(array[index], numbers))
    warnings = tuple(dict.fromkeys(warning for label in labels for warning in label.warnings))
    return out.image(first.shape, first.affine, Source(paths, "dicom", warnings=warnings))

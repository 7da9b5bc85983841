"""The structures of a Segmentation: each class of the Plan with its DICOM attributes and its pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpfnet import labels
from cpfnet.errors import OutputError
from cpfnet.formats.dicom.attributes import derived_uid
from cpfnet.formats.dicom.codes import COLOURS, code_for
from cpfnet.formats.file_types import exact_labels
from cpfnet.image import Image, Segmentation
from cpfnet.planning import Code, LabelClass, Labels


@dataclass(frozen=True)
class Structure:
    """The DICOM attributes of a class.

    Attributes:
        number: from 1, in the order of the Plan.
        name: at most 64 characters, without backslash.
        category, type: coded.
        colour: ``#rrggbb``.
    """

    number: int
    name: str
    category: Code
    type: Code
    colour: str

    @property
    def rgb(self) -> tuple[int, int, int]:
        """``colour`` in 0…255."""
        red, green, blue = bytes.fromhex(self.colour[1:])
        return red, green, blue

    def tracking(self, series: str) -> tuple[str, str]:
        """Tracking identifier and UID: the same for the same structure of the same series, whatever found it."""
        return f"{self.name} of …{series[-12:]}", derived_uid("tracking", series, self.name)


@dataclass(frozen=True)
class Structures:
    """All classes of a Plan, also those without a pixel: they were searched for, too.

    Attributes:
        items: in the order of the Plan.
        codes: ``([depth,] height, width)`` code map, see `cpfnet.labels`.
        table: bool ``(256, classes)``: does code c belong to class k?
    """

    items: tuple[Structure, ...]
    codes: np.ndarray
    table: np.ndarray

    @property
    def overlap(self) -> bool:
        """Can a pixel belong to several of them?"""
        return bool((self.table.sum(axis=1) > 1).any())

    def masks(self) -> Iterator[tuple[Structure, np.ndarray]]:
        """Each with its pixels, bool like ``codes``."""
        for structure in self.items:
            yield structure, self.table[:, structure.number - 1][self.codes]


def describe_classes(classes: tuple[LabelClass, ...]) -> tuple[Structure, ...]:
    """The DICOM attributes of classes: those that the Plan gives, else by their names and order."""
    out = []
    for number, c in enumerate(classes, start=1):
        category, kind = code_for(c.name)
        name = c.name.replace("\\", "/")[:64]
        colour = c.colour or COLOURS[(number - 1) % len(COLOURS)]
        out.append(Structure(number, name, c.category or category, c.type or kind, colour))
    return tuple(out)


def structures(segmentation: Segmentation, where: Path) -> Structures:
    """The classes of a Segmentation; without `Segmentation.labels`, each value except 0 is a class.

    Raises:
        OutputError: values that are not those of its labels.
    """
    array = exact_labels(segmentation.array, where)
    planes = array[None] if array.ndim == segmentation.array.ndim else np.moveaxis(array, -1, 0)
    definitions = segmentation.labels
    if definitions is None:
        values = [labels.value_of(int(value)) for value in np.unique(labels.pack(planes)) if value] or [1]
        if len(values) > 253:
            raise OutputError(
                f"{len(values)} label values; at most 253 can be told apart", where=where, fix="write NIfTI"
            )
        definitions = Labels(classes=tuple(LabelClass(name=f"label {v}", values=(v,)) for v in values))
    codes = labels.encode_prediction(Image(planes), definitions, where=str(where))
    codes[codes == labels.IGNORED] = 0
    return Structures(describe_classes(definitions.classes), codes, labels.membership(definitions))

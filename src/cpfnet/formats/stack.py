"""A folder of numbered pictures as one volume: ``FOLDER/stack=5x0.8x0.8``, with mm between slices, rows and columns.

Pictures have no millimetres, and a folder of them is as often one of many images: so the path itself says what it is.
Slices come in the order of their numbers. Of a patient a picture says nothing: axes are taken as left, posterior,
superior.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats import raster
from cpfnet.formats.file_types import RASTER_SUFFIXES, STACK, Header, check_expansion, check_readable, stem, suffix_of
from cpfnet.image import Image, Source
from cpfnet.text import natural

_AXES = "a stack of pictures is not placed in the patient: its axes are taken as left, posterior, superior"


def _affine(path: Path) -> np.ndarray:
    words = path.name.removeprefix(STACK).split("x")
    try:
        spacing = [float(word) for word in words]
    except ValueError:
        spacing = []
    if len(spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise FormatError(
            f"gives {'x'.join(words)!r:.60} as distances in a stack of pictures",
            where=path,
            fix="write the mm between slices, rows and columns, such as stack=5x0.8x0.8",
        )
    return np.diag([*spacing, 1.0])[[2, 1, 0, 3]]


def files(path: Path) -> tuple[Path, ...]:
    """The slices, in the order of their numbers.

    Raises:
        FormatError: there is none, or one that is no file; their names differ in more than one number; numbers are
            missing, or there twice.
    """
    folder = path.parent
    check_readable(path)
    pictures = [
        entry for entry in folder.iterdir() if suffix_of(entry) in RASTER_SUFFIXES and not entry.name.startswith(".")
    ]
    pictures.sort(key=lambda entry: natural(entry.name))
    if not pictures:
        raise FormatError(
            "holds no picture",
            where=folder,
            fix=f"give the folder of the slices: a file each, such as slice_001.png, then /{path.name}",
        )
    again = "let the names of the slices differ in one number alone, and keep nothing else in their folder"
    first = pictures[0]
    parts = [re.split(r"(\d+)", stem(picture)) for picture in pictures]
    for picture, part in zip(pictures, parts, strict=True):
        if part[::2] != parts[0][::2] or suffix_of(picture) != suffix_of(first):
            raise FormatError(f"{first.name} and {picture.name} are not called alike", where=folder, fix=again)
        check_readable(picture)
    columns = [[int(word) for word in column] for column in list(zip(*parts, strict=True))[1::2]]
    several = [column for column in columns if len({*column}) > 1] or columns[-1:]
    if len(several) != 1:
        count = len(several)
        raise FormatError(
            f"{first.name} … {pictures[-1].name} differ in {count} numbers" if count else f"{first.name} has no number",
            where=folder,
            fix=again,
        )
    (numbers,) = several
    for number, following, a, b in zip(numbers, numbers[1:], pictures, pictures[1:], strict=False):
        if number == following:
            raise FormatError(
                f"{a.name} and {b.name} have the same number", where=folder, fix="leave one of them in it"
            )
        if following != number + 1:
            missing = str(number + 1) if following == number + 2 else f"{number + 1} to {following - 1}"
            raise FormatError(
                f"lacks the slices {missing}, between {a.name} and {b.name}",
                where=folder,
                fix="add them; if none is missing, number the slices without gaps",
            )
    return tuple(pictures)


def _agree(first: Header | Image, other: Header | Image, names: tuple[str, str], folder: Path) -> None:
    def kind(one: Header | Image) -> str:
        dtype = one.array.dtype if isinstance(one, Image) else one.dtype
        return f"{'×'.join(map(str, one.shape))} {dtype}, {', '.join(one.channels)}"

    if len(first.shape) != 2 or kind(first) != kind(other):
        raise FormatError(
            f"{names[0]} is {kind(first)}; {names[1]} is {kind(other)}"
            if kind(first) != kind(other)
            else f"{names[0]} is a volume itself: {kind(first)}",
            where=folder,
            fix="give all slices one size and kind",
        )


def read_header(path: Path) -> Header:
    """Size and kind of all slices, without their pixels."""
    slices, affine = files(path), _affine(path)
    first = raster.read_header(slices[0])
    for picture in slices:
        _agree(first, raster.read_header(picture), (slices[0].name, picture.name), path.parent)
    return Header((len(slices), *first.shape), affine, first.channels, first.dtype)


def read(path: Path) -> Image:
    """``(channels, depth, height, width)``: the channels of a picture, a slice each, in the order of their numbers.

    Raises:
        FormatError: as `files`; or slices are of different sizes or kinds.
    """
    header = read_header(path)
    slices = files(path)
    array = np.empty((len(header.channels), *header.shape), header.dtype)
    check_expansion(sum(picture.stat().st_size for picture in slices), array.nbytes, array.nbytes)
    warnings: dict[str, None] = {}
    for index, picture in enumerate(slices):
        image = raster.read(picture)
        array[:, index] = image.array
        warnings |= dict.fromkeys(image.warnings)
    source = Source(slices, "raster", {"suffix": ".tif", "reference": path}, (*warnings, _AXES))
    return Image(array, header.affine, header.channels, source=source)

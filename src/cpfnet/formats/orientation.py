"""The orientation tag of photographs (EXIF and TIFF tag 274): pixels are turned at the door, as viewers show them.

A camera held upright stores its picture lying down, and says so in the tag. From here on there is only the picture that people see: masks
that are read have a tag of their own or none, and masks that are written lie upright and need none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_TAG = 274
_SIDEWAYS = (5, 6, 7, 8)
"""Values that exchange height and width."""
_IN_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def _known(value: object) -> int:
    return int(value) if isinstance(value, (int, float)) and value in range(1, 9) else 1


def tag_of(picture: ImageFile) -> tuple[int, tuple[str, ...]]:
    """The tag of an image that Pillow opened, 1 … 8, in EXIF or XMP; 1 (as stored) where there is none, and what is to be said of that."""
    try:
        return _known(picture.getexif().get(_TAG, 1)), ()
    except Exception:  # Pillow raises anything on damaged EXIF data; decoding the pixels tells whether more is damaged
        return 1, ("its EXIF data are damaged: taken as it is stored, whatever orientation they gave",)


def tag_of_page(page: Any) -> int:
    """The tag of a TIFF page of tifffile, 1 … 8; as Pillow, in XMP where the page itself has none."""
    if (value := page.tags.valueof(_TAG)) is None:
        found = _IN_XMP.search(xmp if isinstance(xmp := page.tags.valueof(700), bytes) else b"")
        value = int(found[1]) if found else 1
    return _known(value)


def upright(array: np.ndarray, tag: int) -> np.ndarray:
    """``(…, height, width)`` as stored → as viewers show it; a view."""
    if tag in _SIDEWAYS:
        array = array.swapaxes(-1, -2)
    if tag in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    return array[..., ::-1] if tag in (2, 3, 6, 7) else array


def upright_size(size: tuple[int, int], tag: int) -> tuple[int, int]:
    """(height, width) as stored → as viewers show it."""
    return (size[1], size[0]) if tag in _SIDEWAYS else size


def notes_on(tag: int) -> tuple[str, ...]:
    """What is to be said of a picture with this tag."""
    return (
        ()
        if tag == 1
        else (f"orientation tag {tag}: turned as viewers show it; masks are read and written that way, too",)
    )


def drawn_as_stored(shape: tuple[int, ...], tag: int, other: tuple[int, ...], its_tag: int) -> str | None:
    """Why a mask and its picture differ in size, where the orientation tag of one of them is the reason; else None.

    Args:
        shape, tag: of the picture, upright.
        other, its_tag: of the mask.
    """
    if shape == other or len(shape) != 2 or shape[::-1] != other or (tag in _SIDEWAYS) == (its_tag in _SIDEWAYS):
        return None
    if tag in _SIDEWAYS:
        return (
            f"is drawn on the stored pixels ({other[0]}×{other[1]}); the image has the orientation tag {tag}, "
            f"with which viewers show it as {shape[0]}×{shape[1]}"
        )
    return f"has the orientation tag {its_tag}, which turns it to {other[0]}×{other[1]}; the image has none, and is {shape[0]}×{shape[1]}"

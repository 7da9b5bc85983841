"""The orientation tag of photographs (EXIF and TIFF tag 274): pixels are turned when read, as viewers show them.

A camera held upright stores its picture lying down, and says so in the tag. All other code sees only the picture that
people see: masks that are read have their own tag or none, and masks that are written are upright and need none.
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
    """The tag of an image that Pillow opened, 1 … 8, in EXIF or XMP; 1 (as stored) if there is none; and warnings."""
    try:
        return _known(picture.getexif().get(_TAG, 1)), ()
    except Exception:  # Pillow raises anything on damaged EXIF data; decoding the pixels shows whether more is damaged
        return 1, ("its EXIF data are damaged: taken as it is stored, whatever orientation they gave",)


def tag_of_page(page: Any) -> int:
    """The tag of a TIFF page of tifffile, 1 … 8; from XMP if the page itself has none, as in Pillow."""
    if (value := page.tags.valueof(_TAG)) is None:
        match = _IN_XMP.search(xmp if isinstance(xmp := page.tags.valueof(700), bytes) else b"")
        value = int(match[1]) if match else 1
    return _known(value)


def upright(array: np.ndarray, tag: int) -> np.ndarray:
    """``(…, height, width)`` as stored → as viewers show it; a view."""
    if tag in _SIDEWAYS:
        array = array.swapaxes(-1, -2)
    if tag in (3, 4, 7, 8):
        array = array[..., ::-1, :]
    return array[..., ::-1] if tag in (2, 3, 6, 7) else array


def is_sideways(tag: int) -> bool:
    """Are rows stored as columns?"""
    return tag in _SIDEWAYS


def upright_size(size: tuple[int, int], tag: int) -> tuple[int, int]:
    """(height, width) as stored → as viewers show it."""
    return (size[1], size[0]) if is_sideways(tag) else size


def orientation_warnings(tag: int) -> tuple[str, ...]:
    """The message about a picture that was turned because of this tag."""
    if tag == 1:
        return ()
    return (f"orientation tag {tag}: turned as viewers show it; masks are read and written that way, too",)


def orientation_mismatch(shape: tuple[int, ...], tag: int, other: tuple[int, ...], its_tag: int) -> str | None:
    """Why a mask and its picture differ in size, if the orientation tag of one of them is the reason; else None.

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
    return (
        f"has the orientation tag {its_tag}, which turns it to {other[0]}×{other[1]}; "
        f"the image has none, and is {shape[0]}×{shape[1]}"
    )

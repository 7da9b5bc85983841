"""Class numbers in a container that changes values: what JPEG makes of 0, 1, 2 looks like a label, and is another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.image import Image

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_IN_TIFF = (6, 7, 99, 33007, 34892)  # numbers of compressions
_LARGEST = 63
"""Larger values are greys: the poles of a soft mask."""

_SHARE = 0.005
"""Of the pixels that lie in patches of one small number: numbers of classes. Around the edges of a mask there are no patches."""

_PATCH = 5
"""Pixels along a side of the smallest patch."""


class LossyLabelError(FormatError):
    """A label of small integers lies in a format that changes values."""


def refuse_numbers(label: Image, path: Path) -> None:
    """Refuse the numbers of classes in JPEG, alone or in TIFF; soft masks, whose poles lie far apart, can be read.

    Raises:
        LossyLabelError: such a file.
    """
    if label.array.ndim != 3 or label.array.dtype != np.uint8 or not _is_lossy(path):
        return
    grey = label.array.max(axis=0)
    highest = int(grey.max(initial=0))
    if not highest or (highest > _LARGEST and not _in_patches(grey)):
        return
    numbers = grey[(grey > 0) & (grey <= _LARGEST)]
    raise LossyLabelError(
        f"holds small numbers ({numbers.min()} to {numbers.max()}) in JPEG: class numbers stored so are changed by its compression",
        where=path,
        mend="take the original drawing, not this file, and save it as PNG",
    )


def _is_lossy(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\xff\xd8":
        return True
    if start not in _TIFF:
        return False
    import tifffile

    with tifffile.TiffFile(path) as tif:
        return any(page.aspage().compression in _JPEG_IN_TIFF for page in tif.pages)


def _in_patches(grey: np.ndarray) -> bool:
    """Do small numbers fill patches, the commonest value (the background) aside?"""
    from scipy.ndimage import maximum_filter, minimum_filter

    small = (grey > 0) & (grey <= _LARGEST) & (grey != np.bincount(grey.ravel()).argmax())
    if small.mean() < _SHARE:
        return False
    flat = maximum_filter(grey, _PATCH) == minimum_filter(grey, _PATCH)
    return bool((small & flat).mean() >= _SHARE)

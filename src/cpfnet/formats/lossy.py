"""Refuse class numbers in formats that change values (JPEG, JPEG 2000, WebP).

They turn 0, 1, 2 into another, valid-looking label.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.jpeg2000 import STARTS
from cpfnet.image import Image
from cpfnet.planning import Labels

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_IN_TIFF = (6, 7, 99, 33007, 34892)  # numbers of compressions
_LARGEST = 63
"""Larger values are greys: the poles of a soft mask."""

_SHARE = 0.005
"""More than this share of the pixels lies in patches of one small number: then these are classes. Around the edges of a
mask there are no patches."""

_PATCH = 5
"""Pixels along a side of the smallest patch."""

_FLAT, _APART = 8, 16
"""Greys of one patch differ by no more than the first; the greys of two classes differ by more than the second."""


class LossyLabelError(FormatError):
    """A label of small integers is stored in a format that changes values."""


def refuse_lossy_classes(label: Image, path: Path, labels: Labels | None = None) -> None:
    """Refuse classes in JPEG (alone or in TIFF), JPEG 2000 and lossy WebP.

    Soft masks of one class, whose poles are far apart, can be read.

    Args:
        label: as read.
        path: its file.
        labels: the declared labels: with a threshold, any number of greys can be read.

    Raises:
        LossyLabelError: such a file.
    """
    if label.array.ndim != 3 or label.array.dtype != np.uint8 or not (kind := _lossy_kind(path)):
        return
    grey = label.array.max(axis=0)
    highest = int(grey.max(initial=0))
    fix = "take the original drawing, not this file, and save it as PNG"
    if highest and (highest <= _LARGEST or _in_patches(grey)):
        numbers = grey[(grey > 0) & (grey <= _LARGEST)]
        raise LossyLabelError(
            f"holds small numbers ({numbers.min()} to {numbers.max()}) in {kind}: "
            "class numbers stored so are changed by its compression",
            where=path,
            fix=fix,
        )
    if (labels is None or labels.threshold is None) and len(levels := _levels(grey)) > 2:
        greys = ", ".join(map(str, levels))
        raise LossyLabelError(
            f"holds several classes in {kind}, of greys near {greys}: its compression has changed their values",
            where=path,
            fix=fix,
        )


def _lossy_kind(path: Path) -> str:
    """The format, if it changes values; else ""."""
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF" and start[8:] == b"WEBP":
            return "WebP" if b"VP8 " in file.read(2**16) else ""  # the chunk of lossy pixels; VP8L is without loss
    if start[:2] == b"\xff\xd8":
        return "JPEG"
    if start.startswith(STARTS):
        return "JPEG 2000"  # whether something was left out, its header does not tell
    if start[:4] not in _TIFF:
        return ""
    import tifffile

    with tifffile.TiffFile(path) as tif:
        return "JPEG" if tif.pages.first.compression in _JPEG_IN_TIFF else ""  # the one page that is read


def _in_patches(grey: np.ndarray) -> bool:
    """Do small numbers, other than the commonest value (the background), fill patches?"""
    small = (grey > 0) & (grey <= _LARGEST) & (grey != np.bincount(grey.ravel()).argmax())
    if small.mean() < _SHARE:
        return False
    return bool((small & _flat(grey, 0)).mean() >= _SHARE)


def _levels(grey: np.ndarray) -> list[int]:
    """The greys that fill patches."""
    counts = np.bincount(grey[_flat(grey, _FLAT)], minlength=256)
    greys = np.flatnonzero(counts)
    groups = np.split(greys, np.flatnonzero(np.diff(greys) > _APART) + 1) if greys.size else []
    return [int(group[counts[group].argmax()]) for group in groups if counts[group].sum() >= _SHARE * grey.size]


def _flat(grey: np.ndarray, step: int) -> np.ndarray:
    """The pixels around which no two greys of the patch differ by more than ``step``."""
    from scipy.ndimage import maximum_filter, minimum_filter

    return np.asarray(maximum_filter(grey, _PATCH) - minimum_filter(grey, _PATCH) <= step)

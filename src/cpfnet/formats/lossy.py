"""Class numbers in a container that changes values: what JPEG makes of 0, 1, 2 looks like a label, and is another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.image import Image
from cpfnet.planning import Labels

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_JPEG_IN_TIFF = (6, 7, 99, 33007, 34892)  # numbers of compressions
_LARGEST = 63
"""Larger values are greys: the poles of a soft mask."""

_SHARE = 0.005
"""Of the pixels that lie in patches of one small number: numbers of classes. Around the edges of a mask there are no patches."""

_PATCH = 5
"""Pixels along a side of the smallest patch."""

_FLAT, _APART = 8, 16
"""Greys of one patch differ by no more than the first; between those of two classes is a gap of the second."""


class LossyLabelError(FormatError):
    """A label of small integers lies in a format that changes values."""


def refuse_numbers(label: Image, path: Path, labels: Labels | None = None) -> None:
    """Refuse the classes of JPEG, alone or in TIFF; soft masks of one class, whose poles lie far apart, can be read.

    Args:
        label: as read.
        path: its file.
        labels: what is declared: a threshold reads any number of greys.

    Raises:
        LossyLabelError: such a file.
    """
    if label.array.ndim != 3 or label.array.dtype != np.uint8 or not _is_lossy(path):
        return
    grey = label.array.max(axis=0)
    highest = int(grey.max(initial=0))
    fix = "take the original drawing, not this file, and save it as PNG"
    if highest and (highest <= _LARGEST or _in_patches(grey)):
        numbers = grey[(grey > 0) & (grey <= _LARGEST)]
        raise LossyLabelError(
            f"holds small numbers ({numbers.min()} to {numbers.max()}) in JPEG: class numbers stored so are changed by its compression",
            where=path,
            fix=fix,
        )
    if (labels is None or labels.threshold is None) and len(levels := _levels(grey)) > 2:
        raise LossyLabelError(
            f"holds several classes in JPEG, of greys near {', '.join(map(str, levels))}: its compression has changed their values",
            where=path,
            fix=fix,
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
        return tif.pages.first.compression in _JPEG_IN_TIFF  # the one page that is read


def _in_patches(grey: np.ndarray) -> bool:
    """Do small numbers fill patches, the commonest value (the background) aside?"""
    small = (grey > 0) & (grey <= _LARGEST) & (grey != np.bincount(grey.ravel()).argmax())
    if small.mean() < _SHARE:
        return False
    return bool((small & _flat(grey, 0)).mean() >= _SHARE)


def _levels(grey: np.ndarray) -> list[int]:
    """The greys that fill patches."""
    counts = np.bincount(grey[_flat(grey, _FLAT)], minlength=256)
    found = np.flatnonzero(counts)
    groups = np.split(found, np.flatnonzero(np.diff(found) > _APART) + 1) if found.size else []
    return [int(group[counts[group].argmax()]) for group in groups if counts[group].sum() >= _SHARE * grey.size]


def _flat(grey: np.ndarray, step: int) -> np.ndarray:
    """Around which pixels no grey of the patch differs from another by more than ``step``."""
    from scipy.ndimage import maximum_filter, minimum_filter

    return np.asarray(maximum_filter(grey, _PATCH) - minimum_filter(grey, _PATCH) <= step)

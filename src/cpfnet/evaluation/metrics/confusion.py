"""One pass over two code maps for all classes: pixel counts, and the place of each structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from cpfnet.evaluation.metrics.binary import Counts

Box = tuple[slice, ...]


def confusion(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """How often each pair of codes meets.

    Args:
        prediction, truth: code maps.
        valid: bool; pixels that count.

    Returns:
        int64 ``(256, 256)``: code of the prediction × code of the truth.
    """
    pairs = prediction.astype(np.uint16) << 8
    pairs |= truth
    return np.bincount(pairs[valid], minlength=1 << 16).reshape(256, 256)


def counts_of(table: np.ndarray, member: np.ndarray) -> Counts:
    """Counts of one class, given its codes (bool, 256) and the `confusion` of two code maps."""
    predicted, true = table[member].sum(), table[:, member].sum()
    tp = table[np.ix_(member, member)].sum()
    return Counts(int(tp), int(predicted - tp), int(true - tp), int(table.sum() - predicted - true + tp))


def boxes(codes: np.ndarray) -> list[Box | None]:
    """The bounding box of each code from 1; None, or nothing, for codes that do not occur."""
    return ndimage.find_objects(codes)


def union(maps: Sequence[Sequence[Box | None]], member: np.ndarray, ndim: int) -> Box:
    """The box around all codes of a class (bool, 256) in several maps' `boxes`; empty if none occurs."""
    parts = [box for each in maps for code, box in enumerate(each, start=1) if box is not None and member[code]]
    if not parts:
        return (slice(0, 0),) * ndim
    return tuple(slice(min(b[i].start for b in parts), max(b[i].stop for b in parts)) for i in range(ndim))

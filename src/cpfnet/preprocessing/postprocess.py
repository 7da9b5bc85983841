"""From probabilities to classes: calibrate, decide, and drop components too small to be real. NumPy and SciPy only.

The parameters (temperature, thresholds, sizes) are fitted after training, on the validation cases, and kept
in the Model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from cpfnet.planning import Labels
from cpfnet.preprocessing.lazy_volume import run_length
from cpfnet.rounding import above, below


def activate(logits: np.ndarray, *, exclusive: bool) -> np.ndarray:
    """Softmax over axis 1 for exclusive classes, else a sigmoid. In NumPy: SciPy's take a third of a second to import.

    Args:
        logits: ``(N, planes, …)``; finite.
        exclusive: the planes shall sum to 1.

    Returns:
        Probabilities of the same shape and dtype.
    """
    if exclusive:
        raised = np.exp(logits - logits.max(axis=1, keepdims=True))
        raised /= raised.sum(axis=1, keepdims=True)
        return raised
    small = np.exp(-np.abs(logits))  # of both signs, so that nothing overflows
    return np.where(logits >= 0, 1, small) / (1 + small)


def calibrate(probabilities: np.ndarray, temperature: float, *, exclusive: bool) -> np.ndarray:
    """Temperature scaling (Guo et al., ICML 2017): logits divided by T, written for probabilities.

    Exclusive classes: p^(1/T), divided by the sum over the planes, which is the softmax of logits / T. Regions: the
    same for the pair p, 1 − p, which is the sigmoid. The order among classes and the side of 0.5 never change.
    Calibrating by T and then by U is calibrating by T·U.

    Args:
        probabilities: float32 ``(planes, …)``, 0…1, as the network gives them; **changed in place**.
        temperature: above 1 softens, below 1 sharpens.
        exclusive: the planes sum to 1.

    Returns:
        ``probabilities``.
    """
    if temperature == 1:
        return probabilities
    power = np.float32(1 / temperature)
    if exclusive:
        np.power(probabilities, power, out=probabilities)
        probabilities /= probabilities.sum(axis=0)
    else:
        for plane in probabilities:
            rest = complement(plane) ** power
            np.power(plane, power, out=plane)
            plane /= plane + rest
    return probabilities


def complement(probability: np.ndarray) -> np.ndarray:
    """1 − p, at least 2⁻²⁴, the smallest difference from 1 that float32 may hide: certainty must not be infinite."""
    return np.maximum(1 - probability, np.float32(2.0**-24))


def decide(planes: Iterable[np.ndarray], labels: Labels, threshold: float | Sequence[float] = 0.5) -> np.ndarray:
    """Which class, or which regions, each pixel belongs to.

    Args:
        planes: probabilities ``([depth,] height, width)``, one plane after another, so that those of a volume need not
            all be in memory: exclusive: background and classes; else one plane a region.
        labels: the Plan's.
        threshold: a region, or the only class, is where its probability is above this; one a region, or one for all.
            Several exclusive classes take the most probable instead.

    Returns:
        Exclusive: uint8 ``([depth,] height, width)``, 0 background, k+1 class k. Regions: bool ``(classes, …)``.
    """
    planes, count = iter(planes), len(labels.classes)
    thresholds = np.broadcast_to(np.asarray(threshold, dtype=np.float32), count)
    if not labels.exclusive:
        return np.stack([plane > limit for plane, limit in zip(planes, thresholds, strict=True)])
    if count == 1:
        next(planes)
        return (next(planes) > thresholds[0]).astype(np.uint8)
    best = np.array(next(planes))
    classes = np.zeros(best.shape, dtype=np.uint8)
    for index, plane in enumerate(planes, start=1):
        wins = plane > best
        classes[wins] = index
        np.copyto(best, plane, where=wins)
    return classes


def components(mask: np.ndarray) -> np.ndarray:
    """Connected components (touching corners connect): int32 of the mask's shape, 0 outside, else 1, 2, …"""
    from scipy import ndimage

    return ndimage.label(mask, np.ones((3,) * mask.ndim))[0]


def drop_small(classes: np.ndarray, labels: Labels, min_pixels: float | Sequence[float]) -> np.ndarray:
    """Remove the `components` of each class that have fewer pixels than ``min_pixels``.

    Args:
        classes: as `decide` returns them; **changed in place**. A dropped component becomes background, or loses this
            region.
        labels: the Plan's.
        min_pixels: pixels (voxels) that a component must have, up to rounding; one a class, or one for all; 0 and
            1 keep all.

    Returns:
        ``classes``.
    """
    for index, pixels in enumerate(np.broadcast_to(min_pixels, len(labels.classes)).tolist()):
        if not above(pixels, 1):
            continue
        from scipy import ndimage  # a sixth of the time that predicting one picture takes, and mostly not needed

        plane, value = (classes, index + 1) if labels.exclusive else (classes[index], 1)
        box = ndimage.find_objects(plane.view(np.uint8), max_label=value)[-1]
        if box is not None:
            _drop_small(plane[box], value, pixels)
    return classes


def _drop_small(inside: np.ndarray, value: int, min_pixels: float, run: int | None = None) -> None:
    """The same in one box and for one class.

    Components are numbered run by run of slices, since numbering takes 12 bytes a pixel, and joined where they touch
    across two runs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    length = run_length(3, inside.shape) if run is None else run
    runs = [slice(start, start + length) for start in range(0, len(inside), length)]
    sizes, joined = [np.zeros(1, np.int64)], [np.zeros((2, 0), np.int64)]  # 0 is what is outside
    offset, before = 0, None
    for part in runs:
        numbers = components(inside[part] == value)
        sizes.append(np.bincount(numbers.ravel())[1:])
        first, last = (np.where(numbers[at] > 0, numbers[at] + offset, 0) for at in (0, -1))
        if before is not None:
            joined += _touching(before, first)
        offset, before = offset + len(sizes[-1]), last
    counts, (one, other) = np.concatenate(sizes), np.concatenate(joined, axis=1)
    links = coo_array((np.ones(len(one), bool), (one, other)), shape=(len(counts),) * 2)
    _, whole = connected_components(links, directed=False)
    small = below(np.bincount(whole, weights=counts)[whole], min_pixels)
    small[0] = False
    offset = 0
    for part, own in zip(runs, sizes[1:], strict=True):
        numbers = components(inside[part] == value)
        table = np.concatenate([small[:1], small[offset + 1 : offset + 1 + len(own)]])
        inside[part][table[numbers]] = 0
        offset += len(own)


def _touching(before: np.ndarray, after: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers ``(2, n)`` of components in neighbouring slices that touch, at a corner, too; 0 is outside."""
    wide = np.pad(before, 1)
    for corner in np.ndindex(*[3] * before.ndim):
        shifted = wide[tuple(slice(at, at + n) for at, n in zip(corner, before.shape, strict=True))]
        both = (shifted > 0) & (after > 0)
        yield np.unique(np.stack([shifted[both], after[both]]), axis=1)

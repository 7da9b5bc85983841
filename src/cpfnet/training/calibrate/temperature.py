"""The temperature: logits are divided by it, so that probabilities mean what they say (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cpfnet.labels import OUTSIDE, membership
from cpfnet.planning import Labels
from cpfnet.preprocessing.postprocess import complement

INVERSES = np.array([2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80]) / 32
"""1 / temperature at which the loss is computed; between them it is a cubic spline. The loss is smooth and convex in 1
/ temperature, and the minimum is met to within 0.5 % (beyond 8: 2 %); temperatures lie in 0.4 … 16."""

_CHUNK = 2**18  # pixels at once


def curve(probabilities: np.ndarray, codes: np.ndarray, labels: Labels) -> np.ndarray | None:
    """Negative log-likelihood of one case at each of `INVERSES`: mean over pixels, readers and regions.

    Args:
        probabilities: float32 ``(planes, [depth,] height, width)``, as the network gives them.
        codes: uint8 ``(readers, [depth,] height, width)``; ignored pixels and those outside the region of interest
            do not count.
        labels: the Plan's.

    Returns:
        float64 ``(len(INVERSES),)``; None where no pixel counts.
    """
    flat = probabilities.reshape(len(probabilities), -1)
    readers = []
    for own in codes.reshape(len(codes), -1):
        counted = np.flatnonzero(own < OUTSIDE)
        sums, number = np.zeros(len(INVERSES)), 0
        for start in range(0, len(counted), _CHUNK):
            some = counted[start : start + _CHUNK]
            for planes, truth in _choices(flat[:, some], own[some], labels):
                sums += _losses(planes, truth)
                number += len(truth)
        if number:
            readers.append(sums / number)
    return np.mean(readers, axis=0) if readers else None


def _choices(planes: np.ndarray, codes: np.ndarray, labels: Labels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Planes that sum to 1, and which is right: all of exclusive classes; of each region itself and its opposite."""
    if labels.exclusive:
        yield planes, codes
    else:
        for plane, members in zip(planes, membership(labels).T, strict=True):
            yield np.stack([complement(plane), plane]), members[codes].astype(np.uint8)


def _losses(planes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Summed −log of the right plane's share after each power of `INVERSES`."""
    planes = np.maximum(planes.astype(np.float64), np.finfo(np.float32).tiny)
    right = np.log(planes[truth, np.arange(len(truth))]).sum()
    ways = np.diff(INVERSES, prepend=0)
    steps = {way: planes**way for way in set(ways.tolist())}  # few: products are faster than powers
    power = np.ones_like(planes)
    out = np.empty(len(INVERSES))
    for index, (inverse, way) in enumerate(zip(INVERSES, ways.tolist(), strict=True)):
        power *= steps[way]
        out[index] = np.log(power.sum(axis=0)).sum() - inverse * right
    return out


def loss(curve: np.ndarray, temperature: float) -> float:
    """What a `curve` says at a temperature."""
    from scipy.interpolate import CubicSpline

    return float(CubicSpline(INVERSES, curve)(1 / temperature))


def inside(temperature: float) -> bool:
    """Is it away from the ends of the range, where a better one might lie beyond?"""
    return bool(INVERSES[0] * 1.01 < 1 / temperature < INVERSES[-1] * 0.99)


def best(curves: np.ndarray) -> float:
    """The temperature with the least loss, every case counting the same.

    Args:
        curves: ``(cases, len(INVERSES))``.
    """
    from scipy.interpolate import CubicSpline
    from scipy.optimize import minimize_scalar

    spline = CubicSpline(INVERSES, curves.mean(axis=0))
    found = minimize_scalar(spline, bounds=(INVERSES[0], INVERSES[-1]), method="bounded", options={"xatol": 1e-5})
    return float(1 / found.x)

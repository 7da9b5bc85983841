"""The temperature: logits are divided by it, so that probabilities mean what they say (Guo et al., ICML 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cpfnet.labels import OUTSIDE, membership
from cpfnet.planning import Labels
from cpfnet.preprocessing.postprocess import complement

INVERSES = np.array([2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 36, 40, 48, 56, 64, 80]) / 32
"""1 / temperature at which the loss is computed; between them it is a cubic spline. The loss is smooth and convex in 1
/ temperature, and the minimum is met to within 0.5 % (beyond 8: 2 %); temperatures lie in 0.4 … 16."""

SAMPLE = 2**19
"""Pixels of a case and reader whose loss is computed; where there are more, they are drawn."""

_CHUNK = 2**18  # pixels at once

_SEED = 2017

_EDGES = (1e-4, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999)
"""Probability of the right class, between the strata of each class: pixels that are wrong, those near a boundary, where
most are unsure, and the many millions of a volume that add next to nothing to the loss."""


def curve(probabilities: np.ndarray, codes: np.ndarray, labels: Labels) -> np.ndarray | None:
    """Negative log-likelihood of one case at each of `INVERSES`: mean over pixels, readers and regions.

    Of more than `SAMPLE` pixels it is estimated from about so many, the same ones each time. They are drawn from each
    stratum (class, and how right the network is) in equal numbers, so that rare classes and boundaries are met, and
    count for all pixels of their stratum, so that the mean is that of all.

    Args:
        probabilities: float32 ``(planes, [depth,] height, width)``, as the network gives them.
        codes: uint8 ``(readers, [depth,] height, width)``; ignored pixels and those outside the region of interest
            do not count.
        labels: the Plan's.

    Returns:
        float64 ``(len(INVERSES),)``; None where no pixel counts.

    Source:
        Cochran, Sampling Techniques, 1977, chapter 5 (stratified sampling).
    """
    flat = probabilities.reshape(len(probabilities), -1)
    rng = np.random.default_rng(_SEED)
    readers = []
    for own in codes.reshape(len(codes), -1):
        if (own < OUTSIDE).any():
            choices = [_mean_losses(choice, rng) for choice in _choices(flat, own, labels)]
            readers.append(np.mean(choices, axis=0))
    return np.mean(readers, axis=0) if readers else None


@dataclass(frozen=True)
class _Choice:
    """Planes that sum to 1, and which is right: all of exclusive classes; of a region itself and its opposite.

    Attributes:
        planes: ``(planes, pixels)``; of a region its own alone.
        truth: uint8 ``(pixels,)``, the number of the right plane; of a region 1 within it.
        counted: bool ``(pixels,)``.
    """

    planes: np.ndarray
    truth: np.ndarray
    counted: np.ndarray

    def at(self, pixels: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """All planes of some pixels, and which is right."""
        planes = self.planes[:, pixels]
        return planes if len(planes) > 1 else np.concatenate([complement(planes), planes]), self.truth[pixels]

    def stratum(self, pixels: slice) -> np.ndarray:
        """Of each counted pixel of some, the number of its stratum."""
        counted = self.counted[pixels]
        planes, truth = self.at(pixels)
        truth = np.where(counted, truth, 0)  # a code that is no class has no plane
        right = np.take_along_axis(planes, truth[None].astype(np.intp), axis=0)[0]
        number = truth.astype(np.uint16) * (len(_EDGES) + 1)
        for edge in _EDGES:
            number += right >= edge
        return number[counted]


def _choices(planes: np.ndarray, codes: np.ndarray, labels: Labels) -> Iterator[_Choice]:
    counted = codes < OUTSIDE
    if labels.exclusive:
        yield _Choice(planes, codes, counted)
    else:
        for plane, members in zip(planes, membership(labels).T, strict=True):
            yield _Choice(plane[None], members.astype(np.uint8)[codes], counted)


def _mean_losses(choice: _Choice, rng: np.random.Generator) -> np.ndarray:
    """Mean −log of the right plane's share after each power of `INVERSES`."""
    sums = np.zeros(len(INVERSES))
    for weight, pixels in _strata(choice, rng):
        for start in range(0, len(pixels), _CHUNK):
            sums += weight * _losses(*choice.at(pixels[start : start + _CHUNK]))
    return sums / np.count_nonzero(choice.counted)


def _strata(choice: _Choice, rng: np.random.Generator) -> Iterator[tuple[float, np.ndarray]]:
    """Pixels to look at, and for how many each of them stands."""
    if np.count_nonzero(choice.counted) <= SAMPLE:
        yield 1.0, np.flatnonzero(choice.counted)
        return
    parts = [slice(start, start + _CHUNK) for start in range(0, len(choice.truth), _CHUNK)]
    numbers = [choice.stratum(part) for part in parts]
    counts = np.sum([np.bincount(own, minlength=256 * (len(_EDGES) + 1)) for own in numbers], axis=0)
    shares = np.divide(_quota(counts), counts, out=np.zeros(len(counts), np.float32), where=counts > 0)
    drawn = []
    for part, own in zip(parts, numbers, strict=True):
        chosen = np.flatnonzero(rng.random(len(own), dtype=np.float32) < shares[own])
        drawn.append((own[chosen], part.start + np.flatnonzero(choice.counted[part])[chosen]))
    stratum, pixels = (np.concatenate(both) for both in zip(*drawn, strict=True))
    for number in np.unique(stratum):
        own = pixels[stratum == number]
        yield counts[number] / len(own), own


def _quota(counts: np.ndarray) -> np.ndarray:
    """How many of each stratum: all of the small ones, and of the others equal numbers, `SAMPLE` together."""
    quota, left = np.zeros(len(counts)), float(SAMPLE)
    order = [key for key in np.argsort(counts, kind="stable") if counts[key]]
    for place, key in enumerate(order):
        quota[key] = min(counts[key], left / (len(order) - place))
        left -= quota[key]
    return quota


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

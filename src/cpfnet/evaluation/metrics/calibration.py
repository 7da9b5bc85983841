"""Do probabilities mean what they say? Brier score, calibration error and reliability diagram of one class."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage

from cpfnet.rounding import above

BINS = 15
"""Bins of equal width, from 0 to 1."""

BAND = 3.0
"""Half the width of the band around a boundary: mm, or pixels where there are no millimetres."""

_CHUNK = 2**18  # pixels at once

_TILE = {2: 512, 3: 64}
"""Side of the tiles that `near_boundary` processes, by the number of axes."""


@dataclass(frozen=True)
class Tally:
    """Sums over pixels; they add up over cases, and may be weighted.

    Attributes:
        pixels: how many have a probability in each bin.
        confidence: the sum of their probabilities.
        positives: how many are of the class.
        squares: sum of (probability − truth)² over all bins.
    """

    pixels: np.ndarray
    confidence: np.ndarray
    positives: np.ndarray
    squares: float

    @classmethod
    def of(cls, probability: np.ndarray, truth: np.ndarray) -> Tally:
        """Count.

        Args:
            probability: 0…1 of the pixels that count, flat.
            truth: bool, of the same shape.
        """
        bins, squares = np.zeros((3, BINS)), 0.0
        for start in range(0, len(probability), _CHUNK):
            values, inside = probability[start : start + _CHUNK].astype(np.float64), truth[start : start + _CHUNK]
            index = np.minimum((values * BINS).astype(np.int64), BINS - 1)
            bins += [np.bincount(index, each, BINS) for each in (None, values, inside)]
            squares += float(((values - inside) ** 2).sum())
        pixels, confidence, positives = bins
        return cls(pixels, confidence, positives, squares)

    def __mul__(self, weight: float) -> Tally:
        return Tally(weight * self.pixels, weight * self.confidence, weight * self.positives, weight * self.squares)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.pixels + other.pixels,
            self.confidence + other.confidence,
            self.positives + other.positives,
            self.squares + other.squares,
        )

    @property
    def brier(self) -> float:
        """Mean of (probability − truth)² (Brier, Mon. Weather Rev. 1950); NaN without pixels."""
        total = self.pixels.sum()
        return self.squares / total if total else np.nan

    @property
    def ece(self) -> float:
        """Expected calibration error: Σ share of the bin · |share of the class − mean probability|; NaN without pixels.

        For one class against all others, it is the class-wise error (Nixon et al., CVPR workshops 2019), with bins
        of equal width.
        """
        total = self.pixels.sum()
        return float(np.abs(self.positives - self.confidence).sum() / total) if total else np.nan

    @property
    def scores(self) -> dict[str, float]:
        """With the names of `metrics.METRICS`."""
        return {"brier": self.brier, "ece": self.ece}

    def diagram(self) -> dict[str, list[float]]:
        """Mean ``probability``, ``share`` of the class and number of ``pixels`` of every bin that has any."""
        filled = self.pixels > 0
        pixels = self.pixels[filled]
        return {
            "probability": (self.confidence[filled] / pixels).tolist(),
            "share": (self.positives[filled] / pixels).tolist(),
            "pixels": pixels.tolist(),
        }


def near_boundary(truth: np.ndarray, counted: np.ndarray, spacing: tuple[float, ...] | None) -> np.ndarray:
    """Pixels at most `BAND` away from one of the other kind, of the class or not; if pixels are larger, the neighbours.

    Most pixels of an image are far from every boundary, and both certain and right: alone, they would make any
    network look calibrated.

    Args:
        truth: bool ``([depth,] height, width)``.
        counted: bool; the others neither belong to the band nor make a boundary.
        spacing: mm along each axis, or None for pixels.

    Returns:
        bool, of the same shape.
    """
    out = np.zeros_like(truth)
    steps = spacing or (1.0,) * truth.ndim
    width = max(BAND, min(steps))
    margins = [int(width / step) + 1 for step in steps]
    inside, outside = truth & counted, ~truth & counted
    # Tile by tile, with the margin that the band may reach: distances take 50 bytes a pixel; most tiles have no
    # boundary.
    for corner in product(*(range(0, size, _TILE[truth.ndim]) for size in truth.shape)):
        tile = tuple(slice(start, start + _TILE[truth.ndim]) for start in corner)
        first = [max(0, start - margin) for start, margin in zip(corner, margins, strict=True)]
        wide = tuple(slice(f, part.stop + m) for f, part, m in zip(first, tile, margins, strict=True))
        if not inside[wide].any() or not outside[wide].any():
            continue
        own = tuple(slice(part.start - f, part.stop - f) for part, f in zip(tile, first, strict=True))
        for kind, other in ((inside, outside), (outside, inside)):
            near = ~above(ndimage.distance_transform_edt(~other[wide], sampling=steps), width)
            out[tile] |= kind[tile] & near[own]
    return out


def tally(probability: np.ndarray, truth: np.ndarray, counted: np.ndarray) -> Tally | None:
    """The tally of one class in one case; None where values leave 0…1, and are therefore no probabilities.

    Args:
        probability: ``([depth,] height, width)``.
        truth, counted: bool, of the same shape.
    """
    values = probability[counted]
    return Tally.of(values, truth[counted]) if (values >= 0).all() and (values <= 1).all() else None


Tallies = dict[str, list[tuple[Tally, Tally]]]
"""Of one case: class → pairs of tallies, everywhere and near the boundary, one pair for each reader."""


def summed(readers: Iterable[Sequence[tuple[Tally, Tally]]], where: int) -> Tally:
    """The sum of all pairs' tallies, where each case counts once, however many readers it has.

    Args:
        readers: for each case, one pair a reader.
        where: 0 for everywhere, 1 for near the boundary.
    """
    return reduce(operator.add, (pair[where] * (1 / len(pairs)) for pairs in readers for pair in pairs))


def of_cases(cases: Sequence[Tallies]) -> dict[str, dict[str, Any]]:
    """The `figures` of each class over all cases with probabilities of it, and the number of these as ``cases``."""
    out = {}
    for name in dict.fromkeys(name for case in cases for name in case):
        own = [case[name] for case in cases if name in case]
        out[name] = figures(summed(own, 0), summed(own, 1)) | {"cases": len(own)}
    return out


def figures(everywhere: Tally, band: Tally) -> dict[str, Any]:
    """What reports and ``metrics.json`` hold for a class; None stands for what is not known."""
    known = {"ece": everywhere.ece, "ece_band": band.ece, "brier": everywhere.brier, "brier_band": band.brier}
    out: dict[str, Any] = {name: None if np.isnan(value) else float(value) for name, value in known.items()}
    return out | {"everywhere": everywhere.diagram(), "band": band.diagram()}

"""Thresholds and smallest components: the choice with the best mean Dice, if that holds on cases that did not choose.

A table holds the Dice of one class (`threshold_search.dice`), a row a case and a column a choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cpfnet.inference.threshold_search import THRESHOLDS, best_choice, dice
from cpfnet.preprocessing.postprocess import components
from cpfnet.rounding import ROUNDING

FEWEST = 3
"""Validation cases that a choice needs."""

SHARE = 1 / 4
"""The largest component that may be dropped, as a share of what the case with least of its class has.

Of a structure half as large half may be found.
"""

LEAST_GAIN = 0.001
"""Dice that a choice must gain on cases left out in turn."""

_STEP, _SPAN = 0.01, 16.0
"""Probabilities are counted on a grid of logits: a threshold is met to within 0.00125."""

_CHUNK = 2**18  # pixels at once


def choose(table: np.ndarray, neutral: int) -> tuple[int, str]:
    """The column with the best mean, where it is really better than the neutral one.

    Args:
        table: Dice ``(cases, choices)``.
        neutral: column of the choice that changes nothing.

    Returns:
        Its index, ``neutral`` where nothing else is shown to gain, and why, in a few words with the figures.
    """
    count = len(table)
    if count < FEWEST:
        return neutral, f"{count} validation case{'s' * (count != 1)} of at least {FEWEST}"
    means = table.mean(axis=0)
    best = best_choice(means, neutral)
    if best == neutral:
        return neutral, "nothing is better"
    others = [best_choice((means * count - row) / (count - 1), neutral) for row in table]  # of all cases but this one
    gain = float(np.mean([row[index] - row[neutral] for row, index in zip(table, others, strict=True)]))
    figures = f"Dice {means[neutral]:.4f} → {means[best]:.4f}; {gain:+.4f} on cases left out in turn"
    return (best, figures) if gain >= LEAST_GAIN else (neutral, f"no real gain: {figures}")


def histogram(probability: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many pixels have which logit.

    Args:
        probability: of pixels that count, flat.
        truth: bool, of the same shape.

    Returns:
        int64 ``(2, bins)``: outside the class, and in it.
    """
    from scipy.special import logit

    bins = round(2 * _SPAN / _STEP)
    out = np.zeros((2, bins), dtype=np.int64)
    for start in range(0, len(probability), _CHUNK):
        some = slice(start, start + _CHUNK)
        values = np.clip(logit(probability[some]), -_SPAN, _SPAN - _STEP / 2)
        index = np.floor((values + _SPAN) / _STEP).astype(np.int64)
        out += [np.bincount(index[truth[some] == kind], minlength=bins) for kind in (False, True)]
    return out


def dice_at_thresholds(counted: np.ndarray, temperature: float) -> np.ndarray:
    """Dice at each of `THRESHOLDS` of the probabilities calibrated by a temperature, from a `histogram` before that."""
    from scipy.special import logit

    limits = np.clip(temperature * logit(np.array(THRESHOLDS)), -_SPAN, _SPAN)
    first = np.rint((limits + _SPAN) / _STEP).astype(np.int64)
    above = np.pad(counted[:, ::-1].cumsum(axis=1)[:, ::-1], ((0, 0), (0, 1)))[:, first]
    return dice(above[1], above[0], int(counted[1].sum()))


@dataclass(frozen=True)
class Components:
    """The connected components of one class in one case, on the network's grid, the smallest first.

    Attributes:
        size: of each, in the unit of ``pixel``.
        right, wrong: pixels that count and are, or are not, of the class.
        truth: pixels of the class that count.
        pixel: size of one pixel: mm³, or 1.
    """

    size: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    truth: int
    pixel: float

    @classmethod
    def of(cls, mask: np.ndarray, truth: np.ndarray, counted: np.ndarray, pixel: float) -> Components:
        """Measure.

        Args:
            mask, truth, counted: bool ``([depth,] height, width)``: predicted, true, and in the metrics at all.
            pixel: size of one pixel.
        """
        found = components(mask)
        number = int(found.max(initial=0)) + 1
        size = np.bincount(found.ravel(), minlength=number)[1:] * pixel
        right = np.bincount(found[truth & counted], minlength=number)[1:]
        wrong = np.bincount(found[~truth & counted], minlength=number)[1:]
        order = np.argsort(size, kind="stable")
        return cls(size[order], right[order], wrong[order], int(np.count_nonzero(truth & counted)), pixel)

    @property
    def spurious(self) -> np.ndarray:
        """Sizes of components that meet nothing of the class."""
        return self.size[(self.right == 0) & (self.wrong > 0)]

    def known_dice(self, size: float) -> float | None:
        """Dice when components below ``size`` are dropped; None where the class is neither there nor left."""
        value = float(self.dice_without([size])[0])
        return None if value == 1 and not self.truth else value

    def dice_without(self, sizes: Sequence[float]) -> np.ndarray:
        """Dice when components below each of these sizes are dropped; what has a size up to rounding is kept."""
        dropped = np.searchsorted(self.size, np.array(sizes) * (1 - ROUNDING), side="left")
        right, wrong = (np.append(n[::-1].cumsum()[::-1], 0)[dropped] for n in (self.right, self.wrong))
        return dice(right, wrong, self.truth)


def sizes_to_try(cases: Sequence[Components]) -> tuple[list[float], float | None]:
    """0, and up to 50 sizes from two pixels to what drops all spurious components.

    Beside them the largest, where that drops not all.

    None is above `SHARE` of the class in the case that has least of it: a limit that fits these cases must not take all
    that the next one has.
    """
    enough = max((case.spurious.max() + case.pixel for case in cases if case.spurious.size), default=0.0)
    most = _brief(SHARE * min((case.truth * case.pixel for case in cases if case.truth), default=0.0), math.floor)
    limit = min(enough, most)
    least = 2 * min((case.pixel for case in cases), default=1.0)
    tried = np.geomspace(least, limit, 50).tolist() if limit >= least else []
    sizes = dict.fromkeys(min(_brief(size, math.ceil), most) for size in tried)
    return [0.0, *sizes], most if most < enough else None


def _brief(size: float, rounding: Callable[[float], int]) -> float:
    """Rounded up or down to three digits, for people to read."""
    digits = 2 - math.floor(math.log10(size)) if size else 0
    return round(rounding(round(size * 10.0**digits, 6)) / 10.0**digits, max(digits, 0))

"""Thresholds and smallest pieces: which choice gives the best mean Dice, and whether that holds on cases that did not choose.

A table holds the Dice of one class, a row a case and a column a choice; the first is the neutral one. A case without the class
scores 1 where none is predicted either, else 0: a choice must not gain by cases that drop out of the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpfnet.preprocessing.decision import pieces

FEWEST = 3
"""Validation cases that a choice needs."""

SHARE = 1 / 4
"""The largest piece that may be dropped, as a share of what the case with least of its class has: of a structure half as large half may be found."""

LEAST_GAIN = 0.001
"""Dice that a choice must gain on cases left out in turn."""

THRESHOLDS = tuple(sorted((n / 100 for n in range(5, 96)), key=lambda t: (abs(t - 0.5), t)))
"""0.05 … 0.95 in steps of 0.01, the neutral 0.5 first, so that of equals the one nearest to it is taken."""

_STEP, _SPAN = 0.01, 16.0
"""Probabilities are counted on a grid of logits: a threshold is met to within 0.00125."""

_CHUNK = 2**18  # pixels at once


def choose(table: np.ndarray) -> tuple[int, str]:
    """The column with the best mean, where it is really better than the first.

    Args:
        table: Dice ``(cases, choices)``.

    Returns:
        Its index, 0 where nothing else is shown to gain, and why, in a few words with the figures.
    """
    count = len(table)
    if count < FEWEST:
        return 0, f"{count} validation case{'s' * (count != 1)} of at least {FEWEST}"
    means = table.mean(axis=0)
    best = int(means.argmax())
    if best == 0:
        return 0, "nothing is better"
    others = [int((means * count - row).argmax()) for row in table]  # the best of all cases but this one
    gain = float(np.mean([row[index] - row[0] for row, index in zip(table, others, strict=True)]))
    said = f"Dice {means[0]:.4f} → {means[best]:.4f}; {gain:+.4f} on cases left out in turn"
    return (best, said) if gain >= LEAST_GAIN else (0, f"no real gain: {said}")


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
    return _dice(above[1], above[0], counted[1].sum())


@dataclass(frozen=True)
class Pieces:
    """The connected pieces of one class in one case, the smallest first.

    Attributes:
        size: pixels of the source's grid.
        right, wrong: pixels that count and are, or are not, of the class, on the network's grid.
        truth: pixels of the class that count, on the network's grid.
        scale: pixels of the source for one of the network's grid.
    """

    size: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    truth: int
    scale: float

    @classmethod
    def of(cls, mask: np.ndarray, truth: np.ndarray, counted: np.ndarray, scale: float) -> Pieces:
        """Measure.

        Args:
            mask, truth, counted: bool ``([depth,] height, width)``: predicted, true, and in the metrics at all.
            scale: pixels of the source for one of the network's grid.
        """
        found = pieces(mask)
        number = int(found.max(initial=0)) + 1
        size = np.bincount(found.ravel(), minlength=number)[1:] * scale
        right = np.bincount(found[truth & counted], minlength=number)[1:]
        wrong = np.bincount(found[~truth & counted], minlength=number)[1:]
        order = np.argsort(size, kind="stable")
        return cls(size[order], right[order], wrong[order], int(np.count_nonzero(truth & counted)), scale)

    @property
    def spurious(self) -> np.ndarray:
        """Sizes of pieces that meet nothing of the class."""
        return self.size[(self.right == 0) & (self.wrong > 0)]

    def known_dice(self, size: int) -> float | None:
        """Dice when pieces below ``size`` are dropped; None where the class is neither there nor left."""
        value = float(self.dice_without([size])[0])
        return None if value == 1 and not self.truth else value

    def dice_without(self, sizes: Sequence[int]) -> np.ndarray:
        """Dice when pieces below each of these sizes are dropped."""
        dropped = np.searchsorted(self.size, sizes, side="left")
        right, wrong = (np.append(n[::-1].cumsum()[::-1], 0)[dropped] for n in (self.right, self.wrong))
        return _dice(right, wrong, self.truth)


def sizes_to_try(cases: Sequence[Pieces]) -> tuple[list[int], str]:
    """0, and up to 50 sizes from 2 to what drops all spurious pieces; and in words what was not tried.

    None is above `SHARE` of the class in the case that has least of it: a limit that fits these cases must not take all that the next one has.
    """
    largest = max((case.spurious.max(initial=0) for case in cases), default=0)
    if largest == 0:
        return [0], ""
    enough = max(2, np.floor(largest) + 1)
    limit = min(enough, np.floor(SHARE * min((case.truth * case.scale for case in cases if case.truth), default=0)))
    sizes = np.unique(np.geomspace(2, limit, 50).round().astype(int)).tolist() if limit >= 2 else []
    left = f"at most {limit:.0f} pixels were tried, a quarter of what one case has" if limit < enough else ""
    return [0, *sizes], left


def _dice(right: np.ndarray, wrong: np.ndarray, truth: int) -> np.ndarray:
    whole = right + wrong + truth
    return np.where(whole == 0, 1.0, 2 * right / np.maximum(whole, 1))

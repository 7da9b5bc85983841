"""The threshold with the best mean Dice over cases: what is tried, and which of it is taken. NumPy only.

One grid for what training fits and for what `evaluate` may choose on other cases. It begins at 0.01, since the best
threshold of calibrated probabilities is half the Dice that it gives (Lipton et al., ECML PKDD 2014): of small
structures with a low Dice it lies far below 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THRESHOLDS = tuple(n / 100 for n in range(1, 100))
"""What is tried."""

NEUTRAL = THRESHOLDS.index(0.5)
"""Index of the one that is taken where nothing is better."""


def best_choice(means: np.ndarray, neutral: int = NEUTRAL) -> int:
    """Index of the best of several choices; of equals, up to rounding, the one nearest to the neutral choice.

    Args:
        means: of each choice, in order.
        neutral: index of the choice that stands for no change.
    """
    equal = np.flatnonzero(np.isclose(means, means.max(), rtol=0, atol=1e-12))
    return int(min(equal, key=lambda index: abs(index - neutral)))


def best_threshold(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """The threshold with the best mean of curves (one a case), and that mean; of equals the one nearest to 0.5."""
    means = np.mean(curves, axis=0)
    index = best_choice(means)
    return THRESHOLDS[index], float(means[index])


def dice_curve(probability: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Dice of ``probability > t`` for each t of `THRESHOLDS`, exact.

    Args:
        probability: of the class, float32.
        truth, valid: bool, of the same shape: pixels of the class, pixels that count.

    Returns:
        ``(99,)``, as `dice`.
    """
    values, inside = probability[valid], truth[valid]
    below = np.searchsorted(np.array(THRESHOLDS, np.float32), values, side="left")  # thresholds that the pixel is above
    right, wrong = (
        np.bincount(below[side], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:] for side in (inside, ~inside)
    )
    return dice(right, wrong, int(np.count_nonzero(inside)))


def dice(right: np.ndarray, wrong: np.ndarray, truth: int) -> np.ndarray:
    """Dice of several masks of one class.

    Args:
        right, wrong: of each mask, pixels that are, and are not, of the class.
        truth: pixels of the class.

    Returns:
        Where the class is absent: 1 if nothing is predicted either, else 0, so that every choice has a value and none
        gains by cases that drop out of the mean.
    """
    whole = right + wrong + truth
    return np.where(whole == 0, 1.0, 2 * right / np.maximum(whole, 1))

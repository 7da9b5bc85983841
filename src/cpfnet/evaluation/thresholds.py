"""The threshold with the best Dice: how it is found among cases, whatever gave the probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

THRESHOLDS = tuple(n / 100 for n in range(1, 100))
"""What is tried."""


def dice_curve(probability: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Dice of ``probability > t`` for each t of `THRESHOLDS`, exact.

    Args:
        probability: of the class, float32.
        truth, valid: bool, of the same shape: pixels of the class, pixels that count.

    Returns:
        ``(99,)``. Where the truth is empty: 1 if nothing is predicted either, else 0, so that every threshold has a value.
    """
    values, inside = probability[valid], truth[valid]
    below = np.searchsorted(np.array(THRESHOLDS, np.float32), values, side="left")  # thresholds that the pixel is above
    right, wrong = (
        np.bincount(below[side], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:] for side in (inside, ~inside)
    )
    whole = right + wrong + np.count_nonzero(inside)
    return np.where(whole == 0, 1.0, 2 * right / np.maximum(whole, 1))


def best_threshold(curves: Sequence[np.ndarray]) -> tuple[float, float]:
    """The threshold with the best mean of curves (one a case), and that mean; of equals the one nearest to 0.5."""
    means = np.mean(curves, axis=0)
    equal = np.flatnonzero(np.isclose(means, means.max(), rtol=0, atol=1e-12))
    index = min(equal, key=lambda k: abs(THRESHOLDS[k] - 0.5))
    return THRESHOLDS[index], float(means[index])

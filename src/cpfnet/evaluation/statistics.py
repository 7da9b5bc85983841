"""From values of cases to statistics of all cases: mean, SD, median, interval, and the counts behind them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000


@dataclass(frozen=True)
class Summary:
    """One metric over many cases. NaN values (not defined) do not count; infinite ones do.

    Attributes:
        mean: infinite if any value is, so that a missed structure cannot hide.
        sd: standard deviation (n − 1); NaN for fewer than two values, or with an infinite one.
        low, high: 95 % bootstrap interval of the mean; NaN for fewer than two groups.
        median: infinite values are the largest ones.
        finite_mean: of the finite values alone; read it together with ``infinite``.
        count: values that count.
        groups: patients of these values.
        undefined: values left out because they are NaN.
        infinite: infinite ones among ``count``.
    """

    mean: float
    sd: float
    low: float
    high: float
    median: float
    finite_mean: float
    count: int
    groups: int
    undefined: int
    infinite: int


def summarise(
    values: Sequence[float], groups: Sequence[Hashable] | None = None, *, seed: int = 0, resamples: int = RESAMPLES
) -> Summary:
    """Summarise one metric.

    The interval is the percentile bootstrap: whole groups (patients) are drawn with replacement, because cases of one
    patient resemble each other, and the mean is taken over all values drawn (Efron and Tibshirani 1993, ch. 13).

    Args:
        values: one a case; NaN where the metric is not defined.
        groups: the patient of each; default: every case is its own.
        seed: of the resampling.
        resamples: how many.
    """
    every = np.asarray(values, dtype=float)
    owners = list(range(len(every))) if groups is None else list(groups)
    kept = np.flatnonzero(~np.isnan(every))
    x = every[kept]
    finite = x[np.isfinite(x)]
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(owners[i], len(numbers)) for i in kept], dtype=int)
    low, high = _interval(x, group, len(numbers), seed, resamples)
    return Summary(
        mean=float(x.mean()) if len(x) else math.nan,
        sd=float(x.std(ddof=1)) if len(x) > 1 and len(finite) == len(x) else math.nan,
        low=low,
        high=high,
        median=_median(x),
        finite_mean=float(finite.mean()) if len(finite) else math.nan,
        count=len(x),
        groups=len(numbers),
        undefined=len(every) - len(x),
        infinite=len(x) - len(finite),
    )


def _median(x: np.ndarray) -> float:
    """Midway between the two middle values; infinite if one of them is."""
    if not len(x):
        return math.nan
    ordered = np.sort(x)
    return float((ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2)


def _interval(x: np.ndarray, group: np.ndarray, groups: int, seed: int, resamples: int) -> tuple[float, float]:
    if groups < 2:
        return math.nan, math.nan
    sums, sizes = np.zeros(groups), np.zeros(groups)
    np.add.at(sums, group, x)
    np.add.at(sizes, group, 1)
    drawn = np.random.default_rng(seed).integers(groups, size=(resamples, groups))
    # Rounding may move the mean of equal values: no mean may lie outside the values.
    means = np.clip(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), x.min(), x.max())
    # Observed means, as many below the one as above the other: nothing can be interpolated between a finite and an
    # infinite mean, and the interval of the negated values is the negated interval.
    tail = math.ceil(0.025 * resamples)
    ordered = np.sort(means)
    return float(ordered[tail - 1]), float(ordered[-tail])

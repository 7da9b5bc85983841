"""Two methods on the same cases: difference, interval, test and effect size of one metric.

The unit is the patient: cases of one patient resemble each other, so the interval draws patients, and the test uses one
difference a patient.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from cpfnet.evaluation.statistics import summarise

EXACT = 50
"""Up to this number of patients with a difference, p is exact; above it, the normal approximation is used."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One metric of two methods on the same cases. Differences are method − reference, in the metric's unit.

    A pair in which either value is NaN (not defined) is counted, and left out of everything else. Among distances, an
    infinite one is larger than any finite one, and two infinite ones are equal.

    Attributes:
        reference_mean, method_mean: over the pairs; infinite if any value is.
        statistic: what ``difference`` is: the ``"mean"`` over the pairs that are finite on both sides or, as soon as a
            pair is infinite on one side only, the ``"median"`` over patients.
        difference: see ``statistic``; NaN without a pair.
        low, high: its 95 % interval. Mean: percentile bootstrap over patients. Median: from order statistics, exact.
            NaN where there are too few patients (2 for the mean, 6 for the median).
        finite_difference: mean over the pairs that are finite on both sides.
        p: of Wilcoxon's signed-rank test on the patients' differences, two-sided; 1 where none differs, NaN
            without a pair.
        cohens_d: Cohen's d_z, mean / SD of the patients' differences; NaN where one is infinite or all are equal.
        rank_biserial: matched-pairs rank-biserial correlation, (W₊ − W₋) / (W₊ + W₋), −1 … 1; 0 where none
            differs (Kerby 2014).
        patients, cases: how many are compared.
        higher, equal, lower: cases in which the method's value is higher, equal or lower.
        undefined, undefined_reference, undefined_method: pairs left out: NaN on both sides, or on one only.
        infinite, infinite_reference, infinite_method: pairs infinite on both sides, or on one only.
    """

    reference_mean: float
    method_mean: float
    statistic: Literal["mean", "median"]
    difference: float
    low: float
    high: float
    finite_difference: float
    p: float
    cohens_d: float
    rank_biserial: float
    patients: int
    cases: int
    higher: int
    equal: int
    lower: int
    undefined: int
    undefined_reference: int
    undefined_method: int
    infinite: int
    infinite_reference: int
    infinite_method: int


def case_differences(reference: np.ndarray, method: np.ndarray) -> np.ndarray:
    """Method − reference, case by case: ±∞ where one is infinite, 0 where both are, NaN where either is.

    It is rounded to twelve decimals, so that means of equal scores, which differ by rounding, count as equal.
    """
    with np.errstate(invalid="ignore"):
        return np.where(reference == method, 0.0, np.round(method - reference, 12))


def paired(
    reference: Sequence[float], method: Sequence[float], patients: Sequence[Hashable], *, seed: int = 0
) -> Paired:
    """Compare two methods on one metric.

    Args:
        reference, method: one value a case, in the same order; NaN: not defined; distances may be infinite.
        patients: the patient of each case.
        seed: of the bootstrap.
    """
    a, b = np.asarray(reference, dtype=float), np.asarray(method, dtype=float)
    left_out = np.isnan(a), np.isnan(b)
    kept = ~(left_out[0] | left_out[1])
    owners = [owner for owner, keep in zip(patients, kept, strict=True) if keep]
    a, b = a[kept], b[kept]
    difference = case_differences(a, b)
    finite = np.isfinite(a) & np.isfinite(b)
    of_patients = patient_means(difference, owners)
    mean = summarise(difference[finite].tolist(), [o for o, f in zip(owners, finite, strict=True) if f], seed=seed)
    one_sided = bool(np.isinf(difference).any())
    if one_sided:
        interval = stats.quantile_test(of_patients, p=0.5).confidence_interval(0.95)
        with np.errstate(invalid="ignore"):  # nothing lies midway between −∞ and ∞
            middle = float(np.median(of_patients))
        estimate = middle, float(interval.low), float(interval.high)
    else:
        estimate = mean.mean, mean.low, mean.high
    spread = of_patients.std(ddof=1) if len(of_patients) > 1 and not one_sided else 0.0
    p, correlation = signed_rank(of_patients)
    return Paired(
        reference_mean=float(a.mean()) if len(a) else math.nan,
        method_mean=float(b.mean()) if len(b) else math.nan,
        statistic="median" if one_sided else "mean",
        difference=estimate[0],
        low=estimate[1],
        high=estimate[2],
        finite_difference=mean.mean,
        p=p,
        cohens_d=float(of_patients.mean() / spread) if spread > 1e-12 else math.nan,
        rank_biserial=correlation,
        patients=len(of_patients),
        cases=len(difference),
        higher=int((difference > 0).sum()),
        equal=int((difference == 0).sum()),
        lower=int((difference < 0).sum()),
        undefined=int((left_out[0] & left_out[1]).sum()),
        undefined_reference=int((left_out[0] & ~left_out[1]).sum()),
        undefined_method=int((left_out[1] & ~left_out[0]).sum()),
        infinite=int((np.isinf(a) & np.isinf(b)).sum()),
        infinite_reference=int((np.isinf(a) & ~np.isinf(b)).sum()),
        infinite_method=int((np.isinf(b) & ~np.isinf(a)).sum()),
    )


def patient_means(difference: np.ndarray, patients: Sequence[Hashable]) -> np.ndarray:
    """Each patient's mean difference; infinite ones of opposite sign cancel within a patient, and the rest decides."""
    groups: dict[Hashable, list[float]] = {}
    for owner, value in zip(patients, difference.tolist(), strict=True):
        groups.setdefault(owner, []).append(value)
    out = []
    for values in groups.values():
        balance = sum(math.copysign(1, v) for v in values if math.isinf(v))
        finite = [v for v in values if math.isfinite(v)]
        out.append(math.copysign(math.inf, balance) if balance else sum(finite) / len(finite) if finite else 0.0)
    return np.array(out)


def signed_rank(difference: np.ndarray) -> tuple[float, float]:
    """Wilcoxon's signed-rank test, two-sided, and the matched-pairs rank-biserial correlation; zeros are left out.

    Up to `EXACT` differences, p comes from all 2ⁿ signs of the ranks, ties included, which SciPy's exact method does
    not support; above, from SciPy's normal approximation (Wilcoxon 1945; Kerby 2014, doi:10.2466/11.IT.3.1).
    """
    moved = difference[difference != 0]
    if not len(moved):
        return (1.0, 0.0) if len(difference) else (math.nan, math.nan)
    ranks = stats.rankdata(np.abs(moved))
    positive, total = ranks[moved > 0].sum(), ranks.sum()
    correlation = float(2 * positive / total - 1)
    if len(moved) > EXACT:
        return float(stats.wilcoxon(np.sign(moved) * ranks, method="asymptotic").pvalue), correlation
    chances = np.ones(1)  # for each sum of the doubled (therefore whole) ranks with a positive sign
    for rank in (2 * ranks).astype(int):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    observed = round(2 * positive)
    return float(min(1.0, 2 * min(chances[: observed + 1].sum(), chances[observed:].sum()))), correlation


def holm(p: Sequence[float]) -> list[float]:
    """Correct p-values for their number: the chance of even one false discovery stays below 5 % (Holm 1979).

    NaN (no test was made) stays NaN and does not count.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)[: np.count_nonzero(~np.isnan(values))]  # NaN values come last
    out = np.full(len(values), math.nan)
    steps = values[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return out.tolist()

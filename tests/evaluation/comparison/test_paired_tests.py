"""Paired statistics, against SciPy, enumeration and numbers worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from cpfnet.evaluation.comparison.paired_tests import case_differences, holm, paired, patient_means, signed_rank

SCORE = st.floats(0, 1).map(lambda x: round(x, 3))
DISTANCE = st.one_of(st.integers(0, 6).map(float), st.just(math.inf), st.just(math.nan))
PAIRS = st.lists(st.tuples(DISTANCE, DISTANCE, st.integers(0, 5)), min_size=1, max_size=14)


def of(a, b, patients=None, **options):
    return paired(a, b, range(len(a)) if patients is None else patients, **options)


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=20, unique=True), st.data())
def test_the_test_is_scipys_where_no_ranks_are_tied(sizes, data):
    difference = np.array(sizes) * data.draw(
        st.lists(st.sampled_from([-1, 1]), min_size=len(sizes), max_size=len(sizes))
    )
    assert signed_rank(difference)[0] == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_ties_are_counted_exactly(values):
    moved = np.array([v for v in values if v], dtype=float)
    assume(len(moved))
    ranks = stats.rankdata(abs(moved))
    centre = ranks.sum() / 2
    off = abs(ranks[moved > 0].sum() - centre)
    sums = [
        sum(r for r, up in zip(ranks, ups, strict=True) if up) for ups in itertools.product((0, 1), repeat=len(ranks))
    ]
    assert signed_rank(np.array(values, dtype=float))[0] == pytest.approx(np.mean(abs(np.array(sums) - centre) >= off))


def test_many_differences_take_scipys_approximation_and_lie_near_the_exact_p():
    difference = np.random.default_rng(0).normal(0.2, 1, 60)
    p = signed_rank(difference)[0]
    assert p == pytest.approx(stats.wilcoxon(difference, method="asymptotic").pvalue)
    assert p == pytest.approx(stats.wilcoxon(difference, method="exact").pvalue, abs=0.003)


def test_effect_sizes_by_hand():
    found = of([0.5, 0.5, 0.5, 0.5], [0.6, 0.7, 0.8, 0.4])  # +0.1, +0.2, +0.3, −0.1: ranks 1.5, 3, 4 and 1.5
    assert found.rank_biserial == pytest.approx((8.5 - 1.5) / 10)
    assert found.cohens_d == pytest.approx(0.125 / np.std([0.1, 0.2, 0.3, -0.1], ddof=1))
    assert found.difference == pytest.approx(0.125)
    assert (found.higher, found.equal, found.lower) == (3, 0, 1)
    assert (found.reference_mean, found.method_mean) == pytest.approx((0.5, 0.625))
    assert found.p == pytest.approx(
        0.375
    )  # of 16 signs 3 reach a sum of 8.5, 3 one of 1.5: 0, 1.5 (twice), and their mirror images


def test_the_interval_is_the_bootstrap_of_the_mean_difference():
    rng = np.random.default_rng(3)
    a, b = rng.random(30), rng.random(30)
    found = of(a, b)
    reference = stats.bootstrap((b - a,), np.mean, method="percentile", n_resamples=9999, rng=1).confidence_interval
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.012)
    assert found.difference == pytest.approx(np.mean(b - a))


@given(PAIRS)
def test_swapping_the_methods_turns_every_sign(pairs):
    a, b, patients = map(list, zip(*pairs, strict=True))
    there, back = paired(a, b, patients), paired(b, a, patients)
    for name in ("difference", "finite_difference", "cohens_d", "rank_biserial"):
        assert getattr(there, name) == pytest.approx(-getattr(back, name), nan_ok=True), name
    assert there.low == pytest.approx(-back.high, nan_ok=True)
    assert there.p == pytest.approx(back.p, nan_ok=True)
    assert (there.higher, there.equal, there.lower) == (back.lower, back.equal, back.higher)
    assert (there.undefined_reference, there.infinite_reference) == (back.undefined_method, back.infinite_method)


@given(st.lists(SCORE, min_size=1, max_size=12))
def test_a_method_does_not_differ_from_itself(values):
    found = of(values, values)
    assert (found.difference, found.p, found.rank_biserial, found.equal) == (0, 1, 0, len(values))
    assert math.isnan(found.cohens_d)


def test_a_mean_of_equal_scores_is_equal_to_them():
    values = np.array([0.1, 0.7, 0.3])
    assert np.all(case_differences(values, (values + values + values) / 3) == 0)


def test_cases_of_one_patient_are_one_difference():
    a, b = [0.5, 0.6, 0.7, 0.8], [0.6, 0.8, 0.6, 0.9]
    single = of(a, b)
    thrice = paired(np.repeat(a, 3), np.repeat(b, 3), np.repeat(range(4), 3).tolist())
    for name in ("p", "cohens_d", "rank_biserial", "patients", "low", "high", "difference"):
        assert getattr(thrice, name) == pytest.approx(getattr(single, name)), name
    assert (single.cases, thrice.cases) == (4, 12)


def test_infinite_distances_rank_highest_and_stay_out_of_the_mean():
    a = [1.0, 2, 3, 4, 5, 6, 7, math.inf, math.inf]
    b = [2.0, 3, 4, 5, 6, 7, math.inf, math.inf, 8]
    found = of(a, b)
    assert (found.infinite, found.infinite_reference, found.infinite_method) == (1, 1, 1)
    assert (found.higher, found.equal, found.lower) == (7, 1, 1)
    assert found.finite_difference == 1
    assert found.statistic == "median"
    assert (found.difference, found.low, found.high) == (1, 0, 1)  # order statistics 2 and 8 of −∞, 0, 1 × 6, ∞
    assert math.isnan(found.cohens_d)
    assert found.reference_mean == found.method_mean == math.inf
    assert found.rank_biserial == pytest.approx((6 * 3.5 + 7.5 - 7.5) / 36)
    both = of([1, 2, math.inf], [2, 3, math.inf])
    assert (both.statistic, both.difference, both.equal) == ("mean", 1, 1)


def test_within_a_patient_infinite_differences_of_opposite_sign_cancel():
    inf = math.inf
    found = patient_means(np.array([inf, -inf, 2, inf, 1, -inf, inf, 3, 5]), list("aaabbccdd"))
    assert found.tolist() == [2, inf, 0, 4]


def test_pairs_that_are_not_defined_are_left_out_and_counted():
    nan = math.nan
    found = of([nan, nan, 0.5, 0.5, 0.25], [nan, 0.0, nan, 0.75, 0.5])
    assert (found.undefined, found.undefined_reference, found.undefined_method) == (1, 1, 1)
    assert (found.cases, found.patients, found.difference) == (2, 2, 0.25)
    nothing = of([nan], [0.5])
    assert math.isnan(nothing.p)
    assert math.isnan(nothing.difference)
    assert nothing.patients == 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, math.nan, 0.5, 0.9]) == pytest.approx([0.03, math.nan, 1, 1], nan_ok=True)
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_holm_rejects_as_its_step_down_procedure_does(p):
    corrected = holm(p)
    assert all(c >= x for c, x in zip(corrected, p, strict=True))
    for level in (0.01, 0.05, 0.5):
        rejected = set()
        for step, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[index] * (len(p) - step) > level:
                break
            rejected.add(index)
        assert {i for i, c in enumerate(corrected) if c <= level} == rejected

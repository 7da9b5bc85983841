from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from cpfnet.evaluation.statistics import summarise

VALUES = st.lists(st.floats(0, 100), min_size=2, max_size=12)


@given(VALUES)
def test_moments_are_numpys(values):
    s = summarise(values, resamples=50)
    assert s.mean == pytest.approx(np.mean(values))
    assert s.sd == pytest.approx(np.std(values, ddof=1))
    assert s.median == pytest.approx(np.median(values))
    assert s.count == s.groups == len(values)
    assert min(values) - 1e-9 <= s.low <= s.high <= max(values) + 1e-9


@given(VALUES, st.integers(1, 3))
def test_undefined_values_do_not_count_and_are_counted(values, holes):
    s = summarise([*values, *[math.nan] * holes])
    assert (s.mean, s.count, s.undefined) == (summarise(values).mean, len(values), holes)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=12))
@example([1.0, *[1.8073457463189554e-242] * 3])  # a mean of three that rounds to less than each
def test_an_infinite_distance_worsens_every_aggregate(values):
    before, after = summarise(values), summarise([*values, math.inf])
    assert after.mean == after.high == math.inf
    assert after.median >= before.median
    assert after.low >= before.low or after.low >= min(values)
    assert math.isnan(after.sd)
    assert (after.infinite, after.count) == (1, len(values) + 1)
    assert after.finite_mean == pytest.approx(np.mean(values))


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(1).beta(5, 2, 40)
    s = summarise(values, resamples=9999)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999, rng=2).confidence_interval
    assert (s.low, s.high) == pytest.approx((reference.low, reference.high), abs=0.004)


def test_the_interval_is_seeded():
    values = np.random.default_rng(1).random(12)
    assert summarise(values, seed=3) == summarise(values, seed=3)
    assert summarise(values, seed=3).low != summarise(values, seed=4).low


def test_patients_are_drawn_whole():
    """Ten equal scans of each of four patients say no more than one scan of each."""
    single = [0.2, 0.5, 0.6, 0.9]
    repeated, owners = np.repeat(single, 10), np.repeat(list("abcd"), 10)
    clustered = summarise(repeated, owners.tolist())
    assert (clustered.low, clustered.high) == pytest.approx((summarise(single).low, summarise(single).high))
    naive = summarise(repeated)
    assert naive.high - naive.low < (clustered.high - clustered.low) / 2


def test_too_little_to_say():
    assert math.isnan(summarise([0.5]).low)
    assert math.isnan(summarise([0.5]).sd)
    nothing = summarise([math.nan, math.nan])
    assert math.isnan(nothing.mean)
    assert (nothing.count, nothing.undefined) == (0, 2)

"""The search for a threshold: Dice at each of them, and which is taken."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score

from cpfnet.inference.threshold_search import NEUTRAL, THRESHOLDS, best_choice, best_threshold, dice_curve

EDGES = [0, 1, *THRESHOLDS[::7], *(np.nextafter(np.float32(t), np.float32(1)) for t in THRESHOLDS[::11])]
"""Probabilities at some thresholds and just above others."""


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_the_curve_is_the_dice_at_each_threshold(data):
    shape = (5, 6)
    probability = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([np.float32(v) for v in EDGES])))
    truth = data.draw(hnp.arrays(bool, shape))
    valid = data.draw(hnp.arrays(bool, shape).filter(lambda mask: mask.any()))
    curve = dice_curve(probability, truth, valid)
    for t, dice in list(zip(THRESHOLDS, curve, strict=True))[::9]:
        expected = f1_score(truth[valid], probability[valid] > np.float32(t), zero_division=1.0)
        assert dice == pytest.approx(expected)


def test_the_best_of_cases_together():
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(4):
        truth = rng.random((50, 50)) < 0.2
        # above 0.7 lie all pixels of the class and none other; noise below
        probability = np.where(truth, rng.uniform(0.71, 1, truth.shape), rng.uniform(0, 0.695, truth.shape))
        curves.append(dice_curve(probability.astype(np.float32), truth, np.ones_like(truth)))
    assert best_threshold(curves) == (0.7, 1.0)


def test_of_equal_thresholds_the_one_nearest_to_a_half():
    assert best_threshold([np.ones(99)]) == (0.5, 1.0)
    curve = np.where(np.array(THRESHOLDS) > 0.625, 0.8, 0.2)
    assert best_threshold([curve, curve]) == (0.63, pytest.approx(0.8))


def test_every_case_weighs_the_same_however_large_it_is():
    small, large = np.zeros(99), np.zeros(99)
    small[20], large[80] = 0.9, 0.8
    assert best_threshold([small, large])[0] == THRESHOLDS[20]


def test_the_best_threshold_of_calibrated_probabilities_is_half_its_dice():
    """As Lipton et al. prove, so that a structure with a Dice below 0.1 needs one below 0.05."""
    rng = np.random.default_rng(0)
    probability = rng.beta(0.8, 80, 400_000).astype(np.float32)
    truth = rng.random(probability.shape) < probability
    threshold, dice = best_threshold([dice_curve(probability, truth, np.ones_like(truth))])
    assert dice < 0.1
    assert threshold == pytest.approx(dice / 2, abs=0.01)


@pytest.mark.parametrize(
    ("means", "neutral", "expected"),
    [
        ([0.5, 0.5, 0.5], 0, 0),
        ([0.5, 0.7, 0.7], 0, 1),
        ([0.7, 0.7, 0.5], 2, 1),
        ([0.7, 0.1, 0.7], 1, 0),
        ([0.7, 0.7 + 1e-13, 0.7], 0, 0),  # no more than rounding
    ],
)
def test_of_equal_choices_the_one_nearest_to_the_neutral_one(means, neutral, expected):
    assert best_choice(np.array(means), neutral) == expected


def test_the_neutral_threshold_is_a_half():
    assert THRESHOLDS[NEUTRAL] == 0.5

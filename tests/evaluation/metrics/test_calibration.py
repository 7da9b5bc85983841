"""Calibration figures against scikit-learn, and the band around a boundary against distances counted one by one."""

import tracemalloc

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from cpfnet.evaluation.metrics import calibration
from cpfnet.evaluation.metrics.calibration import BINS, Tally, figures, near_boundary, of_cases, tally


@pytest.fixture
def sample():
    rng = np.random.default_rng(3)
    probability = rng.beta(0.4, 0.7, 4000).astype(np.float32)
    return probability, rng.random(4000) < probability**1.5


def test_brier_and_diagram_are_scikit_learns(sample):
    probability, truth = sample
    found = Tally.of(probability, truth)
    assert found.brier == pytest.approx(brier_score_loss(truth, probability), abs=1e-8)
    share, mean = calibration_curve(truth, probability, n_bins=BINS)
    diagram = found.diagram()
    np.testing.assert_allclose(diagram["share"], share)
    np.testing.assert_allclose(diagram["probability"], mean, rtol=1e-6)
    weights = np.histogram(probability, BINS, (0, 1))[0]
    assert found.ece == pytest.approx(np.average(np.abs(share - mean), weights=weights), abs=1e-7)


def test_tallies_add_up_and_weights_count(sample):
    probability, truth = sample
    whole, parts = Tally.of(probability, truth), [Tally.of(probability[i::3], truth[i::3]) for i in range(3)]
    total = parts[0] + parts[1] + parts[2]
    assert (total.ece, total.brier) == pytest.approx((whole.ece, whole.brier))
    half = whole * 0.5
    for name, values in (half + half).diagram().items():
        assert values == pytest.approx(whole.diagram()[name])


def test_a_large_volume_is_counted_in_parts(sample):
    probability, truth = (np.tile(values, 1000) for values in sample)
    tracemalloc.start()
    large = Tally.of(probability, truth)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    small = Tally.of(*sample)
    assert (large.ece, large.brier) == pytest.approx((small.ece, small.brier))
    assert large.pixels.tolist() == (1000 * small.pixels).tolist()
    assert (
        peak < 12 * probability.size
    )  # bytes a pixel; as float64 the values alone are 8, and four such arrays were needed


def test_without_pixels_nothing_is_known():
    nothing = Tally.of(np.zeros(0, np.float32), np.zeros(0, bool))
    assert figures(nothing, nothing)["ece"] is None
    assert figures(nothing, nothing)["everywhere"] == {"probability": [], "share": [], "pixels": []}


@pytest.mark.parametrize("tile", [64, 5])
@pytest.mark.parametrize(
    ("shape", "spacing", "width"), [((24, 30), None, 3), ((24, 30), (2, 0.8), 3), ((9, 14, 13), (5.0, 4.0, 4.0), 4)]
)
def test_the_band_lies_within_reach_of_the_other_kind(shape, spacing, width, tile, monkeypatch):
    monkeypatch.setattr(calibration, "_TILE", {2: tile, 3: tile})  # at once, and in tiles narrower than the band
    rng = np.random.default_rng(1)
    truth = np.zeros(shape, bool)
    truth[tuple(slice(n // 3, n // 3 + n // 2) for n in shape)] = True
    counted = rng.random(shape) > 0.3
    places = np.argwhere(np.ones(shape, bool)) * np.array(spacing or (1,) * len(shape))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    other = (truth.ravel()[:, None] != truth.ravel()[None]) & counted.ravel()[None]
    expected = counted.ravel() & (np.where(other, distance, np.inf).min(axis=1) <= width)
    np.testing.assert_array_equal(near_boundary(truth, counted, spacing), expected.reshape(shape))


@pytest.mark.parametrize("step", [1.0, 0.5, 1.5, 0.3, 3.0])
@pytest.mark.parametrize("off", [3e-8, -3e-8, 2e-6])
def test_the_band_does_not_hang_on_the_last_digits_of_the_spacing(step, off):
    """A half space: the band is as many slices on each side as fit, by hand."""
    truth = np.zeros((40, 40, 12), bool)
    truth[:20] = True
    counted = np.ones_like(truth)
    slices = int(round(1e6 * calibration.BAND) // round(1e6 * step))
    for spacing in ((step, 1.0, 1.0), (step * (1 + off), 1 - off, 1 + off)):
        found = near_boundary(truth, counted, spacing)
        assert found[20 - slices : 20 + slices].all()
        assert found.sum() == 2 * slices * truth[0].size


@pytest.mark.parametrize("value", [False, True])
def test_without_a_boundary_there_is_no_band(value):
    truth = np.full((8, 9), value)
    assert not near_boundary(truth, np.ones_like(truth), None).any()


def test_scores_of_a_case_are_of_the_pixels_that_count(sample):
    probability, truth = (part.reshape(40, 100) for part in sample)
    counted = np.zeros_like(truth)
    counted[5:30] = True
    found = tally(np.where(counted, probability, 7), truth, counted).scores
    assert found["brier"] == pytest.approx(brier_score_loss(truth[5:30].ravel(), probability[5:30].ravel()), abs=1e-8)
    assert found["ece"] == pytest.approx(Tally.of(probability[counted], truth[counted]).ece)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_other_values_than_probabilities_have_no_calibration(value):
    counted = np.ones((3, 4), bool)
    probability = np.full((3, 4), 0.5, np.float32)
    probability[0, 0] = value
    assert tally(probability, counted, counted) is None


def test_the_band_of_a_large_volume_is_found_in_parts():
    truth = np.zeros((160, 256, 256), bool)
    truth[4:-4, 4:-4, 4:-4] = True
    counted = np.ones_like(truth)
    tracemalloc.start()
    found = near_boundary(truth, counted, (1.0, 1.0, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    inner = np.zeros_like(truth)
    inner[7:-7, 7:-7, 7:-7] = True
    assert not (found & inner).any()
    assert found[5, 5:-5, 5:-5].all()
    assert peak < 8 * truth.size  # bytes a voxel; distances of all at once take 50


def test_cases_add_up_and_readers_of_one_share_its_weight(sample):
    """Class by class over all pixels; of two readers each pixel counts half."""
    probability, truth = sample
    parts = [Tally.of(probability[i::2], truth[i::2]) for i in range(2)]
    second = Tally.of(probability[1::2], ~truth[1::2])
    cases = [{"a": [(parts[0], parts[0])]}, {"a": [(parts[1], parts[1]), (second, parts[1])]}]
    found = of_cases(cases)["a"]
    assert sum(found["everywhere"]["pixels"]) == pytest.approx(4000)
    assert found["brier"] == pytest.approx((parts[0].brier + (parts[1].brier + second.brier) / 2) / 2)
    assert found["brier_band"] == pytest.approx(Tally.of(probability, truth).brier)


def test_cases_without_probabilities_are_not_counted(sample):
    one = Tally.of(*sample)
    found = of_cases([{"a": [(one, one)], "b": [(one, one)]}, {"a": [(one, one)]}, {}])
    assert {name: entry["cases"] for name, entry in found.items()} == {"a": 2, "b": 1}
    assert of_cases([{}]) == {}

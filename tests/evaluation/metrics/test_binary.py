"""Metrics against scikit-learn, MONAI and SimpleITK on random masks, and by hand where those differ or are wrong."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from sklearn import metrics as sklearn_metrics

from cpfnet.evaluation.metrics import binary as metrics
from cpfnet.evaluation.metrics.vessels import thin
from cpfnet.image import spacing_of
from tests import synthetic

SHAPES = hnp.array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=9)


@st.composite
def mask_pairs(draw, empty: bool = True):
    shape = draw(SHAPES)
    masks = hnp.arrays(bool, shape)
    if not empty:
        masks = masks.filter(lambda m: m.any())
    return draw(masks), draw(masks)


@st.composite
def spaced_pairs(draw):
    prediction, truth = draw(mask_pairs(empty=False))
    spacing = draw(st.lists(st.floats(0.3, 4), min_size=truth.ndim, max_size=truth.ndim))
    return prediction, truth, spacing


@pytest.mark.filterwarnings("ignore:A single label was found:UserWarning")
@given(mask_pairs())
def test_overlap_agrees_with_scikit_learn(pair):
    prediction, truth = (mask.ravel() for mask in pair)
    c = metrics.count(prediction, truth)
    assert c.tp + c.fp + c.fn + c.tn == truth.size
    options = {"zero_division": 0}
    references = {
        metrics.dice: sklearn_metrics.f1_score(truth, prediction, **options),
        metrics.iou: sklearn_metrics.jaccard_score(truth, prediction, **options),
        metrics.sensitivity: sklearn_metrics.recall_score(truth, prediction, **options),
        metrics.precision: sklearn_metrics.precision_score(truth, prediction, **options),
        metrics.specificity: sklearn_metrics.recall_score(~truth, ~prediction, **options),
        metrics.accuracy: sklearn_metrics.accuracy_score(truth, prediction),
        metrics.mcc: sklearn_metrics.matthews_corrcoef(truth, prediction),
    }
    for function, reference in references.items():
        value = function(c)
        if math.isnan(value):  # scikit-learn has 0 (or a warning) where nothing is defined
            assert (prediction == truth).all()
            assert truth.all() or not truth.any()
        else:
            assert value == pytest.approx(reference)


@given(mask_pairs(), st.randoms(use_true_random=False))
def test_pixels_that_do_not_count_change_nothing(pair, random):
    prediction, truth = pair
    valid = np.array([random.random() < 0.6 for _ in range(truth.size)]).reshape(truth.shape)
    noise = np.array([random.random() < 0.5 for _ in range(truth.size)]).reshape(truth.shape)
    scores = np.array([random.random() for _ in range(truth.size)]).reshape(truth.shape)
    options = {"tubular": True, "tolerance": 1}
    clean = metrics.score(prediction, truth, valid, probability=scores, **options)
    disturbed = metrics.score(
        np.where(valid, prediction, noise),
        np.where(valid, truth, ~noise),
        valid,
        probability=np.where(valid, scores, 9),
        **options,
    )
    assert clean == pytest.approx(disturbed, nan_ok=True)


@given(st.data())
def test_auc_agrees_with_scikit_learn(data):
    shape = data.draw(SHAPES)
    truth = data.draw(hnp.arrays(bool, shape))
    probability = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0, 0.1, 0.5, 0.9, 1])))
    if truth.all() or not truth.any():
        assert math.isnan(metrics.auc(probability, truth))
    else:
        expected = sklearn_metrics.roc_auc_score(truth.ravel(), probability.ravel())
        assert metrics.auc(probability, truth) == pytest.approx(expected)


@settings(deadline=None)  # the first call imports MONAI's optional parts
@given(spaced_pairs(), st.floats(0, 5))
def test_surface_distances_agree_with_monai(pair, tolerance):
    prediction, truth, spacing = pair
    distances = metrics.surface_distances(prediction, truth, spacing)
    # a tolerance that equals a distance up to rounding may fall on either side of <=
    if np.isclose(np.concatenate(distances), tolerance, rtol=1e-4, atol=1e-6).any():
        tolerance += 1e-3
    a, b = (torch.from_numpy(mask[None, None]) for mask in (prediction, truth))
    options = {"include_background": True, "spacing": spacing}
    hd95 = compute_hausdorff_distance(a, b, percentile=95, **options).item()
    assd = compute_average_surface_distance(a, b, symmetric=True, **options).item()
    nsd = compute_surface_dice(a, b, [tolerance], **options).item()
    assert metrics.hd95(distances) == pytest.approx(hd95, abs=1e-3)  # MONAI interpolates in float32
    assert metrics.assd(distances) == pytest.approx(assd, rel=1e-5, abs=1e-6)
    assert metrics.nsd(distances, tolerance) == pytest.approx(nsd, abs=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_a_shift_by_the_tolerance_is_within_it_on_any_grid(seed):
    """Oblique, anisotropic, written as float32: equal to MONAI on the straight grid, except for rounding."""
    rng = np.random.default_rng(seed)
    spacing = rng.choice([0.1, 0.2, 0.3, 1 / 3, 0.7, 0.9, 1.1, 2.5, 5e-5], 3) if seed % 2 else rng.uniform(0.05, 5, 3)
    written = synthetic.affine(
        tuple(spacing), degrees=tuple(rng.uniform(-40, 40, 3)), origin=tuple(rng.uniform(-200, 200, 3))
    )
    if seed % 4 < 2:
        written = synthetic.affine(tuple(spacing), degrees=(12, 0, 7))
    read = spacing_of(written.astype(np.float32).astype(float))
    axis, steps = int(rng.integers(3)), int(rng.integers(1, 6))
    truth = np.zeros((18, 18, 18), bool)
    truth[tuple(slice(5, 5 + n) for n in rng.integers(2, 8, 3))] = True
    prediction = np.roll(truth, steps, axis)
    tolerance = steps * float(spacing[axis])
    a, b = (torch.from_numpy(mask[None, None]) for mask in (prediction, truth))
    options = {"include_background": True, "spacing": spacing.tolist()}
    found = metrics.surface(prediction, truth, read, tolerance=tolerance)
    assert found["nsd"] == 1 == compute_surface_dice(a, b, [tolerance * (1 + 1e-6)], **options).item()
    shorter = metrics.surface(prediction, truth, read, tolerance=0.999 * tolerance)["nsd"]
    assert shorter == pytest.approx(compute_surface_dice(a, b, [0.999 * tolerance], **options).item(), abs=1e-6)
    hd95 = compute_hausdorff_distance(a, b, percentile=95, **options).item()
    assd = compute_average_surface_distance(a, b, symmetric=True, **options).item()
    assert found["hd95"] == pytest.approx(hd95, rel=1e-5)
    assert found["assd"] == pytest.approx(assd, rel=1e-5)


@settings(deadline=None, max_examples=40)
@given(spaced_pairs())
def test_surface_distances_agree_with_simpleitk(pair):
    prediction, truth, spacing = pair

    def image(mask):
        out = sitk.GetImageFromArray(mask.astype(np.uint8))
        out.SetSpacing([float(s) for s in reversed(spacing)])
        return out

    def distances(source, target):
        field = sitk.SignedMaurerDistanceMap(
            image(metrics.boundary(target)), squaredDistance=False, useImageSpacing=True, insideIsPositive=False
        )
        values = sitk.GetArrayFromImage(field)
        return np.maximum(values[metrics.boundary(source)], 0)

    found = metrics.surface_distances(prediction, truth, spacing)
    np.testing.assert_allclose(found.from_prediction, distances(prediction, truth), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.from_truth, distances(truth, prediction), rtol=1e-4, atol=1e-5)


@given(mask_pairs(empty=False))
def test_every_metric_is_symmetric_where_its_definition_is(pair):
    there = metrics.score(pair[0], pair[1], tubular=True)
    back = metrics.score(pair[1], pair[0], tubular=True)
    for name in ("dice", "iou", "accuracy", "mcc", "cldice", "nsd", "hd95", "assd"):
        assert there[name] == pytest.approx(back[name], nan_ok=True)
    assert there["sensitivity"] == back["precision"]


@given(hnp.arrays(bool, SHAPES).filter(lambda m: m.any() and not m.all()))
def test_a_perfect_prediction(mask):
    found = metrics.score(mask, mask, tubular=True, probability=mask.astype(float))
    ones = {name for name, metric in metrics.METRICS.items() if metric.higher_is_better}
    if not thin(mask).any():
        assert math.isnan(found.pop("thin_recall"))
    assert found == {name: 1.0 if name in ones else 0.0 for name in found}
    assert len(found) >= len(metrics.METRICS) - 1


FULL, EMPTY = np.ones((4, 5), bool), np.zeros((4, 5), bool)
PART = np.zeros((4, 5), bool)
PART[1:3, 1:4] = True


def test_both_empty_is_not_defined():
    found = metrics.score(EMPTY, EMPTY, tubular=True, probability=np.zeros(EMPTY.shape))
    assert {name for name, value in found.items() if not math.isnan(value)} == {
        "specificity",
        "accuracy",
        "brier",
        "ece",
    }
    assert found["specificity"] == found["accuracy"] == 1


@pytest.mark.parametrize("mask", [PART, FULL])
def test_missed_and_spurious_structures_score_worst(mask):
    for prediction, truth in ((EMPTY, mask), (mask, EMPTY)):
        found = metrics.score(prediction, truth, tubular=True)
        for name in ("dice", "iou", "sensitivity", "precision", "mcc", "cldice", "nsd"):
            assert found[name] == 0, name
        assert found["hd95"] == found["assd"] == math.inf
        assert found["accuracy"] == 1 - mask.mean()


def test_both_full_has_no_background_to_be_specific_about():
    found = metrics.score(FULL, FULL)
    assert found["dice"] == found["sensitivity"] == found["accuracy"] == found["nsd"] == 1
    assert found["hd95"] == 0
    assert math.isnan(found["specificity"])
    assert math.isnan(found["mcc"])


def test_by_hand():
    prediction = np.roll(PART, 1, axis=1)
    found = metrics.score(prediction, PART, spacing=(1, 0.5), tolerance=0.4)
    assert found["dice"] == pytest.approx(4 / 6)
    assert found["iou"] == pytest.approx(4 / 8)
    assert found["sensitivity"] == found["precision"] == pytest.approx(4 / 6)
    assert found["specificity"] == pytest.approx(12 / 14)
    assert found["accuracy"] == pytest.approx(16 / 20)
    # every pixel of a 2×3 block is boundary; two of each six lie 0.5 mm from the other block
    assert found["assd"] == pytest.approx(2 * 2 * 0.5 / 12)
    assert found["hd95"] == pytest.approx(0.5)
    assert found["nsd"] == pytest.approx(8 / 12)


def test_a_single_slice_is_the_image_it_is():
    random = np.random.default_rng(0)
    prediction, truth = random.random((2, 12, 13)) > 0.4
    flat = metrics.score(prediction, truth, tubular=True, spacing=(2, 3))
    for axis in range(3):
        spacing = list(np.insert([2.0, 3.0], axis, 7.0))
        volume = (np.expand_dims(mask, axis) for mask in (prediction, truth))
        assert metrics.score(*volume, tubular=True, spacing=spacing) == pytest.approx(flat)


def test_boundary_by_hand():
    mask = np.zeros((5, 5), bool)
    mask[:, :3] = True
    inner = {(i, 1) for i in (1, 2, 3)}
    expected = {(i, j) for i, j in itertools.product(range(5), range(3))} - inner
    assert set(map(tuple, np.argwhere(metrics.boundary(mask)).tolist())) == expected

"""The public metrics: against MONAI, SciPy and scikit-learn, from arrays and tensors alike; errors for all else."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from monai.metrics import DiceMetric, compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy.spatial.distance import dice as scipy_dice
from scipy.spatial.distance import jaccard
from sklearn import metrics as sklearn_metrics

from cpfnet import metrics
from cpfnet.errors import CpfnetError
from tests.evaluation.metrics.test_binary import mask_pairs

OF_MASKS = [name for name in metrics.__all__ if name not in ("auc", "confusion", "score")]


@given(mask_pairs(empty=False))
def test_overlap_agrees_with_scipy_scikit_learn_and_monai(pair):
    prediction, truth = pair
    assert metrics.dice(prediction, truth) == pytest.approx(1 - scipy_dice(prediction.ravel(), truth.ravel()))
    assert metrics.iou(prediction, truth) == pytest.approx(1 - jaccard(prediction.ravel(), truth.ravel()))
    given_ = [torch.from_numpy(mask)[None, None] for mask in pair]
    assert metrics.dice(*pair) == pytest.approx(DiceMetric()(*given_).item())
    flat = truth.ravel(), prediction.ravel()
    assert metrics.sensitivity(*pair) == pytest.approx(sklearn_metrics.recall_score(*flat))
    assert metrics.precision(*pair) == pytest.approx(sklearn_metrics.precision_score(*flat))
    assert metrics.accuracy(*pair) == pytest.approx(sklearn_metrics.accuracy_score(*flat))


def discs() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.ogrid[:48, :60]
    first = (rows - 22) ** 2 + (columns - 30) ** 2 < 15**2
    return first, (rows - 25) ** 2 + (columns - 27) ** 2 < 13**2


def test_two_discs_agree_with_monai():
    prediction, truth = discs()
    tensors = [torch.from_numpy(mask)[None, None] for mask in (prediction, truth)]
    spacing = (0.7, 1.3)
    hd = compute_hausdorff_distance(*tensors, include_background=True, percentile=95, spacing=spacing)
    assert metrics.hd95(prediction, truth, spacing=spacing) == pytest.approx(hd.item(), rel=1e-5)
    nsd = compute_surface_dice(*tensors, class_thresholds=[2.0], include_background=True, spacing=spacing)
    assert metrics.nsd(prediction, truth, tolerance=2, spacing=spacing) == pytest.approx(nsd.item(), rel=1e-5)
    found = metrics.assd(prediction, truth, spacing=spacing)
    sides = [
        compute_average_surface_distance(*pair, include_background=True, spacing=spacing).item()
        for pair in (tensors, tensors[::-1])
    ]
    assert min(sides) <= found + 1e-5  # MONAI's takes the mean of the sides, this the mean over all points
    assert found <= max(sides) + 1e-5


@pytest.mark.parametrize("name", OF_MASKS)
def test_tensors_and_numbers_are_masks_too(name):
    prediction, truth = discs()
    valid = np.ones_like(truth)
    valid[:, 30:] = False
    function = getattr(metrics, name)
    for counted in (None, valid):
        expected = function(prediction, truth, valid=counted)
        assert isinstance(expected, float)
        for convert in (
            lambda mask: mask.astype(np.uint8),
            lambda mask: mask.astype(np.float32),
            torch.from_numpy,
            lambda mask: torch.from_numpy(mask).bfloat16().requires_grad_(True),
            lambda mask: mask.tolist(),
        ):
            given_ = None if counted is None else convert(counted)
            np.testing.assert_equal(function(convert(prediction), convert(truth), valid=given_), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tensors_on_a_gpu():
    prediction, truth = (torch.from_numpy(mask).cuda() for mask in discs())
    assert metrics.score(prediction, truth) == metrics.score(*discs())


RATIOS = ["dice", "iou", "sensitivity", "precision", "nsd", "cldice"]


@pytest.mark.parametrize("name", [*RATIOS, "hd95", "assd"])
def test_empty_masks(name):
    full, empty = discs()[0], np.zeros((48, 60), bool)
    function, failure = getattr(metrics, name), 0.0 if name in RATIOS else math.inf
    assert math.isnan(function(empty, empty))
    assert function(full, empty) == failure
    assert function(empty, full) == failure


def test_all_at_once_is_one_after_the_other():
    prediction, truth = discs()
    probability = np.random.default_rng(0).random(truth.shape)
    spacing = (2.0, 0.5)
    found = metrics.score(prediction, truth, spacing=spacing, tolerance=3, tubular=True, probability=probability)
    for name in OF_MASKS:
        options = {"spacing": spacing} if name in ("hd95", "assd", "nsd") else {}
        options |= {"tolerance": 3} if name == "nsd" else {}
        np.testing.assert_equal(found.pop(name), getattr(metrics, name)(prediction, truth, **options))
    assert found.pop("auc") == metrics.auc(torch.from_numpy(probability), truth)
    assert {*found} == {"brier", "ece"}


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(1)
    scores, truth = rng.normal(size=(20, 20)).round(1), rng.random((20, 20)) < 0.3
    expected = sklearn_metrics.roc_auc_score(truth.ravel(), scores.ravel())
    assert metrics.auc(scores, truth) == pytest.approx(expected)
    assert metrics.auc(scores, truth.astype(int)) == pytest.approx(expected)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_confusion_is_scikit_learns_transposed(convert):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 4, (2, 7, 9))
    expected = sklearn_metrics.confusion_matrix(truth.ravel(), prediction.ravel(), labels=range(5)).T
    np.testing.assert_array_equal(metrics.confusion(convert(prediction), convert(truth), 5), expected)
    truth[:3] = 255
    table = metrics.confusion(convert(prediction), convert(truth), 4, valid=convert(truth != 255))
    assert table.sum() == 36
    with pytest.raises(CpfnetError, match="the truth holds 255, and 4 classes are 0 … 3"):
        metrics.confusion(convert(prediction), convert(truth), 4)


@pytest.mark.parametrize("name", OF_MASKS)
@pytest.mark.parametrize(
    ("prediction", "said"),
    [
        (np.full((4, 4), 255, np.uint8), "from 255 to 255; a mask holds 0 and 1"),
        (np.full((4, 4), 0.7), "probability > 0.5"),
        (np.full((4, 4), np.nan), "a mask holds 0 and 1"),
        (np.ones((1, 4, 4)), r"shape \(1, 4, 4\), the truth \(4, 4\)"),
        (np.array([["a"] * 4] * 4), "numbers"),
    ],
)
def test_what_is_no_mask_is_refused(name, prediction, said):
    with pytest.raises(CpfnetError) as caught:
        getattr(metrics, name)(prediction, np.ones((4, 4), bool))
    assert re.search(said, str(caught.value))
    assert caught.value.fix


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, -1.0), (1.0, math.nan), (1, 1, 1)])
def test_a_spacing_that_does_not_fit_is_refused(spacing):
    for function in (metrics.hd95, metrics.assd, metrics.nsd, metrics.score):
        with pytest.raises(CpfnetError, match="for masks of 2 axes"):
            function(*discs(), spacing=spacing)


def test_batches_and_bad_numbers_are_refused():
    batch = np.ones((2, 1, 4, 4), bool)
    for function in (metrics.hd95, metrics.cldice, metrics.score):
        with pytest.raises(CpfnetError, match="at a time"):
            function(batch, batch)
    for function in (metrics.nsd, metrics.score):
        with pytest.raises(CpfnetError, match="tolerance"):
            function(*discs(), tolerance=-1)
    nothing = np.full((48, 60), np.nan)
    with pytest.raises(CpfnetError, match="2880 probabilities are NaN"):
        metrics.auc(nothing, discs()[0])
    with pytest.raises(CpfnetError, match="2880 probabilities are NaN"):
        metrics.score(*discs(), probability=nothing)
    with pytest.raises(CpfnetError, match="the probability"):
        metrics.score(*discs(), probability=nothing[1:])
    with pytest.raises(CpfnetError, match="mask of valid pixels"):
        metrics.dice(*discs(), valid=batch)
    with pytest.raises(CpfnetError, match="classes = 300"):
        metrics.confusion(*discs(), 300)
    with pytest.raises(CpfnetError, match="integers"):
        metrics.confusion(np.zeros((2, 2)), np.zeros((2, 2)), 2)

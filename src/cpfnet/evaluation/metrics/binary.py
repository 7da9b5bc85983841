"""How well one binary mask matches another: overlap, ranking and surface distances; for vessels, see also `vessels`.

Conventions for all of them: NaN means *not defined*, and occurs only where truth and prediction are both empty of what
the metric divides by (for sensitivity, precision, Dice …: both without the structure; for specificity: both without
background). If only one of them is empty, that is a failure and scores like one: ratios are 0 and distances infinite.
Two metrics depend on the truth alone: AUC needs both kinds of pixels there, thin recall needs a thin vessel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from cpfnet.evaluation.metrics import calibration
from cpfnet.evaluation.metrics.vessels import cldice, squeeze_single_slices, thin_recall
from cpfnet.rounding import above


class Metric(NamedTuple):
    """The name of a metric, which direction is better, and whether it is in mm or pixels."""

    label: str
    higher_is_better: bool = True
    distance: bool = False


METRICS: dict[str, Metric] = {
    "dice": Metric("Dice"),
    "iou": Metric("IoU"),
    "sensitivity": Metric("Sensitivity"),
    "specificity": Metric("Specificity"),
    "precision": Metric("Precision"),
    "accuracy": Metric("Accuracy"),
    "auc": Metric("AUC"),
    "brier": Metric("Brier", higher_is_better=False),
    "ece": Metric("ECE", higher_is_better=False),
    "mcc": Metric("MCC"),
    "cldice": Metric("clDice"),
    "thin_recall": Metric("Thin recall"),
    "nsd": Metric("NSD"),
    "hd95": Metric("HD95", higher_is_better=False, distance=True),
    "assd": Metric("ASSD", higher_is_better=False, distance=True),
}
"""Every metric by its key in rows and files, in the order of tables."""


@dataclass(frozen=True)
class Counts:
    """Pixels of one class: true and false positives and negatives."""

    tp: int
    fp: int
    fn: int
    tn: int


def count(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> Counts:
    """Count pixels.

    Args:
        prediction, truth: bool, of one shape.
        valid: bool; pixels that count (default: all). All others are left out of everything.
    """
    total = truth.size
    if valid is not None:
        prediction, truth, total = prediction & valid, truth & valid, int(np.count_nonzero(valid))
    tp = int(np.count_nonzero(prediction & truth))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(truth)) - tp
    return Counts(tp, fp, fn, total - tp - fp - fn)


def _ratio(part: int, whole: int, *, other: int) -> float:
    """part / whole; for an empty whole: 0 if the other mask is not empty (``other`` pixels), NaN if it is, too."""
    if whole:
        return part / whole
    return 0.0 if other else math.nan


def dice(c: Counts) -> float:
    """2 TP / (2 TP + FP + FN)."""
    return _ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn, other=0)


def iou(c: Counts) -> float:
    """TP / (TP + FP + FN), the Jaccard index."""
    return _ratio(c.tp, c.tp + c.fp + c.fn, other=0)


def sensitivity(c: Counts) -> float:
    """TP / (TP + FN), also called recall."""
    return _ratio(c.tp, c.tp + c.fn, other=c.fp)


def specificity(c: Counts) -> float:
    """TN / (TN + FP): the sensitivity of what is not the class."""
    return _ratio(c.tn, c.tn + c.fp, other=c.fn)


def precision(c: Counts) -> float:
    """TP / (TP + FP); 0 for a missed structure, which predicts nothing to be precise about."""
    return _ratio(c.tp, c.tp + c.fp, other=c.fn)


def accuracy(c: Counts) -> float:
    """(TP + TN) / all pixels that count."""
    return _ratio(c.tp + c.tn, c.tp + c.fp + c.fn + c.tn, other=0)


def mcc(c: Counts) -> float:
    """Matthews correlation coefficient, −1 … 1; 0 if one mask is constant, NaN if both are, with the same value."""
    if c.fp + c.fn == 0 and 0 in (c.tp, c.tn):
        return math.nan
    factors = (c.tp + c.fp, c.tp + c.fn, c.tn + c.fp, c.tn + c.fn)
    if 0 in factors:
        return 0.0
    return (c.tp * c.tn - c.fp * c.fn) / math.sqrt(math.prod(factors))


def auc(probability: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Area under the ROC curve: the chance that a pixel of the class is ranked above one that is not; ties count half.

    Args:
        probability: any real score of the class, shape of ``truth``.
        truth: bool.
        valid: bool; pixels that count (default: all).

    Returns:
        0 … 1; NaN where the truth holds pixels of one kind only.
    """
    inside, outside = (truth, ~truth) if valid is None else (truth & valid, ~truth & valid)
    positive, negative = probability[inside], np.sort(probability[outside])
    if not positive.size or not negative.size:
        return math.nan
    # Sorted needles make the search walk memory in order: twice as fast on volumes.
    positive = np.sort(positive)
    below = np.searchsorted(negative, positive, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(negative, positive, side="right").sum(dtype=np.float64)
    return float((below + not_above) / (2.0 * positive.size * negative.size))


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask with a face neighbour outside it; what lies beyond the array is outside.

    An axis of length 1 has no neighbours: a single slice is treated as the image that it is.
    """
    image = squeeze_single_slices(mask)
    return (image & ~ndimage.binary_erosion(image)).reshape(mask.shape)


class SurfaceDistances(NamedTuple):
    """Distance of each boundary pixel to the nearest boundary pixel of the other mask."""

    from_prediction: np.ndarray
    from_truth: np.ndarray


def surface_distances(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None
) -> SurfaceDistances:
    """Distances between the boundaries (see `boundary`) of two masks, between pixel centres, exact.

    Boundaries are few points in a large volume: a k-d tree finds the nearest ones some 9 times faster
    than distance maps.

    Args:
        prediction, truth: bool, of one shape.
        spacing: mm between neighbours along each axis; default: 1, so that distances are in pixels.

    Returns:
        Two 1-D arrays in the unit of ``spacing``; if only one mask is empty, infinity for each boundary pixel of the
        other; if both are, empty arrays.
    """
    scale = np.ones(truth.ndim) if spacing is None else np.asarray(spacing, dtype=float)
    a, b = (np.argwhere(boundary(mask)) * scale for mask in (prediction, truth))
    if not len(a) or not len(b):
        return SurfaceDistances(np.full(len(a), math.inf), np.full(len(b), math.inf))
    return SurfaceDistances(cKDTree(b).query(a)[0], cKDTree(a).query(b)[0])


def hd95(d: SurfaceDistances) -> float:
    """The larger of the two directed 95th percentiles (linear interpolation) of surface distances."""
    if not d.from_prediction.size and not d.from_truth.size:
        return math.nan
    if not d.from_prediction.size or not d.from_truth.size:
        return math.inf
    return float(max(np.percentile(side, 95) for side in d))


def assd(d: SurfaceDistances) -> float:
    """Average symmetric surface distance: mean over the boundary pixels of both masks together."""
    both = np.concatenate(d)
    return float(both.mean()) if both.size else math.nan


def nsd(d: SurfaceDistances, tolerance: float) -> float:
    """Normalised surface Dice: share of both boundaries within ``tolerance`` of the other (Nikolov et al. 2021).

    A boundary's size is its number of pixels, as in MONAI without subvoxels. Distances up to the tolerance, allowing
    for rounding, are within it.
    """
    both = np.concatenate(d)
    return float((~above(both, tolerance)).mean()) if both.size else math.nan


def overlap(c: Counts) -> dict[str, float]:
    """All metrics that need only the counts."""
    return {
        "dice": dice(c),
        "iou": iou(c),
        "sensitivity": sensitivity(c),
        "specificity": specificity(c),
        "precision": precision(c),
        "accuracy": accuracy(c),
        "mcc": mcc(c),
    }


def surface(
    prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float] | None = None, *, tolerance: float = 1.0
) -> dict[str, float]:
    """NSD, HD95 and ASSD; see `surface_distances` for the arguments.

    Cropping both masks to their bounding box changes nothing.
    """
    distances = surface_distances(prediction, truth, spacing)
    return {"nsd": nsd(distances, tolerance), "hd95": hd95(distances), "assd": assd(distances)}


def score(
    prediction: np.ndarray,
    truth: np.ndarray,
    valid: np.ndarray | None = None,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 1.0,
    tubular: bool = False,
    probability: np.ndarray | None = None,
) -> dict[str, float]:
    """Every metric that applies.

    Args:
        prediction, truth: bool, 2-D or 3-D, of one shape.
        valid: bool; pixels that count. The others are removed from both masks before anything is computed, so that a
            structure cut by the region's edge has its boundary there, in both masks.
        spacing: mm between neighbours along each axis; default: distances in pixels.
        tolerance: of NSD, in the unit of ``spacing``.
        tubular: add clDice and thin recall.
        probability: of the class, shape of ``truth``; adds AUC, and where it lies in 0…1 Brier score and ECE.

    Returns:
        Metric → value, with the keys of `METRICS` that apply.
    """
    out = overlap(count(prediction, truth, valid))
    if probability is not None:
        out["auc"] = auc(probability, truth, valid)
        tally = calibration.tally(probability, truth, np.ones_like(truth) if valid is None else valid)
        out |= {} if tally is None else tally.scores
    if valid is not None:
        prediction, truth = prediction & valid, truth & valid
    if tubular:
        out |= {"cldice": cldice(prediction, truth), "thin_recall": thin_recall(prediction, truth)}
    out |= surface(prediction, truth, spacing, tolerance=tolerance)
    return {name: out[name] for name in METRICS if name in out}

"""The metrics as functions of two masks, for a loop of one's own: NumPy arrays, or PyTorch's tensors on any device.

Masks are bool, or numbers of which each is 0 or 1, of one shape, the prediction first. One mask is one class of one
case: of label maps give ``prediction == label, truth == label``, of a batch one sample after the other. ``valid``, bool
and of that shape, leaves all other pixels out of everything, by default none.

Conventions for empty masks. NaN means *not defined*, and occurs only where both masks are empty of what the metric
divides by (for Dice, IoU, sensitivity, precision and all distances: both without the structure); take means with
``numpy.nanmean``. If only one of them is empty, that is a failure and scores like one: ratios are 0 and distances
infinite.

Every function raises `CpfnetError` for masks that hold other values than 0 and 1, and for shapes that differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cpfnet.errors import CpfnetError
from cpfnet.evaluation.metrics import binary, vessels
from cpfnet.evaluation.metrics.binary import Counts
from cpfnet.evaluation.metrics.confusion import confusion as confusion_of_codes

CODES = 256
"""Labels that `confusion` can count."""


def _array(values: Any, name: str) -> np.ndarray:
    """A NumPy array of an array, or of a tensor wherever it is."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float().numpy() if values.is_floating_point() else values.numpy()  # NumPy has no bfloat16
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise CpfnetError(f"the {name} holds {array.dtype}", fix="give an array or a tensor of numbers")
    return array


def _mask(values: Any, name: str) -> np.ndarray:
    array = _array(values, name)
    if array.dtype.kind == "b":
        return array
    mask = array != 0
    if not (array == mask).all():  # also NaN
        raise CpfnetError(
            f"the {name} holds values from {array.min():g} to {array.max():g}; a mask holds 0 and 1",
            fix="give one class: `labels == 1`, `grey > 0`, `probability > 0.5`",
        )
    return mask


def _alike(shape: tuple[int, ...], other: np.ndarray, name: str) -> None:
    if other.shape != shape:
        raise CpfnetError(f"the prediction has the shape {shape}, the {name} {other.shape}", fix="give one grid")


def _pair(prediction: Any, truth: Any, valid: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    first, second = _mask(prediction, "prediction"), _mask(truth, "truth")
    _alike(first.shape, second, "truth")
    if valid is None:
        return first, second, None
    counted = _mask(valid, "mask of valid pixels")
    _alike(first.shape, counted, "mask of valid pixels")
    return first, second, counted


def _counts(prediction: Any, truth: Any, valid: Any) -> Counts:
    return binary.count(*_pair(prediction, truth, valid))


def _one_case(mask: np.ndarray) -> None:
    if mask.ndim not in (2, 3):
        raise CpfnetError(
            f"masks of {mask.ndim} axes, {mask.shape}",
            fix="give one image (height, width) or volume (depth, height, width) at a time",
        )


def _spatial(prediction: Any, truth: Any, valid: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second, counted = _pair(prediction, truth, valid)
    _one_case(first)
    return (first, second) if counted is None else (first & counted, second & counted)


def _scores(probability: Any, truth: np.ndarray, counted: np.ndarray | None) -> np.ndarray:
    scores = _array(probability, "probability")
    if scores.shape != truth.shape:
        raise CpfnetError(f"the probability has the shape {scores.shape}, the truth {truth.shape}", fix="give one grid")
    missing = int(np.isnan(scores if counted is None else scores[counted]).sum())
    if missing:
        raise CpfnetError(f"{missing} probabilities are NaN", fix="look for what made them")
    return scores


def _tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < math.inf:
        raise CpfnetError(f"tolerance = {tolerance!r}", fix="give a distance of 0 or more, in the unit of spacing")


def _millimetres(spacing: Sequence[float] | None, axes: int) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    steps = tuple(float(step) for step in spacing)
    if len(steps) != axes or not all(0 < step < math.inf for step in steps):
        raise CpfnetError(f"spacing = {steps} for masks of {axes} axes", fix="give one number above 0 for each axis")
    return steps


def _distances(prediction: Any, truth: Any, spacing: Any, valid: Any) -> binary.SurfaceDistances:
    first, second = _spatial(prediction, truth, valid)
    return binary.surface_distances(first, second, _millimetres(spacing, first.ndim))


def dice(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """2 TP / (2 TP + FP + FN), 0 … 1 (Dice 1945); NaN where both are empty.

    Example:
        >>> cpfnet.metrics.dice(logits.argmax(1)[0] == 1, labels[0] == 1)
    """
    return binary.dice(_counts(prediction, truth, valid))


def iou(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """TP / (TP + FP + FN), 0 … 1, the Jaccard index; NaN where both are empty.

    Example:
        >>> cpfnet.metrics.iou(predicted == 1, truth == 1)
    """
    return binary.iou(_counts(prediction, truth, valid))


def sensitivity(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """TP / (TP + FN), 0 … 1, also called recall; NaN where both are empty, 0 where the truth alone is.

    Example:
        >>> cpfnet.metrics.sensitivity(predicted == 1, truth == 1)
    """
    return binary.sensitivity(_counts(prediction, truth, valid))


def specificity(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """TN / (TN + FP), 0 … 1: the sensitivity of what is not the class; NaN where both masks are full.

    Example:
        >>> cpfnet.metrics.specificity(predicted == 1, truth == 1)
    """
    return binary.specificity(_counts(prediction, truth, valid))


def precision(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """TP / (TP + FP), 0 … 1; NaN where both are empty, 0 for a missed structure.

    Example:
        >>> cpfnet.metrics.precision(predicted == 1, truth == 1)
    """
    return binary.precision(_counts(prediction, truth, valid))


def accuracy(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """(TP + TN) / all pixels that count, 0 … 1; a large background makes it high. NaN without pixels.

    Example:
        >>> cpfnet.metrics.accuracy(predicted == 1, truth == 1)
    """
    return binary.accuracy(_counts(prediction, truth, valid))


def mcc(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """Matthews correlation coefficient, −1 … 1; 0 if one mask is constant, NaN if both are, with the same value.

    Source:
        Matthews, Biochim. Biophys. Acta 1975.

    Example:
        >>> cpfnet.metrics.mcc(predicted == 1, truth == 1)
    """
    return binary.mcc(_counts(prediction, truth, valid))


def auc(probability: Any, truth: Any, *, valid: Any = None) -> float:
    """Area under the ROC curve, 0 … 1; ties count half. NaN where the truth holds pixels of one kind only.

    Args:
        probability: of the class, or any other real score of it, shape of ``truth``.
        truth, valid: masks.

    Raises:
        CpfnetError: see the module; or a score that is NaN.

    Example:
        >>> cpfnet.metrics.auc(logits.softmax(1)[0, 1], labels[0] == 1)
    """
    _, mask, counted = _pair(truth, truth, valid)
    return binary.auc(_scores(probability, mask, counted), mask, counted)


def hd95(prediction: Any, truth: Any, *, spacing: Sequence[float] | None = None, valid: Any = None) -> float:
    """95th percentile of the surface distances, the larger of both directions, in the unit of ``spacing``.

    NaN where both are empty, infinite where one is. Boundaries are pixels with a face neighbour outside the mask, as in
    MONAI; distances are between pixel centres.

    Args:
        prediction, truth, valid: masks, 2-D or 3-D.
        spacing: mm between neighbours along each axis; default: distances in pixels.

    Raises:
        CpfnetError: see the module; or a spacing that is not one number above 0 for each axis.

    Source:
        Huttenlocher et al., IEEE TPAMI 1993; the percentile by linear interpolation.

    Example:
        >>> cpfnet.metrics.hd95(predicted == 1, truth == 1, spacing=(5.0, 0.8, 0.8))
    """
    return binary.hd95(_distances(prediction, truth, spacing, valid))


def assd(prediction: Any, truth: Any, *, spacing: Sequence[float] | None = None, valid: Any = None) -> float:
    """Average symmetric surface distance: mean over the boundary pixels of both masks together.

    Arguments, unit, errors and empty masks as in `hd95`.

    Source:
        Heimann et al., IEEE TMI 2009.

    Example:
        >>> cpfnet.metrics.assd(predicted == 1, truth == 1, spacing=(0.8, 0.8))
    """
    return binary.assd(_distances(prediction, truth, spacing, valid))


def nsd(
    prediction: Any,
    truth: Any,
    *,
    tolerance: float = 1.0,
    spacing: Sequence[float] | None = None,
    valid: Any = None,
) -> float:
    """Normalised surface Dice, 0 … 1: the share of both boundaries at most ``tolerance`` away from the other.

    NaN where both are empty, 0 where one is.

    Args:
        prediction, truth, spacing, valid: as in `hd95`.
        tolerance: in the unit of ``spacing``.

    Raises:
        CpfnetError: as `hd95`; or a tolerance that is not finite and at least 0.

    Source:
        Nikolov et al., J. Med. Internet Res. 2021.

    Example:
        >>> cpfnet.metrics.nsd(predicted == 1, truth == 1, tolerance=2, spacing=(0.8, 0.8))
    """
    _tolerance(tolerance)
    return binary.nsd(_distances(prediction, truth, spacing, valid), tolerance)


def cldice(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """Centreline Dice, 0 … 1: harmonic mean of the shares of each skeleton inside the other mask.

    NaN where both are empty, 0 where one is. For tubes: vessels, airways.

    Args:
        prediction, truth, valid: masks, 2-D or 3-D.

    Source:
        Shit et al., CVPR 2021; skeletons by scikit-image.

    Example:
        >>> cpfnet.metrics.cldice(predicted == 1, truth == 1)
    """
    return vessels.cldice(*_spatial(prediction, truth, valid))


def thin_recall(prediction: Any, truth: Any, *, valid: Any = None) -> float:
    """Share, 0 … 1, of the truth's vessels of at most 3 pixels' width that is predicted; NaN where it has none.

    Args:
        prediction, truth, valid: masks, 2-D or 3-D.

    Source:
        Widths are local thickness: Hildebrand and Rüegsegger, J. Microsc. 1997.

    Example:
        >>> cpfnet.metrics.thin_recall(predicted == 1, truth == 1)
    """
    return vessels.thin_recall(*_spatial(prediction, truth, valid))


def score(
    prediction: Any,
    truth: Any,
    *,
    spacing: Sequence[float] | None = None,
    tolerance: float = 1.0,
    tubular: bool = False,
    probability: Any = None,
    valid: Any = None,
) -> dict[str, float]:
    """All of them by name: the surfaces are searched once, so it costs less than one after the other.

    Args:
        prediction, truth, valid: masks, 2-D or 3-D.
        spacing, tolerance: as in `nsd`.
        tubular: add clDice and thin recall.
        probability: of the class; adds AUC, and where it lies in 0 … 1 Brier score and expected calibration error.

    Returns:
        Metric → value, as ``dice, iou, sensitivity, specificity, precision, accuracy, mcc, nsd, hd95, assd``.

    Raises:
        CpfnetError: as `nsd` and `auc`.

    Example:
        >>> cpfnet.metrics.score(predicted == 1, truth == 1, spacing=(0.8, 0.8))["hd95"]
    """
    first, second, counted = _pair(prediction, truth, valid)
    _one_case(first)
    _tolerance(tolerance)
    steps = _millimetres(spacing, first.ndim)
    scores = None if probability is None else _scores(probability, second, counted)
    return binary.score(first, second, counted, spacing=steps, tolerance=tolerance, tubular=tubular, probability=scores)


def confusion(prediction: Any, truth: Any, classes: int, *, valid: Any = None) -> np.ndarray:
    """How often each pair of labels meets; label maps here, not masks.

    Args:
        prediction, truth: integers from 0 to ``classes`` − 1, of one shape.
        classes: with the background; 256 at most.
        valid: mask of the pixels that count, as everywhere.

    Returns:
        int64 ``(classes, classes)``: rows are the *prediction's* labels, columns the truth's (scikit-learn has them the
        other way round). The sum is the number of pixels that count.

    Raises:
        CpfnetError: shapes that differ, or other labels; those of pixels that do not count do not matter.

    Example:
        >>> table = cpfnet.metrics.confusion(logits.argmax(1), labels, classes=3)
        >>> 2 * table.diagonal() / (table.sum(0) + table.sum(1))  # Dice of each class, pooled
    """
    if not 1 <= classes <= CODES:
        raise CpfnetError(f"classes = {classes!r}", fix=f"give a whole number from 1 to {CODES}")
    maps = _array(prediction, "prediction"), _array(truth, "truth")
    _alike(maps[0].shape, maps[1], "truth")
    counted = np.ones(maps[0].shape, bool) if valid is None else _mask(valid, "mask of valid pixels")
    _alike(maps[0].shape, counted, "mask of valid pixels")
    for labels, name in zip(maps, ("prediction", "truth"), strict=True):
        if labels.dtype.kind == "f":
            raise CpfnetError(f"the {name} holds {labels.dtype}", fix="give integers, one label a pixel")
        wrong = np.unique(labels[counted & ((labels < 0) | (labels >= classes))])
        if wrong.size:
            found = ", ".join(map(str, wrong[:5]))
            raise CpfnetError(
                f"the {name} holds {found}, and {classes} classes are 0 … {classes - 1}",
                fix="give more classes, or leave those pixels out: valid=truth != 255",
            )
    first, second = (np.where(counted, labels, 0).astype(np.uint8) for labels in maps)
    return confusion_of_codes(first, second, counted)[:classes, :classes]

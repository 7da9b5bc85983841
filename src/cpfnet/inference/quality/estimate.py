"""How good a prediction probably is, told from its own probabilities and from how the validation cases did. NumPy only.

The *confidence* of a prediction is the mean probability inside the structures that it found: the precision that
calibrated probabilities promise. Of what was tried on dermoscopy and MR (the Dice that the probabilities promise,
entropy around the boundary, agreement of mirrored copies) it told failures apart best, because the many small
probabilities far from a structure do not enter it (benchmarks/trust.md). A network that is sure and wrong cannot be
found out this way.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cpfnet.image import Assessment
from cpfnet.model import Quality
from cpfnet.planning import Labels
from cpfnet.rounding import below

LEAST_CASES = 10
"""Validation cases for an estimate of Dice: with fewer, its mean error is itself uncertain by more than a quarter."""

LEAST_COMPARED = 4
"""Validation cases to compare a confidence with: with fewer, one good case in five and more would be below them all."""

LOW = 0.1
"""Share of the validation cases, the least sure, whose confidence makes a case one to look at.

About one good case in ten is then looked at for nothing.
"""

_FLAWLESS = 0.005
"""Least 1 - Dice and 1 - confidence that count, since their ratio means nothing near zero."""


class Confidence:
    """Mean probability of each class where it was found, of an image that comes part by part.

    Args:
        labels: the Plan's.
    """

    def __init__(self, labels: Labels):
        self.labels = labels
        self._sums, self._counts = [0.0] * len(labels.classes), [0] * len(labels.classes)

    def add(self, probabilities: np.ndarray, classes: np.ndarray) -> None:
        """Count a part.

        Args:
            probabilities: ``(planes, …)``, calibrated, 0…1: of exclusive labels the background comes first.
            classes: as `preprocessing.decision.decide` gives them, on the same grid.
        """
        exclusive = self.labels.exclusive
        for index in range(len(self.labels.classes)):
            sure = probabilities[index + exclusive][classes == index + 1 if exclusive else classes[index]]
            self._sums[index] += float(sure.sum(dtype=np.float64))
            self._counts[index] += sure.size

    @property
    def means(self) -> tuple[float | None, ...]:
        """One a class; None where none of it was found."""
        return tuple(total / count if count else None for total, count in zip(self._sums, self._counts, strict=True))


def confidences(probabilities: np.ndarray, classes: np.ndarray, labels: Labels) -> tuple[float | None, ...]:
    """`Confidence` of a whole image."""
    found = Confidence(labels)
    found.add(probabilities, classes)
    return found.means


def fit(
    cases: Sequence[Sequence[float | None]], dices: Sequence[float | None], labels: Labels
) -> tuple[Quality | None, str]:
    """What the validation cases tell of predictions to come.

    The estimate has one coefficient, ``Dice = 1 - factor · (1 - confidence)``, the factor being the geometric mean of
    what the cases say. It held better than a line, a monotone curve and an offset with 4 to 20 cases, and off the range
    of the validation cases.

    Args:
        cases: `confidences` of each validation case.
        dices: mean Dice over the classes of each; None where no class was there or found.
        labels: the Plan's.

    Returns:
        What was found, None where there are too few cases; and in words how good it is, or what is missing and why.
    """
    always = tuple(
        label.name for k, label in enumerate(labels.classes) if cases and all(case[k] is not None for case in cases)
    )
    known = [
        (confidence, dice)
        for case, dice in zip(cases, dices, strict=True)
        if (confidence := _mean(case)) is not None and dice is not None
    ]
    count = len(known)
    what = f"{count} validation case{'s' * (count != 1)}"
    if count < LEAST_COMPARED:
        return (
            None,
            f"not known: {what}; it takes {LEAST_COMPARED} to compare predictions with, "
            f"and {LEAST_CASES} to estimate their Dice",
        )
    x, y = np.array(known).T
    quality = Quality(
        cases=count, lowest=float(np.quantile(x, LOW, method="lower")), found=always, factor=None, error=None
    )
    if count < LEAST_CASES:
        return quality, f"no estimate of Dice: {what}, and it takes {LEAST_CASES}; predictions are compared with them"
    ratios = np.log(np.maximum(1 - y, _FLAWLESS) / np.maximum(1 - x, _FLAWLESS))
    others = (ratios.sum() - ratios) / (count - 1)  # each case left out in turn
    error = float(np.abs(_dice(np.exp(others), x) - y).mean())
    plain = float(np.abs((y.sum() - y) / (count - 1) - y).mean())
    figures = (
        f"mean absolute error {error:.3f} on {count} cases left out in turn; "
        f"the mean Dice of the others errs by {plain:.3f}"
    )
    if error >= plain:
        return (
            quality,
            f"no estimate of Dice, which would tell no more than their mean ({figures}); "
            "predictions are compared with them",
        )
    factor = float(np.exp(ratios.mean()))
    return quality.model_copy(update={"factor": factor, "error": error}), f"estimate of Dice: {figures}"


def assess(case: Sequence[float | None], qualities: Sequence[Quality | None], labels: Labels) -> Assessment:
    """Judge one prediction.

    Args:
        case: its `confidences`.
        qualities: what was fitted for each of the Models behind it. Their means hold for all; one that lacks something
            leaves it out.
        labels: the Plan's.
    """
    confidence = _mean(case)
    fitted = [quality for quality in qualities if quality is not None]
    if len(fitted) < len(qualities):
        return Assessment(confidence, look="nothing was found" if confidence is None else "")
    names = [label.name for label, value in zip(labels.classes, case, strict=True) if value is None]
    missed = [name for name in names if all(name in quality.found for quality in fitted)]
    if missed:  # a structure that is always there was not found: its Dice is 0
        confidence = sum(value for value in case if value is not None) / (len(missed) + len(case) - len(names))
    if confidence is None:
        return Assessment(None)
    factors = [quality.factor for quality in fitted if quality.factor is not None]
    errors = [quality.error for quality in fitted if quality.error is not None]
    dice = error = None
    if len(factors) == len(errors) == len(fitted):
        dice = float(_dice(float(np.mean(factors)), np.array(confidence)))
        error = float(np.mean(errors)) if confidence else None  # measured where something was found
    lowest = float(np.mean([quality.lowest for quality in fitted]))
    count = min(quality.cases for quality in fitted)
    look = ""
    if missed:
        look = f"no {', '.join(missed)} found, and all {count} validation cases had it"
    elif below(confidence, lowest):
        digits = next((n for n in range(3, 9) if f"{confidence:.{n}f}" != f"{lowest:.{n}f}"), 9)
        share = "all" if count <= 1 / LOW else "9 in 10 of"
        look = (
            f"less sure than {share} {count} validation cases: "
            f"confidence {confidence:.{digits}f}, theirs {lowest:.{digits}f} or more"
        )
    return Assessment(confidence, dice, error, look)


def _dice(factor: np.ndarray | float, confidence: np.ndarray) -> np.ndarray:
    return np.clip(1 - factor * np.maximum(1 - confidence, 0), 0, 1)


def _mean(case: Sequence[float | None]) -> float | None:
    known = [value for value in case if value is not None]
    return sum(known) / len(known) if known else None

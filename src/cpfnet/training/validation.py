"""How good the network is on the validation cases: Dice of each class, pooled over a case, on the network's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cpfnet.evaluation import metrics
from cpfnet.labels import OUTSIDE, membership
from cpfnet.planning import Plan
from cpfnet.training.cache import Cached

Segment = Callable[[np.ndarray], np.ndarray]
"""float32 (channels, [depth,] height, width) → probabilities (planes, [depth,] height, width)."""


def validate(
    segment: Segment,
    cases: Sequence[Cached],
    plan: Plan,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Segment every case and score it.

    Pixels ignored or outside the region of interest count nowhere. A class that is neither there nor predicted has no Dice (None) and enters no mean. Several readers of a case
    are averaged.

    Returns:
        ``dice`` (mean over the classes of their means over the cases), ``classes`` (name → mean), ``cases`` (id → name → Dice).
    """
    names = [c.name for c in plan.labels.classes]
    table = membership(plan.labels)
    scores = {}
    for done, case in enumerate(cases):
        advance(done, len(cases))
        predicted = _decide(segment(np.asarray(case.image())), plan)
        readers = [
            [metrics.dice(metrics.count(predicted[k], table[codes, k], codes < OUTSIDE)) for k in range(len(names))]
            for codes in case.codes()
        ]
        scores[case.id] = [_mean(values) for values in zip(*readers, strict=True)]
    classes = [_mean(values) for values in zip(*scores.values(), strict=True)]
    return {
        "dice": _mean(classes),
        "classes": dict(zip(names, classes, strict=True)),
        "cases": {case: dict(zip(names, values, strict=True)) for case, values in scores.items()},
    }


def _decide(probabilities: np.ndarray, plan: Plan) -> np.ndarray:
    """bool (classes, …)."""
    if plan.labels.exclusive:
        winner = probabilities.argmax(axis=0)
        return winner == np.arange(1, len(probabilities)).reshape(-1, *[1] * winner.ndim)
    return probabilities > 0.5


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None and not math.isnan(v)]
    return math.fsum(known) / len(known) if known else None

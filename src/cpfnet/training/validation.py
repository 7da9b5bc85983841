"""How good the network is on the validation cases: Dice of each class, pooled over a case, on the network's grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cpfnet.evaluation.metrics import binary as metrics
from cpfnet.labels import OUTSIDE, membership
from cpfnet.planning import Labels, Plan
from cpfnet.preprocessing.postprocess import decide
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from cpfnet.training.samples.cache import Cached
from cpfnet.training.samples.validation_subset import Window, cut, joined

Segment = Callable[[np.ndarray], np.ndarray]
"""float32 (channels, [depth,] height, width) → probabilities (planes, [depth,] height, width)."""


def validate(
    segment: Segment,
    cases: Sequence[Cached],
    plan: Plan,
    advance: Callable[[int, int], None] = lambda done, total: None,
    group: ProcessGroup = SINGLE_PROCESS,
    pieces: Mapping[str, Sequence[Window]] | None = None,
) -> dict[str, Any]:
    """Segment every case and score it; in a group each case is one process' work, and all know all scores.

    Pixels ignored or outside the region of interest count nowhere. A class that is neither there nor predicted has no
    Dice (None) and enters no mean. Several readers of a case are averaged.

    Args:
        segment: the network.
        cases: to score.
        plan: `labels` and `spatial`.
        advance: called with the number of cases done and in all; may raise to stop.
        group: this process among those of the run.
        pieces: of each case (its id) the windows that are segmented and scored together, in place of the whole.

    Returns:
        ``dice`` (mean over the classes of their means over the cases), ``classes`` (name → mean), ``cases`` (id → name
        → Dice).
    """
    names = [c.name for c in plan.labels.classes]
    dealt = cases[group.rank :: group.size]

    def score() -> dict[str, list[float | None]]:
        own = {}
        for done, case in enumerate(dealt):
            advance(done, len(dealt))
            if pieces is None:
                predicted, codes = decide(segment(np.asarray(case.image())), plan.labels), case.codes()
            else:
                predicted, codes = _of_pieces(segment, case, pieces[case.id], plan)
            own[case.id] = dices(predicted, codes, plan.labels)
        return own

    parts = group.gather(group.run_on_all(score))
    scores = {case.id: parts[index % group.size][case.id] for index, case in enumerate(cases)}
    classes = [mean(values) for values in zip(*scores.values(), strict=True)] if scores else [None] * len(names)
    return {
        "dice": mean(classes),
        "classes": dict(zip(names, classes, strict=True)),
        "cases": {case: dict(zip(names, values, strict=True)) for case, values in scores.items()},
    }


def _of_pieces(segment: Segment, case: Cached, pieces: Sequence[Window], plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Classes and codes of some pieces of a case, their pixels in a row."""
    image, codes = case.image(), case.codes()
    predicted, true = [], []
    for window in joined(pieces, plan):
        array, inner = cut(image, window, plan)
        classes = decide(segment(array)[:, inner], plan.labels)
        predicted.append(classes.reshape(*(() if plan.labels.exclusive else classes.shape[:1]), -1))
        true.append(codes[(slice(None), *window)].reshape(len(codes), -1))
    return np.concatenate(predicted, axis=-1), np.concatenate(true, axis=-1)


def dices(classes: np.ndarray, codes: np.ndarray, labels: Labels) -> list[float | None]:
    """Dice of each class, the mean over the readers; None where it is neither there nor predicted.

    Args:
        classes: as `decide` gives them.
        codes: uint8 ``(readers, [depth,] height, width)``.
        labels: the Plan's.
    """
    table = membership(labels)
    readers = [
        [
            metrics.dice(
                metrics.count(classes == k + 1 if labels.exclusive else classes[k], table[own, k], own < OUTSIDE)
            )
            for k in range(len(labels.classes))
        ]
        for own in codes
    ]
    return [mean(values) for values in zip(*readers, strict=True)]


def mean(values: Sequence[float | None]) -> float | None:
    """Of those that are known."""
    known = [v for v in values if v is not None and not math.isnan(v)]
    return math.fsum(known) / len(known) if known else None

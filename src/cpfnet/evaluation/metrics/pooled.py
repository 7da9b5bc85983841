"""Metrics of the pixels of all cases as if they were one image, which many retinal papers report instead of means.

A case with much of a structure weighs more here than one with little, and no interval can be given: it is one number.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from threading import Lock
from typing import Any

import numpy as np
from scipy.special import logit

from cpfnet.evaluation.metrics.binary import Counts, overlap

_LOW, _HIGH = -40, 17
"""Logits between which float32 probabilities differ: those below 4e-18 count as equal, and above there is only 1."""
_STEPS = 2048
"""Bins for one unit of the logit: probabilities count as equal if their odds differ by less than 0.05 %."""
_CHUNK = 2**20  # pixels at once


class PooledRanks:
    """AUC over any number of images, each read once: two histograms of logits (2 MB) for each key; thread-safe.

    It equals the exact AUC to about four digits, to six where many pixels count: errors by ties within a bin then
    cancel. The bins follow the logit because networks crowd their probabilities at 0 and 1, where bins of equal width
    would tie most pixels.
    """

    def __init__(self) -> None:
        self._bins: dict[Hashable, np.ndarray | None] = {}
        self._lock = Lock()

    def add(self, key: Hashable, probability: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> None:
        """Count one image.

        Args:
            key: what to pool it with.
            probability: of the class; where one lies outside 0…1, the key has no AUC.
            truth, valid: bool, of the same shape: pixels of the class, pixels that count.
        """
        values, inside = probability[valid], truth[valid]
        counts = None
        if values.size and values.min() >= 0 and values.max() <= 1:
            bins = (_HIGH - _LOW) * _STEPS + 1
            counts = np.zeros((2, bins), dtype=np.int64)
            for start in range(0, len(values), _CHUNK):
                some = slice(start, start + _CHUNK)
                place = np.rint((np.clip(logit(values[some]), _LOW, _HIGH) - _LOW) * _STEPS).astype(np.intp)
                counts += [np.bincount(place[inside[some] == kind], minlength=bins) for kind in (True, False)]
        with self._lock:
            before = self._bins.get(key, 0)
            self._bins[key] = None if counts is None or before is None else before + counts

    def auc(self, key: Hashable) -> float | None:
        """As `metrics.auc`, ties counting half; None if nothing was added, or values that are no probabilities."""
        counts = self._bins.get(key)
        if counts is None:
            return None
        positive, negative = counts
        pairs = int(positive.sum()) * int(negative.sum())
        above = np.cumsum(negative) - negative / 2
        return float(positive @ above) / pairs if pairs else math.nan


def pooled(rows: Iterable[Mapping[str, Any]], classes: Iterable[str], ranks: PooledRanks) -> list[dict[str, Any]]:
    """Overlap metrics of summed pixel counts.

    Args:
        rows: of `Scores`.
        classes: names of those to pool.
        ranks: adds AUC; keys ``(prediction, reader, class)``.

    Returns:
        Entries ``prediction, reader, class, cases`` + the metrics of `overlap` + ``auc`` where there are probabilities.
    """
    wanted = set(classes)
    groups: dict[tuple[str, str, str], list[Counts]] = {}
    for row in rows:
        if row["class"] in wanted and "tp" in row:
            counts = Counts(*(row[name] for name in ("tp", "fp", "fn", "tn")))
            groups.setdefault((row["prediction"], row["reader"], row["class"]), []).append(counts)
    out = []
    for key, members in groups.items():
        total = Counts(*(sum(getattr(c, name) for c in members) for name in ("tp", "fp", "fn", "tn")))
        auc = ranks.auc(key)
        names = dict(zip(("prediction", "reader", "class"), key, strict=True))
        out.append(names | {"cases": len(members)} | overlap(total) | ({} if auc is None else {"auc": auc}))
    return out

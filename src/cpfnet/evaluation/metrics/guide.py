"""The batch-pooled Dice and IoU of a widely read practical guide (its ``calculate_metrics``), for comparison.

For each class, background included, intersection I, prediction P and truth T are summed over all pixels of a batch of
images; Dice = 2 I / (P + T + 1e-8), IoU = I / (P + T − I + 1e-8); then the mean over classes. A class that a batch does
not have counts 0. Large backgrounds and pooling increase it: it cannot be compared with a mean of Dice over cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cpfnet.evaluation.metrics.confusion import counts_of


def guide_sums(table: np.ndarray, members: Sequence[np.ndarray]) -> np.ndarray:
    """What one case adds to the pool.

    Args:
        table: `confusion` of prediction and truth.
        members: the codes of each class (bool, 256), background first.

    Returns:
        ``(classes + 1, 3)``: pixels in both, in the prediction, in the truth.
    """
    counts = [counts_of(table, member) for member in members]
    return np.array([(c.tp, c.tp + c.fp, c.tp + c.fn) for c in counts])


def guide_metrics(sums: Sequence[dict[tuple[str, str], np.ndarray]], batch: int) -> list[dict[str, Any]]:
    """Pool cases into batches.

    Args:
        sums: for each case: (reader, region) → `guide_sums`.
        batch: cases pooled, in their order; the last batch may be smaller.

    Returns:
        One entry a reader and region: ``reader, region, guide_dice, guide_iou, batch, batches, cases``.
    """
    out = []
    for key in dict.fromkeys(key for case in sums for key in case):
        cases = [case[key] for case in sums if key in case]
        pooled = [np.sum(cases[start : start + batch], axis=0) for start in range(0, len(cases), batch)]
        both, predicted, true = np.moveaxis(np.array(pooled, dtype=float), -1, 0)
        out.append(
            {
                "reader": key[0],
                "region": key[1],
                "guide_dice": float((2 * both / (predicted + true + 1e-8)).mean()),
                "guide_iou": float((both / (predicted + true - both + 1e-8)).mean()),
                "batch": batch,
                "batches": len(pooled),
                "cases": len(cases),
            }
        )
    return out

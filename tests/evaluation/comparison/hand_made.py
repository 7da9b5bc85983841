"""Evaluations made by hand, for the tests of comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cpfnet.evaluation.scores import ALL_READERS, MEAN, PREDICTION, Scores, mean_rows

PROTOCOL = {
    "distance unit": "mm",
    "surface": "pixels with a face neighbour outside the mask; NSD tolerance 1 mm",
    "region": "whole image",
    "ignored": "none",
    "threshold": "predictions as written",
}


def scores(
    dice: Mapping[str, float] | Sequence[float],
    *,
    hd95: Sequence[float] | None = None,
    second: Sequence[float] | None = None,
    patients: Sequence[str] | None = None,
    readers: Sequence[str] = ("label",),
    pixels: int = 1000,
    protocol: Mapping[str, str] | None = None,
) -> Scores:
    """An evaluation with these values of its cases.

    Args:
        dice: case → Dice of the class "lesion", or values of c0, c1 …
        hd95: of the same.
        second: Dice of another class, "vessel".
        patients: default: each case is one.
        readers: each gives the same values; several have a row of their mean, too.
        pixels: that count.
        protocol: lines that differ.
    """
    cases = dict(dice) if isinstance(dice, Mapping) else {f"c{i}": value for i, value in enumerate(dice)}
    rows: list[dict[str, Any]] = []
    for i, (case, value) in enumerate(cases.items()):
        values = {"lesion": value} | ({} if second is None else {"vessel": second[i]})
        head = {"case": case, "patient": case if patients is None else patients[i], "prediction": PREDICTION}
        own = []
        for label, x in values.items():
            row: dict[str, Any] = {"class": label, "dice": x, "nsd": x}
            if hd95 is not None:
                row["hd95"] = hd95[i]
            present = int(not math.isnan(x))
            own.append(row | {"present": present, "missed": 0, "spurious": 0, "tp": 0, "fp": 0, "fn": 100 * present})
            own[-1]["tn"] = pixels - own[-1]["fn"]
        own.append({"class": MEAN} | mean_rows(own))
        rows += [head | {"reader": reader} | row for reader in readers for row in own]
        if len(readers) > 1:
            rows += [head | {"reader": ALL_READERS, "class": row["class"]} | mean_rows([row]) for row in own]
    return Scores(rows=rows, protocol=PROTOCOL | dict(protocol or {}))

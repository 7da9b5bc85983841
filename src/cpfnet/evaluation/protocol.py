"""The protocol and the warnings of scores: how they were measured, and what their reader should know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.scores import ALL_READERS, BACKGROUND, PREDICTION
from cpfnet.planning import Labels


def protocol_of(
    items: Sequence[Item], definitions: Labels, tolerance: float, unit: str, guide_batch: int, allow_missing: bool
) -> dict[str, str]:
    """Name → how it was done, in words; ``unit`` is the unit of distances."""
    inside = sum(item.roi is not None for item in items)
    patients = len({item.patient or item.case for item in items})
    missing = sum(not has_prediction(item) for item in items) if allow_missing else 0
    region = {0: "whole image (no region of interest given)", len(items): "inside the region of interest only"}
    readers = list(dict.fromkeys(reader for item in items for reader in item.truth))
    return {
        "cases": f"{len(items)}, of {patients} patients"
        + (f"; {missing} without a prediction, counted as empty" if missing else ""),
        "readers": ", ".join(readers),
        "region": region.get(
            inside, f"inside the region of interest for {inside} of {len(items)} cases, else whole image"
        ),
        "ignored": "pixels not annotated are in no metric" if definitions.ignore else "none",
        "grid": "the label's own; nothing is resampled before scoring",
        "labels": "as written"
        if definitions.threshold is None
        else f"values above {definitions.threshold:g} are the class",
        "threshold": "predictions as written",
        "pooling": "each case alone, then mean over cases; pooled figures: the pixels of all cases together",
        "distance unit": unit,
        "surface": f"pixels with a face neighbour outside the mask; NSD tolerance {tolerance:g} {unit}",
        "empty masks": "both empty: not defined, not counted; one empty: ratios 0, distances infinite",
        "batch-pooled Dice": f"mean over classes with background, pixels pooled over batches of {guide_batch} cases",
    }


def has_prediction(item: Item) -> bool:
    """Is there a prediction?"""
    return item.prediction.exists() if isinstance(item.prediction, Path) else item.prediction is not None


def warnings_of(items: Sequence[Item], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Warnings about missed and spurious structures, missing predictions, and too few cases."""
    out = []
    missing = [item.case for item in items if not has_prediction(item)]
    if missing:
        out.append(
            f"{len(missing)} of {len(items)} cases have no prediction and count as empty: {', '.join(missing[:8])}"
        )
    own = [r for r in rows if r["prediction"] == PREDICTION and r["reader"] != ALL_READERS and "tp" in r]
    for label in dict.fromkeys(row["class"] for row in own if row["class"] != BACKGROUND):
        of_class = [row for row in own if row["class"] == label]
        missed = [row["case"] for row in of_class if row["missed"]]
        spurious = [row["case"] for row in of_class if row["spurious"]]
        present = sum(row["present"] for row in of_class)
        if missed:
            out.append(f"{label}: missed in {len(missed)} of {present} labels that hold it ({first_few(missed)})")
        if spurious:
            absent = len(of_class) - present
            out.append(f"{label}: predicted in {len(spurious)} of {absent} labels without it ({first_few(spurious)})")
        if not present:
            out.append(f"{label}: no label holds it")
    if 0 < len(items) < 5:
        out.append(f"only {len(items)} case{'s' * (len(items) > 1)}: means and intervals say little")
    return out


def first_few(names: Sequence[str]) -> str:
    """The first few different names."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:5]) + (" …" if len(unique) > 5 else "")

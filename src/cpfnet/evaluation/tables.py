"""From Scores to tables: those of the report, and that of the console."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import (
    ALL_READERS,
    BACKGROUND,
    MEAN,
    MEAN_WITH_BACKGROUND,
    PREDICTION,
    Scores,
    aggregate,
)
from cpfnet.report import page

_NOTE = (
    "Mean over cases, below it the 95 % interval, SD and, where they differ, the number of cases counted. "
    "A distance is infinite where one mask is empty: then the mean is ∞, with the median and the mean of the finite "
    "ones below it. Missed: structures in the label with an empty prediction. "
    "Spurious: predicted ones that are not in the label."
)


def number(value: float, digits: int = 3) -> str:
    """A number as text, with a minus sign, ∞, and – where it is not defined. Small numbers do not look like 0."""
    if math.isnan(value):
        return "–"
    if 1e-9 < abs(value) < 0.5 * 10**-digits:  # distances under a microscope, in mm; less is rounding
        return f"{value:.2g}".replace("-", "−")
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def title_of(metric: str, unit: str) -> str:
    """A metric's heading, for distances with their unit."""
    label = METRICS[metric].label
    return f"{label}, {unit}" if METRICS[metric].distance else label


def _cell(entry: dict[str, Any] | None, cases: int) -> page.Cell | str:
    if entry is None or not entry["count"]:
        return "–"
    digits = _digits(entry["metric"])
    if entry["infinite"]:
        detail = f"median {number(entry['median'], digits)}"
        if entry["infinite"] < entry["count"]:
            finite = entry["count"] - entry["infinite"]
            detail += f"\n{finite} of {entry['count']} finite: {number(entry['finite_mean'], digits)}"
        return page.Cell(number(entry["mean"], digits), detail)
    parts = []
    if not math.isnan(entry["low"]):
        parts.append(f"{number(entry['low'], digits)} … {number(entry['high'], digits)}")
    if not math.isnan(entry["sd"]):
        parts.append(f"SD {number(entry['sd'], digits)}")
    if entry["count"] != cases:
        parts.append(f"n = {entry['count']}")
    return page.Cell(number(entry["mean"], digits), "\n".join(parts))


def _digits(metric: str) -> int:
    return 2 if METRICS[metric].distance else 3


def _pair_title(prediction: str, reader: str) -> str:
    """Who is scored against whom, in words."""
    who = "prediction" if prediction == PREDICTION else f"reader {prediction!r}"
    whom = reader.strip("()") if reader == ALL_READERS else f"reader {reader!r}"
    return f"{who} against {whom}"


def score_tables(scores: Scores) -> list[page.Section]:
    """One section for each pair of prediction and reader, the headline reader first."""
    pairs = list(dict.fromkeys((row["prediction"], row["reader"]) for row in scores.rows))
    pairs.sort(key=lambda pair: pair != (PREDICTION, scores.reader))
    unit = scores.protocol["distance unit"]
    finer = ("auc", "brier", "ece", "cldice", "thin_recall")  # of probabilities and of lines, if there are any
    surface = [m for m, metric in METRICS.items() if m == "nsd" or metric.distance]
    overlap = [m for m in METRICS if m not in (*finer, *surface)]
    out: list[page.Section] = []
    for prediction, reader in pairs:
        entries = {
            (a["class"], a["metric"]): a
            for a in scores.aggregates
            if (a["prediction"], a["reader"]) == (prediction, reader)
        }
        members = [r for r in scores.rows if (r["prediction"], r["reader"]) == (prediction, reader)]
        classes = list(dict.fromkeys(row["class"] for row in members))
        names = [c for c in classes if c not in (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND)]
        cases = len({row["case"] for row in members})
        title = _pair_title(prediction, reader)
        blocks: list[page.Block] = []
        for wanted in (overlap, finer, surface):
            present = [m for m in wanted if any((c, m) in entries for c in classes)]
            if not present:
                continue
            shown = [*names, *([MEAN] if len(names) > 1 else [])]
            if wanted is overlap:
                shown += [BACKGROUND, MEAN_WITH_BACKGROUND]
            columns = ["Class", *(title_of(m, unit) for m in present)]
            rows: list[list[str | page.Cell]] = [
                [label.strip("()").capitalize() if label.startswith("(") else label]
                + [_cell(entries.get((label, m)), cases) for m in present]
                for label in shown
            ]
            if wanted is surface:
                columns += ["Missed", "Spurious"]
                for row, label in zip(rows, shown, strict=True):
                    entry = entries[label, "dice"]
                    row += [f"{entry['missed']} of {entry['present']}", str(entry["spurious"])]
            blocks.append(page.Table(columns, rows))
        blocks.append(page.Text([f"{cases} cases. {_NOTE}"]))
        out.append(page.Section("Scores" if len(pairs) == 1 else title[0].upper() + title[1:], blocks))
    return out


def reader_agreement(scores: Scores) -> list[tuple[str, str, dict[tuple[str, str, str], dict[str, Any]]]]:
    """Each reader against each other, and the prediction against the same reader, on the same cases.

    Returns:
        For each pair of readers: second, first, and ``(prediction or second, class, metric)`` → aggregate
            against the first,
        over the cases that both have read.
    """
    pairs = dict.fromkeys((r["prediction"], r["reader"]) for r in scores.rows if r["prediction"] != PREDICTION)
    out = []
    for second, first in pairs:
        against = [r for r in scores.rows if r["reader"] == first and r["prediction"] in (PREDICTION, second)]
        both = {r["case"] for r in against if r["prediction"] == second}
        aggregates = aggregate([r for r in against if r["case"] in both], seed=scores.seed)
        out.append((second, first, {(a["prediction"], a["class"], a["metric"]): a for a in aggregates}))
    return out


def reader_tables(scores: Scores) -> list[page.Block]:
    """How well the readers agree with each other, and below it how well the prediction agrees with the same reader."""
    unit, blocks = scores.protocol["distance unit"], list[page.Block]()
    for second, first, entries in reader_agreement(scores):
        labels = dict.fromkeys(
            label for _, label, _ in entries if label not in (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND)
        )
        metrics = [
            m for m in METRICS if m not in ("accuracy", "mcc", "iou") and (second, next(iter(labels)), m) in entries
        ]
        cases = max(entry["count"] + entry["undefined"] for entry in entries.values())
        rows: list[list[str | page.Cell]] = [
            [f"{label}: {_pair_title(who, first)}", *(_cell(entries.get((who, label, m)), cases) for m in metrics)]
            for label in labels
            for who in (PREDICTION, second)
        ]
        caption = f"{cases} cases that both have read; the same region, and the same label to be met."
        blocks.append(page.Table(["", *(title_of(m, unit) for m in metrics)], rows, caption))
    return blocks


def pooled_table(scores: Scores) -> list[page.Block]:
    """The pixels of all cases together, for comparison with papers that report these."""
    metrics = [m for m in METRICS if any(m in entry for entry in scores.pooled)]
    rows = [
        [
            f"{entry['class']}: {_pair_title(entry['prediction'], entry['reader'])}",
            *(number(entry[m], 4) if m in entry else "–" for m in metrics),
            str(entry["cases"]),
        ]
        for entry in scores.pooled
    ]
    caption = (
        "Not the mean over cases: a case with more of the structure weighs more, and there is no interval. "
        "Compare it only with figures that were pooled, too."
    )
    return [page.Table(["", *(METRICS[m].label for m in metrics), "Cases"], rows, caption)] if rows else []


def console_table(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """The headline as columns and rows of text: classes, their means, the readers, and the batch-pooled metrics.

    Each cell is the mean over cases, Dice with its 95 % interval; ``n`` counts the cases behind Dice.
    """
    unit = scores.protocol["distance unit"]
    metrics = [m for m in ("dice", "iou", "auc", "cldice", "thin_recall", "nsd", "hd95") if scores.of(m)]
    labels = list(dict.fromkeys(r["class"] for r in scores.rows if r["class"] != BACKGROUND))
    if len(labels) == 3:  # a single class equals its mean
        labels.remove(MEAN)
    rows = [_console_row(label.strip("()"), [scores.of(m, label) for m in metrics]) for label in labels]
    for second, first, entries in reader_agreement(scores):
        rows += [
            _console_row(_pair_title(who, first), [entries.get((who, MEAN, m)) for m in metrics])
            for who in (PREDICTION, second)
        ]
    for entry in scores.guide:
        where = "" if len({g["reader"] for g in scores.guide}) == 1 else f" ({entry['reader']})"
        cells = [number(entry["guide_dice"]), number(entry["guide_iou"]), *[""] * (len(metrics) - 2)]
        rows.append([f"batch-pooled, {entry['region']}{where}", *cells, str(entry["cases"]), ""])
    return ["", *(title_of(m, unit) for m in metrics), "n", "missed"], rows


def fold_table(scores: Scores, folds: Sequence[Collection[str]]) -> tuple[list[str], list[list[str]]]:
    """Out-of-fold scores as columns and rows of text: a fold each, and the cases of all pooled.

    Args:
        scores: of the cases of all folds.
        folds: the cases of each.
    """
    unit = scores.protocol["distance unit"]
    metrics = [m for m in ("dice", "iou", "auc", "cldice", "nsd", "hd95") if scores.of(m)]
    parts = [(f"fold {number}", scores.only(cases)) for number, cases in enumerate(folds)]
    rows = [_console_row(name, [own.of(m) for m in metrics]) for name, own in (*parts, ("pooled", scores))]
    return ["", *(title_of(m, unit) for m in metrics), "n", "missed"], rows


def _console_row(name: str, entries: list[dict[str, Any] | None]) -> list[str]:
    """One line; the first entry is Dice, which every class has."""
    cells = ["–" if e is None else number(e["mean"], _digits(e["metric"])) for e in entries]
    dice = entries[0]
    assert dice is not None
    if not math.isnan(dice["low"]):
        cells[0] += f" ({number(dice['low'])} … {number(dice['high'])})"
    return [name, *cells, str(dice["count"]), f"{dice['missed']} of {dice['present']}"]

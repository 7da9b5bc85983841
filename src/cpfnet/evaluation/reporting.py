"""Scores → the sections of a report: headline, table, box plots, pictures, protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpfnet.evaluation.cases import Item
from cpfnet.evaluation.metrics import METRICS
from cpfnet.evaluation.pictures import overlay_of
from cpfnet.evaluation.scores import ALL_READERS, BACKGROUND, MEAN, MEAN_WITH_BACKGROUND, PREDICTION, Scores
from cpfnet.planning import Labels
from cpfnet.report import figures, page

_NOTE = (
    "Mean over cases, below it the 95 % interval, SD and, where they differ, the number of cases counted. A distance is infinite "
    "where one mask is empty: then the mean is ∞, with the median and the mean of the finite ones below it. "
    "Missed: structures in the label with an empty prediction. Spurious: predicted ones that the label lacks."
)


def _number(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.{digits}f}".replace("-", "−")


def _title(metric: str, unit: str) -> str:
    label, higher = METRICS[metric]
    return label if higher else f"{label}, {unit}"


def _cell(entry: dict[str, Any] | None, cases: int) -> page.Cell | str:
    if entry is None or not entry["count"]:
        return "–"
    digits = 3 if METRICS[entry["metric"]].higher_is_better else 2
    if entry["infinite"]:
        detail = f"median {_number(entry['median'], digits)}"
        if entry["infinite"] < entry["count"]:
            finite = entry["count"] - entry["infinite"]
            detail += f"\n{finite} of {entry['count']} finite: {_number(entry['finite_mean'], digits)}"
        return page.Cell(_number(entry["mean"], digits), detail)
    parts = []
    if not math.isnan(entry["low"]):
        parts.append(f"{_number(entry['low'], digits)} … {_number(entry['high'], digits)}")
    if not math.isnan(entry["sd"]):
        parts.append(f"SD {_number(entry['sd'], digits)}")
    if entry["count"] != cases:
        parts.append(f"n = {entry['count']}")
    return page.Cell(_number(entry["mean"], digits), "\n".join(parts))


def _tables(scores: Scores) -> list[page.Section]:
    """One section for each pair of prediction and reader, the headline reader first."""
    pairs = list(dict.fromkeys((row["prediction"], row["reader"]) for row in scores.rows))
    pairs.sort(key=lambda pair: pair != (PREDICTION, scores.reader))
    unit = scores.protocol["distance unit"]
    overlap = [m for m, metric in METRICS.items() if metric.higher_is_better and m not in ("auc", "cldice", "nsd")]
    others = [m for m in METRICS if m not in overlap]
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
        who = "Prediction" if prediction == PREDICTION else f"Reader {prediction!r}"
        whom = reader.strip("()") if reader == ALL_READERS else f"reader {reader!r}"
        blocks: list[page.Block] = []
        for wanted in (overlap, others):
            present = [m for m in wanted if any((c, m) in entries for c in classes)]
            shown = [*names, *([MEAN] if len(names) > 1 else [])]
            if wanted is overlap:
                shown += [BACKGROUND, MEAN_WITH_BACKGROUND]
            columns = ["Class", *(_title(m, unit) for m in present)]
            rows: list[list[str | page.Cell]] = [
                [label.strip("()").capitalize() if label.startswith("(") else label]
                + [_cell(entries.get((label, m)), cases) for m in present]
                for label in shown
            ]
            if wanted is others:
                columns += ["Missed", "Spurious"]
                for row, label in zip(rows, shown, strict=True):
                    entry = entries[label, "dice"]
                    row += [f"{entry['missed']} of {entry['present']}", str(entry["spurious"])]
            blocks.append(page.Table(columns, rows))
        blocks.append(page.Text([f"{cases} cases. {_NOTE}"]))
        out.append(page.Section("Scores" if len(pairs) == 1 else f"{who} against {whom}", blocks))
    return out


def _tiles(scores: Scores) -> page.Tiles:
    tiles = []
    for metric in ("dice", "hd95", "nsd", "cldice"):
        entry = scores.of(metric)
        if entry is None or not entry["count"]:
            continue
        digits = 3 if METRICS[metric].higher_is_better else 2
        detail = f"mean of {entry['count']} cases"
        if entry["infinite"]:
            detail = f"{entry['infinite']} of {entry['count']} infinite, median {_number(entry['median'], digits)}"
        elif not math.isnan(entry["low"]):
            detail += f", 95 %: {_number(entry['low'], digits)} … {_number(entry['high'], digits)}"
        label = _title(metric, scores.protocol["distance unit"])
        tiles.append(page.Tile(label, _number(entry["mean"], digits), detail))
    dice = scores.of("dice")
    if dice is not None:
        tiles.append(
            page.Tile("Missed structures", f"{dice['missed']} of {dice['present']}", f"and {dice['spurious']} spurious")
        )
    guide = {entry["region"]: entry for entry in scores.guide if entry["reader"] == scores.guide[0]["reader"]}
    whole, inside = guide["whole image"], guide.get("region of interest")
    detail = f"with background, pooled over {whole['batch']} cases, whole image"
    if inside is not None:
        detail += f"; inside the region {_number(inside['guide_dice'])}"
    tiles.append(page.Tile("Guide's Dice", _number(whole["guide_dice"]), detail))
    return page.Tiles(tiles)


def _boxes(scores: Scores) -> list[page.Block]:
    own = [r for r in scores.rows if r["prediction"] == PREDICTION and r["reader"] == scores.reader]
    unit = scores.protocol["distance unit"]
    panels: dict[str, dict[str, list[float]]] = {}
    for metric in ("dice", "sensitivity", "precision", "cldice", "nsd", "hd95", "assd"):
        for row in own:
            if row["class"] not in (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND) and metric in row:
                panels.setdefault(_title(metric, unit), {}).setdefault(row["class"], []).append(row[metric])
    ratios = [metric.label for metric in METRICS.values() if metric.higher_is_better]
    uri = figures.box_plots(panels, unit_range=ratios)
    note = (
        "One dot a case; box: quartiles and median; whiskers: up to 1.5 boxes; n × ∞: cases with an infinite distance."
    )
    return [page.Figure(uri, "Box plots per class: " + ", ".join(panels), note)]


def _pictures(
    scores: Scores, items: Sequence[Item], definitions: Labels, window: tuple[float, float] | None
) -> list[page.Block]:
    own = [r for r in scores.rows if (r["prediction"], r["reader"], r["class"]) == (PREDICTION, scores.reader, MEAN)]
    ranked = sorted((r for r in own if not math.isnan(r["dice"])), key=lambda r: -r["dice"])
    if not ranked:
        return []
    chosen = {"Best": 0, "Median": (len(ranked) - 1) // 2, "Worst": len(ranked) - 1}
    by_case = {item.case: item for item in items}
    out: list[page.Block] = []
    drawn: set[int] = set()
    for name, place in chosen.items():
        if place in drawn:
            continue
        drawn.add(place)
        picture = overlay_of(by_case[ranked[place]["case"]], definitions, window=window)
        if picture is not None:
            title = name if len(ranked) > 1 else "The case"
            caption = f"{title}: {picture.caption}, Dice {_number(ranked[place]['dice'])}"
            out.append(page.Figure(figures.overlay(picture), f"Boundaries on the image of {caption}", caption))
    return out


def console_table(scores: Scores) -> tuple[list[str], list[list[str]]]:
    """The headline as columns and rows of text: classes, their means, and the guide's metric under its own name.

    Each cell is the mean over cases, Dice with its 95 % interval; ``n`` counts the cases behind Dice.
    """
    unit = scores.protocol["distance unit"]
    metrics = [m for m in ("dice", "iou", "cldice", "nsd", "hd95") if scores.of(m)]
    labels = list(dict.fromkeys(r["class"] for r in scores.rows if r["class"] != BACKGROUND))
    if len(labels) == 3:  # one class is its own mean
        labels.remove(MEAN)
    rows = []
    for label in labels:
        entries = [scores.of(m, label) for m in metrics]
        dice = entries[0]
        if dice is None:
            continue
        cells = [
            "–" if e is None else _number(e["mean"], 3 if METRICS[e["metric"]].higher_is_better else 2) for e in entries
        ]
        if not math.isnan(dice["low"]):
            cells[0] += f" ({_number(dice['low'])} … {_number(dice['high'])})"
        rows.append([label.strip("()"), *cells, str(dice["count"]), f"{dice['missed']} of {dice['present']}"])
    for entry in scores.guide:
        where = "" if len({g["reader"] for g in scores.guide}) == 1 else f" ({entry['reader']})"
        cells = [_number(entry["guide_dice"]), _number(entry["guide_iou"]), *[""] * (len(metrics) - 2)]
        rows.append([f"guide's, {entry['region']}{where}", *cells, str(entry["cases"]), ""])
    return ["", *(_title(m, unit) for m in metrics), "n", "missed"], rows


def sections(
    scores: Scores, items: Sequence[Item], definitions: Labels, *, window: tuple[float, float] | None = None
) -> list[page.Section]:
    """Sections for `cpfnet.report.page.render`.

    Args:
        scores: of `evaluate`.
        items: those that were scored; the pictures read their files again.
        definitions: the Plan's labels.
        window: values shown black and white in pictures of grey images, in file units; default: from the image.
    """
    return [
        page.Section("Summary", [_tiles(scores), page.Notice(scores.warnings)]),
        *_tables(scores),
        page.Section("Spread over cases", _boxes(scores)),
        page.Section("Best, median and worst case", _pictures(scores, items, definitions, window)),
        page.Section("Protocol", [page.Pairs([(k.capitalize(), v) for k, v in scores.protocol.items()])]),
    ]


def write_report(
    scores: Scores,
    items: Sequence[Item],
    definitions: Labels,
    path: Path | str,
    *,
    title: str = "Evaluation",
    subtitle: str = "",
    window: tuple[float, float] | None = None,
    plan: str = "",
    facts: Sequence[tuple[str, str]] = (),
    overwrite: bool = False,
) -> Path:
    """Write the evaluation as one self-contained HTML page.

    Args:
        scores, items, definitions, window: as for `sections`.
        path: ``report.html``.
        title, subtitle: of the page.
        plan: the model's plan as YAML.
        facts: further names and values (model, timing …).
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    parts = sections(scores, items, definitions, window=window)
    if plan:
        parts.append(page.Section("Plan", [page.Code(plan)]))
    installed = page.installed("numpy", "scipy", "scikit-image")
    parts.append(page.Section("Versions and timing" if facts else "Versions", [page.Pairs([*facts, *installed])]))
    return page.render(path, title=title, subtitle=subtitle, sections=parts, overwrite=overwrite)

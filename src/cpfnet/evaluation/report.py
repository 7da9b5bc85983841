"""From Scores to the sections of a report: headline, table, box plots, pictures, protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.case_picture import overlay_of
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import BACKGROUND, MEAN, MEAN_WITH_BACKGROUND, PREDICTION, Scores
from cpfnet.evaluation.tables import number, pooled_table, reader_tables, score_tables, title_of
from cpfnet.planning import Labels
from cpfnet.report import figures, page
from cpfnet.report.calibration import calibration_section
from cpfnet.report.lettering import lettering


def _tiles(scores: Scores) -> page.Tiles:
    tiles = []
    for metric in ("dice", "hd95", "nsd", "cldice", "thin_recall"):
        entry = scores.of(metric)
        if entry is None or not entry["count"]:
            continue
        digits = 2 if METRICS[metric].distance else 3
        detail = f"mean of {entry['count']} cases"
        if entry["infinite"]:
            detail = f"{entry['infinite']} of {entry['count']} infinite, median {number(entry['median'], digits)}"
        elif not math.isnan(entry["low"]):
            detail += f", 95 %: {number(entry['low'], digits)} … {number(entry['high'], digits)}"
        label = title_of(metric, scores.protocol["distance unit"])
        tiles.append(page.Tile(label, number(entry["mean"], digits), detail))
    dice = scores.of("dice")
    if dice is not None:
        tiles.append(
            page.Tile("Missed structures", f"{dice['missed']} of {dice['present']}", f"and {dice['spurious']} spurious")
        )
    guide = {entry["region"]: entry for entry in scores.guide if entry["reader"] == scores.guide[0]["reader"]}
    whole, inside = guide["whole image"], guide.get("region of interest")
    detail = f"with background, pooled over {whole['batch']} cases, whole image"
    if inside is not None:
        detail += f"; inside the region {number(inside['guide_dice'])}"
    tiles.append(page.Tile("Batch-pooled Dice", number(whole["guide_dice"]), detail))
    return page.Tiles(tiles)


def _boxes(scores: Scores) -> list[page.Block]:
    own = [r for r in scores.rows if r["prediction"] == PREDICTION and r["reader"] == scores.reader]
    unit = scores.protocol["distance unit"]
    panels: dict[str, dict[str, list[float]]] = {}
    for metric in ("dice", "sensitivity", "precision", "cldice", "thin_recall", "nsd", "hd95", "assd"):
        for row in own:
            if row["class"] not in (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND) and metric in row:
                panels.setdefault(title_of(metric, unit), {}).setdefault(row["class"], []).append(row[metric])
    ratios = [metric.label for metric in METRICS.values() if metric.higher_is_better]
    uri = figures.box_plots(panels, unit_range=ratios)
    note = (
        "One dot a case; box: quartiles and median; whiskers: up to 1.5 boxes; n × ∞: cases with an infinite distance."
    )
    note = f"{note} {lettering(figures.names_in(panels)).key}".strip()
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
            caption = f"{title}: {picture.caption}, Dice {number(ranked[place]['dice'])}"
            key = lettering(picture.classes).key
            written = f"{caption}. {key}" if key else caption
            out.append(page.Figure(figures.overlay(picture), f"Boundaries on the image of {caption}", written))
    return out


def _calibration(scores: Scores) -> list[page.Section]:
    count = max((entry["cases"] for entry in scores.calibration.values()), default=0)
    pixels = (
        f"the pixels of {count} case{'s' * (count != 1)} together "
        "(the table of scores has means over cases), on the labels' own grid"
    )
    unit = scores.protocol["distance unit"]
    return calibration_section({"as predicted": scores.calibration}, unit=unit, pixels=pixels)


def sections(
    scores: Scores, items: Sequence[Item], definitions: Labels, *, window: tuple[float, float] | None = None
) -> list[page.Section]:
    """Sections for `cpfnet.report.page.render`.

    Args:
        scores: of `evaluate`.
        items: the scored cases; the pictures read their files again.
        definitions: the Plan's labels.
        window: values shown black and white in pictures of grey images, in file units; default: from the image.
    """
    return [
        page.Section("Summary", [_tiles(scores), page.Notice(scores.warnings)]),
        page.Section("Beside the other readers", reader_tables(scores)),
        *score_tables(scores),
        page.Section("Pixels of all cases pooled", pooled_table(scores)),
        *_calibration(scores),
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
    versions = page.installed_versions("numpy", "scipy", "scikit-image")
    parts.append(page.Section("Versions and timing" if facts else "Versions", [page.Pairs([*facts, *versions])]))
    return page.render(path, title=title, subtitle=subtitle, sections=parts, overwrite=overwrite)

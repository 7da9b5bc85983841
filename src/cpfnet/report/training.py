"""The report of a training run: curves and facts, as sections of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpfnet.report import figures
from cpfnet.report.lettering import lettering
from cpfnet.report.page import Block, Code, Figure, Notice, Pairs, Section

_PANELS = {
    "Loss": ("loss",),
    "Dice": ("dice",),
    "Learning rate": ("learning_rate", "lr"),
    "Images per second": ("images_per_second", "images/s"),
}


def _panels(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Columns of the log by what they measure; a column belongs to the first panel that matches its name."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    out: dict[str, dict[str, list[Any]]] = {}
    for title, words in _PANELS.items():
        exact = title not in ("Loss", "Dice")  # these two match many columns: train_loss, val_dice_vessel …
        for name in columns:
            if any(name == word if exact else word in name for word in words):
                values = [row.get(name) for row in history]
                if any(value not in (None, "") for value in values):
                    lines = out.setdefault(title, {})
                    if values not in lines.values():  # a single class equals the mean over classes
                        lines[name.replace("_", " ")] = values
    return out


def training_sections(
    history: Sequence[Mapping[str, Any]],
    *,
    facts: Sequence[tuple[str, str]] = (),
    versions: Sequence[tuple[str, str]] = (),
    plan: str = "",
    warnings: Sequence[str] = (),
) -> list[Section]:
    """Sections for `cpfnet.report.page.render`.

    Args:
        history: rows of the CSV log, oldest first, values as numbers or as text: ``epoch`` (or ``step``), columns with
            "loss" or "dice" in their names, ``learning_rate``, ``images_per_second``; others are not drawn.
        facts: what was trained on which data, how long it took …
        versions: see `cpfnet.report.page.installed_versions`.
        plan: the plan as YAML.
        warnings: messages that the reader must not overlook.
    """
    summary: list[Block] = [Notice(warnings), *([Pairs(facts)] if facts else [])]
    sections = [Section("Training", summary)] if facts or warnings else []
    panels = _panels(history)
    if panels:
        axis = "epoch" if any("epoch" in row for row in history) else "step"
        x = [float(row.get(axis, index)) for index, row in enumerate(history)]
        uri = figures.curves(x, panels, x_label=axis.capitalize())
        alt = "Curves over the " + axis + ": " + ", ".join(panels)
        sections.append(Section("Curves", [Figure(uri, alt, lettering(figures.names_in(panels)).key)]))
    if plan:
        sections.append(Section("Plan", [Code(plan)]))
    if versions:
        sections.append(Section("Versions", [Pairs(versions)]))
    return sections

"""Do the probabilities mean what they say? Reliability diagrams and their figures, as a section of a page.

For training, before and after the temperature.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cpfnet.report.figures import COLOURS, data_uri, panel_grid
from cpfnet.report.lettering import lettering, style
from cpfnet.report.page import Block, Figure, Section, Table, Text

Panels = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""Class → moment (before, after) → diagram."""

_DRAWN = 6
"""Classes in the figure; the table holds all of them."""

_COLUMNS = {
    "ece": "ECE",
    "ece_band": "ECE near the boundary",
    "brier": "Brier score",
    "brier_band": "Brier score near the boundary",
}


def calibration_section(
    moments: Mapping[str, Mapping[str, Mapping[str, Any]]], *, unit: str, pixels: str, note: str = ""
) -> list[Section]:
    """A section for `cpfnet.report.page.render`; none where nothing is known.

    Args:
        moments: one, or ``before`` and ``after`` the temperature → class → its figures
            (`cpfnet.evaluation.metrics.calibration.figures`).
        unit: of the band around the boundary, ``"mm"`` or ``"pixels"``.
        pixels: in words, those that were counted.
        note: what else a reader should know.
    """
    classes = list(next(iter(moments.values()), {}))
    if not classes:
        return []
    rows = []
    for name in classes:
        for when, figures in moments.items():
            values = [figures[name][key] for key in _COLUMNS]
            heading = name if len(moments) == 1 else f"{name}, {when}"
            rows.append([heading, *("–" if value is None else f"{value:.4f}" for value in values)])
    text = (
        f"Over {pixels}; each class against all else. ECE: mean difference between probability and share of the class, "
        f"in 15 bins. Near the boundary: at most 3 {unit} from it. {note}"
    )
    blocks: list[Block] = [Table(["Class", *_COLUMNS.values()], rows), Text([text.strip()])]
    panels = {name: {when: moments[when][name]["band"] for when in moments} for name in classes}
    if uri := reliability(panels):
        caption = (
            "Near the boundary: the share of pixels that are of the class, over the probability that they are given. "
            "On the dashed line the two agree; below it the model is too sure of the class. "
            "Bars: the share of the pixels" + (", after the temperature." if "after" in moments else ".")
        )
        if len(classes) > _DRAWN:
            caption += f" The first {_DRAWN} of {len(classes)} classes."
        caption = f"{caption} {lettering(_drawn(panels)).key}".strip()
        blocks.append(Figure(uri, "Reliability diagrams: " + ", ".join(classes[:_DRAWN]), caption))
    return [Section("Calibration", blocks)]


def _drawn(panels: Panels) -> Panels:
    shown = {name: lines for name, lines in panels.items() if any(line["pixels"] for line in lines.values())}
    return dict(list(shown.items())[:_DRAWN])


def reliability(panels: Panels) -> str:
    """One panel a class, one line before and after.

    Args:
        panels: class → moment (one, or before and after) → `cpfnet.evaluation.metrics.calibration.Tally.diagram`.

    Returns:
        SVG data URI; "" where no class has pixels.
    """
    shown = _drawn(panels)
    if not shown:
        return ""

    import matplotlib

    with matplotlib.rc_context(style()):
        written = lettering(shown).shown
        figure, axes = panel_grid(len(shown), 3, 3.4)
        for ax, (name, lines) in zip(axes, shown.items(), strict=True):
            last = list(lines.values())[-1]
            total = math.fsum(last["pixels"])
            ax.bar(last["probability"], [n / total for n in last["pixels"]], 0.03, color="#c9d1da")
            ax.plot([0, 1], [0, 1], color="#8a94a0", lw=1, ls="--")
            for colour, (when, line) in zip((COLOURS[1], COLOURS[0]), lines.items(), strict=False):
                ax.plot(line["probability"], line["share"], color=colour, lw=1.6, marker="o", ms=3.5, label=when)
            ax.set_title(f"{written[name]}, near the boundary", loc="left")
            ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="Probability", ylabel="Share of the class")
            ax.set_aspect("equal")
            if len(lines) > 1:
                ax.legend(frameon=False, fontsize=8, loc="upper left")
        return data_uri(figure)

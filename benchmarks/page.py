"""Put what was measured last into docs/background/speed.md, tables and a plot: python -m benchmarks page"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import growth
from benchmarks.accuracy.table import fill
from benchmarks.growth import Curve
from benchmarks.measure import RESULTS, Row, table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "background" / "speed.md"
BLUE, GREY = "#2a78d6", "#b9b8b2"


def bars(title: str, rows: Sequence[Row], path: Path) -> None:
    """How many times as fast each way is as the first, with its interval."""
    figure = Figure(figsize=(7.2, 0.34 * len(rows) + 0.9), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    ratios = [row.ratio for row in rows]
    errors = [[row.ratio - row.low for row in rows], [row.high - row.ratio for row in rows]]
    axes.barh(places, ratios, xerr=errors, height=0.62, color=[GREY] + [BLUE] * (len(rows) - 1), ecolor="#52514e")
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            f"{row.ratio:.1f}", (row.high, place), (4, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes.set_yticks(places, [row.name for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as the first", fontsize=8)
    axes.set_title(title, loc="left", fontsize=9)
    axes.tick_params(axis="both", length=0, labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.margins(x=0.08)
    figure.savefig(path, dpi=160)


def lines(curves: Sequence[Curve], path: Path) -> None:
    """Seconds and MiB of each curve, log–log; all of one kind on one scale, and beside them the slope of what is proportional."""
    figure = Figure(figsize=(7.2, 2.3 * len(curves) / 3 * 2), layout="constrained")
    across = 3
    panels = figure.subplots(2 * len(curves) // across, across, sharey=False)
    for number, curve in enumerate(curves):
        block, column = divmod(number, across)
        for row, (cost, unit) in enumerate(((curve.seconds, "seconds"), (curve.mib, "MiB"))):
            axes = panels[2 * block + row][column]
            axes.loglog(curve.work, cost, color=BLUE, marker="o", markersize=3.5, linewidth=1.4)
            like = [cost[-1] * work / curve.work[-1] for work in curve.work]
            axes.loglog(curve.work, like, color=GREY, linewidth=1, linestyle="--", zorder=0)
            axes.set_ylim(*((0.05, 100) if row == 0 else (30, 6000)))
            axes.annotate(f"slope {curve.slope(cost):.2f}", (0.05, 0.9), xycoords="axes fraction", fontsize=7.5)
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axes.set_ylabel(unit, fontsize=8)
            if row == 0:
                axes.set_title(curve.title, loc="left", fontsize=8)
            else:
                axes.set_xlabel(curve.unit, fontsize=8)
    figure.savefig(path, dpi=160)


def main() -> None:
    texts = {}
    for file in sorted(RESULTS.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        parts, rounds = [], 0
        for number, (title, rows) in enumerate(found["tables"].items()):
            rows = [Row(**row) for row in rows]
            picture = DOCS / "_static" / f"speed-{file.stem}-{number}.png"
            bars(title, rows, picture)
            parts.append(f"### {title}\n\n![{title}](../_static/{picture.name})\n\n{table(rows)}\n")
            rounds = rows[0].rounds
        if "curves" in found:
            curves = [Curve(**curve) for curve in found["curves"]]
            picture = DOCS / "_static" / f"speed-{file.stem}.png"
            lines(curves, picture)
            parts.append(f"![{file.stem}](../_static/{picture.name})\n\n{growth.table(curves)}\n")
            rounds = curves[0].rounds
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        parts.append(f"{found['machine']}; {versions}. Medians of {rounds} interleaved rounds.\n")
        texts[file.stem] = "\n".join(parts)
    print(f"{PAGE}: filled {', '.join(fill(PAGE, texts))}")


if __name__ == "__main__":
    main()

"""Put what was measured last into benchmarks/speed.md, tables and a plot: python -m benchmarks page"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import growth
from benchmarks.accuracy.table import fill
from benchmarks.growth import Curve
from benchmarks.measure import RESULTS, Row, table

PAGE = Path(__file__).with_name("speed.md")
PICTURES = PAGE.with_name("pictures")
"""docs/background/speed.md shows two of them."""
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
    """Seconds and MiB of each curve, log–log, each unit on one scale, with a line of slope 1 for comparison."""
    across = 3
    down = 2 * len(curves) // across
    figure = Figure(figsize=(7.2, 1.7 * down), layout="constrained")
    panels = figure.subplots(down, across)
    for number, curve in enumerate(curves):
        block, column = divmod(number, across)
        costs = (curve.seconds, "seconds", (0.1, 1, 10, 100)), (curve.mib, "MiB", (30, 100, 300, 1000, 3000))
        for row, (cost, unit, ticks) in enumerate(costs):
            axes = panels[2 * block + row][column]
            axes.loglog(curve.work, cost, color=BLUE, marker="o", markersize=3.5, linewidth=1.4)
            like = [cost[-1] * work / curve.work[-1] for work in curve.work]
            axes.loglog(curve.work, like, color=GREY, linewidth=1, linestyle="--", zorder=0)
            axes.set_ylim(ticks[0] / 2, ticks[-1] * 2)
            axes.annotate(f"slope {curve.slope(cost):.2f}", (0.05, 0.9), xycoords="axes fraction", fontsize=7.5)
            axes.set_xticks(curve.work, [f"{n:,}" if n < 10_000 else f"{n / 1e6:.2g} M" for n in curve.work])
            axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.tick_params(labelsize=7)
            axes.spines[["top", "right"]].set_visible(False)
            if column == 0:
                axes.set_ylabel(unit, fontsize=8)
            if row == 0:
                axes.set_title(curve.title, loc="left", fontsize=8)
            else:
                axes.set_xlabel(curve.unit, fontsize=8)
    figure.savefig(path, dpi=160)


def line(parts: Mapping[str, float], path: Path) -> None:
    """One bar of seconds, cut into its parts."""
    figure = Figure(figsize=(7.2, 1.1), layout="constrained")
    axes = figure.subplots()
    start, shades = 0.0, (GREY, "#86b6ef", BLUE, "#104281")
    for (name, seconds), colour in zip(parts.items(), shades, strict=True):
        axes.barh(0, seconds, left=start, height=0.5, color=colour, label=f"{name} {seconds:.2f}")
        start += seconds
    axes.set_yticks([])
    axes.set_xlabel("seconds", fontsize=8)
    axes.tick_params(axis="both", length=0, labelsize=8)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(parts), frameon=False, fontsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(path, dpi=160)


def prose(text: str) -> str:
    """A paragraph in lines of at most 120 characters."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def main() -> None:
    texts = {}
    for file in sorted(RESULTS.glob("*.json")):
        if f"<!-- {file.stem}: begin -->" not in PAGE.read_text(encoding="utf-8"):  # shown elsewhere
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        parts, rounds = [], set()
        for number, (title, rows) in enumerate(found.get("tables", {}).items()):
            rows = [Row(**row) for row in rows]
            picture = PICTURES / f"speed-{file.stem}-{number}.png"
            bars(title, rows, picture)
            parts.append(f"### {title}\n\n![{title}](pictures/{picture.name})\n\n{table(rows)}\n")
            rounds.add(rows[0].rounds)
        if "curves" in found:
            curves = [Curve(**curve) for curve in found["curves"]]
            picture = PICTURES / f"speed-{file.stem}.png"
            lines(curves, picture)
            parts.append(f"![{file.stem}](pictures/{picture.name})\n\n{growth.table(curves)}\n")
            rounds.add(curves[0].rounds)
        if "parts" in found:
            picture = PICTURES / f"speed-{file.stem}.png"
            line(found["parts"], picture)
            whole, imports = sum(found["parts"].values()), found["imports"].items()
            parts.append(f"![{file.stem}](pictures/{picture.name})\n")
            parts.append(f"From shell to file {whole:.2f} s. The longest imports, each with what it imports itself:")
            parts[-1] += f" {', '.join(f'{name} {seconds:.2f}' for name, seconds in imports)}."
            parts[-1] = prose(parts[-1])
            rounds.add(found["rounds"])
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        counts = " and ".join(map(str, sorted(rounds)))
        parts.append(prose(f"{found['machine']}; {versions}. Medians of {counts} interleaved rounds."))
        texts[file.stem] = "\n".join(parts)
    print(f"{PAGE}: filled {', '.join(fill(PAGE, texts))}")


if __name__ == "__main__":
    main()

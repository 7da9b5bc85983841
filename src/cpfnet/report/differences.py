"""Differences from a reference as a figure: one interval a row, and the cases as dots where they are given."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cpfnet.report.figures import COLOURS, data_uri, panel_grid
from cpfnet.report.lettering import lettering, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BETTER, WORSE, EQUAL = COLOURS[0], COLOURS[1], "#8a94a0"
_ALARM = "#b00020"


@dataclass(frozen=True)
class Row:
    """One method, or one class of it, in one metric.

    Attributes:
        name: of the row.
        estimate, low, high: the difference and its interval, in the metric's unit; NaN where unknown.
        shown: 1 where it is better, −1 where it is worse, 0 where no difference was found.
        cases: the difference of each case, drawn as dots; NaN values are left out, infinite ones are counted
            at the edge.
    """

    name: str
    estimate: float
    low: float
    high: float
    shown: int = 0
    cases: np.ndarray = field(default_factory=lambda: np.empty(0), compare=False)


def differences(panels: Mapping[str, Sequence[Row]], *, falling: Collection[str] = ()) -> str:
    """One panel a metric, one row a method or class; better is always to the right.

    Args:
        panels: metric (with its unit) → rows, of the same names in each.
        falling: metrics where less is better: their axes run from right to left.

    Returns:
        SVG data URI.
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(style()):
        names = row_names(panels)
        written = list(lettering(names).shown.values())
        dots = any(row.cases.size for rows in panels.values() for row in rows)
        columns = 2 if len(panels) in (2, 4) else 3
        figure, axes = panel_grid(len(panels), columns, 0.9 + (0.75 if dots else 0.32) * max(len(names), 1.5))
        for number, (ax, (title, rows)) in enumerate(zip(axes, panels.items(), strict=True)):
            ax.grid(visible=False, axis="y")
            ax.axvline(0, color="#39424e", lw=1)
            sign = -1 if title in falling else 1
            for row in rows:
                _cases(ax, names.index(row.name), row, sign)
            _limits(ax, rows, falling=title in falling)
            for row in rows:
                _interval(ax, names.index(row.name) + 0.2 * bool(row.cases.size), row, sign)
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.set_title(title, loc="left")
            ax.set_xlabel("← worse      better →", color="#39424e")
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.set_yticks(range(len(names)), written if number % columns == 0 else [""] * len(names))
            ax.tick_params(axis="y", length=0)
        return data_uri(figure)


def row_names(panels: Mapping[str, Sequence[Row]]) -> list[str]:
    """The names in all panels, without repetitions."""
    return list(dict.fromkeys(row.name for rows in panels.values() for row in rows))


def _cases(ax: Axes, place: int, row: Row, sign: int) -> None:
    finite = row.cases[np.isfinite(row.cases)]
    # Spread by rank, not by chance: the same scores give the same picture.
    spread = (np.argsort(np.argsort(finite)) * 0.618034 + 0.5) % 1 * 0.36 - 0.38
    colours = np.where(finite == 0, EQUAL, np.where(sign * finite > 0, BETTER, WORSE))
    ax.scatter(finite, place + spread, s=14, c=colours.tolist(), alpha=0.75, linewidths=0, clip_on=False, zorder=2)
    for edge, infinity, side in ((0, -np.inf, "left"), (1, np.inf, "right")):
        number = np.count_nonzero(sign * row.cases == infinity)
        if number:
            text = f"{number} × ∞"
            ax.text(edge, place - 0.2, text, ha=side, va="center", color=_ALARM, transform=ax.get_yaxis_transform())


def _limits(ax: Axes, rows: Sequence[Row], *, falling: bool) -> None:
    """From the lowest to the highest value and 0, with space for infinite ones."""
    values = np.concatenate([[0, row.estimate, row.low, row.high, *row.cases] for row in rows])
    finite = values[np.isfinite(values)]
    low, high = finite.min(), finite.max()
    space = 0.25 if np.isinf(values).any() else 0.08
    margin = space * (high - low) or 1e-3
    low, high = low - margin, high + margin
    ax.set_xlim((high, low) if falling else (low, high))


def _interval(ax: Axes, place: float, row: Row, sign: int) -> None:
    colour = {1: BETTER, -1: WORSE, 0: "#39424e"}[row.shown]
    left, right = sorted(ax.get_xlim())
    ends = np.clip([row.low, row.high], left, right)  # an infinite end runs to the edge
    ax.plot(ends, [place] * 2, color=colour, lw=2.5, solid_capstyle="butt")
    if np.isinf(row.estimate):
        edge, side = (1, "right") if sign * row.estimate > 0 else (0, "left")
        ax.text(edge, place, "∞", ha=side, va="center", color=colour, transform=ax.get_yaxis_transform())
    else:
        ax.plot(row.estimate, place, "D", color=colour, ms=6, mec="white", mew=0.8)

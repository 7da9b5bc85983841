"""Differences from a reference as a figure: an interval a row, and where they are given the cases as dots."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cpfnet.report.figures import _STYLE, COLOURS, _grid, _uri

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
        shown: 1 where it is better, −1 where it is worse, 0 where no difference was shown.
        cases: the difference of each case, drawn as dots; NaN values are left out, infinite ones counted at the edge.
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
        falling: metrics of which less is better: their axes run from right to left.

    Returns:
        SVG data URI.
    """
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        names = list(dict.fromkeys(row.name for rows in panels.values() for row in rows))
        dots = any(row.cases.size for rows in panels.values() for row in rows)
        columns = 2 if len(panels) in (2, 4) else 3
        figure, axes = _grid(len(panels), columns, 0.9 + (0.75 if dots else 0.32) * max(len(names), 1.5))
        for number, (ax, (title, rows)) in enumerate(zip(axes, panels.items(), strict=True)):
            ax.grid(visible=False, axis="y")
            ax.axvline(0, color="#39424e", lw=1)
            sign = -1 if title in falling else 1
            for row in rows:
                _row(ax, names.index(row.name), row, sign)
            ax.margins(x=0.08)
            _limits(ax, rows, falling=title in falling)
            ax.set_title(title, loc="left")
            ax.set_xlabel("← worse      better →", color="#39424e")
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.set_yticks(range(len(names)), names if number % columns == 0 else [""] * len(names))
            ax.tick_params(axis="y", length=0)
        return _uri(figure)


def _row(ax: Axes, place: int, row: Row, sign: int) -> None:
    colour = {1: BETTER, -1: WORSE, 0: "#39424e"}[row.shown]
    finite = row.cases[np.isfinite(row.cases)]
    if finite.size:
        # Spread by rank, not by chance: the same scores give the same picture.
        spread = (np.argsort(np.argsort(finite)) * 0.618034 + 0.5) % 1 * 0.36 - 0.38
        colours = np.where(finite == 0, EQUAL, np.where(sign * finite > 0, BETTER, WORSE))
        ax.scatter(finite, place + spread, s=14, c=colours.tolist(), alpha=0.75, linewidths=0, clip_on=False)
        place_of_interval = place + 0.2
    else:
        place_of_interval = place
    for edge, number, which in (
        (0, int((sign * row.cases == -np.inf).sum()), "left"),
        (1, int((sign * row.cases == np.inf).sum()), "right"),
    ):
        if number:
            text = f"{number} × ∞"
            ax.text(edge, place - 0.2, text, ha=which, va="center", color=_ALARM, transform=ax.get_yaxis_transform())
    if np.isfinite([row.low, row.high]).all():
        ax.plot([row.low, row.high], [place_of_interval] * 2, color=colour, lw=2.5, solid_capstyle="butt")
    if np.isfinite(row.estimate):
        ax.plot(row.estimate, place_of_interval, "D", color=colour, ms=6, mec="white", mew=0.8)
    else:
        ax.text(0.5, place_of_interval, "–", ha="center", va="center", transform=ax.get_yaxis_transform())


def _limits(ax: Axes, rows: Sequence[Row], *, falling: bool) -> None:
    low, high = ax.get_xlim()
    if not any(np.isfinite([row.estimate, *row.cases]).any() for row in rows):
        low, high = -1, 1
    if any(np.isinf(row.cases).any() for row in rows):  # room for their counts
        low, high = low - 0.2 * (high - low), high + 0.2 * (high - low)
    ax.set_xlim((high, low) if falling else (low, high))

"""What can be wrong with values.

That is images brighter, darker, or of another range than the others, and units that differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from cpfnet.data.checks.file_summary import Examined
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.finding import Finding

FEWEST = 5
"""Images that it takes to say what is usual."""

SCALE = np.log(5)
"""Another range: five times as wide or narrow (8 bits among 12, 0 … 1 among 0 … 255) …"""

SHIFT = 0.4
"""… or all of it moved one way by this share of the usual range (CT numbers without their −1024) …"""

MIXED = 0.2
"""More than this share of outliers are no outliers: the images come from several sources."""

DEVIATIONS = 6
"""… and further from the median than this many standard deviations (robust: 1.4826 · median absolute deviation)."""


def intensities(whole: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Outliers among images of the same number of channels.

    A grey picture among coloured ones counts for each of theirs.
    """
    levels = [[level for content in e.images for level in content.levels] for e in whole]
    most = max(map(len, levels), default=0)
    levels = [
        own * most if len(own) == 1 and e.images[0].picture else own for own, e in zip(levels, whole, strict=True)
    ]
    if len(whole) < FEWEST or len({len(level) for level in levels}) > 1:
        return
    table = np.array(levels)  # (cases, channels, 1 % 50 % 99 %)
    outlying = [_outliers(table[:, channel]) for channel in range(table.shape[1])]
    found = sorted({index for indices in outlying for index in indices})
    if len(found) > MIXED * len(whole):
        channel = max(range(len(outlying)), key=lambda c: len(outlying[c]))
        tops = np.sort(table[:, channel, 2])
        what = (
            f"values come in several ranges: their 99 % quantiles run from {tops[0]:.6g} to {tops[-1]:.6g}, the "
            f"median is {np.median(tops):.6g}"
        )
        fix = (
            "nothing needs to be done where units are arbitrary, as in MR: `cpfnet plan` proposes to scale each "
            "image by itself"
        )
        yield Finding("note", "intensity", fixes.dataset.name, what, fix)
        return
    for index in found:
        channel = next(c for c in range(len(outlying)) if index in outlying[c])
        quantiles, one = table[:, channel], whole[index]
        where = fixes.shown(one.images[0].path)
        what = f"values from {_range(quantiles[index])}" + f" in channel {channel}" * (len(outlying) > 1)
        what += f", of the others typically {_range(np.median(quantiles, axis=0))} (1 % to 99 % of the pixels)"
        fix = f"export `{where}` again in the units of the others; or {fixes.drop(one.case)}"
        yield Finding("warning", "intensity", where, what, fix, one.case.id)


def units(whole: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Images in other units than most, as PET in Bq/ml among standardised uptake values."""
    found = [e.images[0].unit for e in whole]
    usual = Counter(found).most_common(1)[0][0]
    for one, unit in zip(whole, found, strict=True):
        if unit != usual:
            where = fixes.shown(one.images[0].path)
            what = f"values are in {unit or 'unknown units'}, of the others in {usual or 'unknown units'}"
            fix = f"export `{where}` again in {usual or 'the units of the others'}; or {fixes.drop(one.case)}"
            yield Finding("warning", "unit", where, what, fix, one.case.id)


def _range(quantiles: np.ndarray) -> str:
    return f"{quantiles[0]:.6g} to {quantiles[2]:.6g}"


def _outliers(quantiles: np.ndarray) -> list[int]:
    """Rows of ``(cases, 3)`` quantiles that are outliers; constant images have findings of their own."""
    widths = quantiles[:, 2] - quantiles[:, 0]
    varied = widths > 0
    if np.count_nonzero(varied) < FEWEST:
        return []
    usual = float(np.median(widths[varied]))
    moved = (quantiles - np.median(quantiles[varied], axis=0)) / usual
    one_way = (np.sign(moved) == np.sign(moved[:, :1])).all(axis=1)
    features = (
        (np.log(np.where(varied, widths, usual)), SCALE),
        (np.where(one_way, np.abs(moved).min(axis=1) * np.sign(moved[:, 0]), 0), SHIFT),
    )
    outlying = np.zeros(len(quantiles), dtype=bool)
    for values, least in features:
        distance = np.abs(values - np.median(values[varied]))
        outlying |= distance > max(least, DEVIATIONS * 1.4826 * float(np.median(distance[varied])))
    return np.flatnonzero(outlying & varied).tolist()

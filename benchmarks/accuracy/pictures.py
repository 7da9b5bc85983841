"""Boundaries side by side at full resolution where outlines differ most: the image, the truth, and each network's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage

from benchmarks.accuracy.runs import Row
from cpfnet import formats, labels
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError
from cpfnet.evaluation.case_masks import Item, load_masks
from cpfnet.evaluation.scores import MEAN, PREDICTION, Scores
from cpfnet.files import replacing
from cpfnet.planning import Labels
from cpfnet.report.figures import LINES

SIDE = 96
"""Pixels of the image along each side of a crop."""
_FINE = 8  # lines follow the edges of pixels: masks are drawn on a grid so much finer


@dataclass(frozen=True)
class Drawn:
    """One judged case, cropped.

    Attributes:
        title: which case, and why it is shown.
        image: ``(SIDE, SIDE)`` or ``(SIDE, SIDE, 3)``, 0 … 1.
        truth: bool ``(SIDE, SIDE)``, any of the classes.
        found: network → (its mask, its Dice over the whole image).
    """

    title: str
    image: np.ndarray
    truth: np.ndarray
    found: dict[str, tuple[np.ndarray, float]]


def boundaries(rows: Sequence[Row], networks: Sequence[str], to: Path) -> list[str]:
    """Draw the judged cases with the best, the median and the worst mean Dice over the networks (fold 0, first seed).

    Args:
        rows: of one data set, images of two axes, predictions not mirrored.
        networks: the variants, in the order of columns.
        to: PNG to write; replaced.

    Returns:
        The cases shown.

    Raises:
        DatasetError: a network was not judged on this data set, or these are volumes.
    """
    chosen = {}
    for name in networks:
        mine = [row for row in rows if row["variant"] == name and row["fold"] == 0 and not row["mirrored"]]
        if not mine:
            raise DatasetError(
                f"{name} was not judged; there are {', '.join(sorted({r['variant'] for r in rows})) or 'no rows'}",
                fix="run it first, or name others by --networks",
            )
        chosen[name] = min(mine, key=lambda row: row["seed"])
    dice = {name: _dice(row["place"] / "scores") for name, row in chosen.items()}
    common = set.intersection(*(set(values) for values in dice.values()))
    ranked = sorted(common, key=lambda case: (-np.mean([values[case] for values in dice.values()]), case))
    picked = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    drawn = [_drawn(chosen, dice, case, f"{case}, {why} of {len(ranked)}") for why, case in picked.items()]
    _draw(drawn, to)
    return list(picked.values())


def _dice(folder: Path) -> dict[str, float]:
    scores = Scores.load(folder)
    return {
        row["case"]: row["dice"]
        for row in scores.rows
        if (row["prediction"], row["reader"], row["class"]) == (PREDICTION, scores.reader, MEAN)
    }


def _drawn(chosen: dict[str, Row], dice: dict[str, dict[str, float]], name: str, title: str) -> Drawn:
    place = next(iter(chosen.values()))["place"]
    data = load(place.parents[1] / "fold-0.yaml")
    case = next(case for case in data.cases if case.id == name)
    definitions = data.labels
    assert definitions is not None  # recipes declare them
    image = formats.read(list(case.images))
    if image.array.ndim != 3:
        raise DatasetError(
            "is a volume; pictures are of images with two axes", where=name, fix="choose another data set"
        )
    masks = {}
    for network, row in chosen.items():
        prediction = next((row["place"] / "scores" / "predictions").glob(f"{name}.*"))
        read = load_masks(Item(name, prediction, case.labels, roi=case.roi), definitions)
        truth = _mask(next(iter(read.truth.values())), definitions)
        masks[network] = _mask(read.prediction, definitions)
    # Amid a large difference there would be no line to see.
    edges = [mask ^ ndimage.binary_erosion(mask, border_value=1) for mask in (truth, *masks.values())]
    near = np.all([ndimage.distance_transform_edt(~edge) <= SIDE / 4 for edge in edges if edge.any()], axis=0)
    differing = np.sum([mask != truth for mask in masks.values()], axis=0)
    window = _window(differing * near if (differing * near).any() else differing)
    pixels = image.array[(slice(None), *window)].astype(float)
    low, high = np.percentile(image.array, (0.5, 99.5))
    shown = np.clip((pixels - low) / max(high - low, 1e-9), 0, 1)
    return Drawn(
        title,
        shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0],
        truth[window],
        {network: (mask[window], dice[network][name]) for network, mask in masks.items()},
    )


def _mask(codes: np.ndarray, definitions: Labels) -> np.ndarray:
    return labels.membership(definitions)[codes].any(axis=-1)


def _window(differing: np.ndarray) -> tuple[slice, slice]:
    """The square of `SIDE` pixels with most differences."""
    share = ndimage.uniform_filter(differing.astype(float), SIDE, mode="constant")
    centre = np.unravel_index(share.argmax(), share.shape)
    starts = [int(np.clip(c - SIDE // 2, 0, max(n - SIDE, 0))) for c, n in zip(centre, differing.shape, strict=True)]
    return slice(starts[0], starts[0] + SIDE), slice(starts[1], starts[1] + SIDE)


def _draw(drawn: Sequence[Drawn], to: Path) -> None:
    networks = list(drawn[0].found)
    style: Any = {"font.size": 8, "axes.titlesize": 8, "font.family": "sans-serif"}
    with rc_context(style):
        figure = Figure(figsize=(2.2 * (2 + len(networks)), 2.45 * len(drawn)), layout="constrained", dpi=150)
        grid = figure.subplots(len(drawn), 2 + len(networks), squeeze=False)
        for axes, one in zip(grid, drawn, strict=True):
            for ax in axes:
                ax.imshow(one.image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                ax.set_axis_off()
            axes[0].set_title(one.title, loc="left")
            axes[1].set_title("truth", loc="left")
            for ax in axes[1:]:
                _outline(ax, one.truth, LINES[0])
            for ax, (network, (mask, dice)) in zip(axes[2:], one.found.items(), strict=True):
                ax.set_title(f"{network}, Dice {dice:.4f}", loc="left")
                _outline(ax, mask, LINES[1])
        with replacing(to, overwrite=True) as path:
            figure.savefig(path, format="png", metadata={"Software": None})


def _outline(ax: Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any() and not mask.all():
        fine = np.kron(mask, np.ones((_FINE, _FINE)))
        rows, columns = ((np.arange(n * _FINE) + 0.5) / _FINE - 0.5 for n in mask.shape)
        ax.contour(columns, rows, fine, levels=[0.5], colors=[colour], linewidths=1.1)

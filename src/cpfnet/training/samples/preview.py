"""One picture of what a network will be shown: 16 augmented samples with the outlines of their masks."""

from __future__ import annotations

import logging
import math
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from cpfnet import formats, preprocessing
from cpfnet.data.case import Case, Dataset, add_labels, placed
from cpfnet.errors import DatasetError
from cpfnet.files import replacing
from cpfnet.label_values import region_mask
from cpfnet.labels import IGNORED, encode, membership
from cpfnet.planning import Plan
from cpfnet.report.figures import legend_columns, line_colours
from cpfnet.report.lettering import lettering, style
from cpfnet.training.samples.augment import Augmenter, Cut
from cpfnet.training.samples.patches import corner, cut

logger = logging.getLogger(__name__)

SIDE = 4
"""Samples along each side of the picture."""


def preview(dataset: Dataset, plan: Plan, path: Path | str) -> Path:
    """Draw `SIDE`² samples as training would make them, from cases spread over the data set.

    Args:
        dataset: labelled cases.
        plan: says how samples are made; the same plan and data give the same picture.
        path: the PNG to write; an existing one is replaced.

    Raises:
        DatasetError: nothing is labelled.
        OutputError: it cannot be written.
    """
    cases = [case for case in dataset.cases if case.labels and case.split != "test"]
    if not cases:
        raise DatasetError("no case has a label to draw", where=dataset.root, fix=add_labels(dataset))
    plan = plan.model_copy(update={"first_stage": False})  # its planes are no picture, and not made yet
    augmenter = Augmenter(plan)
    chosen = np.linspace(0, len(cases) - 1, SIDE**2).round().astype(int)
    samples = []
    for index, numbers in groupby(range(SIDE**2), key=lambda number: int(chosen[number])):
        image, codes = _prepared(cases[index], plan)
        for number in numbers:
            rng = np.random.default_rng((plan.training.seed, number))
            samples.append((cases[index].id, *augmenter(_piece(image, codes, plan, rng), rng)))
    if key := lettering([c.name for c in plan.labels.classes]).key:
        logger.info(f"{path}: {key}")
    return _draw(samples, plan, Path(path))


def _prepared(case: Case, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Image and codes, ``([channels,] depth, height, width)``, as the network's grid has them."""
    stored = preprocessing.match_channels(formats.read(case.images), plan)
    image, trace = preprocessing.apply(stored, plan)
    label = next(iter(case.labels.values()))
    codes = encode(placed(label, stored, plan.labels), plan.labels, where=str(label))
    if case.roi is not None:
        codes[~region_mask(placed(case.roi, stored))] = IGNORED
    codes = preprocessing.apply_codes(codes, trace)
    return (image[:, None], codes[None]) if codes.ndim == 2 else (image, codes)


def _piece(image: np.ndarray, codes: np.ndarray, plan: Plan, rng: np.random.Generator) -> Cut:
    """The way to cut a patch around a structure."""
    places = np.flatnonzero((codes > 0) & (codes != IGNORED))
    centre = tuple(map(int, np.unravel_index(rng.choice(places), codes.shape))) if places.size else None
    return partial(cut, image, codes, corner(codes.shape, centre, plan.spatial, rng), plan.spatial)


def _picture(image: np.ndarray, codes: np.ndarray, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """What can be shown of a sample: ``(height, width[, 3])`` in 0…1, and its codes.

    Of a volume it is the slice with most structure.
    """
    channels = len(plan.channels)
    middle = plan.spatial.neighbours * channels
    shown = image[middle : middle + (3 if channels == 3 else 1)]
    if codes.ndim == 3:
        structure = ((codes > 0) & (codes != IGNORED)).sum(axis=(1, 2))
        best = int(structure.argmax()) if structure.any() else len(codes) // 2
        shown, codes = shown[:, best], codes[best]
    colour = len(shown) == 3 and plan.source == "images"
    shown = shown if colour else shown[:1]
    if colour:  # undo the channels' own scales, so that colours look as in the file
        for plane, channel in zip(shown, plan.channels, strict=True):
            if channel.intensity.kind == "scale":
                plane *= channel.intensity.std
                plane += channel.intensity.mean
    low, high = np.percentile(shown, (0.5, 99.5))
    shown = ((shown - low) / max(high - low, 1e-6)).clip(0, 1)
    return (np.moveaxis(shown, 0, -1) if colour else shown[0]), codes


def _draw(samples: list[tuple[str, np.ndarray, np.ndarray]], plan: Plan, path: Path) -> Path:
    import matplotlib

    with matplotlib.rc_context({"font.family": style()["font.family"]}):
        return _draw_lettered(samples, plan, path)


def _draw_lettered(samples: list[tuple[str, np.ndarray, np.ndarray]], plan: Plan, path: Path) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    height, width = plan.spatial.patch[-2:]
    panel, title_height, gap, head = 3.0, 0.2, 0.06, 0.45  # inches
    across = SIDE * panel + (SIDE + 1) * gap
    legend = {
        c.name: colour for c, colour in zip(plan.labels.classes, line_colours(len(plan.labels.classes)), strict=True)
    }
    written = lettering([*legend, *(name for name, _, _ in samples), plan.name]).shown
    handles = [Line2D([], [], color=colour, lw=2.5, label=written[name]) for name, colour in legend.items()]
    if any((codes == IGNORED).any() for _, _, codes in samples):
        handles.append(Line2D([], [], color="#9a9a9a", lw=7, label="not counted"))
    columns = legend_columns([*legend, "not counted"], across - 0.5, 10)
    foot = 0.3 + 0.21 * math.ceil(len(handles) / columns)
    row = panel * height / width + title_height
    along = SIDE * row + head + foot
    figure = Figure(figsize=(across, along), dpi=110, facecolor="white")
    grid = figure.subplots(SIDE, SIDE)
    figure.subplots_adjust(
        left=gap / across,
        right=1 - gap / across,
        bottom=foot / along,
        top=1 - (head + title_height) / along,
        wspace=gap / panel,
        hspace=title_height / (row - title_height),
    )
    FigureCanvasAgg(figure)
    member = membership(plan.labels)
    for ax, (name, image, codes) in zip(grid.flat, samples, strict=True):
        picture, codes = _picture(image, codes, plan)
        ax.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ignored = np.ma.masked_where(codes != IGNORED, np.ones(codes.shape))
        ax.imshow(ignored, cmap="gray", vmin=0, vmax=2, alpha=0.55, interpolation="nearest")
        for index, colour in enumerate(legend.values()):
            mask = member[:, index][codes]
            if mask.any() and not mask.all():
                ax.contour(
                    mask.astype(float), [0.5], colors=[colour], linewidths=0.7 if max(codes.shape) > 128 else 1.5
                )
        title = written[name]
        ax.set_title(title if len(title) <= 32 else f"{title[:31]}…", fontsize=7.5, color="#445566", pad=2)
        ax.set_axis_off()
    figure.suptitle(
        f"{written[plan.name]}: augmented samples, {'×'.join(map(str, plan.spatial.patch))}",
        fontsize=13,
        y=1 - 0.12 / along,
        va="top",
    )
    drawn = figure.legend(handles=handles, loc="lower center", ncols=columns, fontsize=10)
    drawn.get_frame().set(facecolor="#2b3540", edgecolor="none")
    for text in drawn.get_texts():
        text.set_color("white")
    with replacing(path, overwrite=True) as temporary:
        figure.savefig(temporary, format="png")
    return path

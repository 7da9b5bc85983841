"""Figures as data URIs: curves, box plots, and images with boundary lines.

They are drawn on `matplotlib.figure.Figure` without pyplot: no display is needed, and no figure stays in memory.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cpfnet.report.lettering import lettering, style
from cpfnet.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d", "#5f6b1c")
"""Colour-blind readers can tell them apart, too (Okabe and Ito 2008)."""

LINES = ("#00e5ff", "#ff9d00", "#7cff5b", "#ff5bd0", "#ffee33", "#5b9dff", "#ff5b5b", "#c9a0ff")
"""Bright colours, for lines on images; `line_colours` has more."""


@cache
def line_colours(count: int) -> tuple[str, ...]:
    """Bright colours for lines on images: `LINES`, then colours as far as possible from those before them (CIELAB)."""
    from skimage.color import rgb2lab

    steps = np.linspace(0, 255, 9).round().astype(int)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lab = rgb2lab(rgb / 255)
    vivid = (lab[:, 0] > 45) & (np.hypot(lab[:, 1], lab[:, 2]) > 35)  # neither dark nor grey, as images are
    rgb, lab = rgb[vivid], lab[vivid]
    colours = list(LINES[:count])
    taken = rgb2lab(np.array([list(bytes.fromhex(line[1:])) for line in LINES]) / 255)
    distance = np.linalg.norm(lab[:, None] - taken, axis=-1).min(axis=1)
    while len(colours) < count:
        best = int(distance.argmax())
        colours.append("#" + bytes(rgb[best].tolist()).hex())
        distance = np.minimum(distance, np.linalg.norm(lab - lab[best], axis=-1))
    return tuple(colours)


def legend_columns(names: Sequence[str], width: float, size: float) -> int:
    """How many columns of a legend fit into ``width`` inches, at ``size`` points."""
    return max(1, min(len(names), int(width / (0.0085 * size * max(map(len, names), default=1) + 0.05 * size))))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def data_uri(figure: Figure, kind: str = "svg") -> str:
    """The figure as SVG or, for pictures, as JPEG."""
    buffer = io.BytesIO()
    if kind == "svg":
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        # Comments repeat the names, and XML holds no control characters.
        drawn = printable(buffer.getvalue().decode(), keep="\n")
        return "data:image/svg+xml;base64," + base64.b64encode(drawn.encode()).decode()
    # Full chroma resolution: otherwise thin coloured lines turn grey.
    figure.savefig(buffer, format="jpg", dpi=180, pil_kwargs={"quality": 88, "subsampling": 0})
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def panel_grid(panels: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with this number of panels, each ``height`` inches tall."""
    columns = min(columns, panels)
    rows = math.ceil(panels / columns)
    figure = _figure(10.4 if columns > 1 else 6.0, height * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[panels:]:
        unused.set_axis_off()
    return figure, axes[:panels]


def _floats(values: Sequence[Any]) -> np.ndarray:
    return np.array([math.nan if v in (None, "") else float(v) for v in values])


def curves(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[Any]]],
    *,
    x_label: str = "Epoch",
) -> str:
    """Lines over a common axis.

    Args:
        x: positions.
        panels: panel title → name of a line → its values (None, "" and NaN are gaps).
        x_label: the title of the axis.

    Returns:
        SVG data URI.
    """
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(style()):
        shown = lettering(names_in(panels)).shown
        figure, axes = panel_grid(len(panels), 2, 2.7)
        for ax, (title, lines) in zip(axes, panels.items(), strict=True):
            for colour, (name, values) in zip(_repeat(COLOURS), lines.items(), strict=False):
                y = _floats(values)
                kept = np.isfinite(y)
                few = kept.sum() <= 30
                ax.plot(
                    np.asarray(x)[kept],
                    y[kept],
                    color=colour,
                    lw=1.6,
                    label=shown[name],
                    marker="o" if few else "",
                    ms=3,
                )
            ax.set_title(title, loc="left")
            ax.set_xlabel(x_label)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # epochs and steps are whole
            ax.margins(x=0.02)
            if len(lines) > 1:
                ax.legend(frameon=False, fontsize=8)
        return data_uri(figure)


def names_in(panels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of lines or classes in all panels, without repetitions."""
    return list(dict.fromkeys(name for groups in panels.values() for name in groups))


def _repeat(colours: Sequence[str]) -> Any:
    while True:
        yield from colours


def box_plots(panels: Mapping[str, Mapping[str, Sequence[float]]], *, unit_range: Sequence[str] = ()) -> str:
    """Horizontal box plots: one panel a metric, one box a class, one dot a case.

    Boxes hold the quartiles, the line is the median, whiskers reach to 1.5 times the box. Infinite values cannot be
    drawn: they are counted at the right edge ("2 × ∞").

    Args:
        panels: metric → class → one value a case; NaN values are left out.
        unit_range: metrics that end at 1: their axes end there, too.

    Returns:
        SVG data URI.
    """
    import matplotlib

    with matplotlib.rc_context(style()):
        names = names_in(panels)
        shown = list(lettering(names).shown.values())
        figure, axes = panel_grid(len(panels), 3, 0.75 + 0.34 * max(len(names), 2))
        for number, (ax, (title, groups)) in enumerate(zip(axes, panels.items(), strict=True)):
            ax.grid(visible=False, axis="y")
            infinite = {name: int(np.isposinf(_floats(values)).sum()) for name, values in groups.items()}
            for place, (name, colour) in enumerate(zip(names, _repeat(COLOURS), strict=False)):
                values = _floats(groups.get(name, ()))
                if np.isfinite(values).any():
                    _box(ax, place, values[np.isfinite(values)], colour)
                if infinite.get(name):
                    text = f"{infinite[name]} × ∞"
                    ax.text(
                        1, place, text, ha="right", va="center", color="#b00020", transform=ax.get_yaxis_transform()
                    )
            low, high = ax.get_xlim()
            if title in unit_range:
                ax.set_xlim(low, 1)
            elif any(infinite.values()):
                ax.set_xlim(low, high + 0.2 * (high - low))  # space for the count of infinite values
            ax.set_title(title, loc="left")
            ax.set_ylim(len(names) - 0.5, -0.5)
            ax.set_yticks(range(len(names)), shown if number % 3 == 0 else [""] * len(names))
            ax.tick_params(axis="y", length=0)
        return data_uri(figure)


def _box(ax: Axes, place: int, values: np.ndarray, colour: str) -> None:
    if len(values) > 2:
        ax.boxplot(
            values,
            positions=[place],
            widths=0.55,
            orientation="horizontal",
            showfliers=False,
            manage_ticks=False,
            patch_artist=True,
            boxprops={"facecolor": colour + "33", "edgecolor": colour},
            medianprops={"color": colour, "lw": 2},
            whiskerprops={"color": colour},
            capprops={"color": colour},
        )
    # Spread by rank, not by chance: the same scores give the same picture.
    spread = (np.argsort(np.argsort(values)) * 0.618034 + 0.5) % 1 * 0.35 - 0.175
    ax.plot(values, place + spread, ".", color=colour, ms=5, alpha=0.8, mew=0, clip_on=False)


@dataclass(frozen=True)
class Overlay:
    """A picture with the true and the predicted boundaries.

    Attributes:
        image: ``(height, width)`` or ``(height, width, 3)``, 0 … 1.
        truth, prediction: bool ``(classes, height, width)``.
        classes: their names.
        aspect: height of a pixel / its width.
        roi: bool ``(height, width)``, or None; its edge is drawn as a dotted line.
        caption: what the picture shows.
    """

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    classes: Sequence[str]
    aspect: float = 1.0
    roi: np.ndarray | None = None
    caption: str = field(default="", compare=False)


def overlay(picture: Overlay) -> str:
    """Draw boundary lines on an image.

    On the left the whole image, with a frame around the part that the other panels enlarge. One class: truth and
    prediction in one panel, in two colours. Several classes: truth and prediction side by side, one colour a class.

    Returns:
        JPEG data URI.
    """
    import matplotlib
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    box = _zoom(picture)
    height, width = picture.image.shape[:2]
    shape = (box[0].stop - box[0].start) * picture.aspect / (box[1].stop - box[1].start)
    whole = height * picture.aspect / width
    single = len(picture.classes) == 1
    panels = 2 if single else 3
    tall = min(max(shape, whole, 0.4), 1.5)
    drawn_as = style() | {"axes.grid": False}
    with matplotlib.rc_context(drawn_as):
        written = lettering(picture.classes).shown
        if single:
            names = {f"{written[picture.classes[0]]}: truth": LINES[0], "prediction": LINES[1]}
        else:
            colours = zip(picture.classes, line_colours(len(picture.classes)), strict=True)
            drawn = (picture.truth | picture.prediction).any(axis=(1, 2))
            names = {name: colour for (name, colour), visible in zip(colours, drawn, strict=True) if visible}
        texts = [written.get(name, name) for name in names]
        columns = legend_columns(texts, 10, 9)
        figure = _figure(10.4, 10.4 / panels * tall + 0.35 + 0.2 * max(1, math.ceil(len(names) / columns)))
        axes = figure.subplots(1, panels)
        for ax in axes:
            ax.imshow(picture.image, cmap="gray", vmin=0, vmax=1, aspect=picture.aspect, interpolation="antialiased")
            ax.set_axis_off()
            ax.set_anchor("NW")
        axes[0].set_title("Image", loc="left")
        if (box[0].stop - box[0].start, box[1].stop - box[1].start) != (height, width):
            corner = (box[1].start - 0.5, box[0].start - 0.5)
            size = (box[1].stop - box[1].start, box[0].stop - box[0].start)
            axes[0].add_patch(Rectangle(corner, *size, fill=False, ec="white", lw=1.2))
        for ax in axes[1:]:
            ax.set_xlim(box[1].start - 0.5, box[1].stop - 0.5)
            ax.set_ylim(box[0].stop - 0.5, box[0].start - 0.5)
        if picture.roi is not None:
            for ax in axes[1:]:
                _line(ax, picture.roi, "#ffffff", 1.0, "dotted")
        if single:
            _line(axes[1], picture.truth[0], LINES[0], 1.0)
            _line(axes[1], picture.prediction[0], LINES[1], 1.0)
            axes[1].set_title("Boundaries", loc="left")
        else:
            for ax, masks in zip(axes[1:], (picture.truth, picture.prediction), strict=True):
                for name, mask in zip(picture.classes, masks, strict=True):
                    if name in names:
                        _line(ax, mask, names[name], 1.2)
            axes[1].set_title("Truth", loc="left")
            axes[2].set_title("Prediction", loc="left")
        handles = [Line2D([], [], color=colour, lw=3) for colour in names.values()]
        if handles:
            legend = figure.legend(handles, texts, loc="outside upper right", ncols=columns, fontsize=9)
            legend.get_frame().set(facecolor="#39424e", edgecolor="none")
            for text in legend.get_texts():
                text.set_color("white")
        return data_uri(figure, "jpg")


def _line(ax: Axes, mask: np.ndarray, colour: str, width: float, style: str = "solid") -> bool:
    if not mask.any():
        return False
    padded = np.pad(mask.astype(float), 1)  # lines close at the image's edge
    rows, columns = (np.arange(-1, n + 1) for n in mask.shape)
    ax.contour(columns, rows, padded, levels=[0.5], colors=[colour], linewidths=width, linestyles=style)
    return True


def _zoom(picture: Overlay) -> tuple[slice, slice]:
    """Where the masks lie, with a margin; the whole image if that is most of it."""
    union = np.logical_or(picture.truth.any(axis=0), picture.prediction.any(axis=0))
    size = union.shape
    if not union.any():
        return slice(0, size[0]), slice(0, size[1])
    out = []
    for axis in (0, 1):
        index = np.flatnonzero(union.any(axis=1 - axis))
        side = max((index[-1] + 1 - index[0]) * 1.4, size[axis] / 5)
        start = round(max((index[0] + index[-1] + 1 - side) / 2, 0))
        out.append(slice(start, min(round(start + side), size[axis])))
    rows, columns = out
    if (rows.stop - rows.start) * (columns.stop - columns.start) > 0.5 * size[0] * size[1]:
        return slice(0, size[0]), slice(0, size[1])
    return rows, columns

"""One invertible way from an Image to what a network sees, and back; training and inference use the same.

The network's grid is not padded to a patch: whoever cuts patches pads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from cpfnet import labels
from cpfnet.errors import FormatError, InputRefused, NetworkError
from cpfnet.image import Image, Segmentation
from cpfnet.planning import Plan
from cpfnet.preprocessing import intensity, spatial
from cpfnet.preprocessing.lazy_volume import Slices, run_length
from cpfnet.preprocessing.local_contrast import field_of_view
from cpfnet.preprocessing.postprocess import calibrate, decide, drop_small
from cpfnet.preprocessing.spatial import Trace

__all__ = [
    "Slices",
    "Trace",
    "apply",
    "apply_codes",
    "calibrate",
    "fitting",
    "oriented",
    "prepare",
    "restore",
    "run_length",
    "trace",
]


def fitting(image: Image, plan: Plan) -> Image:
    """A picture in the Plan's colours, where that changes nothing (`Image.to_channels`)."""
    return image.to_channels(tuple(channel.name for channel in plan.channels))


def trace(image: Image, plan: Plan) -> Trace:
    """What `apply` will do to the grid, without touching pixels.

    Raises:
        InputRefused: the image is of another kind than the Plan (rank, channels, geometry).
    """
    with _naming(image):
        _check_kind(image, plan)
        return spatial.trace(image, plan.spatial)


def apply(image: Image, plan: Plan) -> tuple[np.ndarray, Trace]:
    """Normalise, orient and resample all of an image at once.

    Returns:
        float32 ``(channels, [depth,] height, width)`` on the network's grid, and the Trace that leads back.

    Raises:
        as `prepare`.
    """
    slices, way = prepare(image, plan)
    return slices(0, slices.count), way


def prepare(image: Image, plan: Plan, *, block: int | None = None) -> tuple[Slices, Trace]:
    """Normalise, orient and resample, a run of slices at a time.

    Intensities are normalised on the image's own grid, before resampling, so that statistics are those of the file, all of it.

    Args:
        image: as read.
        plan: its `channels` and `spatial` say what to do.
        block: slices of the network's grid made at once, of a volume; default: all.

    Returns:
        ``(channels, [depth,] height, width)`` on the network's grid, and the Trace that leads back.

    Raises:
        InputRefused: as `trace`.
        FormatError: NaN or infinite values.
    """
    way = trace(image, plan)
    with _naming(image):
        shown = field_of_view(image.array) if any(c.intensity.kind == "local" for c in plan.channels) else None
        normalisers = [
            intensity.normaliser(stored, channel.intensity, inside=shown, where=f"channel {channel.name!r}")
            for stored, channel in zip(image.array, plan.channels, strict=True)
        ]

    def make(start: int, stop: int) -> np.ndarray:
        first, last = spatial.needed(way.oriented[0], way.grid[0], start, stop)
        out = np.empty((len(plan.channels), stop - start, *way.grid[1:]), dtype=np.float32)
        for planes, stored, normalise in zip(out, image.array, normalisers, strict=True):
            values = normalise(way.orient(stored)[first:last])
            planes[...] = spatial.resample(values, way.grid, whole=way.oriented, start=start, stop=stop)
        return out

    return Slices(make, way.grid[0], block), way


@contextmanager
def _naming(image: Image) -> Iterator[None]:
    """Errors name the file first."""
    try:
        yield
    except (FormatError, InputRefused) as error:
        file = image.source.place if image.source else None
        place = ": ".join(str(part) for part in (file, error.where) if part is not None)
        raise type(error)(error.what, where=place or None, fix=error.fix) from None


def _check_kind(image: Image, plan: Plan) -> None:
    rank = 2 if plan.source == "images" else 3
    size = "×".join(map(str, image.shape))
    if len(image.shape) != rank:
        raise InputRefused(
            f"the plan is for {plan.source} ({rank} spatial axes), and this has {len(image.shape)}: {size}",
            fix="give an image of the kind the model was trained on",
        )
    if 0 in image.shape:
        raise InputRefused(f"the image is empty: {size}", fix="remove it")
    if len(image.array) != len(plan.channels):
        names = ", ".join(channel.name for channel in plan.channels)
        raise InputRefused(
            f"the plan has {len(plan.channels)} channels ({names}), and this image has {len(image.array)}: {', '.join(image.channels)}",
            fix="give the same channels in the same order as in training",
        )


def apply_codes(codes: np.ndarray, trace: Trace) -> np.ndarray:
    """The same way for a code map (`cpfnet.labels`), label-exact: no code appears that was not there.

    Args:
        codes: uint8 ``([depth,] height, width)`` on the source's grid.
        trace: from `apply` to the image they belong to.

    Returns:
        uint8 on the network's grid.

    Raises:
        FormatError: the code map's size is not the image's.
    """
    if codes.shape != trace.shape:
        raise FormatError(
            f"the label's size {'×'.join(map(str, codes.shape))} is not its image's, {'×'.join(map(str, trace.shape))}",
            fix="make the label on the image's own grid",
        )
    return np.ascontiguousarray(spatial.resample_codes(trace.orient(codes), trace.grid))


def oriented(slices: Slices, trace: Trace, start: int, stop: int) -> np.ndarray:
    """A run of slices back on the source's grid, linearly, before its orientation is restored.

    Args:
        slices: float32 ``(planes, [depth,] height, width)`` on the network's grid.
        trace: from `apply`.
        start, stop: of the slices of ``trace.oriented``.

    Returns:
        float32 ``(planes, stop - start, height, width)``; a view of ``slices`` where nothing is resampled.
    """
    run = slices(*spatial.needed(trace.grid[0], trace.oriented[0], start, stop))
    if trace.grid == trace.oriented:
        return run
    return np.stack(
        [spatial.resample(plane, trace.oriented, whole=trace.grid, start=start, stop=stop) for plane in run]
    )


def restore(
    probabilities: np.ndarray | Slices,
    trace: Trace,
    plan: Plan,
    *,
    threshold: float | Sequence[float] = 0.5,
    min_component_pixels: float | Sequence[float] = 0,
    keep_probabilities: bool = False,
    doubt: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Segmentation:
    """Probabilities on the network's grid → a Segmentation that lines up with the source voxel by voxel.

    Probabilities are resampled linearly, a run of slices at a time, and decided on the source's grid, so that contours are as smooth as
    the source allows.

    Args:
        probabilities: float32 ``(plan.labels.outputs, [depth,] height, width)``, 0…1, on the network's grid.
        trace: from `apply`.
        plan: the same.
        threshold: see `decision.decide`.
        min_component_pixels: connected components of a class with fewer pixels of the source's grid are dropped (`decision.drop_small`).
        keep_probabilities: the Segmentation carries them, on the source's grid.
        doubt: makes the Segmentation's uncertainty of probabilities ``(outputs, …)``, a run of slices at a time; default: it has none.

    Raises:
        NetworkError: ``probabilities`` are not of the size that the Trace and the Plan say.
    """
    expected = (plan.labels.outputs, *trace.grid)
    if isinstance(probabilities, np.ndarray):
        whole = probabilities
        if whole.shape != expected:
            raise NetworkError(f"probabilities of shape {whole.shape} where the plan expects {expected}")
        probabilities = Slices(lambda start, stop: whole[:, start:stop], len(whole[0]))
    exclusive, names = plan.labels.exclusive, tuple(c.name for c in plan.labels.classes)
    classes = np.empty(trace.shape, np.uint8) if exclusive else np.empty((len(names), *trace.shape), np.bool_)
    kept = np.empty((plan.labels.outputs, *trace.shape), np.float32) if keep_probabilities else None
    unsure = np.empty(trace.shape, np.float32) if doubt is not None else None
    count, length = trace.oriented[0], run_length(plan.labels.outputs, trace.oriented)
    for start in range(0, count, length):
        stop = min(start + length, count)
        planes = oriented(probabilities, trace, start, stop)
        run = slice(start, stop)
        decided = decide(iter(planes), plan.labels, threshold)
        trace.orient(classes)[run if exclusive else (slice(None), run)] = decided
        if kept is not None:
            trace.orient(kept)[:, run] = planes
        if unsure is not None and doubt is not None:
            trace.orient(unsure)[run] = doubt(planes)
    return Segmentation(
        np.ascontiguousarray(
            labels.decode(drop_small(classes, plan.labels, min_component_pixels), plan.labels, overwrite=True)
        ),
        affine=trace.affine,
        source=trace.source,
        probabilities=kept,
        classes=(("background", *names) if exclusive else names) if keep_probabilities else (),
        uncertainty=unsure,
        labels=plan.labels,
    )

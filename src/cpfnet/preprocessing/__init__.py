"""From an Image to what a network sees, and back; training and inference use the same trace.

The network's grid is not padded to a patch: the code that cuts patches pads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from cpfnet import labels
from cpfnet.errors import CpfnetError, FormatError, InputRefused, NetworkError
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
    "match_channels",
    "prepare",
    "resample_back",
    "restore",
    "run_length",
    "trace_of",
]


def match_channels(image: Image, plan: Plan) -> Image:
    """A picture in the Plan's channels, if converting its colours changes nothing (`Image.to_channels`)."""
    return image.to_channels(tuple(channel.name for channel in plan.channels))


def trace_of(image: Image, plan: Plan) -> Trace:
    """How `apply` will change the grid; no pixels are read.

    Raises:
        InputRefused: the image does not fit the Plan (rank, channels, geometry).
    """
    with _name_file_in_errors(image):
        _check_kind(image, plan)
        return spatial.trace(image, plan.spatial)


def apply(image: Image, plan: Plan, *, first_stage: np.ndarray | None = None) -> tuple[np.ndarray, Trace]:
    """Normalise, orient and resample a whole image at once.

    Args:
        image: as read.
        plan: its `channels` and `spatial` say what to do.
        first_stage: as for `prepare`.

    Returns:
        float32 ``(channels, [depth,] height, width)`` on the network's grid, and the Trace that leads back.

    Raises:
        InputRefused: as `trace_of`.
        FormatError, CpfnetError: as `prepare`.
    """
    trace = trace_of(image, plan)
    slices = prepare(image, plan, trace, first_stage=first_stage)
    return slices(0, slices.count), trace


def prepare(
    image: Image, plan: Plan, trace: Trace, *, block: int | None = None, first_stage: np.ndarray | None = None
) -> Slices:
    """Normalise, orient and resample, a run of slices at a time.

    Intensities are normalised on the image's own grid, before resampling, so that statistics are those of
    the whole file.

    Args:
        image: as read.
        plan: its `channels` and `spatial` say what to do.
        trace: from `trace_of` the same image and Plan.
        block: number of slices of the network's grid that are made at once, of a volume; default: all.
        first_stage: where the plan has one, the code map of what it found, uint8 on the image's grid.

    Returns:
        ``(channels, [depth,] height, width)`` on the network's grid; with a first stage its code map is one channel
        more, the last (`first_stage.expand`).

    Raises:
        FormatError: NaN or infinite values, or a code map of another size.
        CpfnetError: the plan has a first stage, and what it found is not given.
    """
    if plan.first_stage and first_stage is None:
        raise CpfnetError(
            "the plan's network sees what a first stage found, and that was not given",
            fix="use the whole Model: cpfnet predict runs both stages",
        )
    codes = apply_codes(first_stage, trace) if plan.first_stage and first_stage is not None else None
    with _name_file_in_errors(image):
        shown = field_of_view(image.array) if any(c.intensity.kind == "local" for c in plan.channels) else None
        normalisers = [
            intensity.normaliser(stored, channel.intensity, inside=shown, where=f"channel {channel.name!r}")
            for stored, channel in zip(image.array, plan.channels, strict=True)
        ]

    def make(start: int, stop: int) -> np.ndarray:
        first, last = spatial.source_slices(trace.oriented[0], trace.grid[0], start, stop)
        count = len(plan.channels)
        out = np.empty((count + (codes is not None), stop - start, *trace.grid[1:]), dtype=np.float32)
        for planes, stored, normalise in zip(out[:count], image.array, normalisers, strict=True):
            values = normalise(trace.orient(stored)[first:last])
            planes[...] = spatial.resample(values, trace.grid, whole=trace.oriented, start=start, stop=stop)
        if codes is not None:
            out[-1] = codes[start:stop]
        return out

    return Slices(make, trace.grid[0], block)


@contextmanager
def _name_file_in_errors(image: Image) -> Iterator[None]:
    """Add the image's file to errors."""
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
            fix="give an image of the kind the model was trained on"
            + "; a folder of slices as FOLDER/stack=5x0.8x0.8, with mm between slices, rows and columns" * (rank == 3),
        )
    if 0 in image.shape:
        raise InputRefused(f"the image is empty: {size}", fix="remove it")
    if len(image.array) != len(plan.channels):
        names = ", ".join(channel.name for channel in plan.channels)
        raise InputRefused(
            f"the plan has {len(plan.channels)} channels ({names}), and this image has {len(image.array)}: "
            + ", ".join(image.channels),
            fix="give the same channels in the same order as in training",
        )


def apply_codes(codes: np.ndarray, trace: Trace) -> np.ndarray:
    """The same steps for a code map (`cpfnet.labels`), exactly: no new code appears.

    Args:
        codes: uint8 ``([depth,] height, width)`` on the source's grid.
        trace: from `apply` to the image of this map.

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


def resample_back(slices: Slices, trace: Trace, start: int, stop: int) -> np.ndarray:
    """A run of slices at the source's resolution, linearly, before its orientation is restored.

    Args:
        slices: float32 ``(planes, [depth,] height, width)`` on the network's grid.
        trace: from `apply`.
        start, stop: of the slices of ``trace.oriented``.

    Returns:
        float32 ``(planes, stop - start, height, width)``; a view of ``slices`` if nothing is resampled.
    """
    run = slices(*spatial.source_slices(trace.grid[0], trace.oriented[0], start, stop))
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
    uncertainty: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Segmentation:
    """Probabilities on the network's grid → a Segmentation that lines up with the source voxel by voxel.

    Probabilities are resampled linearly, a run of slices at a time, and decided on the source's grid, so that contours
    are as smooth as the source allows.

    Args:
        probabilities: float32 ``(plan.labels.outputs, [depth,] height, width)``, 0…1, on the network's grid.
        trace: from `apply`.
        plan: the same.
        threshold: see `postprocess.decide`.
        min_component_pixels: connected components of a class with fewer pixels of the source's grid are dropped
            (`postprocess.drop_small`).
        keep_probabilities: keep them in the Segmentation, on the source's grid.
        uncertainty: computes the Segmentation's uncertainty from probabilities ``(outputs, …)``, a run of slices at a
            time; default: it has none.

    Raises:
        NetworkError: the size of ``probabilities`` does not fit the Trace and the Plan.
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
    uncertain = np.empty(trace.shape, np.float32) if uncertainty is not None else None
    count, length = trace.oriented[0], run_length(plan.labels.outputs, trace.oriented)
    for start in range(0, count, length):
        stop = min(start + length, count)
        planes = resample_back(probabilities, trace, start, stop)
        run = slice(start, stop)
        decided = decide(iter(planes), plan.labels, threshold)
        trace.orient(classes)[run if exclusive else (slice(None), run)] = decided
        if kept is not None:
            trace.orient(kept)[:, run] = planes
        if uncertain is not None and uncertainty is not None:
            trace.orient(uncertain)[run] = uncertainty(planes)
    return Segmentation(
        np.ascontiguousarray(
            labels.decode(drop_small(classes, plan.labels, min_component_pixels), plan.labels, overwrite=True)
        ),
        affine=trace.affine,
        source=trace.source,
        probabilities=kept,
        classes=(("background", *names) if exclusive else names) if keep_probabilities else (),
        uncertainty=uncertain,
        labels=plan.labels,
    )

"""One invertible way from an Image to what a network sees, and back; training and inference use the same.

The network's grid is not padded to a patch: whoever cuts patches pads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from cpfnet import labels
from cpfnet.errors import FormatError, InputRefused, NetworkError
from cpfnet.image import Image, Segmentation
from cpfnet.planning import Plan
from cpfnet.preprocessing import intensity, spatial
from cpfnet.preprocessing.decision import calibrate, decide, drop_small
from cpfnet.preprocessing.local import field_of_view
from cpfnet.preprocessing.spatial import Trace

__all__ = ["Trace", "apply", "apply_codes", "calibrate", "restore", "to_source_grid", "trace"]


def trace(image: Image, plan: Plan) -> Trace:
    """What `apply` will do to the grid, without touching pixels.

    Raises:
        InputRefused: the image is of another kind than the Plan (rank, channels, geometry).
    """
    with _naming(image):
        _check_kind(image, plan)
        return spatial.trace(image, plan.spatial)


def apply(image: Image, plan: Plan) -> tuple[np.ndarray, Trace]:
    """Normalise, orient and resample.

    Intensities are normalised on the image's own grid, before resampling, so that statistics are those of the file.

    Args:
        image: as read.
        plan: its `channels` and `spatial` say what to do.

    Returns:
        float32 ``(channels, [depth,] height, width)`` on the network's grid, and the Trace that leads back.

    Raises:
        InputRefused: as `trace`.
        FormatError: NaN or infinite values.
    """
    way = trace(image, plan)
    out = np.empty((len(plan.channels), *way.grid), dtype=np.float32)
    with _naming(image):
        shown = field_of_view(image.array) if any(c.intensity.kind == "local" for c in plan.channels) else None
        for plane, stored, channel in zip(out, image.array, plan.channels, strict=True):
            values = intensity.normalise(stored, channel.intensity, inside=shown, where=f"channel {channel.name!r}")
            plane[...] = spatial.resample(way.orient(values), way.grid)
    return out, way


@contextmanager
def _naming(image: Image) -> Iterator[None]:
    """Errors name the file first."""
    try:
        yield
    except (FormatError, InputRefused) as error:
        file = image.source.place if image.source else None
        place = ": ".join(str(part) for part in (file, error.where) if part is not None)
        raise type(error)(error.what, where=place or None, mend=error.mend) from None


def _check_kind(image: Image, plan: Plan) -> None:
    rank = 2 if plan.source == "images" else 3
    size = "×".join(map(str, image.shape))
    if len(image.shape) != rank:
        raise InputRefused(
            f"the plan is for {plan.source} ({rank} spatial axes), and this has {len(image.shape)}: {size}",
            mend="give an image of the kind the model was trained on",
        )
    if 0 in image.shape:
        raise InputRefused(f"the image is empty: {size}", mend="remove it")
    if len(image.array) != len(plan.channels):
        names = ", ".join(channel.name for channel in plan.channels)
        raise InputRefused(
            f"the plan has {len(plan.channels)} channels ({names}), and this image has {len(image.array)}: {', '.join(image.channels)}",
            mend="give the same channels in the same order as in training",
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
            mend="make the label on the image's own grid",
        )
    return np.ascontiguousarray(spatial.resample_codes(trace.orient(codes), trace.grid))


def to_source_grid(planes: np.ndarray, trace: Trace) -> np.ndarray:
    """Float planes back to the source's grid, linearly.

    Args:
        planes: float32 ``(K, [depth,] height, width)`` on the network's grid.
        trace: from `apply`.

    Returns:
        float32 ``(K, [depth,] height, width)`` on the source's grid; a view of ``planes`` where nothing is resampled.
    """
    if trace.grid == trace.oriented:
        return trace.restore_orientation(planes)
    out = np.empty((len(planes), *trace.shape), dtype=np.float32)
    for target, plane in zip(out, planes, strict=True):
        target[...] = trace.restore_orientation(spatial.resample(plane, trace.oriented))
    return out


def restore(
    probabilities: np.ndarray,
    trace: Trace,
    plan: Plan,
    *,
    threshold: float | Sequence[float] = 0.5,
    smallest: int | Sequence[int] = 0,
    keep_probabilities: bool = False,
) -> Segmentation:
    """Probabilities on the network's grid → a Segmentation that lines up with the source voxel by voxel.

    Probabilities are resampled linearly, plane by plane, and decided on the source's grid, so that contours are as smooth as
    the source allows.

    Args:
        probabilities: float32 ``(plan.labels.outputs, [depth,] height, width)``, 0…1, on the network's grid.
        trace: from `apply`.
        plan: the same.
        threshold: see `decision.decide`.
        smallest: pieces of a class with fewer pixels of the source's grid are dropped (`decision.drop_small`).
        keep_probabilities: the Segmentation carries them, on the source's grid.

    Raises:
        NetworkError: ``probabilities`` are not of the size that the Trace and the Plan say.
    """
    expected = (plan.labels.outputs, *trace.grid)
    if probabilities.shape != expected:
        raise NetworkError(f"probabilities of shape {probabilities.shape} where the plan expects {expected}")
    kept = None
    if keep_probabilities:
        kept = np.ascontiguousarray(to_source_grid(probabilities, trace))
        planes = iter(kept)
    else:  # one plane at a time: large volumes with many classes need not fit into memory twice
        planes = (to_source_grid(plane[None], trace)[0] for plane in probabilities)
    classes = drop_small(decide(planes, plan.labels, threshold), plan.labels, smallest)
    names = tuple(c.name for c in plan.labels.classes)
    return Segmentation(
        np.ascontiguousarray(labels.decode(classes, plan.labels)),
        affine=trace.affine,
        source=trace.source,
        probabilities=kept,
        classes=(("background", *names) if plan.labels.exclusive else names) if keep_probabilities else (),
        labels=plan.labels,
    )

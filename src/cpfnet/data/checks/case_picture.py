"""A case as one small picture: the slice with most of its label, and the label where its geometry places it."""

from __future__ import annotations

import numpy as np

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.errors import CpfnetError
from cpfnet.image import Image
from cpfnet.labels import pack
from cpfnet.report.slices import radiological_view, slice_axis, to_unit
from cpfnet.report.thumbnail import thumbnail

MOST_COLOURS = 32
"""A label with more values is soft, or no label: drawn as one line in the middle between its extremes."""


def picture_of(case: Case) -> tuple[str, str]:
    """A data URI, and in words what is seen; the first is empty where the image cannot be read.

    A label on another grid is drawn where its affine places it (without millimetres: pixel on pixel), so that what is
    mirrored, shifted or of another size is seen as such.
    """
    try:
        image = formats.read(case.images)
    except CpfnetError:
        return "", ""
    codes, to_label = _drawn(case, image)
    shape = image.shape if len(image.shape) == 3 else (1, *image.shape)
    axis = slice_axis(image.affine)
    index = _richest(codes, np.linalg.inv(to_label), axis, shape)
    pixels = image.array[:3] if len(image.array) >= 3 and image.array.dtype == np.uint8 else image.array[:1]
    shown = pixels.reshape(len(pixels), *shape).take(index, axis=axis + 1)
    stack, aspect = [shown, _resampled(codes, to_label, axis, index, shape)[None]], 1.0
    if image.affine is not None:
        stack, aspect = radiological_view(stack, image.affine, axis)
    picture, drawn = stack[0], stack[1][0]
    seen = f"slice {index + 1} of {shape[axis]}" if shape[axis] > 1 else ""
    if case.labels and not drawn.any():
        seen += ", " * bool(seen) + "nothing of the label to be seen"
    return thumbnail(to_unit(picture, drawn > 0, None), drawn, aspect), seen


def _drawn(case: Case, image: Image) -> tuple[np.ndarray, np.ndarray]:
    """Small numbers ``(depth, height, width)`` for what the first label shows, and image indices → its indices."""
    nothing = np.zeros((1, 1, 1), np.uint8), np.eye(4)
    path = next(iter(case.labels.values()), None)
    if path is None:
        return nothing
    try:
        label = formats.read_label(path, image)
        packed = label.array[0] if label.meanings is not None else pack(label.array)
    except CpfnetError:
        return nothing
    values = np.unique(packed)
    background = 0 if 0 in values else values[0]
    if len(values) > MOST_COLOURS:
        codes = (packed > (float(values[0]) + float(values[-1])) / 2).astype(np.uint8)
    else:
        codes = (np.searchsorted(values[values != background], packed) + 1).astype(np.uint8)
        codes[packed == background] = 0
    to_label = np.eye(4)
    if label.affine is not None and image.affine is not None:
        to_label = np.linalg.inv(label.affine) @ image.affine
    return codes.reshape((1, *codes.shape)[-3:]), to_label


def _richest(codes: np.ndarray, to_image: np.ndarray, axis: int, shape: tuple[int, ...]) -> int:
    """The slice of the image with the most drawn voxels; the middle one where none has any."""
    counts = np.zeros(shape[axis], dtype=np.int64)
    for depth, plane in enumerate(codes):
        rows, columns = np.nonzero(plane)
        places = to_image[axis] @ np.stack([np.full(rows.size, depth), rows, columns, np.ones(rows.size)])
        inside = np.rint(places[(places > -0.5) & (places < shape[axis] - 0.5)]).astype(int)
        counts += np.bincount(inside, minlength=shape[axis])
    return int(counts.argmax()) if counts.any() else shape[axis] // 2


def _resampled(codes: np.ndarray, to_label: np.ndarray, axis: int, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """What the label shows in one slice of the image, nearest neighbour."""
    sizes = [1 if a == axis else n for a, n in enumerate(shape)]
    grid = np.indices(sizes).reshape(3, -1)
    grid[axis] = index
    places = np.rint(to_label[:3, :3] @ grid + to_label[:3, 3:]).astype(int)
    inside = ((places >= 0) & (places < np.array(codes.shape)[:, None])).all(axis=0)
    out = np.zeros(grid.shape[1], np.uint8)
    out[inside] = codes[tuple(places[:, inside])]
    return out.reshape([n for a, n in enumerate(shape) if a != axis])

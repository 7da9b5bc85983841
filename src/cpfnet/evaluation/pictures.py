"""From a case to the picture that shows most of it: the slice, its orientation, its window."""

from __future__ import annotations

import numpy as np

from cpfnet import formats, labels
from cpfnet.errors import CpfnetError
from cpfnet.evaluation.cases import Item, load_masks
from cpfnet.image import Image, geometry_difference, spacing_of
from cpfnet.planning import Labels
from cpfnet.report.figures import Overlay


def overlay_of(item: Item, definitions: Labels, *, window: tuple[float, float] | None = None) -> Overlay | None:
    """The picture of a case with the first reader's label and the prediction, where pixels count.

    Of a volume it is the slice with the most classes, then with the largest structures, seen as radiologists see it: the
    patient's anterior (or head) up, right side on the left.

    Args:
        item: the case.
        definitions: the Plan's labels.
        window: values shown black and white, in file units (HU); default: the 1 % and 99 % quantiles around the structures.

    Returns:
        None where the image is not at hand, or does not lie on the label's grid.
    """
    if not item.images:
        return None
    try:
        image = formats.read(item.images)
    except CpfnetError:
        return None
    masks = load_masks(item, definitions, image)
    if geometry_difference(image.shape, image.affine, masks.prediction.shape, masks.affine):
        return None
    table = labels.membership(definitions)
    first = next(iter(masks.truth.values()))
    counts = first != labels.IGNORED if masks.roi is None else masks.roi & (first != labels.IGNORED)
    truth, prediction = (np.moveaxis(table[codes], -1, 0) & counts for codes in (first, masks.prediction))
    pixels = image.array[:3] if len(image.array) >= 3 and image.array.dtype == np.uint8 else image.array[:1]
    stack = [pixels, truth, prediction] + ([] if masks.roi is None else [masks.roi[None]])
    aspect, where = 1.0, ""
    if image.array.ndim == 4:
        axis = _slice_axis(image)
        index = _richest(truth | prediction, axis)
        stack = [part.take(index, axis=axis + 1) for part in stack]
        where = f", slice {index + 1} of {image.shape[axis]}"
        if image.affine is not None:
            stack, aspect = _as_seen(stack, image.affine, axis)
    shown, truth, prediction, *roi = stack
    return Overlay(
        image=_to_unit(shown, truth.any(axis=0) | prediction.any(axis=0), window),
        truth=truth,
        prediction=prediction,
        classes=[c.name for c in definitions.classes],
        aspect=aspect,
        roi=roi[0][0] if roi else None,
        caption=f"{item.case}{where}",
    )


def _slice_axis(image: Image) -> int:
    """The axis of thick slices; among equals the one nearest to the patient's length, and without millimetres the first."""
    if image.affine is None:
        return 0
    spacing = np.array(spacing_of(image.affine))
    upright = np.abs(image.affine[2, :3]) / spacing
    return int(np.argmax(np.where(spacing >= 0.99 * spacing.max(), upright, -1)))


def _richest(masks: np.ndarray, axis: int) -> int:
    """The slice with the most classes, then with the most labelled voxels; the middle one of an empty volume."""
    others = tuple(a for a in range(1, 4) if a != axis + 1)
    areas = masks.sum(axis=others)
    if not areas.any():
        return masks.shape[axis + 1] // 2
    return int(np.lexsort((areas.sum(axis=0), (areas > 0).sum(axis=0)))[-1])


def _as_seen(stack: list[np.ndarray], affine: np.ndarray, axis: int) -> tuple[list[np.ndarray], float]:
    """Turn slices ``(channels, rows, columns)`` by quarter turns and flips; also gives pixel height / width."""
    rows, columns = (a for a in range(3) if a != axis)
    spacing = spacing_of(affine)
    directions = affine[:3, :3] / np.array(spacing)
    # Downwards: inferior (−z) where the slice holds the patient's length, else posterior (+y).
    upright = np.abs(directions[2, [rows, columns]])
    down = np.array([0, 0, -1]) if upright.max() > 0.7 else np.array([0, 1, 0])
    if abs(down @ directions[:, rows]) < abs(down @ directions[:, columns]):
        rows, columns = columns, rows
        stack = [part.swapaxes(1, 2) for part in stack]
    right = np.array([1, 1, 0])  # to the patient's left (+x), or in sagittal slices to posterior (+y)
    if down @ directions[:, rows] < 0:
        stack = [part[:, ::-1] for part in stack]
    if right @ directions[:, columns] < 0:
        stack = [part[:, :, ::-1] for part in stack]
    return stack, spacing[rows] / spacing[columns]


def _to_unit(image: np.ndarray, structures: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """``(1 or 3, height, width)`` in file units → ``(height, width[, 3])`` in 0 … 1."""
    if len(image) == 3:
        return np.moveaxis(image, 0, -1).astype(np.float32) / 255
    plane = np.nan_to_num(image[0].astype(np.float32))
    if window is None:
        near = plane
        if structures.any():
            found = [np.flatnonzero(structures.any(axis=1 - axis)) for axis in (0, 1)]
            margin = [max(10, (f[-1] - f[0]) // 2) for f in found]
            near = plane[tuple(slice(max(f[0] - m, 0), f[-1] + m + 1) for f, m in zip(found, margin, strict=True))]
        low, high = np.percentile(near, (1, 99)).tolist()
        window = (low, high) if high > low else (float(plane.min()), float(plane.max()))
    low, high = window
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1)

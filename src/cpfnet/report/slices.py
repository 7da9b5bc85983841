"""From a volume to one slice to look at: which slice, in radiological view, with its values between black and white."""

from __future__ import annotations

import numpy as np

from cpfnet.image import spacing_of


def slice_axis(affine: np.ndarray | None) -> int:
    """The axis of thick slices; of equal ones, that nearest to the patient's length; without millimetres, the first."""
    if affine is None:
        return 0
    spacing = np.array(spacing_of(affine))
    upright = np.abs(affine[2, :3]) / spacing
    return int(np.argmax(np.where(spacing >= 0.99 * spacing.max(), upright, -1)))


def fullest_slice(masks: np.ndarray, axis: int) -> int:
    """The slice with the most classes, then with the most labelled voxels; the middle one of an empty volume.

    Args:
        masks: bool ``(classes, depth, height, width)``.
        axis: of the slices, 0 … 2 (without the classes).
    """
    others = tuple(a for a in range(1, 4) if a != axis + 1)
    areas = masks.sum(axis=others)
    if not areas.any():
        return masks.shape[axis + 1] // 2
    return int(np.lexsort((areas.sum(axis=0), (areas > 0).sum(axis=0)))[-1])


def radiological_view(stack: list[np.ndarray], affine: np.ndarray, axis: int) -> tuple[list[np.ndarray], float]:
    """Turn slices as radiologists see them: anterior (or head) up, the patient's right on the left.

    Only by quarter turns and flips.

    Args:
        stack: slices ``(channels, rows, columns)``.
        affine: of the volume, array indices → LPS mm.
        axis: that they were cut along.

    Returns:
        The slices, and the height of a pixel / its width.
    """
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


def to_unit(image: np.ndarray, structures: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """``(1 or 3, height, width)`` in file units → ``(height, width[, 3])`` in 0 … 1.

    Args:
        image: grey, or 8-bit colours.
        structures: bool ``(height, width)``: the window is chosen so that these are seen well.
        window: grey values shown black and white; default: the 1 % and 99 % quantiles around the structures.
    """
    if len(image) == 3:
        return np.moveaxis(image, 0, -1).astype(np.float32) / 255
    plane = np.nan_to_num(image[0].astype(np.float32))
    if window is None:
        near = plane
        if structures.any():
            index = [np.flatnonzero(structures.any(axis=1 - axis)) for axis in (0, 1)]
            margin = [max(10, (i[-1] - i[0]) // 2) for i in index]
            near = plane[tuple(slice(max(i[0] - m, 0), i[-1] + m + 1) for i, m in zip(index, margin, strict=True))]
        low, high = np.percentile(near, (1, 99)).tolist()
        window = (low, high) if high > low else (float(plane.min()), float(plane.max()))
    low, high = window
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1)

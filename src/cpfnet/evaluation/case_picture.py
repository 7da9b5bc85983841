"""From a case to the picture that shows most of it: its slice, orientation and window."""

from __future__ import annotations

import numpy as np

from cpfnet import formats, labels
from cpfnet.errors import CpfnetError
from cpfnet.evaluation.case_masks import Item, load_masks
from cpfnet.image import geometry_difference
from cpfnet.planning import Labels
from cpfnet.report.figures import Overlay
from cpfnet.report.slices import fullest_slice, radiological_view, slice_axis, to_unit


def overlay_of(item: Item, definitions: Labels, *, window: tuple[float, float] | None = None) -> Overlay | None:
    """The picture of a case with the first reader's label and the prediction, where pixels count.

    Of a volume, it is the slice with the most classes, then with the largest structures, in radiological view: the
    patient's anterior (or head) up, the right side on the left.

    Args:
        item: the case.
        definitions: the Plan's labels.
        window: values shown black and white, in file units (HU); default: the 1 % and 99 % quantiles
            around the structures.

    Returns:
        None if there is no image, or if it does not lie on the label's grid.
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
        axis = slice_axis(image.affine)
        index = fullest_slice(truth | prediction, axis)
        stack = [part.take(index, axis=axis + 1) for part in stack]
        where = f", slice {index + 1} of {image.shape[axis]}"
        if image.affine is not None:
            stack, aspect = radiological_view(stack, image.affine, axis)
    shown, truth, prediction, *roi = stack
    return Overlay(
        image=to_unit(shown, truth.any(axis=0) | prediction.any(axis=0), window),
        truth=truth,
        prediction=prediction,
        classes=[c.name for c in definitions.classes],
        aspect=aspect,
        roi=roi[0][0] if roi else None,
        caption=f"{item.case}{where}",
    )

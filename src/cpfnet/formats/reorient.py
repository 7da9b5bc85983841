"""Labels whose file stores the voxels of their image in another order, or only a part of them.

Most tools that convert DICOM to NIfTI reverse the axis from front to back, for example; others write the axes in an
order of their own. Nothing is ever interpolated.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.file_types import Header
from cpfnet.image import Image, geometry_difference


def reorient(label: Image, image: Image | Header) -> Image:
    """The label with its axes in the order and direction of the image's, if both have the same voxels.

    A label on any other grid comes back as it is.
    """
    turned = _turned(label, image)
    if turned is None or geometry_difference(image.shape, image.affine, turned.shape, turned.affine) is not None:
        return label
    return turned


def place_within(label: Image, image: Image | Header) -> Image:
    """As `reorient`, of a label that may also cover only a part of the image, or lie partly beside it.

    Raises:
        FormatError: something is drawn beside the image.
    """
    turned = _turned(label, image)
    if turned is None or turned.affine is None or image.affine is None:
        return label
    first = np.rint((np.linalg.inv(image.affine) @ turned.affine)[:3, 3])
    if not (np.abs(first) < 2**31).all():
        return label
    moved = image.affine.copy()
    moved[:3, 3] = (image.affine @ (*first, 1))[:3]
    if geometry_difference(turned.shape, moved, turned.shape, turned.affine) is not None:
        return label
    start = first.astype(int)
    low = np.clip(start, 0, image.shape)
    high = np.clip(start + turned.shape, 0, image.shape)
    within = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    from_ = tuple(slice(a, b) for a, b in zip(low - start, np.maximum(high - start, low - start), strict=True))
    array = np.zeros((len(turned.array), *image.shape), turned.array.dtype)
    array[:, *within] = turned.array[:, *from_]
    beside = np.count_nonzero(turned.array) - np.count_nonzero(array)
    if beside:
        raise FormatError(
            f"is drawn beside its image, too ({beside} voxels)", fix="check that it belongs to this image"
        )
    return replace(turned, array=array, affine=image.affine)


def _turned(label: Image, image: Image | Header) -> Image | None:
    """The label with its axes along the image's; None where they are not parallel, or of other lengths."""
    if label.affine is None or image.affine is None:
        return None
    ratio = (np.linalg.inv(image.affine) @ label.affine)[:3, :3]  # label axes in image axes
    if not (np.abs(ratio) < 2).all():
        return None
    steps = np.rint(ratio).astype(int)
    if (np.abs(steps).sum(axis=0) != 1).any() or (np.abs(steps).sum(axis=1) != 1).any():
        return None
    order = np.abs(steps).argmax(axis=1)  # for each image axis, the label's
    reverse = steps.sum(axis=1) < 0
    back = np.zeros((4, 4))  # indices of the result → of the label
    back[3, 3] = 1
    for axis, (stored, reversed_) in enumerate(zip(order, reverse, strict=True)):
        back[stored, axis] = -1 if reversed_ else 1
        back[stored, 3] = label.shape[stored] - 1 if reversed_ else 0
    if not reverse.any() and (order == (0, 1, 2)).all():
        return label
    array = label.array.transpose(0, *(1 + order))
    array = array[(slice(None), *(slice(None, None, -1 if r else 1) for r in reverse))]
    return replace(label, array=np.ascontiguousarray(array), affine=label.affine @ back)

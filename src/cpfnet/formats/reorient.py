"""Labels of DICOM images in files that store their axes in another order.

Most tools that convert DICOM to NIfTI reverse the axis from front to back, for example.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cpfnet.formats.file_types import Header
from cpfnet.image import Image, geometry_difference


def reorient(label: Image, image: Image | Header) -> Image:
    """The label with its axes in the order and direction of the image's, if both have the same voxels.

    Nothing is interpolated. A label on any other grid comes back as it is.
    """
    if label.affine is None or image.affine is None:
        return label
    steps = np.rint((np.linalg.inv(image.affine) @ label.affine)[:3, :3]).astype(int)  # label axes in image axes
    if (np.abs(steps).sum(axis=0) != 1).any() or (np.abs(steps).sum(axis=1) != 1).any():
        return label
    order = np.abs(steps).argmax(axis=1)  # for each image axis, the label's
    reverse = steps.sum(axis=1) < 0
    back = np.zeros((4, 4))  # indices of the result → of the label
    back[3, 3] = 1
    for axis, (stored, reversed_) in enumerate(zip(order, reverse, strict=True)):
        back[stored, axis] = -1 if reversed_ else 1
        back[stored, 3] = label.shape[stored] - 1 if reversed_ else 0
    array = label.array.transpose(0, *(1 + order))
    array = array[(slice(None), *(slice(None, None, -1 if r else 1) for r in reverse))]
    affine = label.affine @ back
    if geometry_difference(image.shape, image.affine, array.shape[1:], affine) is not None:
        return label
    return replace(label, array=np.ascontiguousarray(array), affine=affine)

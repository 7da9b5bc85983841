"""What the tests of all families ask of damaged files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.image import Image


def image_or_error(path: Path) -> None:
    """Any bytes are either an image with the header of `read_header`, or raise a FormatError with file and fix."""
    error = None
    try:
        image = formats.read(path)
    except FormatError as raised:
        error = raised
    if error is not None:
        assert error.where == str(path)
        assert error.fix
        return
    header = formats.read_header(path)
    assert (header.shape, header.dtype, header.channels) == (image.shape, image.array.dtype, image.channels)


def assert_same_points(image: Image, path: Path) -> None:
    """Voxel (i, j, k) lies at the same millimetre for SimpleITK (LPS) and holds the same value."""
    other = sitk.ReadImage(str(path))
    assert other.GetSize() == image.shape[::-1]
    corners = [(0, 0, 0), *np.diag(np.array(other.GetSize()) - 1).tolist(), tuple(n - 1 for n in other.GetSize())]
    extent = max(np.array(image.shape) * image.spacing) + np.abs(image.affine[:3, 3]).max()
    for i, j, k in corners:
        ours = (image.affine @ (k, j, i, 1))[:3]
        np.testing.assert_allclose(
            ours, other.TransformIndexToPhysicalPoint((int(i), int(j), int(k))), rtol=0, atol=1e-5 * extent
        )
    np.testing.assert_array_equal(sitk.GetArrayFromImage(other), image.array[0])


def damaged(raw: bytearray, data: st.DataObject) -> bytes:
    """A file's bytes, perhaps cut short, some of them perhaps changed."""
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(1, len(raw) - 1))]
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    return bytes(raw)

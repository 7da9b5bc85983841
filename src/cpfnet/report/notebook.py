"""An Image and a Segmentation in a notebook: a small picture and a line of text, no patient data but the pixels."""

from __future__ import annotations

from html import escape

import numpy as np

from cpfnet.image import RGB, Image, Segmentation
from cpfnet.labels import decode
from cpfnet.report.figures import line_colours
from cpfnet.report.slices import fullest_slice, radiological_view, slice_axis, to_unit
from cpfnet.report.thumbnail import SIDE, thumbnail

MOST_COLOURS = 32
"""Further label values share the last colour."""


def html_of_image(image: Image) -> str:
    """RGB images in their colours, others by their first channel; volumes by their middle slice."""
    axis = slice_axis(image.affine)
    middle = image.shape[axis] // 2 if len(image.shape) == 3 else 0
    pixels = image.array if image.channels == RGB and image.array.dtype == np.uint8 else image.array[:1]
    plane, aspect, seen = _plane(pixels, image.affine, axis, middle)
    if plane.size == 0:
        return _html(repr(image))
    background = np.zeros(plane.shape[1:], dtype=np.uint8)
    return _html(repr(image), thumbnail(to_unit(plane, background > 0, None), background, aspect), seen)


def html_of_segmentation(segmentation: Segmentation) -> str:
    """The labels in colours, on black; of a volume, the slice with most labelled pixels."""
    array, affine = segmentation.array, segmentation.affine
    if array.size == 0:
        return _html(repr(segmentation))
    background = 0
    if (labels := segmentation.labels) is not None:
        empty = np.zeros((1, 1) if labels.exclusive else (len(labels.classes), 1, 1), dtype=np.uint8)
        background = int(decode(empty > 0 if not labels.exclusive else empty, labels)[0, 0])
    axis = slice_axis(affine)
    index = fullest_slice((array != background)[None], axis) if array.ndim == 3 else 0
    plane, aspect, seen = _plane(array[None], affine, axis, index)
    values = np.unique(plane)
    codes = np.searchsorted(values[values != background], plane[0]) + 1
    codes = np.where(plane[0] == background, 0, np.minimum(codes, MOST_COLOURS)).astype(np.uint8)
    colours = np.array([[0, 0, 0], *(list(bytes.fromhex(line[1:])) for line in line_colours(int(codes.max())))]) / 255
    return _html(repr(segmentation), thumbnail(0.6 * colours[codes], codes, aspect), seen)


def _plane(stack: np.ndarray, affine: np.ndarray | None, axis: int, index: int) -> tuple[np.ndarray, float, str]:
    """One small slice ``(channels, height, width)``, the height of a pixel / its width, and the slice's number."""
    aspect, seen = 1.0, ""
    if stack.ndim == 4:
        if stack.size == 0:
            return stack[:, 0:0].reshape(0, 0, 0), aspect, seen
        seen = f"slice {index + 1} of {stack.shape[axis + 1]}"
        stack = stack.take(index, axis=axis + 1)
        if affine is not None:
            (stack,), aspect = radiological_view([stack], affine, axis)
    steps = [max(1, n // (2 * SIDE)) for n in stack.shape[1:]]
    return stack[:, :: steps[0], :: steps[1]], aspect * steps[0] / steps[1], seen


def _html(text: str, uri: str = "", seen: str = "") -> str:
    caption = escape(text) + (f"<br>{escape(seen)}" if seen else "")
    picture = f'<img src="{uri}" alt="" style="max-width: {SIDE // 2}px">' if uri else ""
    return f'<figure style="margin: 0">{picture}<figcaption>{caption}</figcaption></figure>'

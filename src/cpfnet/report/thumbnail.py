"""A small picture with the outlines of the labels on it, as a data URI."""

from __future__ import annotations

import base64
import io

import numpy as np

from cpfnet.report.figures import line_colours

SIDE = 440
"""Pixels along the longer side; it is shown at half of it, so that lines stay sharp on high-resolution screens."""


def thumbnail(image: np.ndarray, codes: np.ndarray, aspect: float = 1.0) -> str:
    """Draw the thumbnail.

    Args:
        image: ``(height, width)`` or ``(height, width, 3)``, 0 … 1.
        codes: ``(height, width)`` integers, 0 where nothing is drawn; each other number has a colour.
        aspect: height of a pixel / its width.

    Returns:
        JPEG data URI.
    """
    from PIL import Image as Pillow
    from scipy import ndimage
    from skimage.segmentation import find_boundaries

    height, width = codes.shape
    zoom = SIDE / max(height * aspect, width)
    size = max(1, round(width * zoom)), max(1, round(height * aspect * zoom))
    picture = Pillow.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)).convert("RGB")
    pixels = np.array(picture.resize(size, Pillow.Resampling.BICUBIC if zoom > 1 else Pillow.Resampling.BOX))
    drawn = np.array(Pillow.fromarray(codes.astype(np.uint8)).resize(size, Pillow.Resampling.NEAREST))
    lines = find_boundaries(np.pad(drawn, 1), mode="thick")[1:-1, 1:-1]  # two pixels wide, on both sides of the edge
    drawn = np.where(drawn > 0, drawn, ndimage.maximum_filter(drawn, 3))
    colours = np.array([list(bytes.fromhex(line[1:])) for line in line_colours(int(drawn.max()))])
    if lines.any():
        pixels[lines] = colours[drawn[lines].astype(int) - 1]
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "jpeg", quality=85, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Local contrast: removes uneven light and exposure, and keeps thin structures."""

from __future__ import annotations

import numpy as np

DARK = 0.2
"""What is darker than this share of the 99 % quantile, counted from the minimum, may be the surroundings of a
photograph."""

FLAT = 0.1
"""Contrast below this share of the whole image's is noise, and is not raised to full contrast."""


def local_contrast(x: np.ndarray, radius: float, inside: np.ndarray) -> np.ndarray:
    """(x − m) / s, with mean m and standard deviation s of the surroundings of each pixel; 0 outside.

    Both come from a Gaussian window, made of three box filters (Wells, IEEE PAMI 1986), whose cost does not grow with
    its size. Only pixels ``inside`` count, so that the dark around a field of view makes no false edge along it. A
    share (`FLAT`) of the whole image's variance is added to s².

    Args:
        x: ``(height, width)``, any real dtype.
        radius: standard deviation of the window, as a share of the longer side: the same field looks the same
            at another resolution.
        inside: bool, of the same shape.

    Returns:
        float32 ``(height, width)``.
    """
    from scipy import ndimage

    if not inside.any():
        return np.zeros(x.shape, np.float32)
    sigma = max(1.0, radius * max(x.shape))
    width = 2 * max(1, round((np.sqrt(4 * sigma**2 + 1) - 1) / 2)) + 1  # three boxes of width w: variance (w² − 1) / 4

    def smooth(values: np.ndarray) -> np.ndarray:
        for _ in range(3):
            values = ndimage.uniform_filter(values, width, mode="constant")
        return values

    counted = inside.astype(np.float64)
    weight = np.maximum(smooth(counted), 1e-9)
    centred = (x - np.mean(x, where=inside, dtype=np.float64)) * counted
    difference = (centred - smooth(centred) / weight) * counted
    variance = np.maximum(smooth(difference**2) / weight, 0)
    least = FLAT**2 * float(np.mean(centred**2, where=inside))
    spread = np.sqrt(variance + least)
    return np.divide(difference, spread, out=np.zeros_like(difference), where=spread > 0).astype(np.float32)


def field_of_view(array: np.ndarray) -> np.ndarray:
    """Where a photograph shows something: all pixels except those that are dark (`DARK`) in every channel and connected
    with the border.

    Args:
        array: ``(channels, height, width)`` as stored.

    Returns:
        bool ``(height, width)``.
    """
    from scipy import ndimage

    brightest = array.max(axis=0).astype(np.float64)
    low, high = float(brightest.min()), float(np.percentile(brightest, 99))
    dark, _ = ndimage.label(brightest <= low + DARK * (high - low))
    border = np.unique(np.concatenate([dark[0], dark[-1], dark[:, 0], dark[:, -1]]))
    return ~np.isin(dark, border[border > 0])

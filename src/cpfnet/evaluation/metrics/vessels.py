"""How well a network of vessels was found: its centre lines, and its thin branches."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

THIN = 3
"""Pixels: vessels up to this width are thin."""


def squeeze_single_slices(mask: np.ndarray) -> np.ndarray:
    """A mask without its axes of length 1, but with at least two axes: a volume of one slice is an image."""
    axes = [axis for axis, length in enumerate(mask.shape) if length == 1]
    return np.squeeze(mask, tuple(axes[: max(mask.ndim - 2, 0)]))


def skeleton(mask: np.ndarray) -> np.ndarray:
    """Centre lines of a mask, bool of its shape (scikit-image: Zhang in 2-D, Lee in 3-D); if none is left, the mask."""
    from skimage.morphology import skeletonize

    out = np.zeros_like(mask)
    if not mask.any():
        return out
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    line = skeletonize(np.pad(mask[box], 1))[(slice(1, -1),) * mask.ndim] > 0
    out[box] = line if line.any() else mask[box]
    return out


def cldice(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Centreline Dice: harmonic mean of the shares of each skeleton that lie inside the other mask.

    Shit et al., "clDice – a Novel Topology-Preserving Loss Function for Tubular Structure Segmentation", CVPR 2021, eq.
    1 and 2, with the skeletons of `skeleton`.

    Args:
        prediction, truth: bool, 2-D or 3-D, of one shape.
    """
    if not prediction.any() and not truth.any():
        return math.nan
    if not prediction.any() or not truth.any():
        return 0.0
    prediction, truth = squeeze_single_slices(prediction), squeeze_single_slices(truth)
    topology_precision = truth[skeleton(prediction)].mean()
    topology_sensitivity = prediction[skeleton(truth)].mean()
    if not topology_precision + topology_sensitivity:
        return 0.0
    return float(2 * topology_precision * topology_sensitivity / (topology_precision + topology_sensitivity))


def thin(mask: np.ndarray) -> np.ndarray:
    """Pixels that belong to vessels at most `THIN` pixels wide.

    The width at a point of the centre line is its local thickness: the diameter of the largest disc (ball) inside the
    mask that covers it (Hildebrand and Rüegsegger, J. Microsc. 185:67, 1997). Every other pixel has the width of the
    nearest point of the centre line, so that a rough edge is no vessel. A disc of diameter `THIN` + 1 is the pixels
    whose centres lie within its radius of a pixel's corner; it fits into 4 rows and into 5 diagonals (3.5 pixels), not
    into 3 rows or 4 diagonals (2.8 pixels).

    Args:
        mask: bool, 2-D or 3-D. What lies beyond the array is outside.

    Returns:
        bool, of its shape.
    """
    vessels = squeeze_single_slices(mask)
    offsets = np.indices((THIN + 1,) * vessels.ndim) - THIN / 2
    disc = (offsets**2).sum(axis=0) <= ((THIN + 1) / 2) ** 2
    wide = ndimage.binary_opening(vessels, disc)
    if not wide.any():
        return mask.copy()
    line = skeleton(vessels)
    nearest = ndimage.distance_transform_edt(~line, return_distances=False, return_indices=True)
    return (vessels & ~wide[tuple(nearest)]).reshape(mask.shape)


def thin_recall(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of the truth's `thin` pixels that are predicted; NaN where it has none.

    Widths are in pixels, even where millimetres are known: vessels that the grid can hardly show are hard to find.

    Args:
        prediction, truth: bool, 2-D or 3-D, of one shape.
    """
    wanted = thin(truth)
    return float(prediction[wanted].mean()) if wanted.any() else math.nan

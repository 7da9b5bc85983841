"""How thick and how long-drawn a structure is: what decides whether it survives shrinking, and whether it is a tube."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

LARGEST_CROP = 512
"""Pixels along a side of the piece that is looked at, in 2-D; volumes: a quarter of it."""

TUBULAR_REACH = 12.0
"""A structure is tubular where its largest component reaches this many times its width (disc 1, ellipse its ratio) …"""

TUBULAR_RADIUS = 0.03
"""… and its radius is below this share of the image's longest side."""

HOLLOW = 0.88
"""A component that, with its holes, fills this share of the ellipse of the same moments is a ring or a shell: as wide
as what it surrounds."""


@dataclass(frozen=True)
class Structure:
    """One class in one label.

    Attributes:
        pixels: of the whole class.
        radius: median distance from the centre line to the edge, pixels.
        reach: between the ends of the largest piece, pixels.
        width: of that component, where it is thick: no more than a twentieth of its pixels lie where it is thicker.
            Spikes make a tumour no thinner.
    """

    pixels: int
    radius: float
    reach: float
    width: float

    def tubular(self, shape: tuple[int, ...]) -> bool:
        return self.reach > TUBULAR_REACH * self.width and self.radius < TUBULAR_RADIUS * max(shape)


def measure(mask: np.ndarray) -> Structure | None:
    """Look at one mask, ``([depth,] height, width)`` bool; None where it is empty.

    Of a large mask only a piece in the middle of its bounding box is looked at, so time and memory stay bounded.
    """
    from scipy import ndimage
    from skimage.morphology import skeletonize

    pixels = int(np.count_nonzero(mask))
    if not pixels:
        return None
    side = LARGEST_CROP if mask.ndim == 2 else LARGEST_CROP // 4
    window = []
    for axis in range(mask.ndim):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        start, stop = int(found[0]), int(found[-1]) + 1
        if stop - start > side:
            start += (stop - start - side) // 2
            stop = start + side
        window.append(slice(start, stop))
    piece = np.pad(mask[tuple(window)], 1)
    if not piece.any():
        return Structure(pixels, 0.5, 0.0, 1.0)
    line = skeletonize(piece)
    if not line.any():
        line = piece
    depth = ndimage.distance_transform_edt(piece)
    pieces, count = ndimage.label(piece, ndimage.generate_binary_structure(piece.ndim, piece.ndim))
    largest = pieces == int(np.bincount(pieces[line], minlength=count + 1)[1:].argmax()) + 1
    return Structure(pixels, max(float(np.median(depth[line])), 0.5), *_reach_and_width(largest, depth, line & largest))


def _reach_and_width(piece: np.ndarray, depth: np.ndarray, line: np.ndarray) -> tuple[float, float]:
    from scipy import ndimage

    places = np.argwhere(piece & (depth < 2))
    directions = np.array(list(product((-1, 0, 1), repeat=piece.ndim))[: 3**piece.ndim // 2], float)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    reach = float(np.ptp(places @ directions.T, axis=0).max()) + 1
    filled = ndimage.binary_fill_holes(piece)
    if filled.sum() > HOLLOW * _ellipse(filled):
        return reach, 2 * float(ndimage.distance_transform_edt(filled).max())
    nearest = ndimage.distance_transform_edt(~line, return_distances=False, return_indices=True)
    return reach, max(2 * float(np.quantile(depth[tuple(nearest[:, piece])], 0.95)), 1.0)


def _ellipse(mask: np.ndarray) -> float:
    """Size of the ellipse (2-D) or ellipsoid with the moments of a mask."""
    axes = mask.ndim
    unit = np.pi if axes == 2 else 4 / 3 * np.pi
    moments = np.cov(np.argwhere(mask), rowvar=False, bias=True) + np.eye(axes) / 12  # pixels are squares, not points
    return float(unit * np.sqrt((axes + 2) ** axes * np.linalg.det(moments)))

"""What a first stage found, in samples: beside the image one plane a class, changed at random.

A network that sees good masks in training copies them, and with them their errors. So structures grow and shrink, and
components of them are lost; how often and by how much is what nnU-Net's trainer has for its cascade. Where it dilates,
erodes, closes or opens, here boundaries move out or in.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from cpfnet.planning import Labels
from cpfnet.preprocessing.first_stage import planes

MOVED, FURTHEST = 0.4, 8.0
"""Probability that boundaries move, and by how many of the finest voxels at most, either way."""

LOST, LARGEST = 0.2, 0.15
"""Probability that of each class a component is lost, and the share of the patch from which on it stays."""


def with_planes(
    image: np.ndarray,
    codes: np.ndarray,
    labels: Labels,
    spacing: np.ndarray,
    rng: np.random.Generator | None,
) -> np.ndarray:
    """A patch as the network takes it.

    Args:
        image: float32 ``(channels, depth, height, width)``.
        codes: uint8 ``(depth, height, width)``: what the first stage found there.
        labels: of both stages.
        spacing: of the patch; boundaries move as far in mm along all axes.
        rng: all randomness; None: nothing changes.

    Returns:
        float32 ``(channels + classes, depth, height, width)``.
    """
    found = planes(codes, labels)
    if rng is not None:
        moves, loses = rng.random(2) < (MOVED, LOST)
        if moves:
            _move(found, labels.exclusive, spacing / spacing.min(), rng)
        if loses:
            for plane in found:
                _lose(plane, rng)
    return np.concatenate([image, found.astype(np.float32)])


def _move(found: np.ndarray, exclusive: bool, spacing: np.ndarray, rng: np.random.Generator) -> None:
    """Move the boundary of each class, in place; of exclusive classes the one that grows takes from the others."""
    for plane, distance in zip(found, rng.uniform(-FURTHEST, FURTHEST, len(found)), strict=True):
        changed = moved(plane, distance, spacing)
        if exclusive:
            found[:, changed & ~plane] = False
        plane[...] = changed


def moved(mask: np.ndarray, distance: float, spacing: np.ndarray) -> np.ndarray:
    """A structure whose boundary lies further out, or with a negative distance further in.

    Where the patch cuts it, it goes on: it shrinks from its own boundary alone.

    Args:
        mask: bool ``(depth, height, width)``; stays as it is.
        distance: between centres of voxels.
        spacing: of these, along each axis.
    """
    out = np.zeros_like(mask)
    if not mask.any():
        return out
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    reach = np.ceil(max(distance, 1) / spacing).astype(int)  # a voxel of background around, where there is one
    near = tuple(slice(max(0, s.start - r), s.stop + r) for s, r in zip(box, reach, strict=True))
    part = mask[near]
    if distance > 0:
        out[near] = ndimage.distance_transform_edt(~part, sampling=spacing) <= distance
    elif part.all():
        out[near] = True
    else:
        out[near] = ndimage.distance_transform_edt(part, sampling=spacing) > -distance
    return out


def _lose(plane: np.ndarray, rng: np.random.Generator) -> None:
    """Take one connected component out of a plane, in place."""
    components, count = ndimage.label(plane, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel(), minlength=count + 1)[1:]
    small = 1 + np.flatnonzero(sizes < LARGEST * plane.size)
    if len(small):
        plane[components == rng.choice(small)] = False

"""Where the pieces of an image lie that a network sees, and how much each counts. NumPy only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cpfnet.planning import Plan

Backend = Callable[[np.ndarray], np.ndarray]
"""float32 ``(N, in_channels, *spatial)`` → float32 logits ``(N, outputs, *spatial)``."""

WHOLE_SLICE = 2048
"""Longest side of a slice that the network is given whole, if the Plan names no tile: 3 GB for CPFNet in float32."""

LEAST_WEIGHT = 1e-3
"""Of a tile's corner, its centre being 1: positive, so that pixels seen by one tile only are kept."""


def mirrored_copies(plan: Plan, ndim: int) -> list[tuple[tuple[int, ...], int]]:
    """For each copy, axes to flip, counted from the last, and quarter turns that follow; first the image as it is."""
    names = ("depth", "height", "width")[-ndim:]
    axes = [names.index(name) - ndim for name in plan.inference.mirror]
    mirrored = [combination for count in range(len(axes) + 1) for combination in itertools.combinations(axes, count)]
    both = {"height", "width"} <= {*plan.inference.mirror}  # then half of the turns give what is there already
    turns = range(1 if not plan.inference.quarter_turns else 2 if both else 4)
    return list(itertools.product(mirrored, turns))


def turned_back(
    window: tuple[slice, ...], size: tuple[int, ...], axes: tuple[int, ...], turns: int
) -> tuple[slice, ...]:
    """Where a window of a copy lies in the image as it is.

    Args:
        window: of the copy.
        size: of the image, as many axes as the window has.
        axes: that were flipped, counted from the last.
        turns: quarter turns (`numpy.rot90` of the last two axes) that followed.
    """
    *lead, rows, columns = window
    height, width = size[-2:] if turns % 2 == 0 else (size[-1], size[-2])
    for _ in range(turns):
        rows, columns = columns, _mirrored(rows, height)
        height, width = width, height
    window = (*lead, rows, columns)
    return tuple(
        _mirrored(own, length) if axis in axes else own
        for own, length, axis in zip(window, size, range(-len(size), 0), strict=True)
    )


def _mirrored(window: slice, length: int) -> slice:
    return slice(length - window.stop, length - window.start)


def tile_size(plan: Plan, size: tuple[int, ...], largest: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """The piece that the network is given, for an image of ``size``; ``largest`` is in place of the Plan's.

    Smaller images are padded to the patch, as in training: a network that has only seen patches of 64×64 reads a bare
    image of 49×35, whose edges lie elsewhere in its deep levels, far worse (Dice 0.19 against 0.86 on one such case).
    """
    whole = plan.spatial.patch if plan.spatial.dims == 3 else (WHOLE_SLICE, WHOLE_SLICE)
    largest = largest or plan.inference.tile or whole
    return tuple(min(most, max(n, patch)) for most, n, patch in zip(largest, size, plan.spatial.patch, strict=True))


def batch_size(plan: Plan, tile: tuple[int, ...]) -> int:
    """How many pieces of this size the network is given at once: the Plan's batch, or fewer.

    A batch is planned for pieces of one size. Of larger ones only as many are taken as hold no more pixels, else a
    batch for thumbnails would be one of photographs. A piece that alone holds more goes alone.
    """
    spatial = plan.spatial
    longest = None if spatial.longest is None else (spatial.longest, spatial.longest)
    planned = plan.inference.tile or spatial.size or longest or spatial.patch
    pixels = plan.inference.batch * math.prod(planned)
    return max(1, min(plan.inference.batch, pixels // math.prod(tile)))


def tile_windows(size: tuple[int, ...], tile: tuple[int, ...], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Evenly spread tiles that cover ``size``, overlap by ``overlap`` of a tile or more, and are cut off at its end."""
    starts = []
    for n, length in zip(size, tile, strict=True):
        step = max(1, int(length * (1 - overlap)))
        count = 1 if n <= length else -(-(n - length) // step) + 1
        starts.append([round(i * (n - length) / (count - 1)) if count > 1 else 0 for i in range(count)])
    for corner in itertools.product(*starts):
        yield tuple(slice(at, min(at + length, n)) for at, length, n in zip(corner, tile, size, strict=True))


def gaussian(tile: tuple[int, ...]) -> np.ndarray:
    """Blending weights, float32 of the tile's shape: 1 at the centre, SD ⅛ of a side, at least `LEAST_WEIGHT`."""
    weights = np.ones((), dtype=np.float32)
    for length in tile:
        x = (np.arange(length, dtype=np.float32) - (length - 1) / 2) / (length / 8)
        weights = weights[..., None] * np.exp(-0.5 * x**2)
    return np.maximum(weights, np.float32(LEAST_WEIGHT))


def piece_of(array: np.ndarray, index: int | None, window: tuple[slice, ...], neighbours: int) -> np.ndarray:
    """What the network sees of one window; 2.5-D stacks are slice-major, as `Plan.in_channels` says."""
    if index is None:
        return array[(slice(None), *window)]
    stack = np.clip(np.arange(index - neighbours, index + neighbours + 1), 0, array.shape[1] - 1)
    piece = array[(slice(None), slice(None), *window)][:, stack]
    return piece.swapaxes(0, 1).reshape(-1, *piece.shape[2:])


def pad(piece: np.ndarray, tile: tuple[int, ...]) -> np.ndarray:
    """To the tile's size by repeating edges on both sides; `centre` undoes it."""
    lacking = [length - n for length, n in zip(tile, piece.shape[1:], strict=True)]
    if not any(lacking):
        return piece
    return np.pad(piece, [(0, 0), *((lack // 2, lack - lack // 2) for lack in lacking)], mode="edge")


def centre(array: Any, size: tuple[int, ...]) -> Any:
    """The centre of the last axes."""
    starts = [(n - length) // 2 for n, length in zip(array.shape[-len(size) :], size, strict=True)]
    lead = [slice(None)] * (array.ndim - len(size))
    return array[(*lead, *(slice(at, at + length) for at, length in zip(starts, size, strict=True)))]


def one_value(piece: np.ndarray) -> np.ndarray | None:
    """The values ``(channels,)`` of a piece in which each channel has only one; None for any other."""
    corner = piece[(slice(None), *[slice(0, 1)] * (piece.ndim - 1))]
    middle = piece[(slice(None), *(slice(n // 2, n // 2 + 1) for n in piece.shape[1:]))]
    if not (middle == corner).all() or not (piece == corner).all():  # the first tells most that differ
        return None
    return corner.ravel()

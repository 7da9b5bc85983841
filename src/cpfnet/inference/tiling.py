"""A whole image through a network that sees pieces of it: slices, tiles, mirrored and turned copies. NumPy only.

Pieces overlap and are blended with Gaussian weights, since a network knows least at the border of what it sees. All
averaging (tiles, copies, and models in `predictor`) is done on probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from cpfnet.errors import NetworkError
from cpfnet.planning import Plan
from cpfnet.preprocessing.first_stage import expand
from cpfnet.preprocessing.postprocess import activate

Backend = Callable[[np.ndarray], np.ndarray]
"""float32 ``(N, in_channels, *spatial)`` → float32 logits ``(N, outputs, *spatial)``."""

WHOLE_SLICE = 2048
"""Longest side of a slice that the network is given whole, if the Plan names no tile: 3 GB for CPFNet in float32."""

LEAST_WEIGHT = 1e-3
"""Of a tile's corner, its centre being 1: positive, so that pixels seen by one tile only are kept."""


def predict_array(
    backend: Backend,
    array: np.ndarray,
    plan: Plan,
    *,
    overlap: float | None = None,
    tta: bool = False,
    tile: tuple[int, ...] | None = None,
    batch: int | None = None,
    run: slice = slice(None),
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Class probabilities of one preprocessed image.

    A volume goes slice by slice through a 2-D network (2.5-D: with its neighbours, the first and last slice repeated
    beyond the ends). An image larger than ``plan.inference.tile`` goes tile by tile; without that, 3-D networks see
    tiles of the training patch's size, and 2-D ones whole slices up to `WHOLE_SLICE`.

    Args:
        backend: the network.
        array: float32 ``(channels, [depth,] height, width)`` from `cpfnet.preprocessing.apply`.
        plan: the network's.
        overlap: share of a tile that its neighbour covers too, 0 … <1; default: the Plan's.
        tta: average over copies mirrored along every combination of ``plan.inference.mirror``, each with its quarter
            turns where ``plan.inference.quarter_turns`` says so: of a plane that is mirrored both ways the eight
            symmetries of the square.
        tile: largest piece given to the network; default: the Plan's.
        batch: pieces given to the network at once; default: `batch_size`.
        run: slices to predict, where a volume goes through a 2-D network; the others are only neighbours to them.
        progress: called with the share of the work done, 0…1.

    Returns:
        float32 ``(plan.labels.outputs, [run,] height, width)``: softmax over planes for exclusive labels, else a
        sigmoid each.

    Raises:
        NetworkError: the network gives another shape than the Plan says, or values that are no numbers.
    """
    copies = _copies(plan, array.ndim - 1) if tta else [((), 0)]
    tile = tile_size(plan, array.shape[-plan.spatial.dims :], tile)
    batch = batch_size(plan, tile) if batch is None else batch
    total: np.ndarray | None = None
    for number, (axes, turns) in enumerate(copies):

        def report(share: float, number: int = number) -> None:
            if progress is not None:
                progress((number + share) / len(copies))

        turned = _predict_once(
            backend,
            np.rot90(np.flip(array, axes), turns, (-2, -1)),
            plan,
            (*tile[:-2], tile[-1], tile[-2]) if turns % 2 else tile,
            plan.inference.overlap if overlap is None else overlap,
            batch,
            run,
            report,
        )
        turned = np.flip(np.rot90(turned, -turns, (-2, -1)), axes)
        if total is None:
            total = turned
        else:
            total += turned
    assert total is not None  # there is always the image as it is
    if len(copies) > 1:
        total /= len(copies)
    return total


def _copies(plan: Plan, ndim: int) -> list[tuple[tuple[int, ...], int]]:
    """For each copy, array axes to flip and quarter turns that follow; the image as it is comes first."""
    names = ("depth", "height", "width")[-ndim:]
    axes = [1 + names.index(name) for name in plan.inference.mirror]
    mirrored = [combination for count in range(len(axes) + 1) for combination in itertools.combinations(axes, count)]
    both = {"height", "width"} <= {*plan.inference.mirror}  # then half of the turns give what is there already
    turns = range(1 if not plan.inference.quarter_turns else 2 if both else 4)
    return list(itertools.product(mirrored, turns))


def _predict_once(
    backend: Backend,
    array: np.ndarray,
    plan: Plan,
    tile: tuple[int, ...],
    overlap: float,
    batch: int,
    run: slice,
    report: Callable[[float], None],
) -> np.ndarray:
    dims = plan.spatial.dims
    slices: list[int | None] = [None] if array.ndim - 1 == dims else [*range(array.shape[1])[run]]
    size = array.shape[-dims:]
    windows = list(tile_windows(size, tile, overlap))
    weights = gaussian(tile)
    norm = np.zeros(size, dtype=np.float32)
    for window in windows:
        norm[window] += _cut(weights, norm[window].shape)
    depth = () if slices[0] is None else (len(slices),)
    out = np.zeros((plan.labels.outputs, *depth, *size), dtype=np.float32)

    jobs = list(itertools.product(enumerate(slices), windows))
    for start in range(0, len(jobs), batch):
        some = jobs[start : start + batch]
        pieces = np.stack(
            [
                expand(_pad(_piece(array, index, window, plan.spatial.neighbours), tile), plan)
                for (_, index), window in some
            ]
        )
        for ((place, index), window), planes in zip(some, _activate(backend(pieces), pieces, plan), strict=True):
            target = out[(slice(None), *(() if index is None else (place,)), *window)]
            inner = target.shape[1:]
            if len(windows) == 1:
                target[...] = _cut(planes, inner)
            else:
                target += _cut(planes, inner) * (_cut(weights, inner) / norm[window])
        report(min(1.0, (start + batch) / len(jobs)))
    return np.minimum(out, 1, out=out)  # shares of tiles add up to 1 only up to rounding


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


def _piece(array: np.ndarray, index: int | None, window: tuple[slice, ...], neighbours: int) -> np.ndarray:
    """What the network sees of one window; 2.5-D stacks are slice-major, as `Plan.in_channels` says."""
    if index is None:
        return array[(slice(None), *window)]
    stack = np.clip(np.arange(index - neighbours, index + neighbours + 1), 0, array.shape[1] - 1)
    piece = array[(slice(None), slice(None), *window)][:, stack]
    return piece.swapaxes(0, 1).reshape(-1, *piece.shape[2:])


def _pad(piece: np.ndarray, tile: tuple[int, ...]) -> np.ndarray:
    """To the tile's size by repeating edges on both sides; `_cut` undoes it."""
    lacking = [length - n for length, n in zip(tile, piece.shape[1:], strict=True)]
    if not any(lacking):
        return piece
    return np.pad(piece, [(0, 0), *((lack // 2, lack - lack // 2) for lack in lacking)], mode="edge")


def _cut(array: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The centre of the last axes."""
    starts = [(n - length) // 2 for n, length in zip(array.shape[-len(size) :], size, strict=True)]
    lead = [slice(None)] * (array.ndim - len(size))
    return array[(*lead, *(slice(at, at + length) for at, length in zip(starts, size, strict=True)))]


def _activate(logits: np.ndarray, pieces: np.ndarray, plan: Plan) -> np.ndarray:
    """Logits → probabilities, checked."""
    expected = (len(pieces), plan.labels.outputs, *pieces.shape[2:])
    if logits.shape != expected:
        raise NetworkError(
            f"the network gave an output of shape {logits.shape} where the plan expects {expected}",
            fix="use the plan that this network was trained with",
        )
    if not np.isfinite(logits).all():
        raise NetworkError(
            "the network gave NaN or infinite values",
            fix="predict in fp32; if that does not help, the weights are damaged: train or copy the model again",
        )
    return activate(logits, exclusive=plan.labels.exclusive)

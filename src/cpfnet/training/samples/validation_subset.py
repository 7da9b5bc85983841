"""The part of the validation cases that is looked at after each epoch: `training.validation` of the Plan.

It is a function of the cases alone, so that epochs, resumed runs and several processes are compared on the same pixels.
Scores of a part with structures in half of its pieces are not those of whole cases: they choose the epoch, and at the
end whole cases are scored.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import numpy as np

from cpfnet.inference.tiling import tile_size, tile_windows
from cpfnet.planning import Plan
from cpfnet.training.samples.cache import ANNOTATED, Cached
from cpfnet.training.samples.stored_image import StoredImage

Window = tuple[slice, ...]
"""Of a case's grid, ([depth,] height, width); of volumes in 2-D one slice deep."""

TRIES = 8
"""Places that are drawn for each piece, until it is one that is not there yet."""


def choose_cases(cases: Sequence[Cached], count: int) -> list[Cached]:
    """``count`` of the cases, or all, in their order: as many structures as can be are among them.

    First comes, for each structure from the rarest on, a case that shows it; then others. Which ones is decided by
    their ids, so that another case more or less changes little.

    Args:
        cases: that validate.
        count: how many are wanted, at least 1.
    """
    if count >= len(cases):
        return list(cases)
    mixed = sorted(range(len(cases)), key=lambda i: (zlib.crc32(cases[i].id.encode()), cases[i].id))
    shown = [_structures(case) for case in cases]
    frequency = Counter(code for codes in shown for code in codes)
    chosen: list[int] = []
    for code in sorted(frequency, key=lambda code: (frequency[code], code)):
        if len(chosen) < count and not any(code in shown[i] for i in chosen):
            chosen.append(next(i for i in mixed if code in shown[i]))
    chosen += [i for i in mixed if i not in chosen][: count - len(chosen)]
    return [cases[i] for i in sorted(chosen)]


def choose_pieces(case: Cached, plan: Plan, count: int) -> list[Window]:
    """Where the network is to look in a case.

    Half of the pieces lie on structures, on all of the case's in turn; the others anywhere, so that what is found where
    nothing is counts, too.

    Args:
        case: a validation case.
        plan: for the size of a piece: the tile that prediction takes, or a whole slice or image.
        count: how many are wanted; where no more are there, these cover the case (neighbours share pixels where its
            size is no multiple of the tile's, and these count more than once).

    Returns:
        Different windows, each within the grid.
    """
    shape = case.codes().shape[1:]
    dims = plan.spatial.dims
    plane = shape[-dims:]
    size = tuple(min(n, t) for n, t in zip(plane, tile_size(plan, plane), strict=True))
    slices = range(shape[0]) if len(shape) > dims else None
    tiles = list(tile_windows(plane, size, 0))
    total = len(tiles) * (len(slices) if slices else 1)
    if count >= total:
        return list(_all(tiles, slices))
    rng = np.random.default_rng(zlib.crc32(case.id.encode()))
    groups = [(start, stop) for _, code, start, stop in sorted(case.positions) if code != ANNOTATED]
    rng.shuffle(groups)  # else few pieces would lie on the first classes alone, in every case
    wanted = -(-count // 2) if groups else 0
    chosen: dict[tuple[int, ...], Window] = {}
    for start, stop in islice(cycle(groups), TRIES * wanted if groups else 0):
        if len(chosen) == wanted:
            break
        place = np.unravel_index(case.position(int(rng.integers(start, stop))), shape)
        window = _around([int(i) for i in place], shape, size)
        chosen[_corner(window)] = window
    for number in rng.permutation(total):
        if len(chosen) == count:
            break
        index, tile = divmod(int(number), len(tiles))
        window = tiles[tile] if slices is None else (slice(index, index + 1), *tiles[tile])
        chosen.setdefault(_corner(window), window)
    return [chosen[corner] for corner in sorted(chosen)]


def joined(pieces: Sequence[Window], plan: Plan) -> list[Window]:
    """The same pixels in fewer windows, where slices of a volume follow each other: the network is given them together.

    Alone, each would be a batch of its own, and be seen with neighbours that are computed for it again.
    """
    if not pieces or len(pieces[0]) == plan.spatial.dims:
        return list(pieces)
    found: list[Window] = []
    for first, *plane in sorted(pieces, key=lambda window: (_corner(window)[1:], window[0].start)):
        if found and found[-1][1:] == tuple(plane) and found[-1][0].stop == first.start:
            first = slice(found.pop()[0].start, first.stop)
        found.append((first, *plane))
    return found


def cut(array: np.ndarray | StoredImage, window: Window, plan: Plan) -> tuple[np.ndarray, slice]:
    """What the network must see to segment a piece, and where along its first spatial axis the piece lies.

    Args:
        array: ``(channels, [depth,] height, width)``.
        window: of its grid.
        plan: in 2.5-D a slice is seen with its `spatial.neighbours`.

    Returns:
        The part of the array, and which of its slices are the window's.
    """
    first, *others = window
    low, high = max(0, first.start - plan.spatial.neighbours), first.stop + plan.spatial.neighbours
    part = np.asarray(array[(slice(None), slice(low, high), *others)])
    return part, slice(first.start - low, first.stop - low)


def _structures(case: Cached) -> set[int]:
    return {code for _, code, _, _ in case.positions if code != ANNOTATED}


def _all(tiles: Sequence[Window], slices: range | None) -> Iterator[Window]:
    if slices is None:
        yield from tiles
    else:
        for index in slices:
            for tile in tiles:
                yield (slice(index, index + 1), *tile)


def _around(place: Sequence[int], shape: Sequence[int], size: Sequence[int]) -> Window:
    """A window with the place in its middle, moved into the grid."""
    whole = (1,) * (len(shape) - len(size)) + tuple(size)
    starts = [min(max(at - n // 2, 0), most - n) for at, n, most in zip(place, whole, shape, strict=True)]
    return tuple(slice(start, start + n) for start, n in zip(starts, whole, strict=True))


def _corner(window: Window) -> tuple[int, ...]:
    return tuple(part.start for part in window)

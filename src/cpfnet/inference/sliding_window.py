"""A whole image through networks that see pieces of it: slices, tiles, mirrored and turned copies. NumPy only.

Pieces overlap and are blended with Gaussian weights, since a network knows least at the border of what it sees. All
averaging (tiles, copies and networks) is done on probabilities.

Volumes go through 3-D networks from their first plane to the last, all copies and networks abreast: planes that no
tile reaches any more can be taken and need no memory. Tiles in which each channel has one value everywhere, such as
the air around a patient, are all alike: what the network finds in the first is what it finds in the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cpfnet.inference.blending import Array, Blend
from cpfnet.inference.tiling import (
    Backend,
    batch_size,
    centre,
    gaussian,
    mirrored_copies,
    one_value,
    pad,
    piece_of,
    tile_size,
    tile_windows,
    turned_back,
)
from cpfnet.planning import Plan
from cpfnet.preprocessing.first_stage import expand

WAITING = 4
"""Batches of tiles, at most, whose place among the sums is kept while one batch of them fills."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network, and how an image is cut up for it.

    Attributes:
        backend: runs it.
        plan: the network's.
        overlap: share of a tile that its neighbour covers too, 0 … <1; default: the Plan's.
        tta: average over copies mirrored along every combination of ``plan.inference.mirror``, each with its quarter
            turns where ``plan.inference.quarter_turns`` says so: of a plane that is mirrored both ways the eight
            symmetries of the square.
        tile: largest piece given to the network; default: the Plan's.
        batch: pieces given to the network at once; default: `batch_size`.
    """

    backend: Backend
    plan: Plan
    overlap: float | None = None
    tta: bool = False
    tile: tuple[int, ...] | None = None
    batch: int | None = None


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
    """Class probabilities of one preprocessed image, all at once.

    Args:
        backend, plan, overlap, tta, tile, batch: see `Network`.
        array, run, progress: see `SlidingWindow`.

    Returns:
        float32 ``(plan.labels.outputs, [run,] height, width)``: softmax over planes for exclusive labels, else a
        sigmoid each.

    Raises:
        NetworkError: the network gives another shape than the Plan says, or values that are no numbers.
    """
    window = SlidingWindow([Network(backend, plan, overlap, tta, tile, batch)], array, run=run, progress=progress)
    return window.take(window.count)


class SlidingWindow:
    """Class probabilities of one preprocessed image, summed over networks, taken plane by plane.

    A volume goes slice by slice through a 2-D network (2.5-D: with its neighbours, the first and last slice repeated
    beyond the ends). An image larger than ``plan.inference.tile`` goes tile by tile; without that, 3-D networks see
    tiles of the training patch's size, and 2-D ones whole slices up to `WHOLE_SLICE`.

    Args:
        networks: at least one; for the same labels, channels and number of axes.
        array: float32 ``(channels, [depth,] height, width)`` from `cpfnet.preprocessing.apply`.
        run: slices to predict, where a volume goes through 2-D networks; the others are only neighbours to them.
        progress: called with the share of the work done, 0…1.

    Attributes:
        count: planes along the first axis; of pictures, rows.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        array: np.ndarray,
        *,
        run: slice = slice(None),
        progress: Callable[[float], None] | None = None,
    ):
        plan, size = networks[0].plan, array.shape[1:]
        slices = range(size[0])[run] if len(size) > plan.spatial.dims else None
        self.count = size[0] if slices is None else len(slices)
        self.progress = progress
        self._networks = len(networks)
        on_device = [own for one in networks if (own := getattr(one.backend, "blend", None)) is not None]
        blend = on_device[0] if len(on_device) == len(networks) else Blend
        self._blend: Blend = blend(plan.labels.outputs, (self.count, *size[1:]))
        copies = [mirrored_copies(network.plan, len(size)) if network.tta else [((), 0)] for network in networks]
        self._copies = max(map(len, copies))
        tiles: list[_Tile] = []
        norms: dict[object, tuple[Array, Array]] = {}
        for network, own in zip(networks, copies, strict=True):
            scale = self._copies // len(own)  # both are powers of two
            for axes, turns in own:
                tiles += _Copy(network, array, axes, turns, scale, self._blend, norms).tiles(slices)
        if plan.spatial.dims == 3:
            tiles.sort(key=lambda tile: tile.first)
        for _, group in itertools.groupby(tiles, key=lambda tile: tile.copy.batched_with):
            *_, last = together = list(group)
            last.alone = len(together) % last.copy.batch == 1
        self._tiles, self._done = tiles, 0
        # Planes below the first one of all tiles to come are complete.
        firsts = [tile.first for tile in reversed(tiles)]
        self._complete = [*reversed(list(itertools.accumulate(firsts, min))), self.count]
        self._uniform: dict[object, tuple[np.ndarray, Array]] = {}

    def take(self, stop: int) -> np.ndarray:
        """The planes from those taken last up to ``stop``: float32 ``(outputs, planes, …)``, 0…1 for each network.

        Raises:
            NetworkError: a network gives another shape than its Plan says, or values that are no numbers.
        """
        self._blend.reach(stop)
        while self._complete[self._done] < stop:
            self._add_batch()
        planes = self._blend.take(stop)
        if self._copies > 1:
            planes /= self._copies
        return np.minimum(planes, self._networks, out=planes)  # shares of tiles add up to 1 only up to rounding

    def _add_batch(self) -> None:
        """Put the next tiles through their network, as many as it is given at once."""
        copy = self._tiles[self._done].copy
        values, uniform = self._uniform.get(copy.same_tiles, (None, None))
        pieces: list[np.ndarray] = []
        uniform_piece: int | None = None
        waiting: list[tuple[_Tile, int | None]] = []  # with the number of its piece; None: what it gives is known
        for tile in self._tiles[self._done : self._done + WAITING * copy.batch]:
            if len(pieces) == copy.batch or tile.copy.batched_with != copy.batched_with or (tile.alone and waiting):
                break
            piece = tile.piece()
            own = None if tile.alone else one_value(piece)
            if own is None or values is None or not np.array_equal(own, values):
                if own is not None:
                    values, uniform_piece = own, len(pieces)
                waiting.append((tile, len(pieces)))
                pieces.append(piece)
            else:
                waiting.append((tile, uniform_piece))
        found: Array = []
        if pieces:
            # Runtimes compute a batch of one by other kernels, which round otherwise: it goes twice if it would not
            # have been alone with all tiles.
            lone = len(pieces) == 1 < copy.batch and not waiting[0][0].alone
            found = self._blend.find(copy.network.backend, np.stack(pieces * (1 + lone)), copy.network.plan)
        if uniform_piece is not None:
            assert values is not None  # they are those of this piece
            self._uniform[copy.same_tiles] = values, self._blend.copied(found[uniform_piece])
        for tile, number in waiting:
            tile.add_to(self._blend, uniform if number is None else found[number])
        self._done += len(waiting)
        if self.progress is not None:
            self.progress(self._done / len(self._tiles))


class _Copy:
    """One copy of an image, cut up for one network.

    Args:
        network: that sees it.
        array: the image.
        axes, turns: see `mirrored_copies`.
        scale: of what is found, so that the copies of each network count the same.
        blend: sums up what is found.
        norms: weights of a tile and their sums over all tiles, of copies that went before; the first finds none.
    """

    def __init__(
        self,
        network: Network,
        array: np.ndarray,
        axes: tuple[int, ...],
        turns: int,
        scale: int,
        blend: Blend,
        norms: dict[object, tuple[Array, Array]],
    ):
        plan, dims = network.plan, network.plan.spatial.dims
        self.network, self.axes, self.turns, self.scale = network, axes, turns, scale
        self.first = not norms
        self.size = array.shape[-dims:]
        tile = tile_size(plan, self.size, network.tile)
        self.batch = batch_size(plan, tile) if network.batch is None else network.batch
        self.tile = (*tile[:-2], tile[-1], tile[-2]) if turns % 2 else tile
        self.array = np.rot90(np.flip(array, axes), turns, (-2, -1))
        size = self.array.shape[-dims:]
        overlap = plan.inference.overlap if network.overlap is None else network.overlap
        self.windows = list(tile_windows(size, self.tile, overlap))
        self.same_tiles = (id(network), self.tile)
        self.batched_with: object = self.same_tiles if dims == 3 else id(self)
        key = (size, self.tile, overlap)
        if key not in norms:
            weights, norm = gaussian(self.tile), np.zeros(size, dtype=np.float32)
            for window in self.windows:
                norm[window] += centre(weights, norm[window].shape)
            norms[key] = blend.put(weights), blend.put(norm)
        self.weights, self.norm = norms[key]

    def tiles(self, slices: Sequence[int] | None) -> list[_Tile]:
        """Of the whole image, or of these slices of a volume."""
        places = [turned_back(window, self.size, self.axes, self.turns) for window in self.windows]
        pairs = list(zip(self.windows, places, strict=True))
        if slices is None:
            return [_Tile(self, None, window, place, place[0].start) for window, place in pairs]
        return [
            _Tile(self, index, window, (number, *place), number)
            for number, index in enumerate(slices)
            for window, place in pairs
        ]


@dataclass(eq=False)
class _Tile:
    """One tile of one copy.

    Attributes:
        copy: that it is of.
        index: its slice, of a volume that goes through a 2-D network.
        window: in the copy.
        place: in what is found.
        first: plane of what is found.
        alone: it is given to the network in a batch of one, though batches are larger.
    """

    copy: _Copy
    index: int | None
    window: tuple[slice, ...]
    place: tuple[int | slice, ...]
    first: int
    alone: bool = False

    def piece(self) -> np.ndarray:
        """What the network sees: float32 ``(in_channels, *tile)``."""
        own = self.copy
        plan = own.network.plan
        piece = pad(piece_of(own.array, self.index, self.window, plan.spatial.neighbours), own.tile)
        return expand(piece, plan)

    def add_to(self, blend: Blend, planes: Array) -> None:
        """Add what was found in it, float32 ``(outputs, *tile)``, with its weights."""
        own = self.copy
        size = tuple(one.stop - one.start for one in self.window)
        planes = centre(planes, size)
        if len(own.windows) > 1:
            planes = planes * (centre(own.weights, size) / own.norm[self.window])
        if own.scale > 1:
            planes = planes * own.scale
        blend.add(planes, self.place, own.axes, own.turns, first=own.first and len(own.windows) == 1)

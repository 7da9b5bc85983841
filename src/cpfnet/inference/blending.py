"""The sum of weighted tiles, of which only the planes that tiles may still be added to are held. NumPy only."""

from __future__ import annotations

from typing import Any

import numpy as np

from cpfnet.errors import NetworkError
from cpfnet.inference.tiling import Backend
from cpfnet.planning import Plan
from cpfnet.preprocessing.postprocess import activate

Array = Any
"""A NumPy array; of a subclass, what it computes with."""


class Blend:
    """Sums of probabilities ``(outputs, *grid)``, float32, which are added tile by tile and taken plane by plane.

    Planes are those of the grid's first axis. Once taken, nothing can be added to them.

    Args:
        outputs: planes of probabilities.
        grid: of the image.
    """

    def __init__(self, outputs: int, grid: tuple[int, ...]):
        self.outputs, self.grid = outputs, grid
        self._held: Array = self._zeros(0)
        self._first = self._taken = 0  # plane of the grid that `_held` begins with, and the first that is still needed

    def find(self, backend: Backend, pieces: np.ndarray, plan: Plan) -> Array:
        """Probabilities of pieces of the image.

        Args:
            backend: the network.
            pieces: float32 ``(N, in_channels, *tile)``.
            plan: the network's.

        Returns:
            float32 ``(N, outputs, *tile)``.

        Raises:
            NetworkError: the network gives another shape than the Plan says, or values that are no numbers.
        """
        logits = backend(pieces)
        check_shape(logits.shape, pieces, plan)
        if not np.isfinite(logits).all():
            raise not_finite()
        return activate(logits, exclusive=plan.labels.exclusive)

    def put(self, array: np.ndarray) -> Array:
        """An array where it can be computed with what is found."""
        return array

    def copied(self, array: Array) -> Array:
        return array.copy()

    def add(
        self, planes: Array, place: tuple[int | slice, ...], axes: tuple[int, ...], turns: int, *, first: bool
    ) -> None:
        """Add what was found in one tile of a copy.

        Args:
            planes: ``(outputs, *size)``, weighted.
            place: index of the tile into the grid.
            axes: which the copy was mirrored along, counted from the last, …
            turns: … and then turned by so many quarters; both are undone.
            first: nothing was added there before, which saves time.
        """
        along, *rest = place
        stop = along + 1 if isinstance(along, int) else along.stop
        self.reach(stop)
        inside = along - self._first if isinstance(along, int) else slice(along.start - self._first, stop - self._first)
        target = self._held[(slice(None), inside, *rest)]
        if first:
            target[...] = self._turned_back(planes, axes, turns)
        else:
            target += self._turned_back(planes, axes, turns)

    def take(self, stop: int) -> np.ndarray:
        """The planes from those taken last up to ``stop``; nothing is missing in them."""
        inside = slice(self._taken - self._first, stop - self._first)
        self._taken = stop
        if inside == slice(0, self.grid[0]):
            whole, self._held = self._held, self._zeros(0)
            return self._given(whole)
        return self._given(self.copied(self._held[:, inside]))

    def reach(self, stop: int) -> None:
        """Hold the planes before ``stop``: they can be taken, and what is added to them needs no more memory."""
        missing = stop - self._first - self._held.shape[1]
        if missing <= 0:
            return
        done = self._taken - self._first
        left = self._held.shape[1] - done
        if missing <= done:  # planes that were taken make place
            for plane in self._held:
                plane[:left] = self.copied(plane[done:])
                plane[left:] = 0
        else:
            held, self._held = self._held, self._zeros(stop - self._taken)
            self._held[:, :left] = held[:, done:]
        self._first = self._taken

    def _zeros(self, count: int) -> Array:
        return np.zeros((self.outputs, count, *self.grid[1:]), np.float32)

    def _turned_back(self, planes: Array, axes: tuple[int, ...], turns: int) -> Array:
        return np.flip(np.rot90(planes, -turns, (-2, -1)), axes)

    def _given(self, planes: Array) -> np.ndarray:
        return planes


def check_shape(shape: tuple[int, ...], pieces: np.ndarray, plan: Plan) -> None:
    """Of logits.

    Raises:
        NetworkError: it is not what the Plan says.
    """
    expected = (len(pieces), plan.labels.outputs, *pieces.shape[2:])
    if tuple(shape) != expected:
        raise NetworkError(
            f"the network gave an output of shape {tuple(shape)} where the plan expects {expected}",
            fix="use the plan that this network was trained with",
        )


def not_finite() -> NetworkError:
    """The error for logits that are no numbers."""
    return NetworkError(
        "the network gave NaN or infinite values",
        fix="predict in fp32; if that does not help, the weights are damaged: train or copy the model again",
    )

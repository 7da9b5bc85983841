"""A volume that keeps only the slices in memory that are needed at the moment. NumPy only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RUN = 2**23
"""The approximate count of numbers in a run of slices: 32 MiB as float32."""


def run_length(planes: int, shape: tuple[int, ...]) -> int:
    """How many slices of ``planes`` × ``shape[1:]`` numbers make a run (at least one)."""
    return max(1, RUN // int(planes * np.prod(shape[1:])))


class Slices:
    """Planes ``(planes, depth, height, width)``, computed one block of slices at a time, each slice once.

    A block is kept until a run begins after it. Therefore runs must be asked for in ascending order; they may overlap.
    A picture without depth is treated in the same way, with its rows as slices.

    Args:
        make: first and last + 1 slice → float32 ``(planes, slices, height, width)``.
        count: slices in all.
        block: number of slices to compute at once; default: all.
    """

    def __init__(self, make: Callable[[int, int], np.ndarray], count: int, block: int | None = None):
        self.make, self.count, self.block = make, count, block or count
        self._held: np.ndarray | None = None
        self._first = self._last = 0

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """The slices ``start … stop - 1``; a view of the kept block."""
        assert self._first <= start < stop <= self.count
        if self._held is not None:
            self._held, self._first = self._held[:, start - self._first :], min(start, self._last)
        while self._last < stop:
            end = min(self._last + self.block, self.count)
            made = self.make(self._last, end)
            if self._held is None or not self._held.shape[1]:
                self._held, self._first = made, self._last
            else:
                self._held = np.concatenate([self._held, made], axis=1)
            self._last = end
        assert self._held is not None  # made above
        return self._held[:, start - self._first : stop - self._first]

"""Images of the cache as whole numbers and a table of what they mean: a quarter or half of float32's bytes.

Most files hold whole numbers: 8-bit photographs, HU, MR. Where the network's grid is the file's, and each of its values
becomes a value for the network by itself, there are few different ones, and a table of them loses nothing. What is
resampled has as many values as pixels: it is kept in float32, or rounded to 65,536 levels where the disk wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LEVELS = 2**16
"""Different values that a 16-bit number can stand for."""


@dataclass(frozen=True)
class StoredImage:
    """An image on disk, decoded piece by piece as it is indexed.

    Attributes:
        numbers: ``(channels, [depth,] height, width)``, memory-mapped: uint8 or uint16 with a table, else float32.
        table: float32 ``(channels, values)``: what each number stands for.
    """

    numbers: np.ndarray
    table: np.ndarray | None = None

    @classmethod
    def load(cls, folder: Path) -> StoredImage:
        """What `save` wrote."""
        table = folder / "table.npy"
        numbers = np.load(folder / "image.npy", mmap_mode="r")
        return cls(numbers, np.load(table) if numbers.dtype != np.float32 else None)

    def save(self, folder: Path) -> None:
        """As ``image.npy`` and, where there is a table, ``table.npy``."""
        parts = {"image": self.numbers} | ({} if self.table is None else {"table": self.table})
        for name, content in parts.items():
            with (folder / f"{name}.npy").open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(content))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape

    @property
    def nbytes(self) -> int:
        return self.numbers.nbytes + (0 if self.table is None else self.table.nbytes)

    def __getitem__(self, key: Any) -> np.ndarray:
        """float32; ``key`` is one of NumPy's that takes all channels: ``[:, 3, 10:20]``."""
        part = self.numbers[key]
        if self.table is None:
            return part
        out = np.empty(part.shape, np.float32)
        for plane in np.ndindex(part.shape[: max(1, part.ndim - 2)]):  # small parts stay in the processor's cache
            self.table[plane[0]].take(part[plane], out=out[plane], mode="clip")  # "raise" would copy what it gives
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def as_volume(self) -> StoredImage:
        """An image ``(channels, height, width)`` as a volume of one slice."""
        return StoredImage(self.numbers[:, None], self.table)


def exactly(values: np.ndarray, stored: Sequence[np.ndarray]) -> StoredImage:
    """The values by the numbers of their file, to the last bit, where that can be and takes fewer bytes; else as given.

    Args:
        values: float32 ``(channels, [depth,] height, width)``, as the network sees them.
        stored: each channel as in the file, of any real type, on the same grid; of another shape it is no help.
    """
    whole = StoredImage(values)
    found = [_by_table(plane, own) for plane, own in zip(values, stored, strict=True)]
    exact = [channel for channel in found if channel is not None]
    if len(exact) < len(found):
        return whole
    smaller = _together(exact)
    return smaller if smaller.nbytes < whole.nbytes else whole


def rounded(values: np.ndarray) -> StoredImage:
    """Each channel on `LEVELS` levels between its extremes: off by half a step, 1/131,070 of its range, at most.

    A channel of whole numbers, such as codes, stays as it is.

    Args:
        values: float32 ``(channels, [depth,] height, width)``, finite.
    """
    return _together([_by_table(plane, plane) or _by_levels(plane) for plane in values])


Channel = tuple[np.ndarray, np.ndarray]
"""uint16 numbers of one channel, and the row of the table that says what they stand for."""


def _by_table(plane: np.ndarray, own: np.ndarray) -> Channel | None:
    """By the whole numbers that ``own`` holds; None where they do not tell the value."""
    low, high = own.min(), own.max()
    if own.shape != plane.shape or not float(high) - float(low) < LEVELS:
        return None
    above = np.subtract(own, low, dtype=np.result_type(own.dtype, np.float32))
    number = above.astype(np.uint16)
    row = np.zeros(int(number.max()) + 1, np.float32)
    row[number] = plane
    same = np.array_equal(row[number].view(np.uint32), np.ascontiguousarray(plane).view(np.uint32))
    return (number, row) if same and np.array_equal(number, above) else None


def _by_levels(plane: np.ndarray) -> Channel:
    low, high = np.float64(plane.min()), np.float64(plane.max())
    share = (plane - low) / max(high - low, np.finfo(np.float64).tiny)  # 0 … 1
    return np.rint(share * (LEVELS - 1)).astype(np.uint16), np.linspace(low, high, LEVELS).astype(np.float32)


def _together(channels: Sequence[Channel]) -> StoredImage:
    length = max(len(row) for _, row in channels)
    table = np.stack([np.pad(row, (0, length - len(row))) for _, row in channels])
    numbers = np.stack([number for number, _ in channels])
    return StoredImage(numbers.astype(np.uint8) if length <= 256 else numbers, table)

"""Voxels as NRRD and MetaImage store them: one block of numbers, plain, compressed or as text, in their file or beside.

The header says how many there are. What does not fit to that is refused before memory is taken for it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.file_types import check_expansion, check_readable

Encoding = Literal["raw", "gzip", "zlib", "bzip2", "text"]

_SHRINKS = {"raw": 1, "gzip": 1032, "zlib": 1032, "bzip2": 2**21}
"""No byte of a file with this compression gives more bytes than this."""
_PIECE = 2**24
_FURTHEST = 2**26  # unpacked bytes before the voxels: a header of another format has some kilobytes
_BEHIND = 2**16  # number of bytes behind the voxels that are read
_BROKEN = "copy or export the file again"


@dataclass(frozen=True)
class StoredVoxels:
    """Where the numbers of an image stand, and how.

    Attributes:
        path: the file that holds them.
        offset: its bytes before them.
        shape: slowest axis first.
        dtype: with its byte order.
        encoding: of all that follows ``offset``.
        skip: bytes to leave out after unpacking.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    encoding: Encoding
    skip: int = 0

    @property
    def size(self) -> int:
        """Bytes of all numbers."""
        return math.prod(self.shape) * self.dtype.itemsize

    def check(self, copies: int = 1) -> None:
        """Refuse a file that is too short or too long for its header, or a decompression bomb.

        Args:
            copies: of the voxels that will be in memory.
        """
        there = self.path.stat().st_size - self.offset
        count = math.prod(self.shape)
        least = 2 * count - 1 if self.encoding == "text" else -(-(self.size + self.skip) // _SHRINKS[self.encoding])
        if there < least:
            raise FormatError(
                f"is cut short: {self._told()} are {self.size} bytes, the file has {max(there, 0)} for them",
                fix=_BROKEN,
            )
        if self.encoding == "raw" and (surplus := there - self.size - self.skip) > 0:
            raise self._too_long(f"{surplus}")
        if not 0 <= self.skip <= _FURTHEST:
            raise FormatError(
                f"leaves out {self.skip} bytes before its voxels; up to {_FURTHEST} are read", fix="save it again"
            )
        check_expansion(there, self.size, copies * self.size)

    def read(self) -> np.ndarray:
        """The numbers, in ``shape`` and ``dtype``; nothing may follow them."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            if self.encoding == "text":
                return self._read_text(file)
            array = np.empty(self.shape, self.dtype)
            with self._unpacked(file) as stream:
                stream.read(self.skip)
                target = array.reshape(-1).view(np.uint8).data
                done = 0
                while done < len(target):
                    got = stream.readinto(target[done : done + _PIECE])
                    if not got:
                        raise FormatError(
                            f"is cut short: {self._told()} are {self.size} bytes, the file holds {done}", fix=_BROKEN
                        )
                    done += got
                if surplus := stream.read(_BEHIND):  # reading to the end also checks a checksum
                    raise self._too_long(f"{len(surplus)}{'' if len(surplus) < _BEHIND else ' or more'}")
        return array

    def _unpacked(self, file: BinaryIO) -> Any:
        if self.encoding == "gzip":
            return gzip.GzipFile(fileobj=file)
        if self.encoding == "bzip2":
            return bz2.BZ2File(file)
        return io.BufferedReader(_Inflated(file)) if self.encoding == "zlib" else file

    def _read_text(self, file: BinaryIO) -> np.ndarray:
        """Numbers separated by white space; whole ones, if the dtype is one of integers."""
        kind, count = self.dtype.kind, math.prod(self.shape)
        wide = np.dtype(np.uint64 if self.dtype == np.uint64 else np.int64 if kind in "iu" else np.float64)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)  # NumPy's word for the ValueError that it will be
                values = np.fromfile(file, wide, count + 1, sep=" ")
        except (ValueError, DeprecationWarning):
            values = np.empty(0, wide)
        if len(values) < count:
            raise FormatError(f"holds no {count} numbers of {self.dtype.name}", fix=_BROKEN)
        if len(values) > count:
            raise self._too_long("further numbers", what="")
        limits = np.iinfo(self.dtype) if kind in "iu" else None
        if limits and not (limits.min <= int(values.min()) and int(values.max()) <= limits.max):
            raise FormatError(f"holds numbers from {values.min()} to {values.max()} as {self.dtype.name}", fix=_BROKEN)
        return values.astype(self.dtype).reshape(self.shape)

    def _told(self) -> str:
        return f"{'×'.join(map(str, self.shape[::-1]))} voxels of {self.dtype.name}"

    def _too_long(self, surplus: str, what: str = " bytes") -> FormatError:
        """Surplus bytes shift all voxels behind them, and nobody knows where they were inserted."""
        return FormatError(
            f"is longer than its header says: {self._told()}, and {surplus}{what} stand behind them, so that they may "
            "be shifted",
            fix=f"{_BROKEN}; if it is whole in a viewer, save it anew from there",
        )


class _Inflated(io.RawIOBase):
    """A zlib stream as a file, unpacked no further than is read."""

    def __init__(self, file: BinaryIO):
        self._file, self._inflate = file, zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(2**16)
            data = self._inflate.decompress(packed, len(buffer))
            if data:
                buffer[: len(data)] = data
                return len(data)
            if not packed:
                raise FormatError("its compressed voxels end too early", fix=_BROKEN)
        if self._inflate.unused_data or self._file.read(1):
            raise FormatError("is longer than its compressed voxels, which may be damaged", fix=_BROKEN)
        return 0


def data_file(header: Path, name: str) -> Path:
    """The file beside a header that holds its voxels.

    Raises:
        FormatError: it lies outside the header's folder, or is not there.
    """
    parts = Path(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in name:
        raise FormatError(
            f"has its voxels in {name!r}, outside its own folder, which is not read",
            fix="put both files into one folder, and give only the name of the file in the header",
        )
    path = header.parent / parts
    try:
        check_readable(path)
    except FormatError as error:
        raise FormatError(
            f"has its voxels in {name!r}: {error.what}",
            fix="copy that file beside it; its name must be the one in the header",
        ) from None
    return path


def planes(array: np.ndarray, channels: int | None) -> np.ndarray:
    """``(channels, …)`` in the machine's byte order, contiguous.

    Args:
        array: as stored, slowest axis first.
        channels: the axis of the channels; None: there is one channel, and no axis for it.
    """
    moved = array[None] if channels is None else np.moveaxis(array, channels, 0)
    return np.require(moved, array.dtype.newbyteorder("="), ["C", "W"])

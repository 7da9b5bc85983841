"""ZIP archives that others sent: unpacked within limits, and never to where they say."""

from __future__ import annotations

import io
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from cpfnet.serve.files import CHUNK
from cpfnet.serve.http.problems import Problem
from cpfnet.serve.options import Limits

ENTRY = 1024
"""Bytes that the directory of an archive may have for each file: names have a tenth of it."""

FREE, RATIO = 2**30, 200
"""An archive that becomes more than so many bytes, and so many times as large, is a bomb (as for images)."""


def is_archive(head: bytes) -> bool:
    """By its first four bytes."""
    return head in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(path: Path, limits: Limits, already: int = 0) -> Iterator[tuple[str, Iterable[bytes]]]:
    """The files of an archive with their names, each piece by piece; hidden ones are left out.

    Args:
        path: of the archive.
        limits: how much is taken.
        already: files of the same request that came before.

    Raises:
        Problem: it is damaged, encrypted, compressed otherwise than by Deflate, too large, or has links or names that
            lead elsewhere.
    """
    with _reading(), _Reader(path, ENTRY * limits.files) as stream, ZipFile(stream) as archive:
        files = [one for one in archive.infolist() if not one.is_dir() and not _is_hidden(one.filename)]
        if already + len(files) > limits.files:
            raise Problem(413, f"there are more than {limits.files} files", "send one image at a time")
        for one in files:
            _check(one)
        most = min(limits.unpacked, max(FREE, RATIO * path.stat().st_size))
        spent = [0]
        for one in files:
            yield one.filename, _chunks(archive, one, spent, most)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError):
        raise Problem(422, "the ZIP is damaged, or of a kind that is not read", "pack it again") from None


def _chunks(archive: ZipFile, one: ZipInfo, spent: list[int], most: int) -> Iterator[bytes]:
    with _reading(), archive.open(one) as stream:
        while chunk := stream.read(CHUNK):
            spent[0] += len(chunk)
            if spent[0] > most:  # whatever its directory says
                raise Problem(413, f"the files of the ZIP have more than {most} bytes", "send them without ZIP")
            yield chunk


def _check(one: ZipInfo) -> None:
    name = one.filename.replace("\\", "/")
    if one.flag_bits & 1:
        raise Problem(422, "the ZIP is encrypted", "send it without password")
    if name.startswith("/") or ":" in name.partition("/")[0] or ".." in name.split("/"):
        raise Problem(422, "the ZIP has names that lead out of it", "pack it again")
    if one.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise Problem(422, "the ZIP is compressed in a way that is not read", "pack it by Deflate, the usual way")
    if stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG):
        raise Problem(422, "the ZIP has links or devices in it", "pack the files themselves")


def _is_hidden(name: str) -> bool:
    """What systems add: .DS_Store, and __MACOSX with a shadow of each file."""
    parts = name.replace("\\", "/").split("/")
    return parts[0] == "__MACOSX" or (parts[-1].startswith(".") and parts[-1] not in (".", ".."))


class _Reader(io.FileIO):
    """Reads no more at once than it may: a directory of millions of entries would fill the memory."""

    def __init__(self, path: Path, most: int):
        super().__init__(path)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self.most:
            raise BadZipFile
        return super().read(size) or b""

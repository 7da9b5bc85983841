"""Find and open DICOM objects: in folders (recursively), lists of files, and ZIP archives, which are never unpacked.

The content of a file decides: a preamble with ``DICM`` (DICOM PS3.10, section 7.1), or a data set that begins without
one. Other files are ignored. The size to which an archive or a deflated object may expand is limited, since a few bytes
can promise terabytes.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian

from cpfnet.errors import CpfnetError, FormatError, redacted_message
from cpfnet.files import sha256_of
from cpfnet.formats.dicom.attributes import fill_in_identity, quiet, text
from cpfnet.formats.file_types import looks_like_dicom
from cpfnet.text import printable

_HEAD = 144  # preamble, "DICM" and the group length of the file meta
_BOMB_SIZE = 64 * 2**20  # an object that expands to more than this …
_BOMB_RATIO = 100  # … and to more than this many times its size is refused
_MEMBERS = 100_000  # files in one archive
_PIXEL_DATA = 0x7FE00010  # its length is compared with the promised one when it is decoded
_UNDEFINED = 0xFFFFFFFF  # length of elements that end with a delimiter


@dataclass(frozen=True)
class Location:
    """A place that may hold an object.

    Attributes:
        path: a file, or the ZIP archive that holds it.
        member: the name inside the archive.
        stamp: (bytes, time of change in ns) of the file, or of the archive: equal stamps, equal content.
    """

    path: Path
    member: str | None = None
    stamp: tuple[int, int] = (0, 0)

    @property
    def name(self) -> str:
        """File name for messages."""
        return printable(self.path.name if self.member is None else f"{self.path.name}/{self.member}")

    @property
    def folder(self) -> Path:
        """The folder that it lies in; for a member of an archive, the archive."""
        return self.path.parent if self.member is None else self.path

    @property
    def place(self) -> Path:
        """Its folder, also inside an archive. Only a name there, since archives may hold any name."""
        return self.folder if self.member is None else Path(f"{self.folder}/{self.member}").parent


@dataclass(frozen=True)
class DicomObject:
    """An object whose header was read.

    Attributes:
        path, member: as in `Location`.
        header: file meta and attributes, without pixels unless asked for. SOP class, SOP instance, study and series UID
            are never empty.
        warnings: messages about what was missing in it, and what was taken instead.
        size: bytes of the whole object, compressed or not.
    """

    path: Path
    member: str | None
    header: pydicom.Dataset
    warnings: tuple[str, ...] = ()
    size: int = 0

    @property
    def location(self) -> Location:
        """Where it lies."""
        return Location(self.path, self.member)

    @property
    def name(self) -> str:
        """File name and InstanceNumber, for messages."""
        number = text(self.header, "InstanceNumber")
        return f"{self.location.name} (InstanceNumber {number})" if number else self.location.name


class Archives(ExitStack):
    """The ZIP archives that are open during one call; a context manager that closes them."""

    def __init__(self) -> None:
        super().__init__()
        self._open: dict[Path, zipfile.ZipFile] = {}

    def __getitem__(self, path: Path) -> zipfile.ZipFile:
        """The archive at ``path``.

        Raises:
            FormatError: it is no ZIP archive, damaged, or absurdly long.
        """
        if path not in self._open:
            try:
                archive = self.enter_context(zipfile.ZipFile(path))
            except Exception as error:  # zipfile raises anything on damaged directories
                raise FormatError(
                    f"is no readable ZIP archive: {error}", where=path, fix="copy or export it again"
                ) from None
            if len(archive.filelist) > _MEMBERS:
                raise FormatError(
                    f"holds {len(archive.filelist)} files; at most {_MEMBERS} are read",
                    where=path,
                    fix="unpack it, and give the folder of one study",
                )
            if not all(info.filename for info in archive.filelist):
                raise FormatError("is a damaged ZIP archive", where=path, fix="copy or export it again")
            self._open[path] = archive
        return self._open[path]


def _files(folder: Path, folders: dict[Path, int]) -> Iterator[Path]:
    """Files below ``folder``, by name; links are followed, no folder is entered twice, hidden ones are skipped."""
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        if error.filename == str(folder):
            raise FormatError(
                f"cannot be opened: {error.strerror}", where=folder, fix="give a folder that you may read"
            )

    for parent, below, names in os.walk(folder, followlinks=True, onerror=refuse):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[Path(parent)] = status.st_mtime_ns
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def locations(paths: Sequence[Path], archives: Archives, folders: dict[Path, int] | None = None) -> Iterator[Location]:
    """Every file that may be an object, in folders, in archives and among files; contents are not checked yet.

    Archives inside folders and archives are ignored: only an archive that was named is opened.

    Args:
        paths: folders, archives and files.
        archives: those open during this call.
        folders: receives each folder that is searched, with its time of change in ns.

    Raises:
        FormatError: a path does not exist, or an archive is damaged, encrypted or too long.
    """
    for path in paths:
        if path.is_dir():
            for file in _files(path, {} if folders is None else folders):
                try:
                    status = file.stat()
                except (OSError, ValueError):  # a link to nowhere
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield Location(file, None, (status.st_size, status.st_mtime_ns))
            continue
        stamp = stamp_of(path)
        if not is_archive(path):
            yield Location(path, None, stamp)
            continue
        for info in archives[path].infolist():
            hidden = any(part.startswith((".", "__MACOSX")) for part in Path(info.filename).parts if part != "..")
            if info.is_dir() or hidden:
                continue
            if info.flag_bits & 1:
                raise FormatError("is encrypted", where=path, fix="unpack it with its password, and give the folder")
            yield Location(path, info.filename, stamp)


def stamp_of(path: Path) -> tuple[int, int]:
    """(bytes, time of change in ns) of a file."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def is_archive(path: Path) -> bool:
    """Does the file begin as a ZIP archive?"""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


class _Window:
    """A stream that never asks for more bytes than there are, whatever length a damaged header promises.

    Attributes:
        cut: a value was to be longer than the rest. pydicom would take the rest for the whole, and
            lose contours silently.
    """

    def __init__(self, stream: IO[bytes], size: int):
        self._stream, self._size, self.cut = stream, size, False
        self.tell, self.seek, self.close = stream.tell, stream.seek, stream.close

    def read(self, count: int | None = -1) -> bytes:
        left = max(self._size - self._stream.tell(), 0)
        if count is not None and count > left and (left or count > 8):  # at the end, pydicom tries the next 8 bytes
            self.cut = True
        return self._stream.read(left if count is None or count < 0 else min(count, left))


def _refuse_bomb(size: int, packed: int, location: Location) -> None:
    if size > _BOMB_SIZE and size > _BOMB_RATIO * max(packed, 1):
        raise FormatError(
            f"expands from {packed} to {size} bytes or more",
            where=location.path,
            fix="unpack it yourself if you trust it",
        )


def _refuse_deflated_bomb(stream: IO[bytes], head: bytes, size: int, location: Location) -> None:
    """pydicom inflates a whole deflated object (PS3.5, annex A.5) at once: count its bytes before that."""
    start = _HEAD + struct.unpack("<L", head[140:144])[0]
    stream.seek(min(start, size))
    inflate, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while (chunk := inflate.unconsumed_tail or stream.read(2**16)) and not inflate.eof:
        total += len(inflate.decompress(chunk, 2**22))
        _refuse_bomb(total, size, location)


@contextmanager
def _opened(location: Location, archives: Archives) -> Iterator[tuple[IO[bytes], int]]:
    """The bytes at ``location`` and their number."""
    if location.member is None:
        with location.path.open("rb") as stream:
            yield stream, os.fstat(stream.fileno()).st_size
        return
    info = archives[location.path].getinfo(location.member)
    _refuse_bomb(info.file_size, info.compress_size, location)
    with archives[location.path].open(info) as member:
        yield member, info.file_size


def sha256_at(location: Location, archives: Archives) -> str:
    """SHA-256 of the bytes at ``location``, in hex.

    Raises:
        OSError, FormatError: they cannot be read.
    """
    with _opened(location, archives) as (stream, _):
        return sha256_of(stream)


def read_object(location: Location, archives: Archives, *, pixels: bool = False) -> DicomObject | None:
    """Read an object; None if the file is not DICOM.

    Args:
        location: from `locations`.
        archives: those open during this call.
        pixels: read the pixel data, too (not decoded).

    Raises:
        FormatError: it is damaged, or expands beyond all reason.
    """
    try:
        with _opened(location, archives) as (stream, size), quiet():
            head = stream.read(_HEAD)
            if not looks_like_dicom(head):
                return None
            if DeflatedExplicitVRLittleEndian.encode() in (begin := head + stream.read(1024)):
                _refuse_deflated_bomb(stream, begin, size, location)
            stream.seek(0)
            window = _Window(stream, size)
            force = head[128:132] != b"DICM"
            header = pydicom.dcmread(cast(Any, window), stop_before_pixels=not pixels, force=force)
            _refuse_cut(header)
            if window.cut and not pixels:  # pixels are counted when they are decoded
                raise FormatError("is cut short", where=_where(location), fix="copy or export it again")
            warnings = fill_in_identity(header, location.place, location.name)
            if not pixels and location.member is None:
                warnings += _behind_pixels(header, stream, size)
            return DicomObject(location.path, location.member, header, warnings, size)
    except CpfnetError:
        raise
    except MemoryError:
        raise FormatError("does not fit into memory", where=_where(location), fix="free memory") from None
    except Exception as error:  # decoders raise anything on damaged bytes
        ends = isinstance(error, (EOFError, struct.error)) or (isinstance(error, OSError) and error.errno is None)
        what = "is cut short" if ends else f"cannot be read as DICOM: {redacted_message(error)}"
        raise FormatError(what, where=_where(location), fix="copy or export it again") from error


def _behind_pixels(header: pydicom.Dataset, stream: IO[bytes], size: int) -> tuple[str, ...]:
    """A message if something behind the pixels is not an element: padding, or inserted bytes that shift the pixels.

    Args:
        header: read up to the pixels.
        stream: of the file, standing at the pixels.
        size: bytes of it.
    """
    implicit, little = header.original_encoding
    if header.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian or little is None:
        return ()
    order, start = "<" if little else ">", stream.tell()
    head = stream.read(12)
    if len(head) < 12 or struct.unpack(f"{order}HH", head[:4]) != (0x7FE0, 0x0010):
        return ()
    (length,) = struct.unpack(f"{order}L", head[4:8] if implicit else head[8:12])
    end = start + (8 if implicit else 12) + length
    if length == _UNDEFINED or end >= size:
        return ()
    stream.seek(end)
    follows = stream.read(4)
    if len(follows) == 4 and struct.unpack(f"{order}HH", follows) > (0x7FE0, 0x0010):
        return ()
    return ("something stands behind its pixels that is no element: padding, or else they are shifted",)


def _refuse_cut(header: pydicom.Dataset) -> None:
    """pydicom keeps the beginning of an element whose end is missing: nobody would notice lost items of a sequence."""
    for element in header.values():
        if isinstance(element, RawDataElement) and element.value is not None and element.tag != _PIXEL_DATA:
            missing = element.length - len(element.value)
            if missing > 0 and element.length != _UNDEFINED:
                raise EOFError


def _where(location: Location) -> str:
    return str(location.path) if location.member is None else f"{location.path}/{printable(location.member)}"

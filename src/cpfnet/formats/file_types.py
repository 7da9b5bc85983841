"""What all format families share: opening files of unknown content, and the dtypes of labels."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpfnet.errors import CpfnetError, FormatError, OutputError
from cpfnet.image import Source

JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
RASTER_SUFFIXES = (".png", ".tif", ".tiff", *JPEG_SUFFIXES, ".bmp", ".gif", ".webp", ".jp2", ".j2k")
NIFTI_SUFFIXES = (".nii", ".nii.gz", ".hdr")
NRRD_SUFFIXES = (".nrrd", ".nhdr", ".seg.nrrd")
META_SUFFIXES = (".mha", ".mhd")
VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *NRRD_SUFFIXES, *META_SUFFIXES)
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
SERIES = "series="
"""Starts the last component of a reference to one DICOM series among several."""
STACK = "stack="
"""Starts the last component of a reference to a folder of numbered pictures that is one volume."""
FILES = "files="
"""Starts the last component of a reference to files of one structure each."""
_KNOWN_SUFFIXES = (*RASTER_SUFFIXES, *VOLUME_SUFFIXES, *DICOM_SUFFIXES, ".seg.dcm", ".rtstruct.dcm", ".zip")
_COLOUR = 0x1000000
_NAMES = {
    **dict.fromkeys(JPEG_SUFFIXES, "JPEG"),
    ".tif": "TIFF",
    ".webp": "WebP",
    ".jp2": "JPEG 2000",
    ".j2k": "JPEG 2000",
}


@dataclass(frozen=True)
class Header:
    """What a file's header says before its pixels are decoded; equal to what `read` then gives.

    Attributes:
        shape: spatial, ([depth,] height, width).
        affine: as in `Image`.
        channels: one name a channel.
        dtype: of the array that `read` returns.
        modality: as in `Image`.
        source: as in `Image`, if it is needed to place labels (DICOM).
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    channels: tuple[str, ...]
    dtype: np.dtype
    modality: str | None = None
    source: Source | None = None


def suffix_of(path: Path | str) -> str:
    """The known image suffix of a name, in lower case; "" if it has none."""
    name = Path(path).name.lower()
    known = [s for s in _KNOWN_SUFFIXES if name.endswith(s) and name != s]
    return max(known, key=len, default="")


def stem(path: Path | str) -> str:
    """The file name without its image suffix (.nii.gz counts as one); other names stay complete."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(name))]


def exists(path: Path) -> bool:
    """Is there a file or folder at ``path``, or one that may hold the series or stack that ``path`` names?"""
    return os.path.exists(place_of(path))  # noqa: PTH110 (never raises)


def is_reference(path: Path) -> bool:
    """Is it ``FOLDER/series=UID``, ``stack=…`` or ``files=…``, whose last component does not exist as a file?"""
    return path.name.startswith((SERIES, STACK, FILES)) and not os.path.exists(path)  # noqa: PTH110


def is_stack(path: Path) -> bool:
    """Is it ``FOLDER/stack=…``, a folder of numbered pictures that is one volume (`cpfnet.formats.stack`)?"""
    return path.name.startswith(STACK) and is_reference(path)


def is_listing(path: Path) -> bool:
    """Is it ``FOLDER/files=BEFORE*AFTER``, masks of one structure each (`cpfnet.formats.structure_folder`)?"""
    return path.name.startswith(FILES) and is_reference(path)


def place_of(path: Path) -> Path:
    """Where it lies on disk: of a reference, the folder or archive before its last component."""
    return path.parent if is_reference(path) else path


def is_dicom(path: Path) -> bool:
    """Will `cpfnet.formats.read` take it for DICOM: a folder, archive, reference, or file of no other suffix?"""
    if is_stack(path) or is_listing(path):
        return False
    return suffix_of(path) not in (*RASTER_SUFFIXES, *VOLUME_SUFFIXES) or os.path.isdir(path)  # noqa: PTH112


def check_dicom(path: Path) -> None:
    """Refuse a path that cannot be DICOM, by its name and first bytes.

    Raises:
        FormatError: as `check_readable`; or it has another suffix, or its first bytes do not fit its name.
    """
    place = place_of(path)
    if os.path.isdir(place):  # noqa: PTH112
        return
    check_readable(place)
    with place.open("rb") as file:
        head = file.read(132)
    if looks_like_dicom(head) or head.startswith(b"PK"):
        return
    if suffix_of(place):
        raise _unreadable(place, ValueError("it does not begin as one"))
    if place.suffix.lower() == ".img":
        raise FormatError("holds the voxels of a NIfTI pair", where=place, fix="give its header, which ends in .hdr")
    raise FormatError(
        f"has the unknown suffix {place.suffix!r}",
        where=place,
        fix=f"convert it to one of {' '.join((*RASTER_SUFFIXES, *VOLUME_SUFFIXES, *DICOM_SUFFIXES))}",
    )


def looks_like_dicom(head: bytes) -> bool:
    """Do these first bytes (132 or more) begin a DICOM object, with its preamble or an element of the first groups?"""
    if head[128:132] == b"DICM":
        return True
    group, element = int.from_bytes(head[:2], "little"), int.from_bytes(head[2:4], "little")
    if len(head) < 132 or group not in (0x0002, 0x0008) or element > 0x0060:
        return False
    return (head[4:6].isalpha() and head[4:6].isupper()) or int.from_bytes(head[4:8], "little") <= 256


_MAGIC = (  # offset, bytes, what it is, suffix it should have
    (0, b"\x89PNG", "a PNG image", ".png"),
    (0, b"\xff\xd8\xff", "a JPEG image", ".jpg"),
    (0, b"II*\0", "a TIFF image", ".tif"),
    (0, b"MM\0*", "a TIFF image", ".tif"),
    (0, b"GIF8", "a GIF image", ".gif"),
    (344, b"n+1\0", "an uncompressed NIfTI volume", ".nii"),
    (4, b"n+2\0", "an uncompressed NIfTI volume", ".nii"),
    (0, b"\x1f\x8b", "gzip-compressed", ".nii.gz"),
    (128, b"DICM", "a DICOM file", ".dcm"),
    (0, b"NRRD000", "an NRRD volume", ".nrrd"),
    (0, b"ObjectType = Image", "a MetaImage volume", ".mha"),
    (0, b"\x89HDF", "an HDF5 file", ""),
    (0, b"PK\x03\x04", "a ZIP archive", ""),
    (0, b"%PDF", "a PDF document", ""),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 image", ".jp2"),
    (8, b"WEBP", "a WebP image", ".webp"),
)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # otherwise only the last character is cut
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c in "\t\r\n\f" for c in text)


def placeholder(path: Path) -> str:
    """What a file holds in place of an image that was never fetched: ``"lfs-pointer"`` or ``"html-page"``; else ""."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError:
        return ""
    if head.startswith(b"version https://git-lfs"):
        return "lfs-pointer"
    return "html-page" if head.lstrip().lower().startswith((b"<!doctype html", b"<html")) else ""


def _unreadable(path: Path, error: Exception) -> FormatError:
    """The error for a file that a decoder refused; it says what the file is instead, if that is known."""
    promised = suffix_of(path)
    families = (NIFTI_SUFFIXES, NRRD_SUFFIXES, META_SUFFIXES, RASTER_SUFFIXES)
    family = next((f for f in families if promised in f), DICOM_SUFFIXES)
    expected = {
        NIFTI_SUFFIXES: "a NIfTI volume",
        NRRD_SUFFIXES: "an NRRD volume",
        META_SUFFIXES: "a MetaImage volume",
        RASTER_SUFFIXES: f"a {_NAMES.get(promised, promised[1:].upper())} image",
        DICOM_SUFFIXES: "a DICOM file",
    }[family]
    if isinstance(error, MemoryError):
        return FormatError("does not fit into memory", where=path, fix="free memory, or cut the image into tiles")
    with path.open("rb") as file:
        head = file.read(512)
    instead = placeholder(path)
    if instead == "lfs-pointer":
        return FormatError(
            "is a Git LFS pointer, not the image itself", where=path, fix="fetch the content with `git lfs pull`"
        )
    if instead == "html-page":
        return FormatError(
            f"is an HTML page, not {expected}",
            where=path,
            fix="download the file again: the server answered with a page (a login, an error) in its place",
        )
    for offset, magic, what, suffix in _MAGIC:
        if head[offset : offset + len(magic)] == magic and (
            suffix not in family or (family is NIFTI_SUFFIXES and suffix != promised)
        ):
            fix = f"rename it to end in {suffix}" if suffix else "convert it to PNG, TIFF or NIfTI"
            return FormatError(f"is {what}, not {expected}", where=path, fix=fix)
    if _is_text(head) and not head.startswith((b"NRRD", b"ObjectType")):
        return FormatError(f"is a text file, not {expected}", where=path, fix="give the image file itself")
    words = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
    return FormatError(
        f"cannot be decoded as {expected}: {words}",
        where=path,
        fix="the file is damaged, cut short or of an unsupported kind: copy or export it again",
    )


def check_readable(path: Path) -> None:
    """Refuse a path that does not exist, is not a file (or a stack of files), is empty, or may not be read.

    Raises:
        FormatError: with the reason, and the nearest name if the name was mistyped.
    """
    if (is_stack(path) or is_listing(path)) and path.parent.is_dir():
        return
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening it would wait for a writer forever
            raise FormatError("is a pipe", where=path, fix="give an image file")
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        if path.is_symlink():
            raise FormatError(
                f"is a link to {path.readlink()}, which is not there", where=path, fix="fetch the linked file"
            ) from None
        near = []
        if path.parent.is_dir():
            near = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1)  # noqa: PTH208 (names only)
        fix = f"did you mean {near[0]!r}?" if near else "give the path of an existing file"
        raise FormatError("no such file", where=path, fix=fix) from None
    except IsADirectoryError:
        raise FormatError("is a folder", where=path, fix="give an image file inside it") from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise FormatError(
            f"cannot be opened: {words}", where=path, fix="give the path of a file that you may read"
        ) from None
    if empty:
        raise FormatError("is empty (0 bytes)", where=path, fix="copy or export the file again")


def check_expansion(size: int, decoded: int, memory: int) -> None:
    """Refuse a decompression bomb: a small file whose pixels would fill the memory.

    A file that needs more than 1 GiB is refused if it is compressed more than 200-fold. Photographs and scans are
    compressed up to 50-fold; among images of this size, only (nearly) blank ones reach 200.

    Args:
        size: bytes of the file.
        decoded: bytes of its pixels.
        memory: bytes that decoding takes.

    Raises:
        FormatError: with size and decoded size.
    """
    if memory > 2**30 and decoded > 200 * size:
        raise FormatError(
            f"is blank or a decompression bomb: {size} bytes would become {decoded}",
            fix="if it is meant so, save it without compression",
        )


def exact_labels(array: np.ndarray, where: Path) -> np.ndarray:
    """A label map in a dtype that formats can store, with the same values.

    Args:
        array: integers of any kind; 0x1000000 + 0xRRGGBB is a colour (see `cpfnet.labels`).
        where: for the message.

    Returns:
        uint8, uint16, int16 or int32 of the same shape; if it holds any colour, ``(…, 3)`` uint8.

    Raises:
        OutputError: the values are not integers, or need more than 32 bits.
    """
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    limits = np.iinfo(np.int32)
    if array.dtype.kind not in "iub" or low < limits.min or high > limits.max:
        raise OutputError(
            f"labels of dtype {array.dtype} from {low} to {high} are no 32-bit integers",
            where=where,
            fix="write probabilities with write_map, label values as integers",
        )
    if high < _COLOUR:
        smaller = {"bool": np.uint8, "int8": np.int16}.get(array.dtype.name, np.int32)
        return array if array.dtype.name in ("uint8", "uint16", "int16", "int32") else array.astype(smaller)
    odd = array[(array < 0) | ((array > 255) & (array < _COLOUR)) | (array >= 2 * _COLOUR)]
    if odd.size:
        raise OutputError(
            f"label values mix colours with {int(odd[0])}, which is neither a colour nor a grey of 0 … 255",
            where=where,
            fix="give every class a colour, or every class an integer, in `labels.classes[].write`",
        )
    array = array.astype(np.int64)
    colour = np.where(array < _COLOUR, array * 0x010101, array)
    return np.stack([colour >> 16 & 255, colour >> 8 & 255, colour & 255], axis=-1).astype(np.uint8)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a FormatError about ``path``.

    Decoders of other libraries raise almost any error on damaged bytes (SyntaxError, struct.error,
    KeyError, zlib.error …).
    """
    try:
        yield
    except CpfnetError as error:
        if error.where is not None:
            raise
        raise type(error)(error.what, where=path, fix=error.fix) from error
    except Exception as error:
        raise _unreadable(path, error) from error

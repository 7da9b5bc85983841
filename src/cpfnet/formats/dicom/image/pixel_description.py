"""How an object says that it stores its pixels, and whether this is possible (DICOM PS3.3, C.7.6.3).

The declared size is compared with the bytes of the file before memory is allocated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.dicom.image.functional_groups import Frame
from cpfnet.formats.dicom.image.slice_stack import size_of
from cpfnet.formats.dicom.image.transfer_syntax import decoder_of, syntax_of

GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
_LARGE = 64 * 2**20  # bytes; smaller declared sizes are harmless
_DENSEST = 1000  # no decoder may make more than this many times the compressed bytes


@dataclass(frozen=True)
class Storage:
    """How an object stores its pixels."""

    photometric: str
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest stored value."""
        return (-(2 ** (self.stored - 1)), 2 ** (self.stored - 1) - 1) if self.signed else (0, 2**self.stored - 1)


def storage_of(frame: Frame) -> Storage:
    """How the object of ``frame`` stores its pixels.

    Raises:
        FormatError: its description is impossible, or not supported.
    """
    header = frame.object.header

    def integer(keyword: str, default: int | None = None) -> int:
        words = text(header, keyword)
        if words.isdecimal():
            return int(words)
        if default is None or words:
            raise FormatError(
                f"{frame.object.name} has {keyword} {words!r}" if words else f"{frame.object.name} has no {keyword}",
                fix="copy or export it again",
            )
        return default

    allocated = integer("BitsAllocated")
    stored = integer("BitsStored", allocated)
    storage = Storage(
        photometric=text(header, "PhotometricInterpretation").upper() or "MONOCHROME2",
        samples=integer("SamplesPerPixel", 1),
        allocated=allocated,
        stored=stored,
        high=integer("HighBit", stored - 1),
        signed=integer("PixelRepresentation", 0) == 1,
    )
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= storage.high < allocated:
        raise FormatError(
            f"{frame.object.name} has BitsAllocated {allocated}, BitsStored {stored} and HighBit {storage.high}, "
            "which do not fit together",
            fix="copy or export it again",
        )
    known = _COLOURS if storage.samples == 3 else (*GREY, "PALETTE COLOR") if storage.samples == 1 else ()
    if storage.photometric not in known:
        raise FormatError(
            f"{frame.object.name} has the PhotometricInterpretation {storage.photometric!r} "
            f"with {storage.samples} samples a pixel, which is not read",
            fix=f"convert it to MONOCHROME2 or RGB; known are {', '.join((*GREY, *_COLOURS))}",
        )
    if storage.samples == 3 and allocated != 8:
        raise FormatError(
            f"{frame.object.name} has colours of {allocated} bits; 8 are read", fix="convert it to 8 bits a sample"
        )
    return storage


def _declared(frame: Frame, storage: Storage) -> tuple[int, int]:
    """Number of frames, and bytes of their pixels before compression."""
    rows, columns = size_of(frame)
    count = int(text(frame.object.header, "NumberOfFrames") or 1)
    declared = math.ceil(rows * columns * count * storage.samples * storage.allocated / 8)
    return count, declared * 2 // 3 if storage.photometric == "YBR_FULL_422" else declared


def refuse_surplus(frame: Frame, storage: Storage, pixels: int) -> None:
    """Refuse headers that declare fewer rows, columns or frames than there are: the rest would be lost silently."""
    rows, columns = size_of(frame)
    count, declared = _declared(frame, storage)
    syntax = syntax_of(frame.object.header)
    plain = syntax == DeflatedExplicitVRLittleEndian or not (syntax.is_private or syntax.is_encapsulated)
    if plain and pixels >= declared + max(declared // (rows * count), 2):
        raise FormatError(
            f"{frame.object.name} promises {count} × {rows}×{columns} pixels, {declared} bytes, and holds {pixels}",
            fix="copy or export it again: its header is damaged",
        )


def check_declared_size(frame: Frame, storage: Storage) -> None:
    """Refuse headers that declare more pixels than the object can hold, and objects without an installed decoder."""
    item = frame.object
    rows, columns = size_of(frame)
    count, declared = _declared(frame, storage)
    _, plugin = decoder_of(item)
    if plugin and storage.high != storage.stored - 1 and syntax_of(item.header) != RLELossless:
        raise FormatError(  # encoders do not agree whether a codestream holds the unused bits, too
            f"{item.name} is compressed with HighBit {storage.high} and BitsStored {storage.stored}, which is not read",
            fix="decompress it, for example with dcmdjpeg of DCMTK",
        )
    packed = plugin or syntax_of(item.header) == DeflatedExplicitVRLittleEndian
    if declared > item.size * (_DENSEST if packed else 1) and (declared > _LARGE or not packed):
        raise FormatError(
            f"{item.name} promises {count} × {rows}×{columns} pixels, {declared} bytes, and has {item.size}",
            fix="copy or export it again: it is cut short or damaged",
        )

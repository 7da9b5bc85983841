"""The decoder of a compressed object, and what its codestreams declare.

Decoders are pydicom's plug-ins, sorted by how well they handle damaged data: a damaged JPEG can make GDCM abort the
process, and damaged JPEG-LS keeps pyjpegls busy for 15 s.
"""

from __future__ import annotations

import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import Decoder
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEGExtended12Bit, RLELossless

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.dicom.image.datasets import DicomObject

_PREFERRED = ("pydicom", "pylibjpeg", "pillow", "gdcm", "pyjpegls")


def syntax_of(header: pydicom.Dataset) -> UID:
    """The transfer syntax; the default one (PS3.5, chapter 10) without file meta."""
    meta = getattr(header, "file_meta", None)
    return UID(text(meta, "TransferSyntaxUID") if meta is not None else "") or ImplicitVRLittleEndian


def decoder_of(item: DicomObject) -> tuple[Decoder, str]:
    """The decoder of an object, and its plug-in ("" for uncompressed pixels).

    Raises:
        FormatError: the transfer syntax is not supported, or its plug-in is not installed.
    """
    syntax = syntax_of(item.header)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise FormatError(
            f"{item.name} has the transfer syntax {syntax.name}, which is not read",
            fix="export it uncompressed, as JPEG, JPEG-LS, JPEG 2000 or RLE",
        ) from None
    if not decoder.is_encapsulated:
        return decoder, ""
    installed = [plugin for plugin in _PREFERRED if plugin in decoder.available_plugins]
    if not installed:
        missing = [words for words in decoder.missing_dependencies if "pylibjpeg-libjpeg" not in words]  # that is GPL
        raise FormatError(
            f"{item.name} is compressed ({syntax.name}), and no decoder for it is installed: {'; '.join(missing)}",
            fix="pip install 'cpfnet[dicom]'",
        )
    return decoder, installed[0]


def check_codestreams(header: pydicom.Dataset, name: str) -> None:
    """Refuse compressed frames whose size differs from the header's, before a decoder reads them.

    Raises:
        FormatError: with both sizes.
    """
    if syntax_of(header) == RLELossless:  # it declares no size, and cannot expand more than 64-fold
        return
    declared = (int(header.Rows), int(header.Columns), int(text(header, "SamplesPerPixel") or 1))
    allocated = int(header.BitsAllocated)
    count = int(text(header, "NumberOfFrames") or 1)
    for frame in generate_frames(header.PixelData, number_of_frames=count):
        coded = _coded(frame)
        if coded is None:
            raise FormatError(
                f"{name} holds no image that is compressed as it says ({syntax_of(header).name})",
                fix="copy or export it again",
            )
        *shape, bits = coded
        if tuple(shape) != declared or bits > allocated:
            raise FormatError(
                f"{name} promises {_describe(*declared, allocated)} and holds an image of {_describe(*coded)}",
                fix="copy or export it again",
            )


def _describe(rows: int, columns: int, samples: int, bits: int) -> str:
    return f"{rows}×{columns} pixels of {samples} × {bits} bits"


def _coded(frame: bytes) -> tuple[int, int, int, int] | None:
    """(rows, columns, samples, bits) of a codestream; None if it is damaged.

    JPEG and JPEG-LS: ITU T.81, B.2.2; JPEG 2000: T.800, A.5.1.
    """

    def number(at: int, size: int) -> int:
        return int.from_bytes(frame[at : at + size], "big")

    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start >= 0:
        right, bottom, left, top = (number(start + at, 4) for at in (8, 12, 16, 20))
        return bottom - top, right - left, number(start + 40, 2), (number(start + 42, 1) & 0x7F) + 1
    coded, at = None, 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xDA:  # the scan begins: everything before it was as expected
            return coded
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            coded = number(at + 5, 2), number(at + 7, 2), number(at + 9, 1), number(at + 4, 1)
        # GDCM aborts the process over markers that libjpeg warns of.
        if frame[at + 4 : at + 9] == b"JFIF\0" and number(at + 9, 1) != 1:
            return None
        if frame[at + 4 : at + 9] == b"Adobe" and number(at + 15, 1) > 1:
            return None
        at += 1 if marker == 0xFF else 2 + number(at + 2, 2)
    return None


def undecodable(name: str, header: pydicom.Dataset, words: str) -> FormatError:
    """The error for pixels that the decoder refused."""
    syntax = syntax_of(header)
    if syntax == JPEGExtended12Bit and text(header, "BitsStored") != "8":
        return FormatError(
            f"{name} is compressed as 12-bit JPEG Extended, which none of the decoders of cpfnet[dicom] reads",
            fix="decompress it, for example with dcmdjpeg of DCMTK",
        )
    return FormatError(f"{name} cannot be decoded ({syntax.name}): {words}", fix="copy or export it again")

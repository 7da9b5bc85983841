"""TIFF: tifffile if it decodes by itself, Pillow for the other compressions (LZW, JPEG, fax) and for palettes.

Only tifffile keeps 16-bit colour, 64-bit and float samples and further channels; only Pillow brings the codecs. If
white is stored as 0, values are inverted, so that brighter is larger, as in every viewer.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image as Pillow
from PIL import TiffImagePlugin  # noqa: F401  Pillow.open(formats=…) does not load it by itself
from PIL.ImageFile import ImageFile

from cpfnet.errors import FormatError
from cpfnet.formats.file_types import Header, check_expansion
from cpfnet.formats.orientation import tag_of_page, upright, upright_size
from cpfnet.formats.pixel_types import COPIES, decode, layout, without_alpha
from cpfnet.image import GREY, RGB

# tifffile reports each odd tag on stderr, in the middle of progress bars; what matters is refused here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

SUFFIXES = (".tif", ".tiff")
_MINISWHITE, _MINISBLACK, _COLOUR = 0, 1, 2  # photometric interpretations
_OWN_CODECS = (1, 8, 32946, 32773)  # none, deflate (two numbers), PackBits: tifffile needs no other package for these
_STANDARD = 329  # tags up to this number refer to no further tags
_PLAIN = (700, 33432, 33723, 34377, 34675, 50838, 50839)  # nor do XMP, copyright, IPTC, Photoshop, ICC, ImageJ's
_LARGEST = 2 * (Pillow.MAX_IMAGE_PIXELS or 2**27)  # Pillow's own limit against decompression bombs


def _page(tif: tifffile.TiffFile) -> Any:
    """The one image in the file; smaller copies of it (pyramids, thumbnails) do not count."""
    whole = [series for series in tif.series if not series.keyframe.is_reduced]
    pages = sum(max(1, series.size // max(1, series.keyframe.size)) for series in whole)
    if pages != 1:
        raise FormatError(
            f"holds {pages} pages",
            fix="save each image as a file of its own; a volume as NIfTI, which knows its millimetres",
        )
    page = whole[0].keyframe
    if not 0 < page.imagewidth * page.imagelength <= _LARGEST or page.imagedepth > 1:
        raise FormatError(
            f"claims {page.imagewidth}×{page.imagelength}×{page.imagedepth} pixels; "
            f"up to {_LARGEST} in one plane are read",
            fix="cut it into tiles, or export it at a smaller size",
        )
    if page.samplesperpixel < 1:
        raise FormatError("has no sample in a pixel", fix="export it again as grey or RGB")
    decoded = page.imagewidth * page.imagelength * page.samplesperpixel * page.bitspersample // 8
    check_expansion(tif.filehandle.size, decoded, COPIES * decoded)
    chunk = math.prod(page.chunks) * page.bitspersample // 8
    if page.compression != 1 and max(page.databytecounts, default=0) > 1.1 * chunk + 65536:
        raise FormatError(  # decoders unpack all of it, even if little of it is shown
            f"holds {max(page.databytecounts)} compressed bytes for a strip or tile of {chunk}: a decompression bomb",
            fix="export it again",
        )
    end = max((at + size for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
    if end > tif.filehandle.size:  # tifffile would fill a tile that is completely missing with zeros
        raise FormatError(
            f"is cut short: its pixels end at byte {end}, the file at {tif.filehandle.size}",
            fix="copy or export the file again",
        )
    if page.compression == 1 and (surplus := _surplus(tif)) > 0:
        raise FormatError(
            f"is {surplus} bytes longer than its tags say: its pixels may be shifted",
            fix="copy or export it again; if it is whole in a viewer, save it anew from there",
        )
    return page


def _surplus(tif: tifffile.TiffFile) -> int:
    """Number of bytes behind the last one that a tag refers to: there are some if bytes were inserted.

    It is 0 if there are tags that may refer to unknown data.
    """
    pages = _pages(tif)
    if not all(tag.code <= _STANDARD or tag.code in _PLAIN for page in pages for tag in page.tags):
        return 0
    ends = [at + size for page in pages for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    ends += [tag.valueoffset + tag.valuebytecount for page in pages for tag in page.tags]
    entry, last = (20, 16) if tif.is_bigtiff else (12, 6)
    ends += [page.offset + entry * len(page.tags) + last for page in pages]
    return tif.filehandle.size - max(ends)


def _pages(tif: tifffile.TiffFile) -> list[Any]:
    """All pages; a chain of pages that leads back to an earlier one has no end."""
    pages: dict[int, Any] = {}
    for page in tif.pages:
        if page.offset in pages:
            raise FormatError("has pages that lead back to an earlier one", fix="export it again")
        pages[page.offset] = page
    return [*pages.values()]


def _is_own(page: Any) -> bool:
    """Can tifffile decode it by itself, with the meaning of samples that is used here?"""
    return (
        page.photometric in (_MINISWHITE, _MINISBLACK, _COLOUR)
        and page.bitspersample in (8, 16, 32, 64)
        and page.compression in _OWN_CODECS
        and page.predictor in (1, 2)
        and page.axes in ("YX", "YXS", "SYX")
    )


def _layout(page: Any) -> tuple[tuple[str, ...], np.dtype]:
    """Channel names and dtype of a page that tifffile decodes."""
    kept = page.samplesperpixel - (1 if _has_alpha(page) else 0)
    names = GREY if kept == 1 else RGB if page.photometric == _COLOUR and kept == 3 else ()
    if page.dtype.kind == "c":
        raise FormatError("holds complex numbers", fix="store magnitude and phase as channels")
    dtype = np.dtype(np.float32) if page.dtype == np.float16 else page.dtype.newbyteorder("=")
    return names or tuple(f"channel{i}" for i in range(kept)), dtype


def _has_alpha(page: Any) -> bool:
    return page.samplesperpixel in (2, 4) and len(page.extrasamples) == 1 and int(page.extrasamples[0]) in (1, 2)


def _pillow(file: BinaryIO, page: Any) -> ImageFile:
    bits, kind, samples = page.bitspersample, page.sampleformat, page.samplesperpixel
    if bits > 8 and (samples > 1 or bits > 32 or (bits, kind) == (32, 1)):
        raise FormatError(
            f"holds {samples} × {bits} bits a pixel with {page.compression!r} compression, of which some would be lost",
            fix="save it again without compression, or with deflate (ZIP)",
        )
    return Pillow.open(file, formats=("TIFF",))


def read_header(path: Path) -> Header:
    """Size, channels and dtype from the tags."""
    with tifffile.TiffFile(path) as tif:
        page = _page(tif)
        if _is_own(page):
            names, dtype = _layout(page)
        else:
            with path.open("rb") as file, _pillow(file, page) as picture:
                names, dtype = layout(picture)
        return Header(upright_size((page.imagelength, page.imagewidth), tag_of_page(page)), None, names, dtype)


def read(path: Path) -> tuple[np.ndarray, tuple[str, ...], int]:
    """``(channels, height, width)``, upright; the channels' names; and the orientation tag that was applied."""
    with tifffile.TiffFile(path) as tif:
        page = _page(tif)
        tag = tag_of_page(page)
        if not _is_own(page):
            # Pillow turns the pixels itself. It gets no path, which it would map into memory in the size after turning.
            with path.open("rb") as file, _pillow(file, page) as picture:
                return *decode(picture), tag
        names, dtype = _layout(page)
        pixels = page.asarray()
        if page.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = pixels.reshape(page.imagelength, page.imagewidth, -1)
        if _has_alpha(page):
            pixels = without_alpha(pixels)
        if page.photometric == _MINISWHITE and pixels.dtype.kind == "u":
            pixels = np.iinfo(pixels.dtype).max - pixels
        return np.ascontiguousarray(upright(np.moveaxis(pixels, -1, 0), tag), dtype=dtype), names, tag


def write(array: np.ndarray, path: Path, *, colour: bool) -> None:
    """Integers ``([pages,] height, width)``, or with ``colour`` ``([pages,] height, width, 3)`` uint8."""
    photometric = "rgb" if colour else "minisblack"
    tifffile.imwrite(path, array, photometric=photometric, compression="zlib", metadata=None)


def write_map(array: np.ndarray, path: Path, names: tuple[str, ...]) -> None:
    """Planes ``(planes, [depth,] height, width)`` as float32 pages, each described by its plane's name (UTF-8)."""
    with tifffile.TiffWriter(path) as writer:
        for name, plane in zip(names, array, strict=True):
            for page in plane.reshape(-1, *plane.shape[-2:]):
                writer.write(
                    page, photometric="minisblack", compression="zlib", description=name.encode(), metadata=None
                )


def read_map(path: Path) -> np.ndarray:
    """All pages, ``(pages, height, width)``."""
    with tifffile.TiffFile(path) as tif:
        return np.stack([upright(page.asarray(), tag_of_page(page)) for page in _pages(tif)])

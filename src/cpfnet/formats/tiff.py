"""TIFF: tifffile if it decodes by itself, Pillow for the other compressions (LZW, JPEG, fax) and for palettes.

Only tifffile keeps 16-bit colour, 64-bit and float samples and further channels; only Pillow brings the codecs. If
white is stored as 0, values are inverted, so that brighter is larger, as in every viewer. Several pages are a volume,
or channels (`cpfnet.formats.tiff_pages`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile
from PIL import Image as Pillow
from PIL import TiffImagePlugin  # noqa: F401  Pillow.open(formats=…) does not load it by itself
from PIL.ImageFile import ImageFile

from cpfnet.errors import FormatError
from cpfnet.formats.file_types import Header, check_expansion, suffix_of
from cpfnet.formats.orientation import is_sideways, orientation_warnings, tag_of_page, upright, upright_size
from cpfnet.formats.pixel_types import COPIES, decode, layout, without_alpha
from cpfnet.formats.tiff_pages import Planes, planes_of
from cpfnet.image import GREY, RGB, Image, Source, spacing_of

# tifffile reports each odd tag on stderr, in the middle of progress bars; what matters is refused here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)

SUFFIXES = (".tif", ".tiff")
_MINISWHITE, _MINISBLACK, _COLOUR = 0, 1, 2  # photometric interpretations
_OWN_CODECS = (1, 8, 32946, 32773)  # none, deflate (two numbers), PackBits: tifffile needs no other package for these
_STANDARD = 329  # tags up to this number refer to no further tags
_PLAIN = (700, 33432, 33723, 34377, 34675, 50838, 50839)  # nor do XMP, copyright, IPTC, Photoshop, ICC, ImageJ's
_LARGEST = 2 * (Pillow.MAX_IMAGE_PIXELS or 2**27)  # Pillow's own limit against decompression bombs


@dataclass(frozen=True)
class _Content:
    """The pages of the image, which are alike, their numbers in the file, and how they make it."""

    pages: tuple[Any, ...]
    numbers: tuple[int, ...]
    planes: Planes

    @property
    def tag(self) -> int:
        """Of orientation."""
        return tag_of_page(self.pages[0])

    def header(self, names: tuple[str, ...], dtype: np.dtype) -> Header:
        """As `read_header` gives it, where a page has channels of these names in this dtype."""
        sizes = dict(zip(self.planes.axes, self.planes.sizes, strict=True))
        size = upright_size((self.pages[0].imagelength, self.pages[0].imagewidth), self.tag)
        affine = None
        if (spacing := self.planes.spacing) is not None:
            rows, columns = spacing[:0:-1] if is_sideways(self.tag) else spacing[1:]
            affine = np.diag([spacing[0], rows, columns, 1.0])[[2, 1, 0, 3]]
        if "C" in sizes:
            names = tuple(f"channel{i}" for i in range(sizes["C"]))
        return Header((sizes["Z"], *size) if "Z" in sizes else size, affine, names, self._scaled(dtype))

    def _scaled(self, dtype: np.dtype) -> np.dtype:
        """The dtype that holds ``slope · stored + intercept``."""
        slope, intercept = self.planes.scale
        if (slope, intercept) == (1.0, 0.0):
            return dtype
        whole = dtype.kind in "iu" and slope.is_integer() and intercept.is_integer()
        ends = [slope * end + intercept for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)] if whole else []
        fits = ends and np.iinfo(np.int32).min <= min(ends) and max(ends) <= np.iinfo(np.int32).max
        return np.dtype(np.int32 if fits else np.float32)

    def place(self, number: int) -> tuple[Any, ...]:
        """Where a plane lies in ``(channels, [depth,] height, width)``."""
        index = dict(zip(self.planes.axes, np.unravel_index(number, self.planes.sizes), strict=True))
        channels = slice(int(index["C"]), int(index["C"]) + 1) if "C" in index else slice(None)
        return (channels, int(index["Z"])) if "Z" in index else (channels,)


def _content(tif: tifffile.TiffFile) -> _Content:
    """The pages of the one image, checked.

    Raises:
        FormatError: they cannot be what their tags say, or do not make one image.
    """
    every, _ = _pages(tif)  # before tifffile's series, which skip the tags of all pages but the first
    planes = planes_of(tif)
    numbered = {page.offset: number for number, page in enumerate(every)}
    if not numbered.keys() >= {*planes.pages}:
        raise FormatError("has pages below pages that are no smaller copies", fix="save each as a file of its own")
    numbers = tuple(numbered[offset] for offset in planes.pages)
    pages = tuple(every[number] for number in numbers)
    first, count = pages[0], math.prod(planes.sizes)
    for number, page in zip(numbers, pages, strict=True):
        _check(page, tif)
        if _kind(page) != _kind(first):
            raise FormatError(
                f"has pages of different kinds: {_kind(first)} on page {numbers[0] + 1}, {_kind(page)} on page "
                f"{number + 1}",
                fix="save each as a file of its own",
            )
    decoded = count * first.imagewidth * first.imagelength * first.samplesperpixel * first.bitspersample // 8
    check_expansion(tif.filehandle.size, decoded, decoded * (COPIES if count == 1 else 1))
    if planes.contiguous:
        end = first.dataoffsets[0] + decoded
        if first.compression != 1 or not _is_own(first) or end > tif.filehandle.size:
            raise FormatError(
                f"is cut short: its pixels end at byte {end}, the file at {tif.filehandle.size}",
                fix="copy or export the file again",
            )
    else:
        end = 0
    if first.compression == 1 and (surplus := _surplus(tif, every, end)) > 0:
        raise FormatError(
            f"is {surplus} bytes longer than its tags say: its pixels may be shifted",
            fix="copy or export it again; if it is whole in a viewer, save it anew from there",
        )
    return _Content(pages, numbers, planes)


def _kind(page: Any) -> str:
    size = f"{page.imagelength}×{page.imagewidth}×{page.samplesperpixel} pixels of {page.bitspersample} bits"
    kinds = f"sample format {int(page.sampleformat)}, photometric {int(page.photometric)}"
    return f"{size}, {kinds}, orientation {tag_of_page(page)}"


def _check(page: Any, tif: tifffile.TiffFile) -> None:
    """Refuse a page that cannot be what its tags say."""
    if not 0 < page.imagewidth * page.imagelength <= _LARGEST or page.imagedepth > 1:
        raise FormatError(
            f"claims {page.imagewidth}×{page.imagelength}×{page.imagedepth} pixels; "
            f"up to {_LARGEST} in one plane are read",
            fix="cut it into tiles, or export it at a smaller size",
        )
    if page.samplesperpixel < 1:
        raise FormatError("has no sample in a pixel", fix="export it again as grey or RGB")
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


def _surplus(tif: tifffile.TiffFile, pages: list[Any], end: int) -> int:
    """Number of bytes behind ``end`` and the last one that a tag refers to: there are some if bytes were inserted.

    It is 0 if there are tags that may refer to unknown data.
    """
    if not all(tag.code <= _STANDARD or tag.code in _PLAIN for page in pages for tag in page.tags):
        return 0
    ends = [at + size for page in pages for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    ends += [tag.valueoffset + tag.valuebytecount for page in pages for tag in page.tags]
    entry, last, within = (20, 16, 8) if tif.is_bigtiff else (12, 6, 4)
    ends += [page.offset + entry * len(page.tags) + last for page in pages]
    if len(pages) > 1:  # writers repeat values that pages share, and begin each page at a multiple of 16 bytes
        end = max(*ends, end) + 15
        end += sum(tag.valuebytecount for tag in pages[-1].tags if tag.valuebytecount > within)
    return int(tif.filehandle.size - max(*ends, end))


def _pages(tif: tifffile.TiffFile) -> tuple[list[Any], bool]:
    """All pages, and whether the last leads back to an earlier one: such a chain has no end."""
    pages: dict[int, Any] = {}
    for page in tif.pages:
        if page.offset in pages:
            return [*pages.values()], True
        pages[page.offset] = page
    return [*pages.values()], False


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
    with tifffile.TiffFile(path, _multifile=False) as tif:
        content = _content(tif)
        if _is_own(content.pages[0]):
            return content.header(*_layout(content.pages[0]))
        with path.open("rb") as file, _pillow(file, content.pages[0]) as picture:
            picture.seek(content.numbers[0])
            return content.header(*layout(picture))


def read(path: Path) -> Image:
    """``(channels, [depth,] height, width)``, upright, with the affine of a stack whose spacing is known."""
    with tifffile.TiffFile(path, _multifile=False) as tif:
        content = _content(tif)
        array: np.ndarray | None = None
        for number, (plane, names) in enumerate(_decoded(path, tif, content)):
            if array is None:
                header = content.header(names, plane.dtype)
                array = np.empty((len(header.channels), *header.shape), header.dtype)
            array[content.place(number)] = _rescaled(plane, content.planes.scale)
    assert array is not None  # there is a page
    suffix = suffix_of(path) if suffix_of(path) in SUFFIXES else ".tif"
    warnings = (*orientation_warnings(content.tag), *content.planes.warnings)
    source = Source((path,), "raster", {"suffix": suffix, "orientation": content.tag}, warnings)
    return Image(array, header.affine, header.channels, source=source)


def _rescaled(plane: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    return plane if scale == (1.0, 0.0) else plane * np.float64(scale[0]) + scale[1]


def _decoded(path: Path, tif: tifffile.TiffFile, content: _Content) -> Iterator[tuple[np.ndarray, tuple[str, ...]]]:
    """``(channels, height, width)`` of each plane, upright, and the channels' names."""
    first = content.pages[0]
    if not _is_own(first):
        # Pillow turns the pixels itself. It gets no path, which it would map into memory in the size after turning.
        with path.open("rb") as file, _pillow(file, first) as picture:
            for number in content.numbers:
                picture.seek(number)
                yield decode(picture)
        return
    names, dtype = _layout(first)
    for number in range(math.prod(content.planes.sizes)):
        if content.planes.contiguous:
            size = first.imagelength * first.imagewidth * first.samplesperpixel
            stored = first.dtype.newbyteorder(tif.byteorder)
            at = first.dataoffsets[0] + number * size * stored.itemsize
            pixels = tif.filehandle.read_array(stored, size, offset=at).reshape(first.shape)
        else:
            pixels = content.pages[number].asarray()
        if first.axes == "SYX":
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = pixels.reshape(first.imagelength, first.imagewidth, -1)
        if _has_alpha(first):
            pixels = without_alpha(pixels)
        if first.photometric == _MINISWHITE and pixels.dtype.kind == "u":
            pixels = np.iinfo(pixels.dtype).max - pixels
        yield upright(np.moveaxis(pixels, -1, 0), content.tag).astype(dtype, copy=False), names


def write(array: np.ndarray, path: Path, *, colour: bool) -> None:
    """Integers ``(height, width)``, or with ``colour`` ``(height, width, 3)`` uint8."""
    photometric = "rgb" if colour else "minisblack"
    tifffile.imwrite(path, array, photometric=photometric, compression="zlib", metadata=None)


def write_volume(array: np.ndarray, affine: np.ndarray | None, path: Path, names: tuple[str, ...] = ()) -> None:
    """A stack of ImageJ, with the distances of its voxels, but no place in the patient.

    Args:
        array: ``(planes, depth, height, width)`` uint8, uint16 or float32, or ``(1, depth, height, width, 3)`` uint8.
        affine: of the volume, where it has millimetres.
        path: the file.
        names: of the planes.
    """
    colour = array.ndim > 4
    metadata: dict[str, Any] = {"axes": "ZCYXS" if colour else "ZCYX"}
    resolution = None
    if affine is not None:
        depth, rows, columns = spacing_of(affine)
        metadata |= {"unit": "mm", "spacing": depth}
        resolution = (1 / columns, 1 / rows)
    if names:
        metadata["Labels"] = [*names] * array.shape[1]
    planes = np.moveaxis(array, 1, 0)
    with tifffile.TiffWriter(path, imagej=True) as writer:
        writer.write(
            planes,
            photometric="rgb" if colour else "minisblack",
            resolution=resolution,
            metadata=metadata,
            compression="zlib",
        )


def write_map(array: np.ndarray, path: Path, names: tuple[str, ...]) -> None:
    """Planes ``(planes, height, width)`` as float32 pages, each described by its plane's name (UTF-8)."""
    with tifffile.TiffWriter(path) as writer:
        for name, plane in zip(names, array, strict=True):
            writer.write(plane, photometric="minisblack", compression="zlib", description=name.encode(), metadata=None)


def read_map(path: Path) -> np.ndarray:
    """``(planes, depth, height, width)`` of a stack, else all pages, ``(pages, height, width)``."""
    with tifffile.TiffFile(path) as tif:
        if not tif.is_imagej:
            pages, endless = _pages(tif)
            if endless:
                raise FormatError("has pages that lead back to an earlier one", fix="export it again")
            return np.stack([upright(page.asarray(), tag_of_page(page)) for page in pages])
    return read(path).array

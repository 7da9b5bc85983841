"""PNG, JPEG, BMP, GIF, WebP and JPEG 2000 through Pillow; TIFF through `cpfnet.formats.tiff`.

Pixels are turned as their orientation tag says (`cpfnet.formats.orientation`); there is no colour management and no
gamma. Palette images, 1-bit images (0/255) and greys of 2 or 4 bits are read by colour, not by index. An alpha channel
is dropped, unless it is all that the image holds. What Pillow would round to 8 bits is read completely (RGB PNG of 16
bits) or refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import Jpeg2KImagePlugin, WebPImagePlugin  # noqa: F401  Pillow.open(formats=…) does not load them by itself
from PIL.ImageFile import ImageFile

from cpfnet.errors import FormatError, OutputError
from cpfnet.formats import jpeg, jpeg2000, tiff
from cpfnet.formats.file_types import Header, check_expansion, decoding, exact_labels, suffix_of
from cpfnet.formats.orientation import orientation_warnings, tag_of, upright, upright_size
from cpfnet.formats.pixel_types import COPIES, decode, layout
from cpfnet.image import RGB, Image, Segmentation, Source

# Pillow warns on stderr, in the middle of progress bars, of damage that it tolerates and of sizes that are checked
# here.
for _kind in (UserWarning, Pillow.DecompressionBombWarning):
    warnings.filterwarnings("ignore", category=_kind, module=r"PIL\.")

_METADATA = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")  # the parts of a PNG that may hold an orientation
# A phone's JPEG may contain further pictures (MPO); the first is the photograph.
_WRITTEN = {
    "JPEG": ".png",
    "MPO": ".png",
    "PNG": ".png",
    "BMP": ".bmp",
    "GIF": ".gif",
    "WEBP": ".png",
    "JPEG2000": ".png",
}


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _check_length(path: Path) -> None:
    """Refuse a BMP that is longer than its header says: inserted bytes shift all pixels behind them."""
    with path.open("rb") as file:
        head, size = file.read(6), path.stat().st_size
    declared = int.from_bytes(head[2:6], "little")
    if head[:2] == b"BM" and 0 < declared < size and declared > size // 2:  # some writers store 0, or the header's size
        raise FormatError(
            f"is {size - declared} bytes longer than it says of itself ({declared}): its pixels may be shifted",
            fix="copy or export it again; if it is whole in a viewer, save it anew from there",
        )


def _open(path: Path) -> ImageFile:
    with path.open("rb") as file:
        start = file.read(12)
    if start.startswith(b"\xff\xd8"):
        jpeg.check_fill(path.read_bytes())
    elif start.startswith(jpeg2000.STARTS):
        jpeg2000.check_samples(path.read_bytes())
    _check_length(path)
    picture = Pillow.open(path, formats=("PNG", "JPEG", "BMP", "GIF", "WEBP", "JPEG2000"))
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise FormatError(
            f"is an animation of {getattr(picture, 'n_frames', 'several')} frames",
            fix="save the frame that is meant as an image of its own",
        )
    names, dtype = layout(picture)
    decoded = picture.width * picture.height * len(names) * dtype.itemsize
    check_expansion(path.stat().st_size, decoded, COPIES * decoded)
    return picture


def read_header(path: Path) -> Header:
    """Size, channels and dtype without decoding."""
    with decoding(path):
        if _is_tiff(path):
            return tiff.read_header(path)
        with _open(path) as picture:
            names, dtype = layout(picture)
            size = picture.height, picture.width
            # Pillow decodes a PNG to find what follows its pixels.
            if picture.format != "PNG" or any(word in path.read_bytes() for word in _METADATA):
                size = upright_size(size, tag_of(picture)[0])
            return Header(size, None, names, dtype)


def read(path: Path) -> Image:
    """``(1 or 3, height, width)``, or as many channels and slices as a TIFF has."""
    with decoding(path):
        if _is_tiff(path):
            return tiff.read(path)
        with _open(path) as picture:
            (array, names), suffix = decode(picture), _WRITTEN[picture.format or "PNG"]
            tag, exif_messages = tag_of(picture)
        if picture.format in ("JPEG", "MPO"):
            exif_messages += jpeg.damage_warnings(path.read_bytes())
        if picture.mode == "CMYK":
            exif_messages += ("its CMYK colours are turned into RGB without their colour profile",)
        messages = (*orientation_warnings(tag), *exif_messages)
        array = np.ascontiguousarray(upright(array, tag))
        details = {"suffix": suffix, "orientation": tag}
        return Image(array, channels=names, source=Source((path,), "raster", details, messages))


def write(segmentation: Segmentation, path: Path, *, where: Path) -> None:
    """The label map by the suffix of ``path``, value by value; a volume becomes a stack of ImageJ in a TIFF."""
    array = exact_labels(segmentation.array, where)
    colour = array.ndim > segmentation.array.ndim
    suffix = suffix_of(path)
    if suffix in tiff.SUFFIXES and segmentation.array.ndim == 2:
        tiff.write(array, path, colour=colour)
        return
    if suffix in tiff.SUFFIXES:
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if low < 0 or high > 65535:
            raise OutputError(
                f"label values from {low} to {high} do not fit into a TIFF stack", where=where, fix="write it as nifti"
            )
        exact = array if array.dtype in (np.uint8, np.uint16) else array.astype(np.uint16)
        tiff.write_volume(exact[None], segmentation.affine, path)
        return
    if segmentation.array.ndim == 3:
        if len(array) > 1:
            raise OutputError(
                f"a volume of {len(array)} slices does not fit into one {suffix.lstrip('.').upper()} image",
                where=where,
                fix="write it as nifti, or as tiff with a page for each slice",
            )
        array = array[0]
    if not colour:
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        if low < 0 or high > (65535 if suffix == ".png" else 255):
            raise OutputError(
                f"label values from {low} to {high} do not fit into {suffix.lstrip('.').upper()}",
                where=where,
                fix="write it as tiff or nifti" if suffix == ".png" else "write it as png, tiff or nifti",
            )
        # 16 bits if the label map has them, so that all files of a data set have one dtype.
        array = array.astype(np.uint16 if suffix == ".png" and (array.dtype == np.uint16 or high > 255) else np.uint8)
    Pillow.fromarray(np.ascontiguousarray(array)).save(
        path, format={".png": "PNG", ".bmp": "BMP", ".gif": "GIF"}[suffix]
    )


def write_image(image: Image, path: Path, *, where: Path) -> None:
    """One grey channel as it is, or RGB of 8 bits; other than 8 and 16 bits are written only as TIFF."""
    colour = image.channels == RGB and image.array.dtype == np.uint8
    if image.array.ndim > 3 or not (colour or len(image.array) == 1):
        size = "×".join(map(str, image.shape))
        raise OutputError(
            f"{len(image.array)} channels of {image.array.dtype}, {size}, are no grey or 8-bit RGB picture",
            where=where,
            fix="write a file for each channel; volumes as nifti",
        )
    array = np.ascontiguousarray(np.moveaxis(image.array, 0, -1) if colour else image.array[0])
    if suffix_of(path) in tiff.SUFFIXES:
        tiff.write(array, path, colour=colour)
        return
    if array.dtype not in (np.uint8, np.uint16):
        raise OutputError(f"{array.dtype} does not fit into PNG", where=where, fix="write it as tiff")
    Pillow.fromarray(array).save(path, format="PNG")


def write_map(
    array: np.ndarray, segmentation: Segmentation, path: Path, names: tuple[str, ...], *, where: Path
) -> None:
    """``(planes, [depth,] height, width)`` as the float32 pages of a TIFF, with the names of their planes."""
    if array.ndim > 3:
        tiff.write_volume(array, segmentation.affine, path, names)
    else:
        tiff.write_map(array, path, names)


def read_map(path: Path) -> np.ndarray:
    """``(planes, [depth,] height, width)`` float32, as `write_map` wrote them."""
    with decoding(path):
        return tiff.read_map(path)

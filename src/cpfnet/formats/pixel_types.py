"""From a Pillow image to an array without loss: colour instead of palette index, all bits, no alpha."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL.ImageFile import ImageFile

from cpfnet.errors import FormatError
from cpfnet.image import GREY, RGB

COPIES = 4
"""Copies of the pixels in memory while an image is decoded: the decoder's, its text, and our two."""
_MODES = {
    "1": (GREY, np.uint8),
    "L": (GREY, np.uint8),
    "LA": (GREY, np.uint8),
    "I;16": (GREY, np.uint16),
    "I;16L": (GREY, np.uint16),
    "I;16B": (GREY, np.uint16),
    "I": (GREY, np.int32),
    "F": (GREY, np.float32),
    "RGB": (RGB, np.uint8),
    "RGBA": (RGB, np.uint8),
    "RGBX": (RGB, np.uint8),
    "YCbCr": (RGB, np.uint8),
}


def _raw_mode(picture: ImageFile) -> str:
    args = picture.tile[0][3] if picture.tile else ""
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _palette(picture: ImageFile) -> np.ndarray:
    table = np.zeros((256, 3), dtype=np.uint8)
    colours = np.array(picture.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)[:256]
    table[: len(colours)] = colours
    return table


def layout(picture: ImageFile) -> tuple[tuple[str, ...], np.dtype]:
    """Channel names and dtype, before decoding."""
    if picture.mode in ("P", "PA"):
        table = _palette(picture)
        grey = (table[:, :1] == table).all()
        return (GREY if grey else RGB), np.dtype(np.uint8)
    if picture.mode == "CMYK" and picture.format in ("JPEG", "MPO"):
        return RGB, np.dtype(np.uint8)
    if picture.mode not in _MODES:
        raise FormatError(
            f"holds {picture.mode} colours, which cannot be turned into RGB without a colour profile",
            fix="export it as RGB or grey",
        )
    names, dtype = _MODES[picture.mode]
    raw = _raw_mode(picture)
    if raw.startswith("LA;16"):
        raise FormatError("holds grey of 16 bits with alpha", fix="export it as 16-bit grey without alpha")
    # Pillow before 11 opens a 16-bit grey PNG as 32-bit integers.
    wide = picture.format == "PNG" and (picture.mode == "I" or raw in ("RGB;16B", "RGBA;16B"))
    return names, np.dtype(np.uint16 if wide else dtype)


def without_alpha(pixels: np.ndarray) -> np.ndarray:
    """``(height, width, n)`` without its last, alpha channel.

    Raises:
        FormatError: only the alpha channel shows anything.
    """
    colours, alpha = pixels[..., :-1], pixels[..., -1]
    if (alpha != alpha.flat[0]).any() and (colours == colours[0, 0]).all():
        raise FormatError(
            "holds its content in the alpha channel; all colours are the same",
            fix="export it as a grey image without transparency",
        )
    return colours


def decode(picture: ImageFile) -> tuple[np.ndarray, tuple[str, ...]]:
    """``(channels, height, width)`` with the names and dtype of `layout`, and the names."""
    names, dtype = layout(picture)
    raw = _raw_mode(picture)
    if picture.mode in ("P", "PA"):
        table, indices = _palette(picture), np.asarray(picture.getchannel(0) if picture.mode == "PA" else picture)
        pixels = table[indices][..., : len(names)]
    elif raw in ("RGB;16B", "RGBA;16B") and dtype == np.uint16:
        # Pillow keeps the first byte of each pair; told that the order is reversed, it gives the second.
        with Pillow.open(picture.filename, formats=("PNG",)) as again:
            again.tile = [again.tile[0]._replace(args=raw.replace("16B", "16L"))]
            low = np.asarray(again)
        pixels = np.asarray(picture).astype(np.uint16) << 8 | low
    elif picture.mode == "1":
        pixels = np.asarray(picture).astype(np.uint8) * 255
    else:
        pixels = np.asarray(picture.convert("RGB") if picture.mode in ("YCbCr", "CMYK") else picture)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    if picture.mode in ("LA", "RGBA"):
        pixels = without_alpha(pixels)
    return np.ascontiguousarray(np.moveaxis(pixels[..., : len(names)], -1, 0), dtype=dtype), names

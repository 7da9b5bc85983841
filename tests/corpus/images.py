"""PNG, TIFF, JPEG, GIF, BMP, WebP and JPEG 2000."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image as Pillow

from tests.corpus.mutant import OTHER, REFUSED, SAME, Mutant, file, harmed, put

FAMILIES = ("PNG", "TIFF", "JPEG", "GIF", "BMP", "WebP", "JPEG 2000")
_REFUSED = frozenset({REFUSED})
_READ = frozenset({SAME, OTHER})

_GREY = (np.add.outer(np.arange(37) * 5, np.arange(45) * 3) % 256).astype(np.uint8)
_RGB = np.stack([_GREY, _GREY[::-1], _GREY[:, ::-1]], axis=-1)


def _pillow(array: np.ndarray, kind: str, *, mode: str | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    picture = Pillow.fromarray(array)
    (picture.convert(mode) if mode else picture).save(out, kind, **options)
    return out.getvalue()


def _tiff(array: np.ndarray, **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def _sound() -> dict[str, list[tuple[str, str, bytes]]]:
    """Family → (what, file name, bytes)."""
    return {
        "PNG": [
            ("RGB", "scan.png", _pillow(_RGB, "PNG")),
            ("16 bits", "scan.png", _pillow(_GREY.astype(np.uint16) * 257, "PNG")),
            ("palette", "scan.PNG", _pillow(_RGB, "PNG", mode="P")),
            ("1 bit", "mask.png", _pillow(_GREY, "PNG", mode="1")),
        ],
        "TIFF": [
            ("plain RGB", "scan.tif", _tiff(_RGB, photometric="rgb")),
            ("deflate, 16 bits, tiles", "scan.tiff", _tiff(_GREY.astype(np.uint16), compression="zlib", tile=(16, 16))),
            ("LZW", "scan.tif", _pillow(_RGB, "TIFF", compression="tiff_lzw")),
            ("BigTIFF, float, big-endian", "scan.tif", _tiff(_GREY.astype(">f4"), bigtiff=True, byteorder=">")),
            ("planes apart", "scan.tif", _tiff(np.moveaxis(_RGB, -1, 0), photometric="rgb", planarconfig="separate")),
        ],
        "JPEG": [
            ("RGB", "scan.jpg", _pillow(_RGB, "JPEG", quality=95)),
            ("grey", "scan.jpeg", _pillow(_GREY, "JPEG")),
            ("progressive", "scan.jpg", _pillow(_RGB, "JPEG", progressive=True)),
        ],
        "GIF": [("grey", "mask.gif", _pillow(_GREY, "GIF")), ("colours", "mask.gif", _pillow(_RGB, "GIF", mode="P"))],
        "BMP": [("RGB", "scan.bmp", _pillow(_RGB, "BMP")), ("palette", "mask.bmp", _pillow(_GREY, "BMP"))],
        "WebP": [
            ("with loss", "scan.webp", _pillow(_RGB, "WEBP")),
            ("without loss", "mask.webp", _pillow(_RGB, "WEBP", lossless=True)),
        ],
        "JPEG 2000": [
            ("RGB", "scan.jp2", _pillow(_RGB, "JPEG2000")),
            ("16 bits", "scan.jp2", _pillow(_GREY.astype(np.uint16) * 257, "JPEG2000")),
            ("codestream", "scan.j2k", _pillow(_RGB, "JPEG2000", no_jp2=True)),
        ],
    }  # fmt: skip


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 0, extra: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG that says of itself what it is told to."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _zeros(size: int) -> bytes:
    """``size`` zeros, deflated piece by piece."""
    squeeze, piece = zlib.compressobj(9), bytes(2**20)
    parts = [squeeze.compress(piece) for _ in range(size // len(piece))]
    return b"".join([*parts, squeeze.compress(bytes(size % len(piece))), squeeze.flush()])


def _bomb(width: int, height: int, samples: int, folder: Path) -> Path:
    """A PNG that keeps its word, of a single grey."""
    path = folder / "bomb.png"
    path.write_bytes(png(width, height, _zeros((width * samples + 1) * height), colour=0 if samples == 1 else 2))
    return path


def _chunk_bomb(row: bytes, name: bytes, head: bytes, folder: Path) -> Path:
    return put(png(4, 4, row, extra=_chunk(name, head + _zeros(2**29))), "scan.png", folder)


def _png() -> Iterator[tuple[str, Any, frozenset[str]]]:
    row = zlib.compress(bytes(5 * 4))
    sizes = [(0, 4), (4, 0), (65535, 65535), (2**31 - 1, 2**31 - 1), (2**32 - 1, 1), (1, 2**31 - 1), (10**6, 10**6)]
    for width, height in sizes:
        yield f"claims {width}×{height}", png(width, height, row), _REFUSED
        yield f"claims {width}×{height} in colour, interlaced", png(width, height, row, colour=2, interlace=1), _REFUSED
    yield "four pixels too few", png(4, 5, zlib.compress(bytes(4 * 4))), _REFUSED
    yield "bits that do not exist", png(4, 4, row, bits=7), _REFUSED
    yield "colours that do not exist", png(4, 4, row, colour=5), _REFUSED
    yield "palette missing", png(4, 4, row, colour=3), _REFUSED | _READ
    yield (
        "palette of two for indices to 255",
        png(4, 4, zlib.compress(b"\0\xff\xff\xff\xff" * 4), colour=3, extra=_chunk(b"PLTE", bytes(6))),
        _REFUSED | _READ,
    )
    yield "no zlib stream", png(4, 4, b"not zlib at all"), _REFUSED
    yield "filter that does not exist", png(4, 4, zlib.compress(b"\x09" * 20)), _REFUSED
    for name, head in ((b"zTXt", b"Comment\0\0"), (b"iCCP", b"Comment\0\0"), (b"iTXt", b"C\0\1\0\0\0")):
        yield f"{name.decode()} bomb", partial(_chunk_bomb, row, name, head), _REFUSED | _READ
    yield "10,000 comments", png(4, 4, row, extra=_chunk(b"tEXt", b"C\0x") * 10_000), _REFUSED | _READ
    yield "chunk of 4 GiB", png(4, 4, row, extra=b"\xff\xff\xff\xfftEXt"), _REFUSED
    yield (
        "animation of 10⁹ frames",
        png(4, 4, row, extra=_chunk(b"acTL", struct.pack(">II", 10**9, 0))),
        _REFUSED | _READ,
    )
    yield (
        "no pixels at all",
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)) + _chunk(b"IEND", b""),
        _REFUSED,
    )
    yield (
        "wrong checksum in the header",
        png(4, 4, row).replace(
            struct.pack(">I", zlib.crc32(b"IHDR" + struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0))), b"abcd"
        ),
        _REFUSED,
    )
    yield "bomb of 10,000×10,000 that keeps its word", partial(_bomb, 10_000, 10_000, 1), _READ | _REFUSED
    yield "bomb of 13,000×13,000 that keeps its word", partial(_bomb, 13_000, 13_000, 3), _REFUSED
    yield "bomb of 30,000×30,000 that keeps its word", partial(_bomb, 30_000, 30_000, 1), _REFUSED


def tiff(
    tags: dict[int, tuple[int, int, int]], *, behind: bytes = bytes(64), more: bytes = b"", next_at: int = 0
) -> bytes:
    """A little-endian TIFF whose one directory holds these tags: number → (type, count, value or offset)."""
    base = {
        256: (4, 1, 8), 257: (4, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, 8), 277: (3, 1, 1), 278: (4, 1, 8), 279: (4, 1, 64),
    }  # fmt: skip
    merged = {**base, **tags}
    start = 8 + len(behind) + len(more)
    entries = b"".join(struct.pack("<HHII", tag, *merged[tag]) for tag in sorted(merged))
    directory = struct.pack("<H", len(merged)) + entries + struct.pack("<I", next_at if next_at != -1 else start)
    return b"II*\0" + struct.pack("<I", start) + behind + more + directory


def _tiff_bomb(side: int, folder: Path) -> Path:
    """One deflated strip of zeros."""
    squeezed = _zeros(side * side)
    path = folder / "bomb.tif"
    path.write_bytes(
        tiff(
            {256: (4, 1, side), 257: (4, 1, side), 259: (3, 1, 8), 278: (4, 1, side), 279: (4, 1, len(squeezed))},
            behind=squeezed,
        )
    )
    return path


def _tiffs() -> Iterator[tuple[str, Any, frozenset[str]]]:
    for width, height in [(0, 8), (8, 0), (65535, 65535), (2**32 - 1, 2**32 - 1), (10**6, 10**6), (2**31, 1)]:
        yield f"claims {width}×{height}", tiff({256: (4, 1, width), 257: (4, 1, height)}), _REFUSED
        yield (
            f"claims {width}×{height} in tiles",
            tiff(
                {
                    256: (4, 1, width),
                    257: (4, 1, height),
                    322: (3, 1, 16),
                    323: (3, 1, 16),
                    324: (4, 1, 8),
                    325: (4, 1, 64),
                }
            ),
            _REFUSED,
        )
    yield "strips of 4 GiB", tiff({279: (4, 1, 2**32 - 1)}), _REFUSED
    yield "strip beyond the end", tiff({273: (4, 1, 2**31)}), _REFUSED
    yield "strip of no bytes", tiff({279: (4, 1, 0)}), _REFUSED | _READ
    yield "strip too short", tiff({279: (4, 1, 10)}), _REFUSED | _READ
    yield "4·10⁹ strips", tiff({273: (4, 2**32 - 1, 8), 279: (4, 2**32 - 1, 8)}), _REFUSED
    yield "10⁸ strips", tiff({273: (4, 10**8, 8), 279: (4, 10**8, 8), 278: (4, 1, 1)}), _REFUSED
    yield "rows a strip 0", tiff({278: (4, 1, 0)}), _REFUSED | _READ
    yield "tiles of no size", tiff({322: (3, 1, 0), 323: (3, 1, 0), 324: (4, 1, 8), 325: (4, 1, 64)}), _REFUSED
    yield (
        "tiles of 65535×65535",
        tiff({322: (4, 1, 65520), 323: (4, 1, 65520), 324: (4, 1, 8), 325: (4, 1, 64)}),
        _REFUSED | _READ,
    )
    yield (
        "deflated tile of 65520×65520 for 8×8 pixels",
        tiff({259: (3, 1, 8), 322: (4, 1, 65520), 323: (4, 1, 65520), 324: (4, 1, 8), 325: (4, 1, 64)}),
        _REFUSED,
    )
    yield "65535 samples a pixel", tiff({277: (3, 1, 65535)}), _REFUSED
    yield "no samples", tiff({277: (3, 1, 0)}), _REFUSED | _READ
    yield "65535 bits", tiff({258: (3, 1, 65535)}), _REFUSED
    yield "0 bits", tiff({258: (3, 1, 0)}), _REFUSED
    yield "unknown compression", tiff({259: (3, 1, 60000)}), _REFUSED
    yield "unknown colours", tiff({262: (3, 1, 60000)}), _REFUSED | _READ
    yield "sample format 6", tiff({339: (3, 1, 6)}), _REFUSED
    yield "endless chain of pages", tiff({}, next_at=-1), _REFUSED | _READ
    yield "next page beyond the end", tiff({}, next_at=2**31), _REFUSED | _READ
    yield "next page inside the pixels", tiff({}, next_at=9), _REFUSED | _READ
    yield "tag of 4·10⁹ letters", tiff({270: (2, 2**32 - 1, 8)}), _REFUSED | _READ
    yield "tag of a type that does not exist", tiff({256: (99, 1, 8)}), _REFUSED
    yield (
        "description that calls it ImageJ with 10⁹ images",
        tiff({270: (2, 60, 72)}, more=b"ImageJ=1.53\nimages=1000000000\nslices=1000000000\n".ljust(60, b"\0")),
        _REFUSED | _READ,
    )
    yield (
        "description of shape 10⁶×10⁶",
        tiff({270: (2, 40, 72)}, more=b'{"shape": [1000000, 1000000]}'.ljust(40, b"\0")),
        _REFUSED | _READ,
    )
    yield (
        "description of OME with recursion",
        tiff(
            {270: (2, 120, 72)},
            more=(
                b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "&b;&b;"><!ENTITY b "&a;&a;">]><OME xmlns="o">&a;</OME>'
            ).ljust(120, b"\0"),
        ),
        _REFUSED | _READ,
    )
    yield "turned (orientation 6)", tiff({274: (3, 1, 6)}), _REFUSED | _READ
    yield "LZW of noise", tiff({259: (3, 1, 5)}, behind=bytes(range(64))), _REFUSED
    yield "JPEG of noise", tiff({259: (3, 1, 7)}, behind=bytes(range(64))), _REFUSED
    yield "fax of noise", tiff({259: (3, 1, 4), 258: (3, 1, 1)}, behind=bytes(range(64))), _REFUSED | _READ
    yield "PackBits of noise", tiff({259: (3, 1, 32773)}, behind=bytes(range(64))), _REFUSED
    yield "directory at 0", b"II*\0" + bytes(100), _REFUSED
    yield "directory beyond the end", b"II*\0\xff\xff\xff\x7f" + bytes(100), _REFUSED
    yield "directory of 65535 tags", b"II*\0\x08\0\0\0\xff\xff" + bytes(200), _REFUSED
    yield "BigTIFF of 2⁶⁴ tags", b"II+\0\x08\0\0\0" + struct.pack("<Q", 16) + b"\xff" * 64, _REFUSED
    yield "bomb of 9,000×9,000 that keeps its word", partial(_tiff_bomb, 9_000), _READ | _REFUSED
    yield "bomb of 65535×65535 that keeps its word", partial(_tiff_bomb, 65_535), _REFUSED
    stack = _tiff(np.zeros((500, 4, 4), np.uint8), photometric="minisblack", metadata=None)
    yield "500 pages", stack, _REFUSED


def _others() -> Iterator[tuple[str, str, str, Any, frozenset[str]]]:
    jpeg = _pillow(_RGB, "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    for size in ((65535, 65535), (0, 45), (37, 0), (65535, 45), (37, 65535), (20_000, 20_000)):
        yield (
            "JPEG",
            f"claims {size[1]}×{size[0]}",
            "scan.jpg",
            jpeg[:at] + struct.pack(">HH", *size) + jpeg[at + 4 :],
            _REFUSED,
        )
    yield "JPEG", "255 components", "scan.jpg", jpeg[: at + 4] + b"\xff" + jpeg[at + 5 :], _REFUSED
    yield "JPEG", "start and end only", "scan.jpg", b"\xff\xd8\xff\xd9", _REFUSED
    yield "JPEG", "16 MiB of fill bytes", "scan.jpg", b"\xff\xd8" + b"\xff" * 2**24, _REFUSED
    yield "JPEG", "50,000 comments", "scan.jpg", jpeg[:2] + b"\xff\xfe\0\x03x" * 50_000 + jpeg[2:], _READ | _REFUSED
    yield (
        "JPEG",
        "EXIF that points to itself",
        "scan.jpg",
        jpeg[:2] + b"\xff\xe1\0\x22Exif\0\0" + tiff({})[:8] + bytes(18) + jpeg[2:],
        _READ | _REFUSED,
    )
    yield "JPEG", "CMYK", "scan.jpg", _pillow(np.dstack([_RGB, _GREY]), "JPEG", mode="CMYK"), _READ
    gif = _pillow(_GREY, "GIF")
    yield "GIF", "screen of 65535×65535", "mask.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], _REFUSED
    yield "GIF", "screen of 0×0", "mask.gif", gif[:6] + bytes(4) + gif[10:], _REFUSED | _READ
    frame = gif.index(b"\x2c", 13 + 3 * 2 ** ((gif[10] & 7) + 1) if gif[10] & 128 else 13)
    yield "GIF", "frame of 65535×65535", "mask.gif", gif[: frame + 5] + b"\xff" * 4 + gif[frame + 9 :], _REFUSED
    yield "GIF", "frame outside the screen", "mask.gif", gif[: frame + 1] + b"\xff" * 4 + gif[frame + 5 :], _REFUSED
    frames = [Pillow.fromarray(np.full((8, 8), n * 9, np.uint8)) for n in range(20)]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    yield "GIF", "animation", "mask.gif", out.getvalue(), _REFUSED
    yield (
        "GIF",
        "10⁵ empty extensions",
        "mask.gif",
        gif[:frame] + b"\x21\xfe\0" * 100_000 + gif[frame:],
        _READ | _REFUSED,
    )
    bmp = _pillow(_RGB, "BMP")
    for width, height in ((65535, 65535), (2**31 - 1, 2**31 - 1), (-45, 37), (0, 0), (45, -(2**31))):
        yield (
            "BMP",
            f"claims {width}×{height}",
            "scan.bmp",
            bmp[:18] + struct.pack("<ii", width, height) + bmp[26:],
            _REFUSED,
        )
    rle = bytearray(_pillow(_GREY, "BMP"))
    rle[18:26], rle[30:34] = struct.pack("<ii", 13_000, 13_000), struct.pack("<I", 1)
    yield "BMP", "RLE of 13,000×13,000", "scan.bmp", bytes(rle), _REFUSED
    yield "BMP", "65535 bits", "scan.bmp", bmp[:28] + b"\xff\xff" + bmp[30:], _REFUSED
    yield "BMP", "pixels at 4 GiB", "scan.bmp", bmp[:10] + b"\xff" * 4 + bmp[14:], _REFUSED


def mutants(seed: int) -> Iterator[Mutant]:
    for family, sound in _sound().items():
        for what, name, data in sound:
            yield from harmed(family, what, name, file(name, data), seed)
    for family, name, crafted in (("PNG", "scan.png", _png()), ("TIFF", "scan.tif", _tiffs())):
        for words, content, may in crafted:
            yield Mutant(family, words, file(name, content) if isinstance(content, bytes) else content, may=may)
    for family, words, name, content, may in _others():
        yield Mutant(family, words, file(name, content), may=may)

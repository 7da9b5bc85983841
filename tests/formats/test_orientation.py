"""Orientation tags: all eight values, in every format that has them, against Pillow's `exif_transpose`."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps

from cpfnet import formats
from cpfnet.image import Segmentation
from tests.synthetic import write_raster

TAGS = st.integers(1, 8)
SIZES = st.tuples(st.integers(1, 9), st.integers(1, 9))


def exif(tag: int) -> Pillow.Exif:
    made = Pillow.Exif()
    made[274] = tag
    return made


def indices(shape: tuple[int, int], tag: int) -> np.ndarray:
    """Of each pixel that viewers show, the index of the stored one: Pillow turns a picture of indices."""
    picture = Pillow.fromarray(np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape))
    picture.getexif()[274] = tag
    return np.asarray(ImageOps.exif_transpose(picture))


def as_shown(stored: np.ndarray, tag: int) -> np.ndarray:
    """``(channels, height, width)`` as Pillow turns it."""
    return stored.reshape(len(stored), -1)[:, indices(stored.shape[1:], tag)]


def assert_read_as(path: Path, expected: np.ndarray, tag: int) -> None:
    image = formats.read(path)
    np.testing.assert_array_equal(image.array, expected)
    assert image.array.flags.c_contiguous
    header = formats.read_header(path)
    assert (header.shape, header.channels, header.dtype) == (image.shape, image.channels, image.array.dtype)
    assert [f"tag {tag}" in note for note in image.warnings] == [True] * (tag > 1)
    np.testing.assert_array_equal(formats.read_label(path).array, expected)


def by_pillow(path: Path) -> np.ndarray:
    with (
        path.open("rb") as file,
        Pillow.open(file) as picture,
    ):  # given a path, it mixes up the pixels of raw TIFFs with 5 to 8
        shown = np.asarray(ImageOps.exif_transpose(picture))
    return np.moveaxis(shown.reshape(*shown.shape[:2], -1), -1, 0)


def test_the_right_value_is_what_it_says() -> None:
    """By hand: with 6 the camera's left edge is the top of the picture, from bottom to top; with 8 its right edge."""
    assert indices((2, 3), 6).tolist() == [[3, 0], [4, 1], [5, 2]]
    assert indices((2, 3), 8).tolist() == [[2, 5], [1, 4], [0, 3]]


@settings(max_examples=60, deadline=None)
@given(size=SIZES, tag=TAGS, samples=st.sampled_from([1, 3]), suffix=st.sampled_from([".jpg", ".png", ".JPEG"]))
def test_photographs(tmp_path_factory, size, tag, samples, suffix) -> None:
    path = tmp_path_factory.mktemp("photograph") / f"a{suffix}"
    pixels = np.random.default_rng(tag).integers(0, 256, (*size, samples)[: 2 + (samples == 3)], dtype=np.uint8)
    Pillow.fromarray(pixels).save(path, exif=exif(tag))
    assert_read_as(path, by_pillow(path), tag)


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("place", ["before", "behind", "xmp", "raw profile"])
@pytest.mark.parametrize("tag", range(1, 9))
def test_where_a_png_may_say_it(tmp_path, place, tag) -> None:
    stored = np.arange(6, dtype=np.uint16).reshape(2, 3) * 9999
    data = exif(tag).tobytes().removeprefix(b"Exif\0\0")
    chunk = {
        "xmp": (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="%d"/>' % tag),
        "raw profile": (
            b"tEXt",
            b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(data) + 6, (b"Exif\0\0" + data).hex().encode()),
        ),
    }.get(place, (b"eXIf", data))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks.insert(1 if place == "before" else 2, chunk)
    (tmp_path / "a.png").write_bytes(png(chunks))
    np.testing.assert_array_equal(by_pillow(tmp_path / "a.png"), as_shown(stored[None], tag))
    assert_read_as(tmp_path / "a.png", as_shown(stored[None], tag), tag)


@pytest.mark.parametrize("samples", [1, 3, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"planarconfig": "separate"}, {"tile": (16, 16)}])
def test_tiffs_that_pillow_does_not_read_whole(tmp_path, samples, dtype, options) -> None:
    rng = np.random.default_rng(samples)
    for tag in range(1, 9):
        stored = (rng.random((samples, 5, 7)) * 250).astype(dtype)
        separate = "planarconfig" in options and samples > 1
        pixels = stored if separate else np.moveaxis(stored, 0, -1)
        more = {k: v for k, v in options.items() if k != "planarconfig" or separate}
        if samples > 1 and not separate:
            more["planarconfig"] = "contig"
        path = tmp_path / f"{tag}.tif"
        photometric = "rgb" if samples == 3 else "minisblack"
        extratags = [(274, 3, 1, tag, False)]
        tifffile.imwrite(
            path,
            pixels[..., 0] if samples == 1 else pixels,
            photometric=photometric,
            metadata=None,
            extratags=extratags,
            **more,
        )
        image = formats.read(path)
        np.testing.assert_array_equal(image.array, as_shown(stored, tag))
        assert formats.read_header(path).shape == image.shape
        assert len(image.warnings) == (tag > 1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4"])
def test_tiffs_in_every_compression(tmp_path, compression) -> None:
    rng = np.random.default_rng(0)
    for tag in range(1, 9):
        pixels = rng.integers(0, 256, (16, 24), dtype=np.uint8)
        picture = Pillow.fromarray(pixels > 100) if compression == "group4" else Pillow.fromarray(pixels)
        picture.save(tmp_path / f"{tag}.tif", compression=compression, tiffinfo={274: tag})
        expected = by_pillow(tmp_path / f"{tag}.tif")
        expected = expected.astype(np.uint8) * 255 if expected.dtype == bool else expected
        assert_read_as(tmp_path / f"{tag}.tif", expected, tag)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_palettes_in_tiffs(tmp_path, compression) -> None:
    indices_ = np.random.default_rng(0).integers(0, 4, (16, 24), dtype=np.uint8)
    for tag in range(1, 9):
        picture = Pillow.fromarray(indices_).convert("P")
        picture.putpalette([0, 0, 0, 200, 10, 0, 7, 7, 7, 1, 2, 3])
        picture.save(tmp_path / f"{tag}.tif", compression=compression, tiffinfo={274: tag})
        table = np.uint8([[0, 0, 0], [200, 10, 0], [7, 7, 7], [1, 2, 3]])
        assert_read_as(tmp_path / f"{tag}.tif", as_shown(np.moveaxis(table[indices_], -1, 0), tag), tag)


@pytest.mark.parametrize("tag", [0, 9, 77])
def test_what_is_no_orientation_turns_nothing(tmp_path, tag) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Pillow.fromarray(pixels).save(tmp_path / "a.png", exif=exif(tag))
    Pillow.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={274: tag})
    Pillow.fromarray(pixels).save(tmp_path / "b.tif", tiffinfo={274: 6}, compression="tiff_lzw")
    entry = struct.pack("<HHI", 274, 3, 1)
    raw = (tmp_path / "b.tif").read_bytes()
    at = raw.index(entry) + len(entry)
    (tmp_path / "b.tif").write_bytes(raw[:at] + struct.pack("<H", tag) + raw[at + 2 :])
    for name in ("a.png", "a.tif", "b.tif"):
        assert_read_as(tmp_path / name, pixels[None], 1)


def test_damaged_exif_is_said_and_loses_no_picture(tmp_path) -> None:
    profile = (b"tEXt", b"Raw profile type exif\0\nexif\n       6\nno numbers\n")
    header = (b"IHDR", struct.pack(">IIBBBBB", 3, 1, 8, 0, 0, 0, 0))
    chunks = [header, profile, (b"IDAT", zlib.compress(b"\0\1\2\3")), (b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(png(chunks))
    image = formats.read(tmp_path / "a.png")
    assert image.array.tolist() == [[[1, 2, 3]]]
    assert ["EXIF" in note for note in image.warnings] == [True]
    assert formats.read_header(tmp_path / "a.png").shape == (1, 3)


@settings(max_examples=30, deadline=None)
@given(size=SIZES, tag=TAGS, suffix=st.sampled_from([".jpg", ".png", ".tif", ".nii.gz"]))
def test_masks_are_written_as_viewers_show_the_picture(tmp_path_factory, size, tag, suffix) -> None:
    """Laid on the picture by a viewer, that is by `exif_transpose` of both, each labelled pixel covers its own."""
    folder = tmp_path_factory.mktemp("mask")
    stored = np.random.default_rng(size).integers(0, 2, size, dtype=np.uint8)
    Pillow.fromarray(stored * 255).save(folder / "photo.png", exif=exif(tag))
    image = formats.read(folder / "photo.png")
    written = formats.write(Segmentation(image.array[0], image.affine, image.source), folder / f"mask{suffix}")
    if suffix != ".nii.gz":
        np.testing.assert_array_equal(by_pillow(written), by_pillow(folder / "photo.png"))
        with Pillow.open(written) as picture:
            assert picture.getexif().get(274, 1) == 1
    np.testing.assert_array_equal(formats.read_label(written).array.reshape(image.shape), image.array[0])


def test_maps_of_other_tools_are_turned(tmp_path) -> None:
    values = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", extratags=[(274, 3, 1, 6, False)])
    np.testing.assert_array_equal(formats.read_map(tmp_path / "a.tif"), as_shown(values, 6))


def test_files_without_a_tag_say_nothing(tmp_path) -> None:
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for suffix in (".png", ".jpg", ".tif", ".bmp", ".gif"):
        assert formats.read(write_raster(tmp_path / f"a{suffix}", pixels)).warnings == ()

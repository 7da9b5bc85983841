"""Rasters: written and read by Pillow, tifffile and matplotlib from the other side."""

from __future__ import annotations

import struct
import zlib

import matplotlib.image
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image as Pillow

from cpfnet import formats
from cpfnet.errors import FormatError, OutputError
from cpfnet.image import Image, Segmentation, Source
from cpfnet.labels import pack
from tests.formats.conftest import damaged, image_or_error
from tests.synthetic import shared, write_raster

SIZES = st.tuples(st.integers(1, 17), st.integers(1, 17))
COLOURS = st.sampled_from([0, 1, 128, 255, 0x1000000 + 0xFF0000, 0x1000000 + 0x00FF00, 0x1000000 + 0x123456, 0x1FFFF00])


def raster_source(tmp_path, suffix):
    return Source((tmp_path / f"source{suffix}",), "raster", {"suffix": suffix})


def png16(array: np.ndarray) -> bytes:
    """A 16-bit PNG of ``(height, width, samples)``, made by hand: Pillow writes none with colours."""
    height, width, samples = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[samples], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".png", ".tif", ".bmp", ".gif", ".TIFF"]), colour=st.booleans())
def test_pixels_of_lossless_formats(tmp_path_factory, data, suffix, colour):
    path = tmp_path_factory.mktemp("lossless") / f"a{suffix}"
    shape = (*data.draw(SIZES), *((3,) if colour and suffix != ".gif" else ()))
    pixels = data.draw(hnp.arrays(np.uint8, shape))
    write_raster(path, pixels)
    image = formats.read(path)
    expected = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else pixels[None]
    np.testing.assert_array_equal(image.array, expected)
    assert image.channels == (("red", "green", "blue") if pixels.ndim == 3 else ("grey",))
    assert image.affine is None
    assert image.array.flags.c_contiguous
    header = formats.read_header(path)
    assert (header.shape, header.dtype, header.channels) == (image.shape, image.array.dtype, image.channels)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".png", ".tif", ".bmp", ".gif"]))
def test_label_maps_come_back_value_by_value(tmp_path_factory, data, suffix):
    folder = tmp_path_factory.mktemp("labels")
    values = data.draw(st.sampled_from([st.integers(0, 255), COLOURS]))
    array = data.draw(hnp.arrays(np.int32, SIZES, elements=values))
    path = formats.write(Segmentation(array, None, raster_source(folder, suffix)), folder / "case.1")
    assert path.name == f"case.1{suffix}"
    np.testing.assert_array_equal(pack(formats.read_label(path).array), array)
    with Pillow.open(path) as picture:
        seen = pack(np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0))
    np.testing.assert_array_equal(seen, array)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_labels(tmp_path, suffix):
    array = np.array([[0, 300], [65535, 7]], np.uint16)
    path = formats.write(Segmentation(array), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(formats.read_label(path).array[0], array)
    assert formats.read(path).array.dtype == np.uint16
    if suffix == ".png":
        np.testing.assert_allclose(matplotlib.image.imread(path), array / 65535, atol=1e-7)
    else:
        np.testing.assert_array_equal(tifffile.imread(path), array)


@pytest.mark.parametrize(
    ("suffix", "values"), [(".bmp", [0, 256]), (".gif", [0, 999]), (".png", [0, 70000]), (".png", [-1, 0])]
)
def test_values_that_do_not_fit(tmp_path, suffix, values):
    with pytest.raises(OutputError, match="do not fit") as caught:
        formats.write(Segmentation(np.array([values], np.int32)), tmp_path / f"a{suffix}")
    assert "tiff" in caught.value.fix
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("spread", [7, 64, 256])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".gif"])
def test_many_colours_close_together_stay_apart(tmp_path, spread, suffix):
    rng = np.random.default_rng(spread)
    colours = np.unique(rng.integers(0, spread, (255, 3)), axis=0)
    packed = 0x1000000 + (colours << [16, 8, 0]).sum(axis=1)
    array = rng.choice(packed, (40, 50)).astype(np.int32)
    array[pack(np.stack([array >> 16 & 255, array >> 8 & 255, array & 255]).astype(np.uint8)) < 256] = 0
    path = formats.write(Segmentation(array), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(pack(formats.read_label(path).array), array)


def test_signed_and_mixed_values(tmp_path):
    path = formats.write(Segmentation(np.array([[-5, 70000]], np.int32)), tmp_path / "a.tif")
    np.testing.assert_array_equal(formats.read_label(path).array[0], [[-5, 70000]])
    with pytest.raises(OutputError, match="mix colours with 300"):
        formats.write(Segmentation(np.array([[300, 0x1FF0000]], np.int32)), tmp_path / "b.png")
    with pytest.raises(OutputError, match="float32"):
        formats.write(Segmentation(np.zeros((2, 2), np.float32)), tmp_path / "b.png")
    with pytest.raises(OutputError, match="unknown format"):
        formats.write(Segmentation(np.zeros((2, 2), np.uint8)), tmp_path / "b", format="dicom")


@pytest.mark.parametrize("suffix", [".png", ".gif", ".bmp", ".tif"])
def test_palettes_are_read_by_colour(tmp_path, suffix):
    picture = Pillow.new("P", (2, 2))
    picture.putdata([0, 1, 2, 1])
    picture.putpalette([10, 20, 30, 255, 0, 0, 7, 7, 7])
    picture.save(tmp_path / f"a{suffix}")
    image = formats.read_label(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.array[:, 0, 0], [10, 20, 30])
    np.testing.assert_array_equal(image.array[:, 1], [[7, 255], [7, 0], [7, 0]])
    assert formats.read_header(tmp_path / f"a{suffix}").channels == ("red", "green", "blue")
    picture.putpalette([0, 0, 0, 200, 200, 200, 90, 90, 90])
    picture.save(tmp_path / f"grey{suffix}")
    image = formats.read_label(tmp_path / f"grey{suffix}")
    np.testing.assert_array_equal(image.array, [[[0, 200], [90, 200]]])


@pytest.mark.parametrize(
    ("suffix", "options"), [(".png", {}), (".bmp", {}), (".tif", {}), (".tif", {"compression": "group4"})]
)
def test_one_bit_is_0_and_255(tmp_path, suffix, options):
    bits = np.random.default_rng(0).random((9, 13)) > 0.5
    Pillow.fromarray(bits).save(tmp_path / f"a{suffix}", **options)
    image = formats.read_label(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(image.array[0], 255 * bits)
    assert image.array.dtype == np.uint8


def test_white_is_zero_tiffs_are_inverted(tmp_path):
    stored = np.array([[0, 255], [1, 100]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array[0], 255 - stored)
    with Pillow.open(tmp_path / "a.tif") as picture:
        np.testing.assert_array_equal(np.asarray(picture), 255 - stored)


@pytest.mark.parametrize("samples", [3, 4])
def test_16_bit_colour_png_is_read_whole(tmp_path, samples):
    pixels = np.random.default_rng(1).integers(0, 65536, (5, 7, samples), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(pixels))
    image = formats.read(tmp_path / "a.png")
    np.testing.assert_array_equal(image.array, np.moveaxis(pixels[..., :3], -1, 0))
    assert formats.read_header(tmp_path / "a.png").dtype == image.array.dtype == np.uint16
    with pytest.raises(Exception, match="8-bit RGB"):
        pack(image.array)


def test_16_bit_grey_png(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, (5, 7, 1), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png16(pixels))
    image = formats.read(tmp_path / "a.png")
    np.testing.assert_array_equal(image.array[0], pixels[..., 0])
    (tmp_path / "b.png").write_bytes(png16(np.concatenate([pixels, pixels], axis=-1)))
    with pytest.raises(FormatError, match="16 bits with alpha"):
        formats.read(tmp_path / "b.png")


TIFF_TYPES = [np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64]


@pytest.mark.parametrize("dtype", TIFF_TYPES)
@pytest.mark.parametrize("samples", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib", "predictor": 2}, {"planarconfig": "separate"}, {"bigtiff": True}, {"byteorder": ">"}],
)
def test_tiff_samples(tmp_path, dtype, samples, options):
    if options.get("predictor") and np.dtype(dtype).kind == "f":
        options = {"compression": "zlib"}
    if samples == 1 and "planarconfig" in options:
        options = {}
    rng = np.random.default_rng(2)
    ends = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else None
    pixels = (
        rng.integers(ends.min, ends.max, (samples, 6, 9), dtype)
        if ends
        else rng.normal(size=(samples, 6, 9)).astype(dtype)
    )
    stored = pixels if options.get("planarconfig") else np.moveaxis(pixels, 0, -1)
    stored = stored[..., 0] if samples == 1 else stored
    photometric = "rgb" if samples == 3 and np.dtype(dtype).kind == "u" else "minisblack"
    if samples > 1 and "planarconfig" not in options:
        options = {**options, "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, metadata=None, **options)
    image = formats.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array, pixels)
    assert image.array.dtype == dtype
    image_or_error(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "raw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiff_compressions(tmp_path, compression, dtype):
    pixels = (np.arange(63).reshape(7, 9) * (1000 if dtype == np.uint16 else 1.5)).astype(dtype)
    Pillow.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    image = formats.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(image.array[0], pixels)
    assert formats.read_header(tmp_path / "a.tif").dtype == image.array.dtype == dtype


def test_smaller_copies_in_a_tiff_do_not_count(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        writer.write(np.full((64, 64), 7, np.uint8), subifds=1, tile=(32, 32))
        writer.write(np.full((32, 32), 7, np.uint8), subfiletype=1, tile=(32, 32))
        writer.write(np.full((16, 16), 9, np.uint8), subfiletype=1)
    assert formats.read(tmp_path / "pyramid.tif").array.shape == (1, 64, 64)
    with tifffile.TiffWriter(tmp_path / "thumbnail.tif") as writer:
        writer.write(np.full((64, 64), 7, np.uint8))
        writer.write(np.full((11, 13, 3), 9, np.uint8), photometric="rgb", subfiletype=1)
    assert formats.read(tmp_path / "thumbnail.tif").array.shape == (1, 64, 64)


def test_tiff_with_the_predictor_for_floats(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(9, 11)).astype(np.float32)
    Pillow.fromarray(pixels).save(tmp_path / "a.tif", compression="tiff_adobe_deflate", tiffinfo={317: 3})
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array[0], pixels)


def test_tiff_that_nothing_decodes_whole(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.uint16), photometric="rgb")
    raw = (tmp_path / "a.tif").read_bytes()
    at = raw.index(struct.pack("<HHIHH", 259, 3, 1, 1, 0)) + 8
    (tmp_path / "a.tif").write_bytes(raw[:at] + struct.pack("<H", 5) + raw[at + 2 :])
    with pytest.raises(FormatError, match=r"3 × 16 bits(.|\n)*deflate"):
        formats.read(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped_unless_it_is_the_content(tmp_path, suffix):
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    image = formats.read(write_raster(tmp_path / f"a{suffix}", pixels))
    np.testing.assert_array_equal(image.array, np.moveaxis(pixels[..., :3], -1, 0))
    assert formats.read_header(tmp_path / f"a{suffix}").channels == image.channels
    grey = formats.read(write_raster(tmp_path / f"b{suffix}", pixels[..., :2]))
    np.testing.assert_array_equal(grey.array[0], pixels[..., 0])
    pixels[..., :3] = 17
    with pytest.raises(FormatError, match=r"alpha channel(.|\n)*grey"):
        formats.read_label(write_raster(tmp_path / f"c{suffix}", pixels))


def test_jpeg(tmp_path):
    pixels = np.uint8(np.add.outer(np.arange(40), 2 * np.arange(56)))
    grey = formats.read(write_raster(tmp_path / "a.jpg", pixels, quality=95))
    np.testing.assert_allclose(grey.array[0].astype(int), pixels, atol=4)
    colour = formats.read(write_raster(tmp_path / "b.JPEG", np.stack([pixels, pixels // 2, 255 - pixels], -1)))
    assert colour.array.shape == (3, 40, 56)
    written = formats.write(Segmentation(pixels, None, grey.source), tmp_path / "mask")
    assert written.name == "mask.png"
    assert formats.write(Segmentation(pixels, None, grey.source), tmp_path / "other.jpg").name == "other.png"
    np.testing.assert_array_equal(formats.read(written).array[0], pixels)


def test_colours_without_a_way_to_rgb(tmp_path):
    Pillow.new("CMYK", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(FormatError, match=r"CMYK(.|\n)*RGB"):
        formats.read(tmp_path / "a.tif")


def test_animations_are_refused_and_a_second_picture_of_a_jpeg_is_not(tmp_path):
    frames = [Pillow.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 90, 200)]
    for name in ("a.gif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(FormatError, match="animation of 3 frames"):
            formats.read(tmp_path / name)
    frames[1].save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=frames[2:])
    assert formats.read(tmp_path / "phone.jpg").array.mean() == pytest.approx(90, abs=2)


def test_content_counts_more_than_the_suffix_among_rasters(tmp_path):
    write_raster(tmp_path / "a.png", np.full((3, 4), 9, np.uint8)).rename(tmp_path / "a.jpg")
    image = formats.read(tmp_path / "a.jpg")
    assert formats.write(Segmentation(image.array[0], None, image.source), tmp_path / "b").suffix == ".png"


def test_maps_are_pages_of_a_tiff(tmp_path):
    values = np.random.default_rng(4).random((2, 5, 6), dtype=np.float32)
    mask = Segmentation(np.zeros((5, 6), np.uint8), None, raster_source(tmp_path, ".gif"))
    path = formats.write_map(values, mask, tmp_path / "p.png", names=["background", "gefäß"])
    assert path.name == "p.tif"
    np.testing.assert_array_equal(tifffile.imread(path), values)
    np.testing.assert_array_equal(formats.read_map(path), values)
    with Pillow.open(path) as picture:
        assert picture.n_frames == 2
        np.testing.assert_array_equal(np.asarray(picture), values[0])
    with tifffile.TiffFile(path) as tif:
        assert [page.description for page in tif.pages] == ["background", "gefäß"]
    with pytest.raises(OutputError, match="do not fit"):
        formats.write_map(values[:, 1:], mask, tmp_path / "q")


def test_several_files_are_channels(tmp_path):
    paths = [
        write_raster(tmp_path / f"{n}.png", np.full((3, 4), n, dtype)) for n, dtype in ((1, np.uint8), (2, np.uint16))
    ]
    image = formats.read(paths)
    np.testing.assert_array_equal(image.array[:, 0, 0], [1, 2])
    header = formats.read_header(paths)
    assert (header.channels, header.dtype) == (image.channels, image.array.dtype)
    with pytest.raises(FormatError, match="size 3×4 against 3×5"):
        formats.read([paths[0], write_raster(tmp_path / "c.png", np.zeros((3, 5), np.uint8))])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), suffix=st.sampled_from([".png", ".tif", ".jpg", ".bmp", ".gif", "-lzw.tif", "-zip.tif"]))
def test_damaged_bytes_give_an_image_or_a_format_error(tmp_path_factory, data, suffix):
    path = tmp_path_factory.mktemp("damaged") / f"a{suffix}"
    compression = {"-lzw.tif": {"compression": "tiff_lzw"}, "-zip.tif": {"compression": "tiff_adobe_deflate"}}.get(
        suffix, {}
    )
    write_raster(
        path, np.arange(13 * 11 * 3, dtype=np.uint32).reshape(13, 11, 3).astype(np.uint8)[..., 0], **compression
    )
    raw = bytearray(path.read_bytes())
    path.write_bytes(damaged(raw, data))
    image_or_error(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".gif", ".tif"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_files_cut_short_are_refused(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = write_raster(tmp_path / f"a{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(FormatError) as caught:
        formats.read(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
def test_tiff_without_its_last_tile_is_not_filled_up(tmp_path, options):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", noise, tile=(16, 16), **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        last = max(tif.pages[0].dataoffsets)
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:last])
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match="cut short"):
            read(tmp_path / "a.tif")


def test_greys_of_few_bits_and_small_palettes_are_colours(tmp_path):
    def png(bits: int, kind: int, row: bytes, palette: bytes = b"") -> bytes:
        chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, kind, 0, 0, 0))]
        chunks += [(b"PLTE", palette)] if palette else []
        chunks += [(b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
        )

    (tmp_path / "a.png").write_bytes(png(4, 0, b"\x01\x2f"))
    np.testing.assert_array_equal(formats.read_label(tmp_path / "a.png").array[0], [[0, 17, 34, 255]])
    (tmp_path / "b.png").write_bytes(png(2, 0, b"\x1b"))
    np.testing.assert_array_equal(formats.read_label(tmp_path / "b.png").array[0], [[0, 85, 170, 255]])
    (tmp_path / "c.png").write_bytes(png(4, 3, b"\x01\x20", bytes([9, 8, 7, 255, 0, 0, 0, 0, 255])))
    np.testing.assert_array_equal(
        formats.read_label(tmp_path / "c.png").array[:, 0], [[9, 255, 0, 9], [8, 0, 0, 8], [7, 0, 255, 7]]
    )


def test_decompression_bomb(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", 0)
    )
    with pytest.raises(FormatError, match="3600000000 pixels"):
        formats.read(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for name in ("ImageWidth", "ImageLength"):
            tif.pages[0].tags[name].overwrite(60000)
    with pytest.raises(FormatError, match="60000×60000"):
        formats.read(tmp_path / "a.tif")


def test_drive(tmp_path):
    root = shared("DRIVE/training")
    photo = formats.read(root / "images/21_training.tif")
    assert photo.array.shape == (3, 584, 565)
    with Pillow.open(root / "images/21_training.tif") as picture:
        np.testing.assert_array_equal(photo.array, np.moveaxis(np.asarray(picture), -1, 0))
    for name in ("1st_manual/21_manual1.gif", "mask/21_training_mask.gif"):
        label = formats.read_label(root / name)
        assert label.array.shape == (1, 584, 565)
        assert set(np.unique(label.array)) == {0, 255}
        path = formats.write(Segmentation(label.array[0], None, photo.source), tmp_path / formats.stem(name))
        assert path.suffix == ".tif"
        np.testing.assert_array_equal(tifffile.imread(path), label.array[0])
        gif = formats.write(Segmentation(label.array[0], None, label.source), tmp_path / formats.stem(name))
        assert gif.suffix == ".gif"
        np.testing.assert_array_equal(formats.read_label(gif).array, label.array)


@pytest.mark.parametrize("folder", ["PH2", "STARE_10", "ChestXray"])
def test_other_real_rasters(folder):
    root = shared(folder)
    for kind in ("images", "masks"):
        path = sorted((root / kind).iterdir())[0]
        image, header = formats.read(path), formats.read_header(path)
        assert (header.shape, header.dtype, header.channels) == (image.shape, image.array.dtype, image.channels)
        assert isinstance(image, Image)

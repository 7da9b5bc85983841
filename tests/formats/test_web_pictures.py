"""WebP, JPEG 2000 and CMYK JPEG: read as far as no value is changed in silence."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.formats.lossy import LossyLabelError
from cpfnet.image import RGB, Segmentation

GREY = (np.add.outer(np.arange(37) * 5, np.arange(45) * 3) % 256).astype(np.uint8)
COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=-1)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.webp", {"lossless": True, "exact": True}), ("a.jp2", {}), ("a.j2k", {"no_jp2": True}), ("A.JP2", {})],
)
@pytest.mark.parametrize("kind", ["RGB", "RGBA"])
def test_values_without_loss(tmp_path, name, options, kind):
    array = COLOURS if kind == "RGB" else np.dstack([COLOURS, np.full_like(GREY, 200)])
    Pillow.fromarray(array).save(tmp_path / name, **options)
    image = formats.read(tmp_path / name)
    assert image.channels == formats.read_header(tmp_path / name).channels == RGB
    np.testing.assert_array_equal(image.array, np.moveaxis(COLOURS, -1, 0))
    written = formats.write(Segmentation(GREY, None, image.source), tmp_path / "mask")
    assert written.name == "mask.png"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_jpeg_2000(tmp_path, dtype):
    array = GREY.astype(dtype) * (257 if dtype == np.uint16 else 1)
    Pillow.fromarray(array).save(tmp_path / "a.jp2")
    image = formats.read(tmp_path / "a.jp2")
    assert image.array.dtype == formats.read_header(tmp_path / "a.jp2").dtype == dtype
    np.testing.assert_array_equal(image.array[0], array)


@pytest.mark.parametrize(("kind", "words"), [(11, "12 bits"), (0, " 1 bits"), (135, "signed 8 bits")])
def test_samples_that_would_be_changed_are_refused(tmp_path, kind, words):
    Pillow.fromarray(GREY).save(tmp_path / "a.jp2")
    data = bytearray((tmp_path / "a.jp2").read_bytes())
    at = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[at - 2 : at + 1] == struct.pack(">HB", 1, 7)
    data[at] = kind
    (tmp_path / "a.jp2").write_bytes(data)
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=words):
            read(tmp_path / "a.jp2")


def test_the_orientation_of_webp(tmp_path):
    exif = Pillow.Exif()
    exif[274] = 6
    Pillow.fromarray(COLOURS).save(tmp_path / "a.webp", lossless=True, exif=exif)
    image = formats.read(tmp_path / "a.webp")
    np.testing.assert_array_equal(image.array, np.rot90(np.moveaxis(COLOURS, -1, 0), -1, (1, 2)))
    assert formats.read_header(tmp_path / "a.webp").shape == image.shape


@pytest.mark.parametrize(("name", "options"), [("a.webp", {"quality": 90}), ("a.jp2", {"irreversible": True})])
def test_classes_stored_with_loss_are_refused(tmp_path, name, options):
    classes = np.zeros((64, 64), np.uint8)
    classes[8:30, 8:30], classes[34:60, 34:60] = 1, 2
    Pillow.fromarray(np.dstack([classes] * 3)).save(tmp_path / name, **options)
    with pytest.raises(LossyLabelError, match="small numbers"):
        formats.read_label(tmp_path / name)
    Pillow.fromarray(np.dstack([classes] * 3)).save(tmp_path / "b.webp", lossless=True)
    np.testing.assert_array_equal(formats.read_label(tmp_path / "b.webp").array[0], classes)


def test_an_animation_is_refused(tmp_path):
    frames = [Pillow.fromarray(COLOURS), Pillow.fromarray(COLOURS[::-1])]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(FormatError, match="animation of 2 frames"):
        formats.read(tmp_path / "a.webp")


def test_cmyk_photographs_are_read_with_a_message(tmp_path):
    picture = Pillow.fromarray(np.full((32, 32, 3), (200, 100, 50), np.uint8)).convert("CMYK")
    picture.save(tmp_path / "a.jpg", quality=100)
    image = formats.read(tmp_path / "a.jpg")
    assert image.channels == formats.read_header(tmp_path / "a.jpg").channels == RGB
    assert np.abs(image.array.mean(axis=(1, 2)) - (200, 100, 50)).max() < 3
    assert any("CMYK" in warning for warning in image.warnings)

"""Files without a checksum that are longer than they say: bytes that came in between shift what stands behind them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from cpfnet import formats
from cpfnet.errors import FormatError
from tests.data import write_nifti

PIXELS = np.random.default_rng(0).integers(0, 255, (24, 32), dtype=np.uint8)
VOLUME = np.random.default_rng(0).integers(0, 2000, (5, 12, 14)).astype(np.int16)


def _tiff(path: Path) -> None:
    tifffile.imwrite(path, PIXELS)


def _pillow(path: Path) -> None:
    Pillow.fromarray(PIXELS).save(path)


def _palette(path: Path) -> None:
    Pillow.fromarray(PIXELS).convert("P").save(path)


def _nifti(path: Path) -> None:
    write_nifti(path, VOLUME)


WRITERS = {"a.nii": _nifti, "a.nii.gz": _nifti, "a.bmp": _pillow, "p.bmp": _palette, "a.tif": _tiff, "b.tif": _pillow, "c.tif": _palette}  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(name=st.sampled_from(sorted(WRITERS)), count=st.integers(1, 700), place=st.floats(0, 1), zeros=st.booleans())
def test_bytes_that_came_in_between_are_refused(tmp_path_factory, name, count, place, zeros) -> None:
    path = tmp_path_factory.mktemp("length") / name
    WRITERS[name](path)
    packed = path.suffix == ".gz"
    whole = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    pixels = VOLUME.nbytes if "nii" in name else PIXELS.nbytes
    at = len(whole) - round(place * pixels)
    damaged = whole[:at] + (bytes(count) if zeros else whole[:count]) + whole[at:]
    path.write_bytes(gzip.compress(damaged) if packed else damaged)
    with pytest.raises(FormatError, match="longer than"):
        formats.read(path)
    if not packed:
        with pytest.raises(FormatError, match="longer than"):
            formats.read_header(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_what_other_tools_write_has_its_length(tmp_path, dtype, kind) -> None:
    image = kind(VOLUME.astype(dtype).T, np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of any length"))
    for suffix in (".nii", ".nii.gz"):
        nibabel.save(image, tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(formats.read(tmp_path / f"a{suffix}").array[0], VOLUME.astype(dtype))
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOLUME.astype(dtype)), str(tmp_path / f"b{suffix}"))
        np.testing.assert_array_equal(formats.read(tmp_path / f"b{suffix}").array[0], VOLUME.astype(dtype))


@pytest.mark.parametrize("options", [{}, {"imagej": True}, {"ome": True}, {"bigtiff": True}, {"tile": (16, 16)}, {"description": "a picture"}, {"iccprofile": b"icc"}])  # fmt: skip
def test_tiffs_with_more_than_pixels_are_read(tmp_path, options) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array[0], PIXELS)


def test_a_bitmap_that_does_not_tell_its_size_is_read(tmp_path) -> None:
    _pillow(tmp_path / "a.bmp")
    raw = bytearray((tmp_path / "a.bmp").read_bytes())
    raw[2:6] = bytes(4)
    (tmp_path / "a.bmp").write_bytes(raw)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.bmp").array[0], PIXELS)

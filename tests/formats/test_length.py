"""Files without a checksum that are longer than they say: bytes that came in between shift what stands behind them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from cpfnet import formats
from cpfnet.errors import FormatError
from tests.synthetic import write_nifti, write_photograph

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


WRITERS = {
    "a.nii": _nifti,
    "a.nii.gz": _nifti,
    "a.bmp": _pillow,
    "p.bmp": _palette,
    "a.tif": _tiff,
    "b.tif": _pillow,
    "c.tif": _palette,
}


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


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True},
        {"ome": True},
        {"bigtiff": True},
        {"tile": (16, 16)},
        {"description": "a picture"},
        {"iccprofile": b"icc"},
    ],
)
def test_tiffs_with_more_than_pixels_are_read(tmp_path, options) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.tif").array[0], PIXELS)


def test_a_bitmap_that_does_not_tell_its_size_is_read(tmp_path) -> None:
    _pillow(tmp_path / "a.bmp")
    raw = bytearray((tmp_path / "a.bmp").read_bytes())
    raw[2:6] = bytes(4)
    (tmp_path / "a.bmp").write_bytes(raw)
    np.testing.assert_array_equal(formats.read(tmp_path / "a.bmp").array[0], PIXELS)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("empty", [False, True])
def test_bytes_inside_the_pixels_of_a_dicom_object_are_said_or_refused(tmp_path, syntax, empty) -> None:
    """Zeros at the end may be padding, as some archives leave it, or the end of shifted pixels: this is a warning."""
    pixels = PIXELS.copy()
    if empty:
        pixels[12:] = 0
    made = pydicom.dcmread(write_photograph(tmp_path / "a.dcm", pixels))
    if syntax == ExplicitVRBigEndian:
        made.PixelData = pixels.tobytes()
    made.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(
        tmp_path / "a.dcm",
        made,
        implicit_vr=syntax == ImplicitVRLittleEndian,
        little_endian=syntax != ExplicitVRBigEndian,
        force_encoding=True,
    )
    whole = (tmp_path / "a.dcm").read_bytes()
    np.testing.assert_array_equal(formats.read(tmp_path / "a.dcm").array[0], pixels)
    assert not any("behind its pixels" in note for note in formats.read(tmp_path / "a.dcm").warnings)
    outcomes = set()
    for count in (1, 2, 6, 8, 12, 100):
        at = len(whole) - PIXELS.nbytes + 100
        (tmp_path / "a.dcm").write_bytes(whole[: at + count] + whole[at:])
        try:
            assert sum("behind its pixels" in note for note in formats.read(tmp_path / "a.dcm").warnings) == 1
            outcomes.add("warned")
        except FormatError:
            outcomes.add("refused")
    assert outcomes == ({"warned"} if empty else {"warned", "refused"})


def test_elements_behind_the_pixels_are_in_order(tmp_path) -> None:
    made = pydicom.dcmread(write_photograph(tmp_path / "a.dcm", PIXELS))
    made.add_new(0xFFFCFFFC, "OB", bytes(128))  # data set trailing padding, PS3.10, 7.2
    made.save_as(tmp_path / "a.dcm")
    assert not any("behind its pixels" in note for note in formats.read(tmp_path / "a.dcm").warnings)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_pages_that_lead_in_a_circle_end(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(64, dtype=np.uint8).reshape(8, 8), compression=compression, metadata=None)
    content = bytearray(path.read_bytes())
    first = int.from_bytes(content[4:8], "little")
    behind = first + 2 + 12 * int.from_bytes(content[first : first + 2], "little")
    content[behind : behind + 4] = content[4:8]  # the next page is the first one
    path.write_bytes(content)
    for read in (formats.read, formats.read_label):
        assert np.array_equal(read(path).array[0], np.arange(64).reshape(8, 8))
    with pytest.raises(FormatError, match="lead back to an earlier one"):
        formats.read_map(path)

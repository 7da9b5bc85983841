"""Small files that would fill the memory or the time, and damage that only a checksum shows."""

from __future__ import annotations

import gzip
import struct
import zlib

import nibabel
import numpy as np
import pytest

from cpfnet import formats
from cpfnet.errors import FormatError
from tests.synthetic import phantom, write_nifti, write_raster


def test_compressed_volumes_are_checked_to_their_checksum(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", phantom()[0])
    data = gzip.decompress(path.read_bytes())
    harmed = bytearray(gzip.compress(data))
    harmed[-8] ^= 1
    path.write_bytes(harmed)
    with pytest.raises(FormatError, match="CRC"):
        formats.read(path)


def test_a_volume_compressed_beyond_reason_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.nii.gz"
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"][:4], header["vox_offset"], header["magic"] = (3, 1024, 1024, 1024), 352, b"n+1"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + bytes(2**22))
    with pytest.raises(FormatError, match=r"decompression bomb(.|\n)*without compression"):
        formats.read(path)


def test_header_extensions_of_gigabytes_are_not_unpacked(tmp_path):
    header = nibabel.Nifti1Header()
    header["dim"][:4], header["vox_offset"], header["magic"] = (3, 4, 4, 4), 2.0**31, b"n+1"
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    with pytest.raises(FormatError, match="voxels begin at byte"):
        formats.read(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("size", [-1.0, 0.0, np.nan])
def test_voxel_sizes_that_cannot_be_are_refused(tmp_path, size):
    path = write_nifti(tmp_path / "a.nii", phantom()[0])
    data = bytearray(path.read_bytes())
    data[80:84], data[252:256] = struct.pack("<f", size), bytes(4)  # pixdim[1]; no qform, no sform
    path.write_bytes(data)
    with pytest.raises(FormatError, match="voxel size"):
        formats.read(path)


def test_scaled_volumes_hold_one_copy_of_their_voxels(tmp_path):
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.integers(-9, 9, (5, 6, 7, 2), np.int16), np.eye(4))
    image.header.set_slope_inter(0.1, 3)
    nibabel.save(image, tmp_path / "a.nii.gz")
    expected = np.float32(image.dataobj.astype(np.float64) * np.float32(0.1).astype(float) + 3)
    assert np.array_equal(formats.read(tmp_path / "a.nii.gz").array, expected.transpose(3, 2, 1, 0))


def test_a_photograph_of_fill_bytes_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8" + b"\xff" * 2**24)
    with pytest.raises(FormatError, match="fill bytes"):
        formats.read(tmp_path / "a.jpg")


def test_a_strip_that_unpacks_to_more_than_its_pixels_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    write_raster(path, np.zeros((8, 8), np.uint8), compression="tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    strip = zlib.compress(np.random.default_rng(0).bytes(200_000))
    at, count = (data.index(struct.pack("<HHI", tag, kind, 1)) + 8 for tag, kind in ((273, 4), (279, 4)))
    data[at : at + 4], data[count : count + 4] = struct.pack("<I", len(data)), struct.pack("<I", len(strip))
    path.write_bytes(bytes(data) + strip)
    with pytest.raises(FormatError, match="decompression bomb"):
        formats.read(path)

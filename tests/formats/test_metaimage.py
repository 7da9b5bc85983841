"""MetaImage: geometry and values against SimpleITK, in both directions."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError, OutputError
from cpfnet.image import Image, Segmentation
from tests.formats.conftest import assert_same_points, damaged, image_or_error
from tests.formats.headers import META
from tests.formats.test_nrrd import ANGLES, DTYPES, PLACES, SIZES, SPACINGS, VOLUME, itk_image
from tests.synthetic import affine, orientations, phantom


def handmade(path: Path, data: bytes = b"", **fields: str | None) -> Path:
    """A file of ``VOLUME`` with these header fields; None leaves one out."""
    own: dict[str, str | None] = META | {"CenterOfRotation": "0 0 0", "AnatomicalOrientation": "RAI"}
    own |= {key: value for key, value in fields.items() if key != "ElementDataFile"}
    own["ElementDataFile"] = fields.get("ElementDataFile", "LOCAL")
    head = [f"{key} = {value}" for key, value in own.items() if value is not None]
    path.write_bytes(("\n".join(head) + "\n").encode() + (data or VOLUME.tobytes()))
    return path


@settings(max_examples=60, deadline=None)
@given(SIZES, SPACINGS, ANGLES, PLACES, st.sampled_from(DTYPES), st.booleans(), st.sampled_from(["a.mha", "a.mhd"]))
def test_any_oblique_grid_that_simpleitk_writes(tmp_path_factory, shape, spacing, degrees, origin, dtype, packed, name):
    folder = tmp_path_factory.mktemp("grid")
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = folder / name
    sitk.WriteImage(itk_image(values, affine(spacing, degrees=degrees, origin=origin)), str(path), packed)
    image = formats.read(path)
    assert image.array.dtype == dtype
    assert_same_points(image, path)
    assert image.spacing == pytest.approx(spacing[::-1])
    assert not image.warnings
    header = formats.read_header(path)
    np.testing.assert_array_equal(header.affine, image.affine)
    assert (header.shape, header.dtype) == (image.shape, image.array.dtype)
    mask = (np.arange(np.prod(shape)) % 7).astype(np.uint8).reshape(shape)
    written = formats.write(Segmentation(mask, image.affine, image.source), folder / "b")
    assert written.name == "b.mha"
    back = formats.read_label(written)
    assert_same_points(back, written)
    np.testing.assert_array_equal(back.array[0], mask)
    np.testing.assert_allclose(back.affine, image.affine, atol=1e-12)


@pytest.mark.parametrize(("axes", "signs"), list(orientations()))
def test_all_48_orientations(tmp_path, axes, signs):
    scan = phantom((5, 6, 7))[0].astype(np.int16)
    matrix = affine((0.7, 1.3, 3.1), axes=axes, signs=signs, degrees=(7, -12, 23))
    path = tmp_path / "a.mha"
    sitk.WriteImage(itk_image(scan, matrix), str(path))
    image = formats.read(path)
    assert_same_points(image, path)
    assert_same_points(image, formats.write_image(image, tmp_path / "b.mha"))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_channels(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 255, (2, 4, 5, 3)).astype(dtype)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "a.mha"))
    image = formats.read(tmp_path / "a.mha")
    np.testing.assert_array_equal(image.array, np.moveaxis(values, -1, 0))
    assert formats.read_header(tmp_path / "a.mha").channels == image.channels == ("channel0", "channel1", "channel2")
    written = formats.write_image(image, tmp_path / "b.mha")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(written))), values)
    sitk.WriteImage(sitk.GetImageFromArray(np.moveaxis(values, -1, 0), isVector=False), str(tmp_path / "c.mha"))
    np.testing.assert_array_equal(formats.read(tmp_path / "c.mha").array, np.moveaxis(values, -1, 0))


def test_maps_and_colours(tmp_path):
    turned = np.diag([2.0, -1, 1, 1])[:, [2, 1, 0, 3]]
    for count in (1, 3):
        values = np.random.default_rng(0).random((count, 2, 3, 4), dtype=np.float32)
        segmentation = Segmentation(np.zeros((2, 3, 4), np.uint8), turned)
        path = formats.write_map(values, segmentation, tmp_path / f"p{count}", format="mha")
        np.testing.assert_array_equal(formats.read_map(path), values)
        np.testing.assert_array_equal(formats.read(path).affine, turned)
    with pytest.raises(OutputError, match="colours"):
        formats.write(Segmentation(np.full((1, 1, 1), 0x1FF0000), np.eye(4)), tmp_path / "a", format="mha")
    sheared = np.eye(4)
    sheared[1, 0] = 0.1
    with pytest.raises(OutputError, match="right angles"):
        formats.write(Segmentation(np.zeros((1, 1, 1), np.uint8), sheared), tmp_path / "a", format="mha")
    with pytest.raises(OutputError, match="float16"):
        formats.write_image(Image(values.astype(np.float16), turned), tmp_path / "h.mha")


def test_encodings_and_byte_orders(tmp_path):
    swapped = VOLUME.astype(">i2").tobytes()
    text = " ".join(map(str, VOLUME.ravel())).encode()
    (tmp_path / "v.dat").write_bytes(b"a header of 20 bytes" + VOLUME.tobytes())
    for fields, data in (
        ({"BinaryDataByteOrderMSB": "True"}, swapped),
        ({"BinaryDataByteOrderMSB": None, "ElementByteOrderMSB": "True"}, swapped),
        ({"BinaryData": "False"}, text),
        ({"CompressedData": "True"}, zlib.compress(VOLUME.tobytes())),
        ({"HeaderSize": "20", "ElementDataFile": "v.dat"}, b" "),
        ({"HeaderSize": "-1", "ElementDataFile": "v.dat"}, b" "),
    ):
        path = handmade(tmp_path / "a.mhd", data, **fields)
        image = formats.read(path)
        np.testing.assert_array_equal(image.array[0], VOLUME)
        np.testing.assert_array_equal(image.affine[:3, 3], (1, 2, 3))
        assert image.array.dtype == formats.read_header(path).dtype == np.int16
        if "ElementDataFile" in fields:
            assert image.source.paths == (path, tmp_path / "v.dat")


def test_what_the_header_leaves_open_is_said(tmp_path):
    image = formats.read(handmade(tmp_path / "a.mha", TransformMatrix=None, AnatomicalOrientation="LPS"))
    assert "'LPS' has no matrix" in image.warnings[0]
    assert_same_points(image, tmp_path / "a.mha")
    image = formats.read(handmade(tmp_path / "a.mha", Offset=None, Position="4 5 6"))
    np.testing.assert_array_equal(image.affine[:3, 3], (4, 5, 6))
    assert "no position" in formats.read(handmade(tmp_path / "a.mha", Offset=None)).warnings[0]
    assert formats.read(handmade(tmp_path / "a.mha", ElementSpacing=None)).affine is None
    assert formats.read(handmade(tmp_path / "a.mha", ElementSpacing=None, ElementSize="1 1 3")).spacing == (3, 1, 1)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"NDims": None}, "does not say 'ndims'"),
        ({"ElementType": None}, "does not say 'elementtype'"),
        ({"ElementDataFile": None}, "ElementDataFile|not understood"),
        ({"ObjectType": "Mesh"}, "mesh"),
        ({"DimSize": "5 4"}, "axes of the sizes"),
        ({"DimSize": "5 0 3"}, "axes of the sizes"),
        ({"DimSize": "5 -4 3"}, "axes of the sizes"),
        ({"DimSize": "500000000 400000000 300000000"}, "cut short"),
        ({"DimSize": "500000000 400000000 300000000", "CompressedData": "True"}, "cut short"),
        ({"DimSize": "500000000 400000000 300000000", "BinaryData": "False"}, "cut short"),
        ({"DimSize": "5 4 2"}, "longer than"),
        ({"DimSize": "5 4 4"}, "cut short"),
        ({"ElementNumberOfChannels": "0"}, "0 channels"),
        ({"ElementNumberOfChannels": "3"}, "cut short"),
        ({"ElementNumberOfChannels": "x"}, "no integer"),
        ({"NDims": "5", "DimSize": "5 4 3 1 1"}, "5 axes"),
        ({"ElementType": "MET_STRING"}, "type"),
        ({"TransformMatrix": "1 0 0"}, "3 numbers as transformmatrix"),
        ({"TransformMatrix": "1 0 0 0 1 0 1 1 0"}, "no volume"),
        ({"TransformMatrix": "1 0 0 0 nan 0 1 1 0"}, "not finite"),
        ({"TransformMatrix": "1 0 0 0 a 0 1 1 0"}, "no numbers"),
        ({"Offset": "1 inf 2"}, "not finite"),
        ({"ElementSpacing": "1 0 2"}, "no volume"),
        ({"ElementSpacing": "1 -1 2"}, "no volume"),
        ({"DistanceUnits": "furlong"}, "DistanceUnits"),
        ({"DistanceUnits": "cm"}, "which ITK takes for mm"),
        ({"ElementToIntensityFunctionSlope": "2"}, "scales its values"),
        ({"ElementDataFile": "LIST"}, "several files"),
        ({"ElementDataFile": "slice%03d.raw 1 30 1"}, "several files"),
        ({"ElementDataFile": "/etc/passwd"}, "outside its own folder"),
        ({"ElementDataFile": "../a.raw"}, "outside its own folder"),
        ({"ElementDataFile": "gone.raw"}, "no such file"),
        ({"HeaderSize": "-7"}, "HeaderSize"),
        ({"HeaderSize": "999999"}, "cut short"),
        ({"Position": "1 2 3"}, "twice"),
    ],
)
def test_broken_headers(tmp_path, fields, words):
    path = handmade(tmp_path / "a.mha", **fields)
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=words) as caught:
            read(path)
        assert caught.value.where == str(path)
        assert caught.value.fix


def test_bombs_and_damage_in_compressed_voxels(tmp_path):
    bomb = zlib.compress(bytes(2**23)) + bytes(2**22)
    with pytest.raises(FormatError, match="decompression bomb"):
        formats.read(handmade(tmp_path / "a.mha", bomb, DimSize="1024 1024 1024", CompressedData="True"))
    whole = zlib.compress(VOLUME.tobytes())
    for data, words in (
        (zlib.compress(VOLUME.tobytes() + bytes(10**6)), "longer than"),
        (zlib.compress(VOLUME.tobytes()[:-2]), "cut short"),
        (whole[:-6], "end too early"),
        (whole + b"x", "longer than"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "cannot be decoded"),
    ):
        with pytest.raises(FormatError, match=words):
            formats.read(handmade(tmp_path / "a.mha", data, CompressedData="True"))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_a_format_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.mha"
    packed = data.draw(st.booleans())
    content = zlib.compress(VOLUME.tobytes()) if packed else VOLUME.tobytes()
    raw = bytearray(handmade(path, content, CompressedData=str(packed)).read_bytes())
    path.write_bytes(damaged(raw, data))
    image_or_error(path)


def test_a_place_without_spacing_is_left_out_aloud(tmp_path):
    image = formats.read(handmade(tmp_path / "a.mha", ElementSpacing=None))
    assert image.affine is None
    assert any("no ElementSpacing" in warning for warning in image.warnings)

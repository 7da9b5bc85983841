"""NRRD: geometry and values against SimpleITK and pynrrd, two independent readers and writers, in both directions."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError, OutputError
from cpfnet.image import RGB, Image, Segmentation
from tests.formats.conftest import assert_same_points, damaged, image_or_error
from tests.formats.headers import NRRD
from tests.synthetic import affine, orientations, phantom, shared

SIZES = st.tuples(*[st.integers(1, 6)] * 3)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
SPACINGS = st.tuples(*[st.floats(0.05, 12)] * 3)
PLACES = st.tuples(*[st.floats(-500, 500)] * 3)
DTYPES = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64]
VOLUME = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def itk_image(array: np.ndarray, matrix: np.ndarray) -> sitk.Image:
    """An image of SimpleITK; ``matrix`` maps (x, y, z) to LPS."""
    image = sitk.GetImageFromArray(array)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image


def handmade(path: Path, *lines: str, data: bytes = b"", **fields: str) -> Path:
    """A file of ``VOLUME`` with these header fields; None leaves one out."""
    own: dict[str, str | None] = dict(NRRD)
    own |= {key.replace("_", " "): value for key, value in fields.items()}
    head = ["NRRD0005", *(f"{key}: {value}" for key, value in own.items() if value is not None), *lines]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + (data or VOLUME.tobytes()))
    return path


@settings(max_examples=60, deadline=None)
@given(SIZES, SPACINGS, ANGLES, PLACES, st.sampled_from(DTYPES), st.booleans())
def test_any_oblique_grid_that_simpleitk_writes(tmp_path_factory, shape, spacing, degrees, origin, dtype, packed):
    folder = tmp_path_factory.mktemp("grid")
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    path = folder / "a.nrrd"
    sitk.WriteImage(itk_image(values, affine(spacing, degrees=degrees, origin=origin)), str(path), packed)
    image = formats.read(path)
    assert image.array.dtype == dtype
    assert_same_points(image, path)
    assert image.spacing == pytest.approx(spacing[::-1])
    header = formats.read_header(path)
    np.testing.assert_array_equal(header.affine, image.affine)
    assert (header.shape, header.dtype) == (image.shape, image.array.dtype)
    mask = (np.arange(np.prod(shape)) % 7).astype(np.uint8).reshape(shape)
    written = formats.write(Segmentation(mask, image.affine, image.source), folder / "b")
    assert written.name == "b.nrrd"
    back = formats.read_label(written)
    assert_same_points(back, written)
    np.testing.assert_array_equal(back.array[0], mask)
    np.testing.assert_array_equal(back.affine, image.affine)  # to the last digit


@pytest.mark.parametrize(("axes", "signs"), list(orientations()))
def test_all_48_orientations(tmp_path, axes, signs):
    scan = phantom((5, 6, 7))[0].astype(np.int16)
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(itk_image(scan, affine((0.7, 1.3, 3.1), axes=axes, signs=signs, degrees=(7, -12, 23))), str(path))
    assert_same_points(formats.read(path), path)


@settings(max_examples=40, deadline=None)
@given(
    spacing=SPACINGS,
    degrees=ANGLES,
    origin=PLACES,
    space=st.sampled_from(["left-posterior-superior", "right-anterior-superior", "LAS", "RAS", "lps"]),
    encoding=st.sampled_from(["raw", "gzip", "bzip2", "ascii"]),
    order=st.sampled_from("<>"),
)
def test_spaces_encodings_and_byte_orders_of_pynrrd(tmp_path_factory, spacing, degrees, origin, space, encoding, order):
    path = tmp_path_factory.mktemp("pynrrd") / "a.nrrd"
    matrix = affine(spacing, degrees=degrees, origin=origin)
    header = {
        "space": space,
        "kinds": ["domain"] * 3,
        "space directions": matrix[:3, :3].T,
        "space origin": matrix[:3, 3],
        "encoding": encoding,
    }
    nrrd.write(str(path), VOLUME.astype(VOLUME.dtype.newbyteorder(order)), header, index_order="C")
    image = formats.read(path)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert image.array.dtype == np.int16
    assert not image.warnings
    if encoding != "bzip2":  # ITK has none
        assert_same_points(image, path)


@pytest.mark.parametrize("dtype", [bool, *DTYPES[:6]])
def test_label_values_are_written_exactly(tmp_path, dtype):
    top = 1 if dtype is bool else min(np.iinfo(dtype).max, 2**24 - 1)
    mask = np.array([0, 1, top], dtype).reshape(1, 1, 3)
    path = formats.write(Segmentation(mask, np.eye(4)), tmp_path / "a", format="nrrd")
    data, header = nrrd.read(str(path), index_order="C")
    np.testing.assert_array_equal(data.ravel(), mask.ravel().astype(int))
    assert header["space"] == "left-posterior-superior"
    again = formats.write(Segmentation(mask, np.eye(4)), tmp_path / "b", format="nrrd")
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("kind", ["list", "vector", "RGB-color", "3-color"])
def test_channels_on_any_axis(tmp_path, axis, kind):
    values = np.random.default_rng(0).integers(0, 255, (3, 2, 4, 5), dtype=np.uint8)  # channels first, slowest first
    stored = np.moveaxis(values, 0, axis)
    kinds, directions = ["domain"] * 3, [[0.5, 0, 0], [0, 1, 0], [0, 0, 2]]
    kinds.insert(3 - axis, kind)
    directions.insert(3 - axis, [np.nan] * 3)
    header = {"space": "LPS", "kinds": kinds, "space directions": np.array(directions), "space origin": [1, 2, 3]}
    nrrd.write(str(tmp_path / "a.nrrd"), stored, header, index_order="C")
    image = formats.read(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(image.array, values)
    assert image.spacing == (2, 1, 0.5)
    assert image.channels == (RGB if kind == "RGB-color" else ("channel0", "channel1", "channel2"))
    mask = formats.write(Segmentation(values[0], image.affine, image.source), tmp_path / "mask")
    np.testing.assert_array_equal(formats.read_label(mask).affine, image.affine)


def test_alpha_is_dropped(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (2, 4, 5, 4), dtype=np.uint8)
    header = {"kinds": ["RGBA-color", *["domain"] * 3], "spacings": [np.nan, 1, 1, 1]}
    nrrd.write(str(tmp_path / "a.nrrd"), values, header, index_order="C")
    image = formats.read(tmp_path / "a.nrrd")
    assert image.channels == formats.read_header(tmp_path / "a.nrrd").channels == RGB
    np.testing.assert_array_equal(image.array, np.moveaxis(values, -1, 0)[:3])


def test_colours_and_maps_come_back(tmp_path):
    colours = 0x1000000 + np.array([[[0xFF0000, 0x00FF01]]], np.int32)
    path = formats.write(Segmentation(colours, np.eye(4)), tmp_path / "a", format="nrrd")
    np.testing.assert_array_equal(formats.read_label(path).array[:, 0, 0], [[255, 0], [0, 255], [0, 1]])
    turned = np.diag([2.0, -1, 1, 1])[:, [2, 1, 0, 3]]
    for count in (1, 3):
        values = np.random.default_rng(0).random((count, 2, 3, 4), dtype=np.float32)
        segmentation = Segmentation(np.zeros((2, 3, 4), np.uint8), turned)
        map_ = formats.write_map(values, segmentation, tmp_path / f"p{count}", format="nrrd")
        np.testing.assert_array_equal(formats.read_map(map_), values)
        np.testing.assert_array_equal(formats.read(map_).affine, turned)
    image = Image(values, turned)
    np.testing.assert_array_equal(formats.read(formats.write_image(image, tmp_path / "i.nrrd")).array, values)
    with pytest.raises(OutputError, match="float16"):
        formats.write_image(Image(values.astype(np.float16), turned), tmp_path / "h.nrrd")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_picture_keeps_its_place(tmp_path, suffix):
    picture = sitk.GetImageFromArray(np.arange(20, dtype=np.uint8).reshape(4, 5))
    picture.SetSpacing((0.3, 0.4))
    picture.SetOrigin((3, 4))
    picture.SetDirection((0, -1, 1, 0))
    sitk.WriteImage(picture, str(tmp_path / f"a{suffix}"))
    image = formats.read(tmp_path / f"a{suffix}")
    assert image.array.shape == (1, 4, 5)
    path = formats.write(Segmentation(image.array[0], None, image.source), tmp_path / "b")
    back = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(back), image.array[0])
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(back, get)() == pytest.approx(getattr(picture, get)())
    png = formats.write(Segmentation(image.array[0], None, image.source), tmp_path / "c", format="png")
    np.testing.assert_array_equal(formats.read(png).array, image.array)


def test_voxel_sizes_alone_and_none_at_all(tmp_path):
    bare = {"space": None, "space_directions": None, "space_origin": None}
    image = formats.read(handmade(tmp_path / "a.nrrd", spacings="1 2 3", **bare))
    assert image.spacing == (3, 2, 1)
    assert [note.split(":")[0] for note in image.warnings] == [
        "how its axes lie in the patient is not said",
        "its header gives no position (space origin)",
    ]
    assert formats.read(handmade(tmp_path / "b.nrrd", **bare)).affine is None
    back = formats.write(Segmentation(np.uint8(VOLUME), None), tmp_path / "c", format="nrrd")
    np.testing.assert_array_equal(formats.read_label(back).array[0], VOLUME)


def test_units_of_space(tmp_path):
    assert formats.read(handmade(tmp_path / "a.nrrd", space_units='"cm" "cm" "cm"')).spacing == (20, 10, 10)
    with pytest.raises(FormatError, match="its units are not known"):
        formats.read(handmade(tmp_path / "a.nrrd", space_units='"mm" "furlong" "mm"'))


@pytest.mark.parametrize(("name", "pack"), [("a.raw", bytes), ("a.raw.gz", gzip.compress), ("a.raw.bz2", bz2.compress)])
def test_voxels_beside_their_header(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(VOLUME.tobytes()))
    encoding = {"a.raw": "raw", "a.raw.gz": "gz", "a.raw.bz2": "bz2"}[name]
    path = handmade(tmp_path / "a.nhdr", data=b" ", encoding=encoding, data_file=name)
    image = formats.read(path)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert image.source.paths == (path, tmp_path / name)
    segmentation = Segmentation(np.uint8(VOLUME), image.affine, image.source)
    assert formats.write(segmentation, tmp_path / "m").name == "m.nrrd"
    (tmp_path / "link.nrrd").hardlink_to(tmp_path / name)
    with pytest.raises(OutputError, match="would replace the image"):
        formats.write(segmentation, tmp_path / "link.nrrd", overwrite=True)


def test_lines_and_bytes_before_the_voxels(tmp_path):
    data = b"one\ntwo\n" + b"xyz" + VOLUME.tobytes()
    path = handmade(tmp_path / "a.nrrd", data=data, line_skip="2", byte_skip="3")
    np.testing.assert_array_equal(formats.read(path).array[0], VOLUME)
    (tmp_path / "b.dat").write_bytes(b"a header of 20 bytes" + VOLUME.tobytes())
    path = handmade(tmp_path / "b.nhdr", data=b" ", byte_skip="-1", data_file="b.dat")
    np.testing.assert_array_equal(formats.read(path).array[0], VOLUME)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"sizes": "5 4"}, "3 axes and 2 sizes"),
        ({"sizes": "5 0 3"}, "sizes"),
        ({"sizes": "5 -4 3"}, "sizes"),
        ({"sizes": "500000000 400000000 300000000"}, "cut short"),
        ({"sizes": "500000000 400000000 300000000", "encoding": "gzip"}, "cut short"),
        ({"sizes": "500000000 400000000 300000000", "encoding": "bz2"}, "cut short"),
        ({"sizes": "500000000 400000000 300000000", "encoding": "txt"}, "cut short"),
        ({"sizes": "5 4 2"}, "longer than"),
        ({"sizes": "5 4 4"}, "cut short"),
        ({"dimension": "99999999999999999999"}, "no integer"),
        ({"dimension": "2", "sizes": "5 12"}, "2 axes and 3"),
        ({"type": "block"}, "type"),
        ({"type": None}, "does not say 'type'"),
        ({"endian": None}, "byte order"),
        ({"encoding": "hex"}, "encoding"),
        ({"encoding": "gzip"}, "decoded"),
        ({"space": "right-up"}, "not known"),
        ({"space": "left-posterior-superior-time"}, "not known"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,nan)"}, "not finite"),
        ({"space directions": "(1,0,0) (0,inf,0) (0,0,1)"}, "not finite"),
        ({"space directions": "(1,0,0) (0,1,0) (1,1,0)"}, "no volume"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0)"}, "one space"),
        ({"space directions": "(1,0,0) (0,1,0) 1,2,3"}, "no vectors"),
        ({"space directions": "(1,0,0) (0,1,0) (a,b,c)"}, "no numbers"),
        ({"space directions": "(1,0) (0,1) (1,1)"}, "2 dimensions"),
        ({"space directions": "none (0,1,0) (0,0,1)"}, "kinds"),
        ({"space origin": "(1,2)"}, "no point"),
        ({"space origin": "(0,0,-125"}, "no vectors"),
        ({"space directions": "(1,0,0) (0,1,0) (0,0,2.5"}, "no vectors"),
        ({"space units": "cm cm cm"}, "quotation marks"),
        ({"space units": '"cm" "mm" "mm"'}, "not the same"),
        ({"space origin": "(1,2,nan)"}, "not finite"),
        ({"kinds": "domain domain"}, "3 axes and 2 kinds"),
        ({"kinds": "complex domain domain", "space directions": "none (0,1,0) (0,0,1)"}, "complex"),
        ({"data file": "LIST"}, "several files"),
        ({"data file": "slice%03d.raw 1 30 1"}, "several files"),
        ({"data file": "/etc/passwd"}, "outside its own folder"),
        ({"data file": "../a.raw"}, "outside its own folder"),
        ({"data file": "sub\\..\\..\\a.raw"}, "outside its own folder"),
        ({"data file": "C:\\a.raw"}, "outside its own folder"),
        ({"data file": "gone.raw"}, "no such file"),
        ({"byte skip": "-7"}, "leaves out -7 bytes|longer than"),
        ({"byte skip": "999999999"}, "cut short"),
        ({"byte skip": "many"}, "no integer"),
        ({"spacings": "1 1", "space directions": None}, "3 axes and 2 spacings"),
        ({"spacings": "1 nan 1", "space directions": None}, "not finite"),
        ({"spacings": "1 0 1", "space directions": None}, "no volume"),
    ],
)
def test_broken_headers(tmp_path, fields, words):
    path = handmade(tmp_path / "a.nrrd", **fields)
    for read in (formats.read, formats.read_header):
        if "decoded" in words and read is formats.read_header:
            continue  # only its voxels show it
        with pytest.raises(FormatError, match=words) as caught:
            read(path)
        assert caught.value.where == str(path)
        assert caught.value.fix


def test_lines_that_are_no_fields(tmp_path):
    with pytest.raises(FormatError, match="without a colon"):
        formats.read(handmade(tmp_path / "a.nrrd", "hello"))
    with pytest.raises(FormatError, match="twice"):
        formats.read(handmade(tmp_path / "a.nrrd", "sizes: 5 4 3"))
    formats.read(handmade(tmp_path / "a.nrrd", "# a comment", "key:=value", "key2:=with: colons := and more"))
    path = tmp_path / "b.nrrd"
    path.write_bytes(b"NRRD0005\n" + b"#" * 2**25)
    with pytest.raises(FormatError, match="header of more than"):
        formats.read(path)


def test_bombs_are_refused_before_they_are_unpacked(tmp_path):
    bomb = gzip.compress(bytes(2**23), mtime=0)
    path = handmade(tmp_path / "a.nrrd", sizes="1024 1024 1024", encoding="gzip", data=bomb + bytes(2**22))
    with pytest.raises(FormatError, match="decompression bomb"):
        formats.read(path)
    whole = gzip.compress(VOLUME.tobytes())
    for data, words in (
        (gzip.compress(VOLUME.tobytes() + bytes(10**7)), "longer than"),
        (whole[:-8] + bytes(8), "CRC"),
    ):
        with pytest.raises(FormatError, match=words):
            formats.read(handmade(tmp_path / "a.nrrd", encoding="gzip", data=data))
    with pytest.raises(FormatError, match="cut short"):
        formats.read(handmade(tmp_path / "a.nrrd", encoding="gzip", data=gzip.compress(VOLUME.tobytes()[:-2])))


@pytest.mark.parametrize(
    ("text", "words"),
    [("1 2 3", "cut short"), ("x " * 60, "holds no 60 numbers"), ("1 " * 61, "longer than"),
     ("1.5 " * 60, "holds no 60 numbers"), ("70000 " * 60, "numbers from 70000")],
)  # fmt: skip
def test_text_that_is_no_voxels(tmp_path, text, words):
    with pytest.raises(FormatError, match=words):
        formats.read(handmade(tmp_path / "a.nrrd", encoding="ascii", data=text.encode()))


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_a_format_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.nrrd"
    encoding = data.draw(st.sampled_from(["raw", "gzip", "ascii"]))
    packed = {"raw": VOLUME.tobytes(), "gzip": gzip.compress(VOLUME.tobytes()), "ascii": b"7 " * 60}[encoding]
    raw = bytearray(handmade(path, encoding=encoding, data=packed).read_bytes())
    path.write_bytes(damaged(raw, data))
    image_or_error(path)


def test_a_real_label_map_is_the_dicom_segmentation_made_from_it():
    root = shared("DicomSeg")
    series = formats.read_header(root / "ct-3slice")
    label, dicom = (formats.read_label(root / name, series) for name in ("liver_seg.nrrd", "liver.dcm"))
    np.testing.assert_allclose(label.affine, series.affine, atol=1e-9)
    np.testing.assert_array_equal(label.array > 0, dicom.array > 0)
    assert label.array.any()


def test_units_of_spacings_count_and_those_of_other_axes_do_not(tmp_path):
    plain = {"space_directions": None, "space_origin": None, "space": None, "kinds": None}
    path = handmade(tmp_path / "a.nrrd", **plain, spacings="0.1 0.1 0.5", units='"cm" "cm" "cm"')
    assert formats.read(path).spacing == pytest.approx((5, 1, 1))
    series = {"dimension": "4", "sizes": "1 5 4 3", "kinds": "list domain domain domain"}
    path = handmade(tmp_path / "b.nrrd", **plain | series, spacings="nan 1 1 2", units='"s" "mm" "mm" "mm"')
    assert formats.read(path).spacing == pytest.approx((2, 1, 1))


def test_a_segment_is_not_named_twice(tmp_path):
    with pytest.raises(FormatError, match="twice in its header"):
        formats.read(handmade(tmp_path / "a.nrrd", "Segment0_Name:=liver", "Segment0_Name:=tumour"))

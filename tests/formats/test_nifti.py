"""NIfTI: geometry against SimpleITK, an independent reader; values, headers and round trips against nibabel."""

from __future__ import annotations

import gzip
import pickle

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError, OutputError
from cpfnet.image import Image, Segmentation, geometry_difference
from tests.formats.conftest import assert_same_points, image_or_error
from tests.synthetic import affine, orientations, phantom, shared, write_nifti, write_raster

SIZES = st.tuples(*[st.integers(1, 6)] * 3)
ANGLES = st.tuples(*[st.floats(-180, 180)] * 3)
SPACINGS = st.tuples(*[st.floats(0.05, 12)] * 3)


def segmentation(image: Image, array: np.ndarray | None = None) -> Segmentation:
    return Segmentation((image.array[0] if array is None else array), image.affine, image.source)


@pytest.mark.parametrize(("axes", "signs"), list(orientations()))
def test_points_and_round_trip_in_all_48_orientations(tmp_path, axes, signs):
    scan, mask = phantom((9, 11, 13))
    turned = affine((0.7, 1.3, 3.1), axes=axes, signs=signs, origin=(-31, 17, 250.5), degrees=(7, -12, 23))
    path = write_nifti(tmp_path / "scan.nii", scan, turned)
    image = formats.read(path)
    assert_same_points(image, path)
    written = formats.write(segmentation(image, mask), tmp_path / "mask")
    back = formats.read_label(written)
    np.testing.assert_array_equal(back.array[0], mask)
    assert_same_points(back, written)


@settings(max_examples=40, deadline=None)
@given(shape=SIZES, spacing=SPACINGS, degrees=ANGLES, origin=st.tuples(*[st.floats(-500, 500)] * 3))
def test_any_oblique_affine(tmp_path_factory, shape, spacing, degrees, origin):
    folder = tmp_path_factory.mktemp("oblique")
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    matrix = affine(spacing, degrees=degrees, origin=origin)
    path = write_nifti(folder / "a.nii", values, matrix)
    image = formats.read(path)
    assert_same_points(image, path)
    assert image.spacing == pytest.approx(spacing[::-1], rel=1e-5)
    back = formats.read(formats.write(segmentation(image), folder / "b.nii.gz"))
    np.testing.assert_array_equal(back.array, image.array)
    np.testing.assert_array_equal(back.affine, image.affine)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (0, 1), (1, 0), (2, 1), (4, 3)])
def test_label_map_keeps_the_header_geometry(tmp_path, kind, sform, qform):
    scan = kind(np.zeros((4, 5, 6), np.float32), None)
    scan.header.set_zooms((0.9, 1.1, 2.5))
    scan.set_qform(affine((0.9, 1.1, 2.5), degrees=(5, 6, 7), signs=(-1, 1, 1)), qform)
    scan.set_sform(affine((0.9, 1.1, 2.5), degrees=(5.1, 6, 7), signs=(-1, 1, 1), origin=(1, 2, 3)), sform)
    scan.header.set_slope_inter(2, 1)
    scan.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"name of the patient"))
    nibabel.save(scan, tmp_path / "scan.nii.gz")
    image = formats.read(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(image.affine[:, [2, 1, 0, 3]] * [[-1], [-1], [1], [1]], scan.affine)
    path = formats.write(segmentation(image, np.ones(image.shape, np.uint8)), tmp_path / "mask.nii.gz")
    mask, scan = nibabel.load(path), nibabel.load(tmp_path / "scan.nii.gz")
    for key in ("dim", "pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        np.testing.assert_array_equal(mask.header[key], scan.header[key], err_msg=key)
    assert type(mask) is kind
    assert mask.get_data_dtype() == np.uint8
    assert (mask.dataobj.slope, mask.dataobj.inter) == (1, 0)
    assert not mask.header.extensions


@pytest.mark.parametrize(
    "shape", [(5, 4), (5, 4, 1), (5, 4, 3), (5, 4, 3, 1), (5, 4, 3, 2), (5, 4, 3, 1, 2), (5, 1, 3)]
)
def test_ranks(tmp_path, shape):
    stored = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(stored, affine((1, 2, 3))), tmp_path / "a.nii.gz")
    image = formats.read(tmp_path / "a.nii.gz")
    x, y, z = (*shape, 1)[:3]
    channels = shape[-1] if len(shape) > 3 else 1
    assert image.array.shape == (channels, z, y, x)
    np.testing.assert_array_equal(image.array, stored.reshape(x, y, z, channels).transpose(3, 2, 1, 0))
    path = formats.write(segmentation(image), tmp_path / "mask")
    np.testing.assert_array_equal(
        np.asanyarray(nibabel.load(path).dataobj), stored.reshape(x, y, z, channels)[..., 0].reshape(shape[:3])
    )


INTEGERS = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", [*INTEGERS, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_and_dtype_stay_as_stored(tmp_path, dtype, order):
    ends = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(np.float32)
    stored = np.array([ends.min, 0, 1, ends.max], dtype=dtype).reshape(4, 1, 1)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4), header), tmp_path / "a.nii")
    image = formats.read(tmp_path / "a.nii")
    np.testing.assert_array_equal(image.array.ravel(), stored.ravel())
    assert image.array.dtype == np.dtype(dtype)
    assert image.array.flags.c_contiguous
    assert image.array.flags.writeable


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"),
    [(1, 0, np.int16), (0, 5, np.int16), (1, -1024, np.int32), (2, 3, np.int32), (0.5, 0, np.float32)],
)
def test_slope_and_intercept(tmp_path, slope, inter, dtype):
    stored = np.array([-5, 0, 7, 32767], np.int16).reshape(2, 2, 1)
    scan = nibabel.Nifti1Image(stored, np.eye(4))
    nibabel.save(scan, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[112:120] = np.array([slope, inter], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    image = formats.read(tmp_path / "a.nii")
    assert image.array.dtype == dtype
    np.testing.assert_array_equal(image.array[0].T, nibabel.load(tmp_path / "a.nii").get_fdata())
    assert formats.read_header(tmp_path / "a.nii").dtype == dtype


def test_nan_is_kept(tmp_path):
    values = np.array([[[np.nan, np.inf, -1.5]]], np.float32)
    np.testing.assert_array_equal(formats.read(write_nifti(tmp_path / "a.nii", values)).array[0], values)


def test_metres_and_micrometres_become_millimetres(tmp_path):
    for unit, factor in (("meter", 1e3), ("micron", 1e-3), ("mm", 1), ("unknown", 1)):
        scan = nibabel.Nifti1Image(np.zeros((2, 3, 4), np.int16), affine((1, 2, 3), origin=(4, 5, 6)))
        scan.header.set_xyzt_units(unit)
        nibabel.save(scan, tmp_path / "a.nii")
        image = formats.read(tmp_path / "a.nii")
        assert image.spacing == pytest.approx((3 * factor, 2 * factor, factor))
        assert_same_points(image, tmp_path / "a.nii")
        path = formats.write(segmentation(image), tmp_path / "b.nii", overwrite=True)
        assert_same_points(formats.read(path), path)


@pytest.mark.parametrize("samples", ["RGB", "RGBA"])
def test_colour_voxels(tmp_path, samples):
    planes = np.random.default_rng(0).integers(0, 256, (len(samples), 4, 3, 2), dtype=np.uint8)
    stored = np.zeros((4, 3, 2), [(s, "u1") for s in samples])
    for plane, name in zip(planes, samples, strict=True):
        stored[name] = plane
    nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), tmp_path / "a.nii.gz")
    image = formats.read_label(tmp_path / "a.nii.gz")
    assert image.channels == ("red", "green", "blue")
    np.testing.assert_array_equal(image.array, planes[:3].transpose(0, 3, 2, 1))
    colours = 0x1000000 + np.array([[[0xFF0000, 0x00FF01]]], np.int32)
    colours[0, 0, 0] = 0
    path = formats.write(Segmentation(colours, np.eye(4)), tmp_path / "b")
    np.testing.assert_array_equal(formats.read_label(path).array[:, 0, 0], [[0, 0], [0, 255], [0, 1]])


@pytest.mark.parametrize("dtype", [bool, np.int8, np.int64, np.uint64, *INTEGERS[:5]])
def test_label_values_are_written_exactly(tmp_path, dtype):
    limits = np.iinfo(np.int32 if np.dtype(dtype).itemsize > 4 else np.uint8 if dtype is bool else dtype)
    values = (
        [0, 1]
        if dtype is bool
        else [max(limits.min, -(2**24)) if dtype != np.uint64 else 0, min(limits.max, 2**24 - 1)]
    )
    array = np.array(values, dtype).reshape(1, 1, 2)
    path = formats.write(Segmentation(array, np.eye(4)), tmp_path / "a")
    stored = np.asanyarray(nibabel.load(path).dataobj)
    np.testing.assert_array_equal(stored.ravel(), array.ravel().astype(np.int64))
    assert stored.dtype.name in ("uint8", "uint16", "int16", "int32")


def test_a_picture_becomes_one_upright_slice(tmp_path):
    picture = formats.read(write_raster(tmp_path / "a.png", np.zeros((5, 7, 3), np.uint8)))
    mask = np.arange(35, dtype=np.uint8).reshape(5, 7)
    path = formats.write(segmentation(picture, mask), tmp_path / "a", format="nifti")
    assert path.name == "a.nii.gz"
    back = formats.read(path)
    np.testing.assert_array_equal(back.array[0, 0], mask)
    # columns run to the patient's left and rows to the back: upright where viewers show axial slices
    np.testing.assert_array_equal(back.affine, [[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    assert_same_points(back, path)


def test_volumes_as_rasters(tmp_path):
    one = formats.read(write_nifti(tmp_path / "one.nii", np.ones((1, 4, 5), np.int16)))
    assert formats.write(segmentation(one), tmp_path / "one", format="png").name == "one.png"
    assert formats.read(tmp_path / "one.png").array.shape == (1, 4, 5)
    volume = formats.read(write_nifti(tmp_path / "three.nii", np.ones((3, 4, 5), np.int16)))
    with pytest.raises(OutputError, match=r"3 slices.*\n.*tiff"):
        formats.write(segmentation(volume), tmp_path / "three", format="png")
    tiff = formats.write(segmentation(volume), tmp_path / "three", format="tiff")
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(tiff))).shape == (3, 4, 5)


@pytest.mark.parametrize("planes", [1, 3])
def test_maps_share_the_geometry(tmp_path, planes):
    turned = affine((1, 2, 3), degrees=(10, 20, 30), origin=(4, 5, 6))
    image = formats.read(write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16), turned))
    values = np.random.default_rng(0).random((planes, 2, 3, 4), dtype=np.float32)
    path = formats.write_map(values, segmentation(image), tmp_path / "p", names=[f"class {i}" for i in range(planes)])
    np.testing.assert_array_equal(formats.read_map(path), values)
    back = formats.read(path)
    np.testing.assert_array_equal(back.affine, image.affine)
    assert nibabel.load(path).shape == ((4, 3, 2, planes) if planes > 1 else (4, 3, 2))
    single = formats.write_map(values[0], segmentation(image), tmp_path / "single")
    np.testing.assert_array_equal(formats.read_map(single), values[:1])


def test_another_grid_than_the_source_is_written_from_its_own_affine(tmp_path):
    image = formats.read(write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16)))
    moved = image.affine.copy()
    moved[:3, 3] += 5
    path = formats.write(Segmentation(np.zeros((2, 3, 4), np.uint8), moved, image.source), tmp_path / "b")
    np.testing.assert_allclose(formats.read(path).affine, moved)
    with pytest.raises(OutputError, match="without an affine"):
        formats.write(Segmentation(np.zeros((2, 3, 5), np.uint8), None), tmp_path / "c")


def test_channels_in_several_files(tmp_path):
    shape = (2, 3, 4)
    paths = [write_nifti(tmp_path / f"a_000{i}.nii.gz", np.full(shape, i, np.int16)) for i in range(2)]
    image = formats.read(paths)
    np.testing.assert_array_equal(image.array[:, 0, 0, 0], [0, 1])
    assert image.channels == formats.read_header(paths).channels == ("channel0", "channel1")
    assert image.source.paths == tuple(paths)
    assert formats.write(segmentation(image), tmp_path / "out").name == "out.nii.gz"
    other = write_nifti(tmp_path / "b.nii.gz", np.zeros(shape, np.int16), spacing=(1, 1, 1.5))
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=r"(?s)b.nii.gz.*a_0000.nii.gz.*1.5.*resample"):
            read([paths[0], other])
    with pytest.raises(FormatError, match="another kind"):
        formats.read([paths[0], write_raster(tmp_path / "c.png", np.zeros((3, 4), np.uint8))])
    with pytest.raises(FormatError, match="no file was given"):
        formats.read([])


def test_label_with_channels_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"3 channels.*\n.*one-hot"):
        formats.read_label(write_nifti(tmp_path / "a.nii", np.zeros((3, 2, 2, 2), np.uint8)))


def _patched(path, offset, values, dtype):
    raw = bytearray(path.read_bytes())
    patch = np.array(values, dtype).tobytes()
    raw[offset : offset + len(patch)] = patch
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("offset", "values", "dtype", "words"),
    [
        (280, [np.nan], "<f4", "affine is not finite"),
        (280, [0, 0, 0], "<f4", "no volume"),
        (42, [0], "<i2", "shape"),
        (42, [30000, 30000, 30000], "<i2", "cut short"),
        (40, [9], "<i2", "NIfTI"),
        (40, [1], "<i2", "shape"),
        (70, [32], "<i2", "complex"),
        (70, [999], "<i2", "NIfTI"),
        (344, [0], "<i4", "NIfTI"),
    ],
)
def test_broken_headers(tmp_path, offset, values, dtype, words):
    path = _patched(write_nifti(tmp_path / "a.nii", np.zeros((8, 8, 8), np.int16)), offset, values, dtype)
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=words) as caught:
            read(path)
        assert caught.value.where == str(path)
        assert caught.value.fix


def test_zero_voxel_size_is_not_fixed_into_a_millimetre(tmp_path):
    scan = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    scan.set_sform(None, 0)
    scan.set_qform(np.eye(4), 1)
    nibabel.save(scan, tmp_path / "a.nii")
    _patched(tmp_path / "a.nii", 80, [0.0], "<f4")
    with pytest.raises(FormatError, match=r"voxel size \[0.0, 1.0, 1.0\]"):
        formats.read(tmp_path / "a.nii")


def test_compression_and_name_disagree(tmp_path):
    path = write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 2, 2), np.int16))
    (tmp_path / "b.nii").write_bytes(path.read_bytes())
    with pytest.raises(FormatError, match=r"gzip-compressed(.|\n)*\.nii\.gz"):
        formats.read(tmp_path / "b.nii")
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress(path.read_bytes()))
    with pytest.raises(FormatError, match=r"uncompressed NIfTI(.|\n)*rename it to end in \.nii$"):
        formats.read(tmp_path / "c.nii.gz")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_bytes_give_an_image_or_a_format_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "a.nii"
    write_nifti(path, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(1, len(raw) - 1))]
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    compressed = data.draw(st.booleans())
    if compressed:
        path = path.with_name("a.nii.gz")
        raw = gzip.compress(raw)[: data.draw(st.integers(1, 500))]
    path.write_bytes(raw)
    image_or_error(path)


def test_image_travels_between_processes(tmp_path):
    image = formats.read(write_nifti(tmp_path / "a.nii.gz", np.zeros((2, 3, 4), np.int16)))
    again = pickle.loads(pickle.dumps(image))
    formats.write(segmentation(again), tmp_path / "b")


def test_hippocampus(tmp_path):
    root = shared("Hippocampus")
    for scan in sorted((root / "images").iterdir())[:4]:
        image, label = formats.read(scan), formats.read_label(root / "labels" / scan.name)
        assert_same_points(image, scan)
        assert geometry_difference(image.shape, image.affine, label.shape, label.affine) is None
        assert set(np.unique(label.array)) == {0, 1, 2}
        path = formats.write(segmentation(image, label.array[0].astype(np.uint8)), tmp_path / formats.stem(scan))
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(sitk.ReadImage(str(path))),
            sitk.GetArrayFromImage(sitk.ReadImage(str(root / "labels" / scan.name))),
        )
        np.testing.assert_array_equal(nibabel.load(path).affine, nibabel.load(scan).affine)


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
def test_pairs_of_header_and_voxels(tmp_path, kind):
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    scan = kind(stored.T, affine((0.7, 0.8, 3), origin=(4, 5, 6), degrees=(10, 5, 0)))
    nibabel.save(scan, tmp_path / "scan.hdr")
    image = formats.read(tmp_path / "scan.hdr")
    np.testing.assert_array_equal(image.array[0], stored)
    np.testing.assert_allclose(image.affine[:, [2, 1, 0, 3]] * [[-1], [-1], [1], [1]], scan.affine, atol=1e-5)
    np.testing.assert_array_equal(formats.read_header(tmp_path / "scan.hdr").affine, image.affine)
    assert (
        image.source.paths == (tmp_path / "scan.hdr", tmp_path / "scan.img") == formats.files_of(tmp_path / "scan.hdr")
    )
    path = formats.write(segmentation(image, np.uint8(stored)), tmp_path / "mask")
    assert path.name == "mask.nii.gz"
    np.testing.assert_array_equal(formats.read_label(path).affine, image.affine)
    with (tmp_path / "scan.img").open("ab") as file:
        file.write(b"more")
    with pytest.raises(FormatError, match="longer than"):
        formats.read(tmp_path / "scan.hdr")
    (tmp_path / "scan.img").write_bytes(stored.tobytes()[:-2])
    with pytest.raises(FormatError, match="cut short"):
        formats.read(tmp_path / "scan.hdr")
    with pytest.raises(FormatError, match="voxels of a NIfTI pair"):
        formats.read(tmp_path / "scan.img")
    (tmp_path / "scan.img").unlink()
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=r"no scan\.img beside it"):
            read(tmp_path / "scan.hdr")


def test_analyze_is_refused_since_it_does_not_say_left_from_right(tmp_path):
    nibabel.save(nibabel.AnalyzeImage(np.zeros((5, 4, 3), np.int16), np.eye(4)), tmp_path / "a.hdr")
    with pytest.raises(FormatError, match="ANALYZE, which does not say left from right"):
        formats.read(tmp_path / "a.hdr")

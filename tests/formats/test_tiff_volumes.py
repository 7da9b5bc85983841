"""Multi-page TIFF as volumes and channels: ImageJ's stacks, OME-TIFF and plain pages, against tifffile and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from cpfnet import formats
from cpfnet.errors import FormatError, OutputError
from cpfnet.image import Segmentation
from tests.formats.conftest import damaged, image_or_error

VOLUME = np.random.default_rng(0).integers(0, 2**16, (4, 5, 6), dtype=np.uint16)


def imagej(path: Path, array: np.ndarray, axes: str = "ZYX", **options: object) -> Path:
    """As ImageJ 1.x writes it: 0.5 µm along x, 0.25 µm along y, 2 µm along z."""
    metadata = {"axes": axes, "unit": "um", "spacing": 2.0} | dict(options.pop("metadata", {}))
    tifffile.imwrite(path, array, imagej=True, resolution=(2, 4), metadata=metadata, **options)
    return path


@pytest.mark.parametrize("compression", [None, "zlib"])  # ImageJ's tags stand on the first page alone, or on all
def test_stack_of_imagej(tmp_path, compression):
    path = imagej(tmp_path / "a.tif", VOLUME, compression=compression)
    image = formats.read(path)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    np.testing.assert_allclose(image.spacing, (0.002, 0.00025, 0.0005), rtol=1e-12)
    np.testing.assert_allclose(image.affine @ (3, 2, 1, 1), (0.0005, 0.0005, 0.006, 1), rtol=1e-12)
    assert any("left, posterior, superior" in warning for warning in image.warnings)
    image_or_error(path)


@pytest.mark.parametrize(
    ("metadata", "spacing"),
    [
        ({"unit": "\\u00B5m"}, (0.002, 0.00025, 0.0005)),
        ({"unit": "micron"}, (0.002, 0.00025, 0.0005)),
        ({"unit": "cm"}, (20, 2.5, 5)),
        ({"unit": "inch"}, (50.8, 6.35, 12.7)),
        ({"unit": "mm", "zunit": "um"}, (0.002, 0.25, 0.5)),
        ({"unit": "pixel"}, None),
        ({"unit": "sec"}, None),
    ],
)
def test_units_of_imagej(tmp_path, metadata, spacing):
    image = formats.read(imagej(tmp_path / "a.tif", VOLUME, metadata=metadata))
    if spacing is None:
        assert image.affine is None
    else:
        np.testing.assert_allclose(image.spacing, spacing, rtol=1e-12)
    assert any("no length" in warning for warning in image.warnings) == (metadata["unit"] == "sec")


@pytest.mark.parametrize(
    ("metadata", "words"),
    [({"spacing": float("nan")}, "cannot be"), ({"spacing": 1e300}, "cannot be"), ({"spacing": "x"}, "no number")],
)
def test_distances_that_cannot_be(tmp_path, metadata, words):
    image = formats.read(imagej(tmp_path / "a.tif", VOLUME, metadata=metadata))
    assert image.affine is None
    assert any(words in warning for warning in image.warnings)


def test_a_distance_of_slices_of_1_is_not_written_by_imagej(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, imagej=True, resolution=(2, 2), metadata={"axes": "ZYX", "unit": "mm"})
    image = formats.read(tmp_path / "a.tif")
    assert image.spacing == (1, 0.5, 0.5)
    assert any("taken as 1 mm" in warning for warning in image.warnings)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_hyperstacks(tmp_path_factory, data):
    axes = data.draw(st.sampled_from(["ZYX", "CYX", "ZCYX", "ZYXS", "YXS"]))
    sizes = {"S": 3} | {axis: data.draw(st.integers(2, 4)) for axis in "ZCYX"}
    dtype = np.uint8 if "S" in axes else data.draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    array = np.arange(np.prod([sizes[axis] for axis in axes])).reshape([sizes[axis] for axis in axes]).astype(dtype)
    path = tmp_path_factory.mktemp("t") / "a.tif"
    ome = data.draw(st.booleans())
    options: dict[str, object] = {"photometric": "rgb"} if "S" in axes else {"photometric": "minisblack"}
    metadata: dict[str, object] = {"axes": axes}
    if ome:
        sizes_um = {f"PhysicalSize{axis}": data.draw(st.sampled_from([0.25, 1.0, 3.0])) for axis in "XYZ"}
        metadata |= sizes_um | {f"PhysicalSize{axis}Unit": "µm" for axis in "XYZ"}
    tifffile.imwrite(
        path,
        array,
        imagej=not ome,
        ome=ome,
        metadata=metadata,
        compression=data.draw(st.sampled_from([None, "zlib"])),
        byteorder=data.draw(st.sampled_from("<>")),
        **options,
    )
    image = formats.read(path)
    letters = axes.replace("S", "C") if "S" in axes else axes
    order = "CZYX" if "Z" in letters else "CYX"
    expected = array if "C" in letters else array[None]
    letters = letters if "C" in letters else "C" + letters
    np.testing.assert_array_equal(image.array, expected.transpose([letters.index(axis) for axis in order]))
    assert image.array.dtype == dtype
    if axes == "ZYX":
        np.testing.assert_array_equal(image.array[0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    if ome and "Z" in axes:
        np.testing.assert_allclose(image.spacing, [sizes_um[f"PhysicalSize{axis}"] / 1000 for axis in "ZYX"])
    else:
        assert image.affine is None
    image_or_error(path)


def test_plain_pages_are_slices_and_a_message_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, photometric="minisblack")
    first, *others = [Pillow.fromarray(plane.astype(np.uint8)) for plane in VOLUME]
    first.save(tmp_path / "b.tif", save_all=True, append_images=others, compression="tiff_lzw")
    for name, pixels in (("a.tif", VOLUME), ("b.tif", VOLUME.astype(np.uint8))):
        image = formats.read(tmp_path / name)
        np.testing.assert_array_equal(image.array[0], pixels)
        assert image.affine is None
        assert image.warnings == ("nothing says what its 4 pages are: taken as slices of a volume, in their order",)
        image_or_error(tmp_path / name)


@pytest.mark.parametrize("tag", range(1, 9))
def test_pages_are_turned_as_pictures_are(tmp_path, tag):
    tifffile.imwrite(tmp_path / "one.tif", VOLUME[1], extratags=[(274, 3, 1, tag, False)], metadata=None)
    imagej(tmp_path / "a.tif", VOLUME, extratags=[(274, 3, 1, tag, False)])
    with tifffile.TiffWriter(tmp_path / "lzw.tif") as writer:
        for plane in VOLUME:
            writer.write(plane, extratags=[(274, 3, 1, tag, False)], metadata=None, compression="zlib", predictor=2)
    one = formats.read(tmp_path / "one.tif").array[0]
    for name in ("a.tif", "lzw.tif"):
        np.testing.assert_array_equal(formats.read(tmp_path / name).array[0, 1], one)
    imagej(tmp_path / "square.tif", VOLUME[:, :5, :5], extratags=[(274, 3, 1, tag, False)])  # as high as wide
    spacing = (0.00025, 0.0005)
    for name in ("a.tif", "square.tif"):
        np.testing.assert_allclose(formats.read(tmp_path / name).spacing[1:], spacing[:: -1 if tag > 4 else 1])


def test_palettes_of_stacks_are_colours(tmp_path):
    table = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    pages = [Pillow.fromarray(plane.astype(np.uint8)) for plane in VOLUME]
    for page in pages:
        page.putpalette(table.tobytes())
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    image = formats.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(np.moveaxis(image.array, 0, -1), table[VOLUME.astype(np.uint8)])


def test_signed_numbers_are_stored_by_a_calibration_in_imagej(tmp_path):
    """A CT of 16 signed bits: ImageJ stores HU + 32768 and the line back to it."""
    hu = np.int32(VOLUME) - 32768
    line = {"cf": 0, "c0": -32768.0, "c1": 1.0, "vunit": "HU"}
    image = formats.read(imagej(tmp_path / "a.tif", VOLUME, metadata=line))
    np.testing.assert_array_equal(image.array[0], hu)
    assert any("1 · stored + -32768" in warning for warning in image.warnings)
    half = formats.read(imagej(tmp_path / "b.tif", VOLUME, metadata=line | {"c1": 0.5}))
    np.testing.assert_array_equal(half.array[0], np.float32(VOLUME * 0.5 - 32768))
    curve = formats.read(imagej(tmp_path / "c.tif", VOLUME, metadata=line | {"cf": 2, "c2": 1.0}))
    np.testing.assert_array_equal(curve.array[0], VOLUME)
    assert any("no straight line" in warning for warning in curve.warnings)
    for name in "abc":
        image_or_error(tmp_path / f"{name}.tif")


@pytest.mark.parametrize("byteorder", "<>")
def test_beyond_4_gb_imagej_describes_the_first_page_alone(tmp_path, byteorder):
    path = imagej(tmp_path / "a.tif", VOLUME, byteorder=byteorder)
    raw = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[0].dataoffsets[0]
        following = 8 + 2 + 12 * len(tif.pages[0].tags)
    raw[following : following + 4] = bytes(4)
    path.write_bytes(raw[: start + VOLUME.nbytes])
    np.testing.assert_array_equal(formats.read(path).array[0], VOLUME)
    image_or_error(path)
    for changed in (raw[: start + VOLUME.nbytes - 1], raw[: start + VOLUME.nbytes] + b"1"):
        path.write_bytes(changed)
        with pytest.raises(FormatError):
            formats.read(path)


def several(path: Path, *pages: np.ndarray) -> None:
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(page, metadata=None)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: imagej(path, VOLUME, "TYX"), r"4 points in time(.|\n)*exchange slices and frames"),
        (lambda path: imagej(path, VOLUME[None].repeat(2, 0), "TZYX"), "2 points in time"),
        (lambda path: tifffile.imwrite(path, VOLUME, ome=True, metadata={"axes": "TYX"}), "4 points in time"),
        (lambda path: tifffile.imwrite(path, VOLUME[None].repeat(2, 0), photometric="minisblack"), "8 pages along 2"),
        (lambda path: several(path, VOLUME[0], VOLUME[0, 1:]), r"2 images in one file: 5×6 uint16, 4×6 uint16"),
        (lambda path: several(path, VOLUME[0], np.uint8(VOLUME[0])), "2 images in one file"),
        (lambda path: imagej(path, np.zeros((2, 2, 4, 4, 3), np.uint8), "ZCYXS"), "of colours"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, write, words):
    write(tmp_path / "a.tif")
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=words):
            read(tmp_path / "a.tif")


def test_a_stack_that_is_cut_short_is_refused(tmp_path):
    path = imagej(tmp_path / "a.tif", VOLUME)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError):
        formats.read(path)
    path = imagej(tmp_path / "b.tif", VOLUME)
    path.write_bytes(path.read_bytes() + bytes(100))
    with pytest.raises(FormatError, match="longer than its tags"):
        formats.read(path)


def test_planes_that_are_missing_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    raw = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(
        raw.replace(b'SizeZ="4"', b'SizeZ="5"').replace(b'PlaneCount="4"', b'PlaneCount="5"')
    )
    with pytest.raises(FormatError):
        formats.read(tmp_path / "a.tif")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage_is_an_error_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("t")
    kind = data.draw(st.sampled_from(["imagej", "ome", "plain"]))
    tifffile.imwrite(
        folder / "a.tif",
        VOLUME,
        imagej=kind == "imagej",
        ome=kind == "ome",
        photometric="minisblack",
        metadata={"axes": "ZYX"} if kind != "plain" else None,
    )
    (folder / "a.tif").write_bytes(damaged(bytearray((folder / "a.tif").read_bytes()), data))
    image_or_error(folder / "a.tif")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_masks_keep_the_distances_of_their_volume(tmp_path, dtype):
    image = formats.read(imagej(tmp_path / "a.tif", VOLUME))
    mask = (VOLUME % 3).astype(dtype)
    for name, format in (("same", "same"), ("own.tif", "same"), ("asked", "tiff")):
        path = formats.write(Segmentation(mask, image.affine, image.source), tmp_path / name, format=format)
        assert path.suffix == ".tif"
        label = formats.read_label(path, image)
        np.testing.assert_array_equal(label.array[0], mask)
        np.testing.assert_allclose(label.affine, image.affine, rtol=1e-6)
        np.testing.assert_array_equal(tifffile.imread(path), mask)
    with pytest.raises(OutputError, match="do not fit into a TIFF stack"):
        formats.write(Segmentation(np.int32(mask) + 70000, image.affine, image.source), tmp_path / "large")
    colours = np.int32(mask) + 0x1000000 + 0xFF0000
    path = formats.write(Segmentation(colours, image.affine, image.source), tmp_path / "colours")
    np.testing.assert_array_equal(formats.read_label(path).array[2], mask)


def test_probabilities_of_volumes(tmp_path):
    image = formats.read(imagej(tmp_path / "a.tif", VOLUME))
    values = np.random.default_rng(2).random((2, *VOLUME.shape), dtype=np.float32)
    mask = Segmentation(np.zeros(VOLUME.shape, np.uint8), image.affine, image.source)
    path = formats.write_map(values, mask, tmp_path / "p", names=("background", "cell"))
    np.testing.assert_array_equal(formats.read_map(path), values)
    with tifffile.TiffFile(path) as tif:
        assert tif.imagej_metadata["Labels"][:2] == ["background", "cell"]
    one = formats.write_map(values[0], mask, tmp_path / "q")
    np.testing.assert_array_equal(formats.read_map(one), values[:1])

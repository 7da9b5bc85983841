"""Folders of numbered pictures as volumes: their order, their distances, and names that are no stack."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.image import Segmentation
from tests.synthetic import write_raster

VOLUME = np.random.default_rng(0).integers(0, 256, (12, 5, 6), dtype=np.uint8)


def stack(folder: Path, volume: np.ndarray = VOLUME, name: str = "slice_{}.png", first: int = 0) -> Path:
    for index, plane in enumerate(volume):
        write_raster(folder / name.format(index + first), plane)
    return folder / "stack=2.5x0.5x0.25"


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_slices_come_in_the_order_of_their_numbers(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("s")
    count, first = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 95))
    suffix, kind = data.draw(st.sampled_from([(".png", np.uint8), (".png", np.uint16), (".tif", np.float32)]))
    name = data.draw(st.sampled_from(["{}", "s{:03}", "2024_scan_{}", "{}_of_99"])) + suffix
    colour = data.draw(st.booleans()) and kind == np.uint8
    volume = (VOLUME[:count, ..., None] + np.arange(3) if colour else VOLUME[:count]).astype(kind)
    order = list(range(count))
    random.Random(first).shuffle(order)
    for index in order:
        write_raster(folder / name.format(index + first), volume[index])
    (folder / "notes.txt").write_text("1 mm")
    path = folder / "stack=2.5x0.5x0.25"
    image, header = formats.read(path), formats.read_header(path)
    expected = np.moveaxis(volume, -1, 0) if colour else volume[None]
    np.testing.assert_array_equal(image.array, expected)
    np.testing.assert_array_equal(image.affine @ (3, 2, 1, 1), (0.25, 1, 7.5, 1))
    assert (header.shape, header.dtype, header.channels) == (image.shape, image.array.dtype, image.channels)
    if kind != np.float32 and not colour:
        names = [str(folder / name.format(index + first)) for index in range(count)]
        read = sitk.ImageSeriesReader()
        read.SetFileNames(names)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read.Execute()), image.array[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "slice_5.png").unlink(), r"lacks the slices 5, between slice_4.png and slice_6.png"),
        (lambda folder: [(folder / f"slice_{n}.png").unlink() for n in (5, 6)], "lacks the slices 5 to 6"),
        (
            lambda folder: write_raster(folder / "slice_05.png", VOLUME[5]),
            "slice_5.png and slice_05.png have the same",
        ),
        (
            lambda folder: write_raster(folder / "slice_12.tif", VOLUME[5]),
            "slice_0.png and slice_12.tif are not called",
        ),
        (lambda folder: (folder / "slice_12.png").mkdir(), r"slice_12\.png: is a folder"),
        (lambda folder: write_raster(folder / "mask_3.png", VOLUME[5]), "mask_3.png and slice_0.png are not called"),
        (lambda folder: write_raster(folder / "slice_12.png", VOLUME[5, 1:]), "6 uint8, grey; slice_12.png is 4×6"),
        (
            lambda folder: write_raster(folder / "slice_12.png", VOLUME[5].astype(np.uint16)),
            "slice_12.png is 5×6 uint16",
        ),
        (
            lambda folder: write_raster(folder / "slice_12.png", np.stack([VOLUME[5]] * 3, -1)),
            "uint8, red, green, blue",
        ),
    ],
)
def test_what_is_no_stack_is_refused_with_the_names(tmp_path, change, words):
    path = stack(tmp_path / "a")
    change(tmp_path / "a")
    for read in (formats.read, formats.read_header):
        with pytest.raises(FormatError, match=words):
            read(path)


def test_other_names_that_are_no_stack(tmp_path):
    stack(tmp_path / "two", VOLUME[:2], "a{}_b{}.png".replace("b{}", "b1"))
    write_raster(tmp_path / "two" / "a2_b2.png", VOLUME[2])
    with pytest.raises(FormatError, match="differ in 2 numbers"):
        formats.read(tmp_path / "two" / "stack=1x1x1")
    write_raster(tmp_path / "none" / "a.png", VOLUME[2])
    with pytest.raises(FormatError, match="has no number"):
        formats.read(tmp_path / "none" / "stack=1x1x1")
    tifffile.imwrite(tmp_path / "a1.tif", VOLUME, photometric="minisblack")
    with pytest.raises(FormatError, match="a volume itself"):
        formats.read(tmp_path / "stack=1x1x1")
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        with pytest.raises(FormatError):
            formats.read(tmp_path / name / "stack=1x1x1")


@pytest.mark.parametrize("words", ["", "1x2", "1x1x0", "1x1x-1", "1xax1", "nanx1x1", "1x1x1x1", "5,0.8,0.8"])
def test_distances_are_three_numbers(tmp_path, words):
    stack(tmp_path / "a")
    with pytest.raises(FormatError, match=r"stack=5x0\.8x0\.8"):
        formats.read(tmp_path / "a" / f"stack={words}")


def test_classes_in_jpeg_slices_are_refused(tmp_path):
    mask = np.zeros((3, 40, 40), np.uint8)
    mask[:, 10:30, 10:30] = 2
    with pytest.raises(FormatError, match=r"slice_0\.jpg(.|\n)*JPEG"):
        formats.read_label(stack(tmp_path / "a", mask, "slice_{}.jpg"))


def test_a_mask_of_a_stack_is_one_tiff(tmp_path):
    image = formats.read(stack(tmp_path / "a"))
    path = formats.write(Segmentation(VOLUME % 3, image.affine, image.source), tmp_path / "mask")
    label = formats.read_label(path, image)
    np.testing.assert_array_equal(label.array[0], VOLUME % 3)
    np.testing.assert_allclose(label.affine, image.affine, rtol=1e-6)

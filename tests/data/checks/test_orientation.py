"""Photographs with an orientation tag in data sets: checked, converted, predicted and scored as viewers show them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from cpfnet import formats
from cpfnet.data.case import placed
from cpfnet.data.checks.check import check
from cpfnet.data.dataset import load
from cpfnet.data.export.convert import convert
from cpfnet.errors import DatasetError
from tests.synthetic import blobs


def photographs(root: Path, tags: list[int], *, upright: bool = True, mask_tag: int = 1, size=(40, 56)) -> Path:
    """One photograph a tag; masks as viewers show the picture, or as it is stored."""
    for number, tag in enumerate(tags):
        grey, mask = blobs(np.random.default_rng(number), size)
        exif = Pillow.Exif()
        exif[274] = tag
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        Pillow.fromarray(np.uint8(255 * grey)).save(root / "images" / f"p{number}.jpg", exif=exif, quality=95)
        drawn = Pillow.fromarray(255 * mask)
        drawn.getexif()[274] = tag if upright else 1
        shown = ImageOps.exif_transpose(drawn)
        own = Pillow.Exif()
        own[274] = mask_tag
        shown.save(root / "masks" / f"p{number}.png", exif=own)
    return root


def test_masks_drawn_upright_are_right_and_the_tag_is_said_once(tmp_path) -> None:
    found = check(photographs(tmp_path, [1, 2, 3, 4, 5, 6, 7, 8, 6, 6]))
    assert not [finding for finding in found if finding.severity == "error"]
    (said,) = [finding for finding in found if "orientation tag" in finding.what]
    assert (said.severity, len(said.files)) == ("note", 9)


@pytest.mark.parametrize("tag", [5, 6, 7, 8])
def test_masks_drawn_on_the_stored_pixels_are_told_apart(tmp_path, tag) -> None:
    photographs(tmp_path, [1, 1, tag], upright=False)
    (error,) = [finding for finding in check(tmp_path) if finding.severity == "error"]
    assert (error.kind, error.where, error.case) == ("orientation", "masks/p2.png", "p2")
    assert f"stored pixels (40×56); the image has the orientation tag {tag}" in error.what
    assert error.fix.startswith("turn the pixels of `masks/p2.png`")
    with pytest.raises(DatasetError, match="stored pixels"):
        placed(tmp_path / "masks" / "p2.png", formats.read(tmp_path / "images" / "p2.jpg"))


def test_a_mask_turned_by_a_tag_of_its_own(tmp_path) -> None:
    photographs(tmp_path, [1], mask_tag=8)
    (error,) = [finding for finding in check(tmp_path) if finding.severity == "error"]
    assert (error.kind, error.where) == ("orientation", "masks/p0.png")
    assert "has the orientation tag 8, which turns it to 56×40; the image has none" in error.what


def test_converted_files_lie_upright_and_need_no_tag(tmp_path) -> None:
    photographs(tmp_path / "in", [3, 6, 1, 8])
    convert(load(tmp_path / "in"), tmp_path / "Dataset001_photos", to="nnunet")
    for number in range(4):
        out = tmp_path / "Dataset001_photos"
        with Pillow.open(tmp_path / "in" / "images" / f"p{number}.jpg") as picture:
            expected = np.asarray(ImageOps.exif_transpose(picture))
        with Pillow.open(out / "imagesTr" / f"p{number}_0000.png") as picture:
            assert picture.getexif().get(274) is None
            np.testing.assert_array_equal(np.asarray(picture), expected)
        name = f"p{number}.png"
        with Pillow.open(out / "labelsTr" / name) as mask, Pillow.open(tmp_path / "in" / "masks" / name) as drawn:
            np.testing.assert_array_equal(np.asarray(mask) * 255, np.asarray(drawn))

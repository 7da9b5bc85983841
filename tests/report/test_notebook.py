"""What a notebook shows of an Image and a Segmentation: the right slice, in radiological view, without patient data."""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import cpfnet
from cpfnet.image import Image, Segmentation
from cpfnet.planning import LabelClass, Labels
from tests.synthetic import PRIVATE, write_series

AXIAL = np.array([[0, 0, 1.0, 0], [0, 1, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]])
"""Slices of 5 mm from the feet up; rows to posterior, columns to the patient's left: as it is seen."""


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def picture(shown: Image | Segmentation) -> tuple[np.ndarray, str]:
    text = shown._repr_html_()
    (uri,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    words = html.unescape(re.sub(r"<[^>]*>", " ", text))
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(uri)))).astype(int), words


def quarters(pixels: np.ndarray) -> np.ndarray:
    """Mean grey of upper left, upper right, lower left, lower right."""
    grey = pixels.mean(axis=-1)
    rows, columns = (n // 2 for n in grey.shape)
    return np.array(
        [
            grey[:rows, :columns].mean(),
            grey[:rows, columns:].mean(),
            grey[rows:, :columns].mean(),
            grey[rows:, columns:].mean(),
        ]
    )


def test_of_a_volume_the_middle_slice_is_shown_as_radiologists_see_it() -> None:
    array = np.zeros((1, 7, 20, 40), np.float32)
    array[0, 3, :10, :20] = 100  # anterior right
    pixels, words = picture(Image(array, AXIAL, modality="ct"))
    assert quarters(pixels).argmax() == 0  # the patient's right is at the left
    assert pixels.shape[1] == 2 * pixels.shape[0]
    assert "slice 4 of 7" in words
    stored = AXIAL @ np.diag([1, -1, -1, 1.0])  # the same patient, stored from posterior and from the left
    turned, _ = picture(Image(array[:, :, ::-1, ::-1], stored, modality="ct"))
    assert quarters(turned).argmax() == 0


def test_pixels_that_are_no_squares_keep_their_proportions() -> None:
    wide = AXIAL @ np.diag([1, 1, 3.0, 1])
    pixels, _ = picture(Image(np.random.default_rng(0).random((1, 4, 30, 30)), wide))
    assert pixels.shape[1] == pytest.approx(3 * pixels.shape[0], abs=3)


def test_colours_stay_and_of_other_channels_the_first_is_shown() -> None:
    array = np.zeros((3, 30, 30), np.uint8)
    array[0, :15] = 255
    pixels, _ = picture(Image(array, channels=("red", "green", "blue")))
    assert pixels[20, 200].tolist() == pytest.approx([255, 0, 0], abs=8)
    pixels, _ = picture(Image(array.astype(np.int16), channels=("T1", "T2", "FLAIR")))
    assert pixels[20, 200].min() > 240
    assert pixels[-20, 200].max() < 15


def test_of_a_segmentation_the_slice_with_most_of_it() -> None:
    array = np.zeros((9, 20, 20), np.uint8)
    array[6, :10, 10:] = 7
    pixels, words = picture(Segmentation(array, AXIAL))
    assert quarters(pixels).argmax() == 1
    assert "slice 7 of 9" in words
    _, words = picture(Segmentation(np.zeros_like(array), AXIAL))
    assert "slice 5 of 9" in words
    labels = Labels(background=(7,), classes=(LabelClass(name="rest", values=(0,)),))
    pixels, words = picture(Segmentation(array[6], labels=labels))
    assert quarters(pixels).argmin() == 1  # there it is background
    assert "rest 0" in words


def test_a_large_picture_is_made_small() -> None:
    pixels, _ = picture(Image(np.random.default_rng(0).integers(0, 255, (1, 3000, 4000)).astype(np.uint8)))
    assert max(pixels.shape) <= 900
    assert pixels.shape[1] / pixels.shape[0] == pytest.approx(4 / 3, rel=0.02)


@pytest.mark.parametrize(
    "shown",
    [
        Image(np.zeros((1, 0, 4))),
        Image(np.zeros((0, 4, 4))),
        Image(np.zeros((2, 0, 4, 4)), AXIAL),
        Segmentation(np.zeros((4, 0), np.uint8)),
        Segmentation(np.zeros((0, 4, 4), np.uint8), AXIAL),
    ],
    ids=str,
)
def test_nothing_is_told_in_words(shown: Image | Segmentation) -> None:
    text = shown._repr_html_()
    assert "img" not in Tags(text).tags
    assert repr(shown) in html.unescape(text)


@pytest.mark.parametrize("value", [0, -1000, np.nan, np.inf])
def test_odd_values_are_drawn(value: float) -> None:
    pixels, _ = picture(Image(np.full((1, 8, 9), value, np.float64)))
    assert pixels.size


def test_no_name_acts_in_a_notebook() -> None:
    evil = '"><script>alert(1)</script>\x1b[2J'
    labels = Labels(classes=(LabelClass(name=evil, values=(1,)),))
    for shown in (
        Image(np.zeros((1, 8, 8)), channels=(evil,)),
        Segmentation(np.ones((8, 8), np.uint8), labels=labels),
    ):
        text = shown._repr_html_()
        assert set(Tags(text).tags) == {"figure", "img", "figcaption"}
        assert "\x1b" not in text


def test_nothing_private_is_in_it(tmp_path: Path) -> None:
    write_series(tmp_path / "Muster" / "ct", np.random.default_rng(0).integers(0, 99, (4, 24, 24)).astype(np.uint16))
    image = cpfnet.read(tmp_path / "Muster" / "ct")
    (uri,) = re.findall(r"base64,([^\"]+)", image._repr_html_())
    shown = (repr(image) + image._repr_html_().replace(uri, "")).encode() + base64.b64decode(uri)
    for secret in (*PRIVATE.values(), "Muster", "Erika", str(tmp_path)):
        assert secret.encode() not in shown


def test_it_takes_no_torch() -> None:
    program = (
        "import sys, numpy; from cpfnet.image import Image; Image(numpy.zeros((1, 8, 8)))._repr_html_(); "
        "assert not {'torch', 'monai', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""JPEG files with bytes too many, too few or altered: what libjpeg reports is passed on."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from cpfnet import formats
from cpfnet.errors import FormatError

pytest.importorskip("simplejpeg")

FORMS: dict[str, dict[str, object]] = {
    "plain": {},
    "grey": {"mode": "L"},
    "RGB": {"keep_rgb": True},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 8},
    "subsampled": {"subsampling": 2},
}


def photograph(mode: str = "RGB", **options: object) -> bytes:
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    content = io.BytesIO()
    Pillow.fromarray(small).resize((320, 240)).convert(mode).save(content, "JPEG", quality=92, **options)
    return content.getvalue()


@settings(max_examples=60, deadline=None)
@given(
    form=st.sampled_from(sorted(FORMS)),
    count=st.integers(150, 3000),
    place=st.floats(0.3, 0.6),
    how=st.sampled_from(["doubled", "lost"]),
)
def test_bytes_too_many_or_too_few_are_never_silent(tmp_path_factory, form, count, place, how) -> None:
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    whole = photograph(**FORMS[form])  # type: ignore[arg-type]
    at = int(len(whole) * place)
    path.write_bytes(whole[: at + count] + whole[at:] if how == "doubled" else whole[:at] + whole[at + count :])
    with pytest.raises(FormatError) as raised:
        formats.read(path)
    assert "again" in (raised.value.fix or "")


@pytest.mark.parametrize("form", FORMS)
def test_whole_photographs_say_nothing(tmp_path, form) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph(**FORMS[form]))  # type: ignore[arg-type]
    assert formats.read(tmp_path / "a.jpg").warnings == ()


def test_a_few_stray_bytes_behind_the_pixels_are_said_and_more_are_refused(tmp_path) -> None:
    """Some cameras leave one or two; the picture before them is complete. libjpeg counts those it has not consumed."""
    whole = photograph()
    (tmp_path / "a.jpg").write_bytes(whole[:-2] + b"\x55" * 5 + whole[-2:])
    image = formats.read(tmp_path / "a.jpg")
    (note,) = image.warnings
    assert "behind its pixels" in note
    np.testing.assert_array_equal(np.moveaxis(image.array, 0, -1), np.asarray(Pillow.open(io.BytesIO(whole))))
    (tmp_path / "a.jpg").write_bytes(whole[:-2] + b"\x55" * 40 + whole[-2:])
    with pytest.raises(FormatError, match=r"3\d extraneous bytes"):
        formats.read(tmp_path / "a.jpg")


def test_what_follows_the_picture_does_not_matter(tmp_path) -> None:
    (tmp_path / "a.jpg").write_bytes(photograph() + b"a thumbnail, a film of two seconds" * 99)
    assert formats.read(tmp_path / "a.jpg").warnings == ()

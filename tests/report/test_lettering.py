"""Names in any script: drawn if a font has them, else numbered with the name in the text; never as an empty box."""

from __future__ import annotations

import base64
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cpfnet.report import figures, lettering
from cpfnet.report.calibration import calibration_section
from cpfnet.report.differences import Row, differences
from cpfnet.report.page import Figure
from cpfnet.report.training import training_sections

CHINESE, JAPANESE, KOREAN = "肝脏", "腫瘍 (悪性)", "종양"


def forget() -> None:
    for cached in (lettering.style, lettering._has, lettering._characters):
        cached.cache_clear()


@pytest.fixture
def no_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine without any East Asian font."""
    monkeypatch.setattr(lettering, "EAST_ASIAN", ())
    forget()
    yield
    forget()


@pytest.fixture
def a_font(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine with one: DejaVu Sans under that name, with some of its own shapes for these characters."""
    from fontTools.ttLib import TTFont
    from matplotlib import font_manager

    font = TTFont(font_manager.findfont("DejaVu Sans"))
    for table in font["cmap"].tables:
        if table.isUnicode():
            table.cmap |= {ord(c): "A" for c in CHINESE + JAPANESE + KOREAN if not c.isascii()}
    for record in font["name"].names:
        if record.nameID in (1, 4, 16):
            record.string = "SimHei"
    font.save(tmp_path / "simhei.ttf")
    before = list(font_manager.fontManager.ttflist)
    font_manager.fontManager.addfont(tmp_path / "simhei.ttf")
    monkeypatch.setattr(lettering, "EAST_ASIAN", ("SimHei",))
    forget()
    yield
    font_manager.fontManager.ttflist[:] = before
    font_manager._findfont_cached.cache_clear() if hasattr(font_manager, "_findfont_cached") else None
    forget()


def draw_all(names: list[str]) -> list[str]:
    """Every kind of figure with these class names."""
    rng = np.random.default_rng(0)
    masks = np.zeros((len(names), 40, 40), bool)
    for index, mask in enumerate(masks):
        mask[5 + 8 * index : 12 + 8 * index, 5:30] = True
    image = rng.random((40, 40))
    diagram = {"pixels": [5, 5], "probability": [0.2, 0.8], "share": [0.1, 0.9]}
    figured = {"ece": 0.1, "ece_band": 0.1, "brier": 0.1, "brier_band": 0.1, "band": diagram}
    (calibration,) = calibration_section({"before": dict.fromkeys(names, figured)}, unit="mm", pixels="pixels")
    history = [
        {"epoch": k, "loss": 1 / k, "dice": k / 9, **{f"dice {name}": k / 10 for name in names}} for k in (1, 2, 3)
    ]
    return [
        figures.overlay(figures.Overlay(image, masks, masks, names)),
        figures.overlay(figures.Overlay(image, masks[:1], masks[:1], names[:1])),
        figures.box_plots({"Dice": {name: rng.random(5).tolist() for name in names}}),
        differences({"Dice": [Row(name, 0.1, 0.0, 0.2) for name in names]}),
        *(block.uri for block in calibration.blocks if isinstance(block, Figure)),
        *(block.uri for part in training_sections(history) for block in part.blocks if isinstance(block, Figure)),
    ]


@pytest.mark.parametrize("fonts", ["no_font", "a_font"])
def test_no_warning_and_no_empty_box(
    fonts: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    request.getfixturevalue(fonts)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        assert len(draw_all([CHINESE, JAPANESE, KOREAN])) == 6
    assert not caplog.records


def test_numbers_stand_for_what_no_font_has(no_font: None) -> None:
    made = lettering.lettering(["liver", CHINESE, f"dice {JAPANESE}", f"dice {CHINESE}", "Größe, опухоль, μ"])
    assert list(made.shown.values()) == ["liver", "#1", "dice #2)", "dice #1", "Größe, опухоль, μ"]
    assert made.key.startswith(f"In the figure: #1 {CHINESE}, #2 {JAPANESE[:-1]} (no font installed here")


def test_names_are_drawn_where_a_font_has_them(a_font: None) -> None:
    names = [CHINESE, JAPANESE, KOREAN]
    assert lettering.lettering(names) == lettering.Lettering({name: name for name in names}, "")
    assert lettering.lettering(["𓀀"]).shown == {"𓀀": "#1"}  # a hieroglyph is in none


def test_the_key_stands_beside_each_figure(no_font: None) -> None:
    history = [{"epoch": k, "loss": 1 / k, "dice": k / 9, f"dice {CHINESE}": k / 10} for k in (1, 2, 3)]
    (section,) = training_sections(history)
    (figure,) = (block for block in section.blocks if isinstance(block, Figure))
    assert f"#1 {CHINESE}" in figure.caption
    svg = base64.b64decode(figure.uri.partition(",")[2]).decode()
    assert re.search(r"<!-- dice #1 -->", svg)


def test_plain_names_have_no_key() -> None:
    assert lettering.lettering(["liver", "tumour"]).key == ""

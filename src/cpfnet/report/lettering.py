"""Names in figures, in any script: drawn with the installed fonts, else as a number that the text explains."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cpfnet.text import printable

PLAIN = ("Liberation Sans", "Arial", "Helvetica")
"""The first of these that is installed draws most of the text …"""

EVERYWHERE = "DejaVu Sans"
"""… this one, which comes with Matplotlib, draws the characters that it does not have …"""

EAST_ASIAN = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK TC",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "PingFang HK",
    "Heiti TC",
    "STHeiti",
    "Hiragino Sans",
    "Hiragino Sans GB",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "Microsoft YaHei",
    "SimHei",
    "SimSun",
    "Yu Gothic",
    "MS Gothic",
    "Meiryo",
    "Malgun Gothic",
    "NanumGothic",
    "IPAGothic",
    "TakaoGothic",
    "Arial Unicode MS",
    "Unifont",
)
"""… and these Chinese, Japanese and Korean: of Linux, macOS and Windows."""


@dataclass(frozen=True)
class Lettering:
    """How names are drawn in a figure.

    Attributes:
        shown: name → what is drawn: the name, with a number for the part that no installed font has.
        key: what the numbers mean, for the text next to the figure; "" where everything is drawn.
    """

    shown: dict[str, str]
    key: str


def lettering(names: Iterable[str]) -> Lettering:
    """Make names drawable; the same names in the same order give the same numbers.

    Example:
        >>> lettering(["liver", "Tumor"]).key
        ''
    """
    shown: dict[str, str] = {}
    numbers: dict[str, int] = {}
    for name in names:
        text = printable(name)
        missing = [index for index, character in enumerate(text) if not _has(character)]
        if missing:
            part = text[missing[0] : missing[-1] + 1]
            number = numbers.setdefault(part, len(numbers) + 1)
            text = f"{text[: missing[0]]}#{number}{text[missing[-1] + 1 :]}"
        shown[name] = text
    meant = ", ".join(f"#{number} {part}" for part, number in numbers.items())
    key = f"In the figure: {meant} (no font installed here has these characters; Noto Sans CJK has)." if meant else ""
    return Lettering(shown, key)


@cache
def style() -> Any:
    """The style of every figure, for `matplotlib.rc_context`."""
    # Many East Asian fonts have no bold; it is no problem that a title is drawn without it.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    return {
        "font.family": list(_families()),
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#8a94a0",
        "axes.grid": True,
        "grid.color": "#e6eaef",
        "svg.hashsalt": "cpfnet",
        "text.parse_math": False,  # a $ in a name stays a $
    }


def _families() -> tuple[str, ...]:
    """Installed font families, in the order in which a character is searched."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    plain = [family for family in PLAIN if family in installed][:1]
    return (*plain, EVERYWHERE, *(family for family in EAST_ASIAN if family in installed))


@cache
def _has(character: str) -> bool:
    return character.isascii() or any(ord(character) in characters for characters in _characters())


@cache
def _characters() -> tuple[frozenset[int], ...]:
    """The characters of each font; bold titles use fonts of their own, which have all characters that matter."""
    from matplotlib import font_manager, ft2font

    files = (font_manager.findfont(family, fallback_to_default=False) for family in _families())
    return tuple(frozenset(ft2font.FT2Font(file).get_charmap()) for file in files)

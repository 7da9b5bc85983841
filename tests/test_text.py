"""Names that others chose: what leaves cpfnet can do nothing, and says the same."""

import csv
import io
import json
import re
import unicodedata
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cpfnet.text import from_csv_cell, markdown, printable, to_csv_cell, to_json

ANY = st.text(st.characters(categories=None) | st.sampled_from("=+-@'\t\r\n\x1b\x7f\x9b\u2028\u202e\u2069\udc80 12.e"))
OVERRIDES = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def obeyed(text: str) -> list[str]:
    """Characters that a terminal or an editor obeys rather than shows, by Python's own tables of Unicode."""
    return [
        c
        for c in text
        if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in OVERRIDES
    ]


@given(ANY)
def test_nothing_printable_is_obeyed_and_twice_is_once(text: str) -> None:
    shown = printable(text)
    assert not obeyed(shown)
    assert shown.encode().decode() == shown  # no half of a character
    assert printable(shown) == shown
    if not obeyed(text):
        assert shown == text


def test_what_is_not_printable_is_written_as_python_would() -> None:
    assert printable("a\x1b[31mb\x9b\u202ec\n") == r"a\x1b[31mb\x9b\u202ec\n"
    assert printable("scan\udcff") == r"scan\xff"  # the byte of a file name
    assert printable("é 肝 ا‎ 👩‍⚕️") == "é 肝 ا‎ 👩‍⚕️"
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"


@given(st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=4))
def test_json_gives_back_what_was_written_and_holds_nothing_raw(value: object) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert set(obeyed(text)) <= {"\n"}
    assert text.encode().decode() == text


@given(st.lists(ANY, min_size=1, max_size=4))
def test_csv_gives_back_printable_text_and_holds_no_formula(cells: list[str]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file).writerow(map(to_csv_cell, cells))
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert [from_csv_cell(cell) for cell in row] == [printable(cell) for cell in cells]
    for cell in row:
        if cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")):
            float(cell)  # a number at most


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("-2+3+cmd|' /C calc'!A0", "'-2+3+cmd|' /C calc'!A0"),
        ("+49 30", "'+49 30"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("'=1", "''=1"),
        ("-case", "'-case"),
        ("-0.5", "-0.5"),
        ("-1e-3", "-1e-3"),
        ("+7", "+7"),
        ("'tis", "'tis"),
        ("a=b", "a=b"),
        ("", ""),
        (-0.5, -0.5),
    ],
)
def test_an_apostrophe_stands_before_formulas_alone(cell: object, written: object) -> None:
    assert to_csv_cell(cell) == written


CONTEXTS = ("# {}", "- {}: 1 … 2", "Segments {} (written as 1) in ct volume.", "- threshold: {} 0.5")
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown_by(line: str) -> tuple[set[str], str]:
    """Tags and text of a line of Markdown, by another parser."""
    html = PARSER.render(line)
    return set(re.findall(r"</?([a-z0-9]+)", html)), unescape(re.sub(r"<[^<>]*>", "", html)).strip()


@pytest.mark.parametrize("context", CONTEXTS)
@given(
    name=st.text(st.sampled_from("ab1 <>&\"'`*_~[](){}!|#+-=.:;/\\$@\n\t\x1b"), max_size=12)
    | st.sampled_from(
        [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[a](javascript:alert(1))",
            "![a](http://a.b/c.png)",
            "<http://a.b>",
            "&lt;b&gt;",
            "left_lung",
            "1. one",
            "12) a",
            "- a",
            "| a | b |",
            "a\n\n# b",
            "a ##",
        ]
    )
)
def test_markdown_shows_just_the_name(context: str, name: str) -> None:
    allowed, _ = shown_by(context.format("name"))
    tags, text = shown_by(context.format(markdown(name)))
    assert tags <= allowed
    _, expected = shown_by(context.format("name"))
    normal = lambda s: " ".join(s.split())  # noqa: E731  # HTML does not tell one blank from two
    assert normal(text) == normal(expected.replace("name", printable(name)))


@pytest.mark.parametrize("name", ["http://evil.example", "https://a.b", "www.evil.example", "me@evil.example"])
def test_no_address_becomes_a_link(name: str) -> None:
    shown = markdown(name)
    assert shown != name
    # GitHub links what matches these, anywhere in a line.
    assert not re.search(r"https?://|www\.|[\w.+-]+@[\w-]+\.", shown)
    assert shown_by(shown)[1] == name


def test_common_names_stay_legible() -> None:
    for name in ("left_lung", "Tumor (core)", "GTV-1", "liver, left; 50%", "肝", "T1.5"):
        assert markdown(name) == name

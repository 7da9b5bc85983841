from __future__ import annotations

import base64
import html
import re
import struct
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from skimage.color import rgb2lab

from cpfnet.errors import OutputError
from cpfnet.report import figures, page
from cpfnet.report.training import training_sections


class Reader(HTMLParser):
    """Tags that stay open, and every address that the page names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


EVERYTHING = [
    page.Section(
        "All <blocks>",
        [
            page.Text(["One.", "Two & <b>three</b>."]),
            page.Notice(["careful"]),
            page.Notice([], level="note"),
            page.Tiles([page.Tile("Dice", "0.9", "n = 3")]),
            page.Table(["Class", "Dice"], [["vessel", page.Cell("0.9", "0.8 … 1.0")], ["lesion", "–"]], "A caption"),
            page.Pairs([("Time", "3 s")]),
            page.Figure(figures.curves([0, 1, 2], {"Loss": {"train": [1, 0.5, 0.2]}}), "a curve"),
            page.Code("a:\n  b: <c>"),
        ],
    ),
    page.Section("Nothing", []),
]


def test_the_page_is_whole_and_needs_nothing_else(tmp_path):
    html = page.render(tmp_path / "deep" / "r.html", title="T <i>", subtitle="s", sections=EVERYTHING).read_text()
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    assert all(a.startswith(("data:image/", "#")) for a in reader.addresses)
    assert not re.search(r"https?://|//cdn|@import|url\(", html)
    assert "default-src 'none'" in html
    assert "<title>T &lt;i&gt;</title>" in html
    assert "Two &amp; &lt;b&gt;three&lt;/b&gt;." in html
    assert "<pre>a:\n  b: &lt;c&gt;</pre>" in html
    assert html.count("<section") == 1
    assert "@media print" in html


EVIL = "x</script><script>alert(1)</script>\x1b[2J\x9b\u202e\u2028\udc80-->$a$"


def test_no_name_acts_in_a_page(tmp_path):
    blocks = [
        page.Text([EVIL]),
        page.Notice([EVIL]),
        page.Tiles([page.Tile(EVIL, EVIL, EVIL)]),
        page.Table([EVIL, EVIL], [[EVIL, page.Cell(EVIL, EVIL)]], EVIL),
        page.Pairs([(EVIL, EVIL)]),
        page.Figure("data:,", EVIL, EVIL),
        page.Code(EVIL),
        page.Cards([page.Card(EVIL, EVIL, f"`{EVIL}`", [EVIL, EVIL], [EVIL, EVIL], "data:,", EVIL, EVIL)]),
    ]
    text = page.render(
        tmp_path / "page.html", title=EVIL, subtitle=EVIL, sections=[page.Section(EVIL, blocks)]
    ).read_text(encoding="utf-8")
    assert not set(text) & set("\x1b\x9b\u202e\u2028\udc80")
    assert "<script" not in text
    title = re.search(r"<title>(.*)</title>", text)[1]
    assert html.unescape(title) == "x</script><script>alert(1)</script>\\x1b[2J\\x9b\\u202e\\u2028\\x80-->$a$"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_name_breaks_a_figure():
    uri = figures.box_plots(
        {"Dice": {EVIL.replace("\udc80", ""): [0.1, 0.2], "$\\frac$": [0.3, 0.4]}}, unit_range=["Dice"]
    )
    drawn = base64.b64decode(uri.partition(",")[2])
    assert b"alert" in drawn  # in a comment
    assert ElementTree.fromstring(drawn).tag.endswith("svg")  # it is whole XML, which no control character is


def test_files_are_not_replaced_unasked_and_nothing_is_left_behind(tmp_path):
    path = page.render(tmp_path / "r.html", title="one", sections=EVERYTHING)
    with pytest.raises(OutputError, match="exists already"):
        page.render(path, title="two", sections=EVERYTHING)
    assert "<h1>one" in path.read_text()
    page.render(path, title="two", sections=EVERYTHING, overwrite=True)
    assert "<h1>two" in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        page.render(tmp_path / "file" / "r.html", title="t", sections=EVERYTHING)


def test_versions():
    found = dict(page.installed_versions("numpy", "no-such-package"))
    assert found["numpy"] == np.__version__
    assert {"Python", "Machine", "cpfnet"} < set(found)
    assert "no-such-package" not in found


def svg(uri: str) -> str:
    return base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,")).decode()


def test_figures_are_the_same_for_the_same_data():
    draw = [lambda: figures.curves([0, 1], {"Loss": {"a": [1, 2], "b": [2, ""]}})]
    draw.append(lambda: figures.box_plots({"Dice": {"a": [0.5, 0.6, 0.9], "b": [np.nan, 0.2]}}, unit_range=["Dice"]))
    for function in draw:
        assert function() == function()
        assert svg(function()).startswith("<?xml")


@pytest.mark.filterwarnings("error")
def test_box_plots_of_odd_data():
    values = {"a": [np.inf, np.inf, 3.0], "b": [np.nan], "c": [], "d": [np.inf]}
    assert "<!-- 2 × ∞ -->" in svg(figures.box_plots({"HD95": values, "Dice": {"a": [1.0]}}, unit_range=["Dice"]))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("shape", [(30, 40), (40, 7), (200, 200)])
def test_overlays(classes, shape):
    rng = np.random.default_rng(0)
    truth = np.zeros((classes, *shape), bool)
    truth[0, 2:9, 1:5] = True
    picture = figures.Overlay(rng.random(shape), truth, np.zeros_like(truth), list("abc")[:classes], aspect=2.0)
    jpeg = base64.b64decode(figures.overlay(picture).removeprefix("data:image/jpeg;base64,"))
    assert jpeg[:2] == b"\xff\xd8"
    assert struct.pack(">B", 0xD9) == jpeg[-1:]
    colour = figures.Overlay(rng.random((*shape, 3)), ~truth, truth, list("abc")[:classes], roi=truth[0])
    assert figures.overlay(colour) != figures.overlay(picture)


def test_training(tmp_path):
    history = [
        {
            "epoch": str(i),
            "train_loss": str(1 / (i + 1)),
            "val_dice": "0.5" if i % 2 else "",
            "learning_rate": 1e-3,
            "note": "x",
        }
        for i in range(4)
    ]
    parts = training_sections(history, facts=[("Time", "1 s")], plan="name: x", warnings=["one case"])
    assert [part.title for part in parts] == ["Training", "Curves", "Plan"]
    (curve,) = parts[1].blocks
    assert curve.alt == "Curves over the epoch: Loss, Dice, Learning rate"
    assert page.render(tmp_path / "r.html", title="t", sections=parts).exists()
    assert training_sections([]) == []
    assert Path(tmp_path / "r.html").stat().st_size > 5000


def test_the_only_class_has_no_curve_beside_its_mean():
    one = [{"epoch": n, "loss": 1 / n, "dice": n / 10, "dice vessel": n / 10} for n in (1, 2)]
    two = [{**row, "dice": 0.5, "dice vein": 0.1} for row in one]
    drawn = [
        base64.b64decode(section.blocks[0].uri.partition(",")[2]).decode().count("<!-- dice")
        for history in (one, two)
        for section in training_sections(history)
    ]
    assert drawn == [0, 3]  # a legend only where lines are to be told apart


def test_every_class_has_a_line_colour_of_its_own():
    few, many = figures.line_colours(3), figures.line_colours(60)
    assert many[:3] == few
    lab = rgb2lab(np.array([list(bytes.fromhex(colour[1:])) for colour in many]) / 255)
    assert pdist(lab).min() > 10  # CIE76; 2.3 is just noticeable
    assert lab[:, 0].min() > 40  # seen on dark images

"""One self-contained HTML page: from sections of plain data to a file that can be mailed, archived and printed.

It loads nothing from elsewhere: pictures are data URIs, styles are in the page, and the page forbids
itself the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cpfnet.files import replacing
from cpfnet.text import printable

if TYPE_CHECKING:
    from jinja2 import Template


@dataclass(frozen=True)
class Text:
    """Paragraphs."""

    paragraphs: Sequence[str]
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Notice:
    """Messages that the reader must not overlook (none: nothing is shown); ``level`` is ``"warning"`` or ``"note"``."""

    messages: Sequence[str]
    level: str = "warning"
    kind: ClassVar[str] = "notice"


@dataclass(frozen=True)
class Tile:
    """One headline number: its name, its value, and a detail below it."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Tiles:
    """Headline numbers, side by side."""

    tiles: Sequence[Tile]
    kind: ClassVar[str] = "tiles"


@dataclass(frozen=True)
class Cell:
    """A table cell with smaller lines under its value."""

    value: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of strings or `Cell`; the first column is the row's heading.

    Attributes:
        columns: headings.
        rows: as many entries as columns.
        caption: what the table shows, and how to read it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Pairs:
    """Names and values, one a line."""

    pairs: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "pairs"


@dataclass(frozen=True)
class Figure:
    """A picture as a data URI (see `cpfnet.report.figures`); ``alt`` describes it to people who cannot see it."""

    uri: str
    alt: str
    caption: str = ""
    kind: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Code:
    """Text with its line breaks; long text scrolls on the screen and is printed whole."""

    text: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Card:
    """One thing explained in words next to its picture.

    Attributes:
        title: what it is about.
        tag: a word for its kind.
        text: the explanation; here and in ``fixes``, text between backticks is set as code.
        fixes: what can be done about it, one entry each.
        more: a long list, folded.
        uri: the picture as a data URI, or "".
        alt: what the picture shows.
        caption: the line under the picture.
    """

    title: str
    tag: str
    text: str
    fixes: Sequence[str] = ()
    more: Sequence[str] = ()
    uri: str = ""
    alt: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Cards:
    """Cards, one below the other."""

    cards: Sequence[Card]
    kind: ClassVar[str] = "cards"


Block = Text | Notice | Tiles | Table | Pairs | Figure | Code | Cards


@dataclass(frozen=True)
class Section:
    """A heading and the blocks under it."""

    title: str
    blocks: Sequence[Block] = field(default_factory=list)


def installed_versions(*packages: str) -> list[tuple[str, str]]:
    """Versions on this machine, for `Pairs`: Python, the machine, cpfnet, and the named packages that are installed."""
    import platform

    versions = [("Python", platform.python_version()), ("Machine", f"{platform.system()} {platform.machine()}")]
    for package in ("cpfnet", *packages):
        try:
            versions.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return versions


def _shown(value: Any) -> Any:
    """A value without control characters; HTML that the template made holds none any more."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cpfnet.report", "."),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")


def render(
    path: Path | str, *, title: str, subtitle: str = "", sections: Sequence[Section], overwrite: bool = False
) -> Path:
    """Write the page.

    Args:
        path: the file to write, ``….html``.
        title: its heading.
        subtitle: one line under it (its subject and date).
        sections: in order; empty ones are left out.
        overwrite: replace an existing file.

    Raises:
        OutputError: the file exists and ``overwrite`` is False, or cannot be written.
    """
    path = Path(path)
    with replacing(path, overwrite=overwrite) as temporary:
        html = _template().render(title=title, subtitle=subtitle, sections=[s for s in sections if s.blocks])
        temporary.write_text(html, encoding="utf-8")
    return path

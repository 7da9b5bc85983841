"""Make text that others chose (names of files, classes and patients, words of DICOM headers) safe to show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line separators, overrides of the writing direction, bytes that are not UTF-8 (lone
surrogates)."""

_ACTIVE = re.compile(
    r"[\\`*\[\]{}|~$@!#^<>&]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|^[-+=:]|(?<=^\d)[.)]|(?<=^\d\d)[.)]",
    re.IGNORECASE,
)
"""What has a meaning in Markdown, or in HTML inside it."""
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"'*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: str, *, keep: str = "") -> str:
    r"""Text that any terminal, page, YAML or JSON takes: what is not printable becomes ``\xNN`` or ``\uNNNN``.

    Args:
        text: as found.
        keep: control characters that stay, such as ``"\n"``.

    Example:
        >>> printable("liver\x1b[2J")
        'liver\\x1b[2J'
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else character.encode("unicode_escape").decode()


def markdown(text: str) -> str:
    """One line of Markdown that shows just this text: no link, no HTML, no table, nothing emphasised."""
    return _ACTIVE.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), printable(text))


def to_json(value: Any, *, ascii: bool = False) -> str:
    """Readable JSON; what is not printable (or, with ``ascii``, not ASCII) is escaped, so that no text is changed."""
    text = json.dumps(value, indent=1, ensure_ascii=ascii)
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


def to_csv_cell(value: Any) -> Any:
    """A CSV cell that no spreadsheet takes for a formula: such text gets an apostrophe in front, numbers stay.

    `from_csv_cell` removes the apostrophe, and returns any printable text unchanged.

    Example:
        >>> to_csv_cell("=1+1"), to_csv_cell("-0.5"), to_csv_cell(-0.5)
        ("'=1+1", '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if _is_formula(text) else text


def from_csv_cell(text: str) -> str:
    """The inverse of `to_csv_cell`."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


def brief(names: Iterable[object], most: int = 4) -> str:
    """``a, b, c, d and 3 more``, on one line."""
    shown = [printable(str(name))[:40] for name in names]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def counted(number: int, name: str, plural: str = "") -> str:
    """``1 class``, ``2 classes``."""
    return f"{number} {name if number == 1 else plural or name + 's'}"


def file_size(size: int) -> str:
    """In bytes, kB or MB of 1000 each.

    Example:
        >>> file_size(12), file_size(7872), file_size(122_700_000)
        ('12 bytes', '7.9 kB', '122.7 MB')
    """
    if size < 1000:
        return counted(size, "byte")
    return f"{size / 1e3:.1f} kB" if size < 999_950 else f"{size / 1e6:.1f} MB"


def natural(text: str) -> list[int | str]:
    """Sort key that puts case_9 before case_10."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"([0-9]+)", text))]

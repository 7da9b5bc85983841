"""The text of a list that a spreadsheet wrote, in whatever encoding."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cpfnet.errors import DatasetError

_ENCODINGS = {
    "gb18030": "GBK (Chinese)",
    "cp932": "Shift-JIS (Japanese)",
    "cp949": "EUC-KR (Korean)",
    "big5": "Big5 (Chinese)",
    "cp1252": "Windows-1252 (Western)",
}
"""What spreadsheets write where the system's language is not English."""


def texts(path: Path) -> Iterator[tuple[str, str]]:
    """What the file may say, the likeliest first, each with its encoding in words, or "" where that is certain."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror}", where=path, fix="give the path of a CSV manifest"
        ) from None
    fix = "save it as CSV UTF-8 (comma delimited)"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            yield "", content.decode("utf-16")
        except UnicodeDecodeError:
            raise DatasetError("is damaged UTF-16 text", where=path, fix=fix) from None
        return
    if b"\0" in content:
        raise DatasetError("is no plain text, or UTF-16", where=path, fix=fix)
    with suppress(UnicodeDecodeError):
        yield "", content.decode("utf-8-sig")
        return
    # Names on disk need not be UTF-8; surrogates give their bytes back when the file is opened.
    found = [("", content.decode("utf-8-sig", errors="surrogateescape"))]
    for encoding, words in _ENCODINGS.items():
        with suppress(UnicodeDecodeError):
            found.append((words, content.decode(encoding)))
    with suppress(UnicodeDecodeError):
        content.decode("gb2312")  # Western letters are none: there, a second byte has its highest bit set
        found.insert(0, found.pop(1))
    yield from found

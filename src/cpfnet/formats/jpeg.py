"""Damage inside JPEG files, which Pillow does not report.

Inserted or lost bytes shift and recolour everything behind them. libjpeg reports that and continues; `simplejpeg`,
which contains it, too, passes the report on.
"""

from __future__ import annotations

import re

from cpfnet.errors import FormatError

_FILL = 2**17  # longer than any segment of a JPEG
_STRAY = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_FEW = 4
"""Stray bytes at the very end that some cameras leave behind a complete picture: accepted, with a message."""


def check_fill(content: bytes) -> None:
    """Refuse a JPEG of fill bytes (erased flash memory), which Pillow would read one by one, for minutes."""
    if content[:2] == b"\xff\xd8" and b"\xff" * _FILL in content:
        raise FormatError("holds nothing but fill bytes (0xFF) from some point on", fix="copy the file again")


def damage_warnings(content: bytes) -> tuple[str, ...]:
    """What libjpeg reports of a picture that it decodes; nothing if `simplejpeg` is not installed.

    Args:
        content: of the file.

    Raises:
        FormatError: its data are damaged.
    """
    try:
        from simplejpeg import decode_jpeg
    except ImportError:  # there is no wheel for every platform
        return ()
    # At an eighth of its size all data are read, and hardly any memory is taken.
    size = {"colorspace": "GRAY", "min_height": 1, "min_width": 1}
    try:
        decode_jpeg(content, strict=True, **size)
        return ()
    except ValueError as error:
        report = str(error)
    try:
        decode_jpeg(content, strict=False, **size)
    except ValueError:
        return ()  # a kind that it does not support: Pillow decides
    if (stray := _STRAY.fullmatch(report)) and int(stray[1]) <= _FEW:
        return (f"stray bytes behind its pixels ({stray[1]}): the picture is taken for whole",)
    if report.startswith(("Corrupt JPEG data", "Premature end")):
        raise FormatError(
            f"its pixels are damaged, from some point on they would be wrong ({report})",
            fix="copy or export it again; if it is whole in a viewer, save it anew from there",
        )
    return (f"decoded with a warning: {report}",)

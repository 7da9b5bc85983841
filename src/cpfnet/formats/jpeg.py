"""Damage inside JPEG files, which Pillow keeps silent about.

Bytes that came in between, or got lost, shift and recolour everything behind them. libjpeg reports that and decodes on; `simplejpeg`, which holds
it too, passes the report on.
"""

from __future__ import annotations

import re

from cpfnet.errors import FormatError

_FILL = 2**17  # longer than any segment of a JPEG
_STRAY = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_FEW = 4
"""Stray bytes at the very end that some cameras leave behind a whole picture: said, not refused."""


def check_fill(content: bytes) -> None:
    """Refuse a JPEG of fill bytes (erased flash memory), which Pillow would walk through one by one, for minutes."""
    if content[:2] == b"\xff\xd8" and b"\xff" * _FILL in content:
        raise FormatError("holds nothing but fill bytes (0xFF) from some point on", fix="copy the file again")


def notes_on_damage(content: bytes) -> tuple[str, ...]:
    """What libjpeg reports of a picture that it decodes; nothing where `simplejpeg` is not installed.

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
        said = str(error)
    try:
        decode_jpeg(content, strict=False, **size)
    except ValueError:
        return ()  # of a kind that it does not read at all: that is for Pillow to say
    if (stray := _STRAY.fullmatch(said)) and int(stray[1]) <= _FEW:
        return (f"stray bytes behind its pixels ({stray[1]}): the picture is taken for whole",)
    if said.startswith(("Corrupt JPEG data", "Premature end")):
        raise FormatError(
            f"its pixels are damaged, from some point on they would be wrong ({said})",
            fix="copy or export it again; if it is whole in a viewer, save it anew from there",
        )
    return (f"decoded with a warning: {said}",)

"""What the tests of all families ask of damaged files."""

from __future__ import annotations

from pathlib import Path

from cpfnet import formats
from cpfnet.errors import FormatError


def image_or_error(path: Path) -> None:
    """Any bytes are either an image with the header of `read_header`, or raise a FormatError with file and fix."""
    error = None
    try:
        image = formats.read(path)
    except FormatError as raised:
        error = raised
    if error is not None:
        assert error.where == str(path)
        assert error.fix
        return
    header = formats.read_header(path)
    assert (header.shape, header.dtype, header.channels) == (image.shape, image.array.dtype, image.channels)

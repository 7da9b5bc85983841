"""What of JPEG 2000 (.jp2, .j2k) is read: OpenJPEG, in Pillow, changes the values of all other kinds of samples.

ISO/IEC 15444-1, A.5.1: the SIZ segment says how many bits the samples of each component have.
"""

from __future__ import annotations

import struct

from cpfnet.errors import FormatError

_CODESTREAM = b"\xff\x4f\xff\x51"  # SOC and SIZ, the first two markers
STARTS = (_CODESTREAM, b"\0\0\0\x0cjP  ")
"""How its files begin: with the codestream itself, or with boxes, one of which holds it."""

_COMPONENTS = 40  # bytes from there to the number of components


def check_samples(content: bytes) -> None:
    """Refuse samples that are not unsigned, of 8 bits, or of 16 bits in one component.

    Raises:
        FormatError: such samples.
    """
    at = content.find(_CODESTREAM)
    if at < 0:
        return  # decoding says so
    try:
        (count,) = struct.unpack_from(">H", content, at + _COMPONENTS)
        kinds = {content[at + _COMPONENTS + 2 + 3 * index] for index in range(count)}
    except (struct.error, IndexError):
        return  # it is cut short: decoding says so
    if kinds not in ({7}, {15}) or (kinds == {15} and count > 1):  # bits less one; 128 and above are signed
        bits = ", ".join(f"{'signed ' * (kind > 127)}{(kind & 127) + 1}" for kind in sorted(kinds))
        raise FormatError(
            f"holds {count} components of {bits} bits in JPEG 2000; read are 8 bits, and 16 bits of grey",
            fix="save it as PNG or TIFF",
        )

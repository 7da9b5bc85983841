"""What a mutant is, and the harm that can be done to the bytes of any file."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

Make = Callable[[Path], Path]
"""Writes into an empty folder, and returns what is to be read."""

SAME, OTHER, REFUSED = "same", "other", "refused"
ANY = frozenset({SAME, OTHER, REFUSED})
"""``same`` as the unharmed file, a legitimately ``other`` value, or ``refused``."""


@dataclass(frozen=True)
class Mutant:
    """One bad input.

    Attributes:
        family: format, as the table counts it.
        name: what was done, unique within the family.
        make: writes it.
        use: how it is judged: a name in `tests.corpus.judge.USES`.
        may: the outcomes that are right.
        sound: writes the unharmed file, where there is one to compare with.
    """

    family: str
    name: str
    make: Make
    use: str = "image"
    may: frozenset[str] = ANY
    sound: Make | None = None


def rng(seed: int, *words: str) -> np.random.Generator:
    """Randomness that belongs to these words alone: mutants added elsewhere do not change it."""
    return np.random.default_rng([seed, zlib.crc32("/".join(words).encode())])


def put(content: bytes | str, name: str, folder: Path) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def file(name: str, content: bytes | str) -> Make:
    return partial(put, content, name)


def harms(
    data: bytes, random: np.random.Generator, *, text: bool = False
) -> Iterator[tuple[str, bytes, frozenset[str]]]:
    """What happens to files on the way: (name, harmed bytes, outcomes that are right).

    A file cut short must not be read as if it were whole, unless nothing of it was lost.
    """
    whole = ANY if text else frozenset({SAME, REFUSED})
    size = len(data)
    for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97):
        yield f"cut to {share:.0%}", data[: int(share * size)], whole
    for left in (1, 7):
        yield f"{left} bytes left", data[:left], whole
    for missing in (1, 2, 5, 17):
        yield f"last {missing} bytes missing", data[:-missing], whole
    for number in range(10):
        at = int(random.integers(0, min(size, 400 if number < 5 else size)))
        bit = int(random.integers(0, 8))
        yield f"bit {bit} of byte {at} flipped", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :], ANY
    for count in (3, 10, 40, 200):
        harmed = np.frombuffer(data, np.uint8).copy()
        where = random.integers(0, size, count)
        np.bitwise_xor.at(harmed, where, (1 << random.integers(0, 8, count)).astype(np.uint8))
        yield f"{count} bits flipped", harmed.tobytes(), ANY
    for value in (0x00, 0xFF):
        for _ in range(2):
            start = int(random.integers(0, size))
            length = int(random.integers(1, max(2, size // 4)))
            harmed = data[:start] + bytes([value]) * len(data[start : start + length]) + data[start + length :]
            yield f"bytes {start}+{length} set to {value}", harmed, ANY
    start, length = int(random.integers(0, size // 2)), int(random.integers(1, max(2, size // 4)))
    yield f"bytes {start}+{length} left out", data[:start] + data[start + length :], ANY
    yield f"bytes {start}+{length} twice", data[: start + length] + data[start:], ANY
    for width in (2, 4, 8):  # a size, count or offset in the header becomes absurd
        for value in (0, (1 << 8 * width - 1) - 1, (1 << 8 * width) - 1):
            at = int(random.integers(0, min(size, 300)) // width * width)
            harmed = data[:at] + value.to_bytes(width, "little") + data[at + width :]
            yield f"{width} bytes at {at} set to {value:#x}", harmed, ANY
    yield "two halves swapped", data[size // 2 :] + data[: size // 2], ANY
    yield "backwards", data[::-1], ANY
    yield "line ends changed", data.replace(b"\n", b"\r\n"), ANY
    yield "garbage in front", random.bytes(16) + data, ANY
    yield "garbage behind", data + random.bytes(1000), ANY
    yield "behind itself", data + data, ANY
    yield "header, then noise", data[:24] + random.bytes(max(0, size - 24)), ANY


def harmed(
    family: str, what: str, name: str, sound: Make, seed: int, *, use: str = "image", text: bool = False
) -> Iterator[Mutant]:
    """All `harms` to one sound file, called ``name`` within its folder.

    Args:
        family: of the mutants.
        what: names the sound file in the mutants' names.
        name: the file, relative to the folder that ``sound`` writes into.
        sound: writes it, and whatever stands beside it.
        seed: of all randomness.
        use: how they are judged.
        text: every part of such a file may be a file of its own.
    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        sound(Path(folder))
        data = (Path(folder) / name).read_bytes()

    def write(content: bytes, folder: Path) -> Path:
        target = sound(folder)
        (folder / name).write_bytes(content)
        return target

    for words, content, may in harms(data, rng(seed, family, what), text=text):
        yield Mutant(family, f"{what}: {words}", partial(write, content), use, may, sound)

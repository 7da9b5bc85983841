"""What lies where a file is expected, and names that no file should have."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from tests.corpus import settings
from tests.corpus.images import _sound
from tests.corpus.mutant import ANY, OTHER, REFUSED, SAME, Mutant
from tests.corpus.volumes import header
from tests.synthetic import write_series

FAMILIES = ("places and names",)
_REFUSED = frozenset({REFUSED})

_CONTENTS = {
    **{family: sound[0][2] for family, sound in _sound().items()},
    "NIfTI": header(),
    "text": b"patient,age\n1,50\n",
    "HTML": b"\n<!DOCTYPE html><html><body>403</body></html>",
    "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "PDF": b"%PDF-1.7\n\x93\x8c\x8b\x9e\n1 0 obj\n",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(200),
    "null bytes": bytes(5000),
}
_SUFFIXES = (
    ".png",
    ".tif",
    ".jpg",
    ".gif",
    ".bmp",
    ".nii",
    ".nii.gz",
    ".nrrd",
    ".seg.nrrd",
    ".mha",
    ".webp",
    ".jp2",
    ".dcm",
    ".zip",
    "",
    ".exe",
)
_OWN = {
    **{".png": "PNG", ".tif": "TIFF", ".jpg": "JPEG", ".gif": "GIF", ".bmp": "BMP", ".nii": "NIfTI"},
    **{".webp": "WebP", ".jp2": "JPEG 2000"},
}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # its path may have 107 letters at most
        bound.bind(path.name)
        os.chdir(here)


_PLACES: dict[str, Callable[[Path], object]] = {
    "a pipe": _pipe,
    "a socket": _socket,
    "a folder": lambda path: path.mkdir(),
    "a folder with a file in it": lambda path: (path.mkdir(), (path / "a.txt").write_text("hello")),
    "nothing": lambda path: None,
    "an empty file": lambda path: path.touch(),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "two links to each other": lambda path: (path.symlink_to("b"), (path.parent / "b").symlink_to(path.name)),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a link to an empty device": lambda path: path.symlink_to("/dev/null"),
    "a link to itself from below": lambda path: (path.mkdir(), (path / "loop").symlink_to("..")),
    "a link to memory": lambda path: path.symlink_to("/proc/self/mem"),
}  # fmt: skip
_TARGETS = {
    "scan.png": "image",
    "scan.tif": "image",
    "scan.nii": "image",
    "scan.nii.gz": "image",
    "scan.dcm": "image",
    "study.zip": "image",
    "scan": "image",
    "dataset.yaml": "dataset",
    "cases.csv": "dataset",
    "cases.json": "dataset",
    "plan.yaml": "plan",
    "model.safetensors": "weights",
    "model": "model",
}


def _lies(lay: Callable[[Path], object], name: str, folder: Path) -> Path:
    lay(folder / name)
    return folder / name


_NAMES = {
    "not UTF-8": b"sc\xff\xfean",
    "control characters": b"\x1b[31mred\x07",
    "two lines": b"a\nb",
    "blanks only": b"   ",
    "dots": b"...",
    "a dash in front": b"-rf",
    "a percent sign": b"%s%n",
    "braces": b"{0}[bold]",
    "turned around": "a\u202eb".encode(),
    "240 letters": b"x" * 240,
    "decomposed": "u\u0308".encode(),
    "emoji": "\U0001fac0".encode(),
    "a quote": b'it\'s "so"',
    "a backslash": b"..\\..\\a",
}


def _called(stem: bytes, suffix: str, content: bytes, folder: Path) -> Path:
    path = folder / os.fsdecode(stem + suffix.encode())
    path.write_bytes(content)
    return path


def _dataset_called(stem: bytes, folder: Path) -> Path:
    name = os.fsdecode(stem + b".png")
    for part in ("images", "masks"):
        (folder / "set" / part).mkdir(parents=True)
        (folder / "set" / part / name).write_bytes(_CONTENTS["PNG"])
    return folder / "set"


def _series_called(stem: bytes, folder: Path) -> Path:
    series = folder / os.fsdecode(stem)
    write_series(series, np.zeros((4, 5, 6), np.int16))
    return series


def mutants(seed: int) -> Iterator[Mutant]:
    (family,) = FAMILIES
    for suffix in _SUFFIXES:
        for what, content in _CONTENTS.items():
            own = _OWN.get(suffix) == what or (
                suffix in (*_OWN, ".tif") and suffix != ".nii" and what in (*_OWN.values(),) and what != "NIfTI"
            )
            make = partial(_called, b"scan", suffix, content)
            yield Mutant(family, f"{what} called scan{suffix}", make, may=ANY if own else _REFUSED)
    for name, use in _TARGETS.items():
        for words, lay in _PLACES.items():
            yield Mutant(family, f"{words} in place of {name}", partial(_lies, lay, name), use, _REFUSED)
    read = frozenset({SAME, OTHER})
    for words, stem in _NAMES.items():
        for suffix, what in ((".png", "PNG"), (".nii", "NIfTI")):
            good, bad = _CONTENTS[what], _CONTENTS["HTML"]
            yield Mutant(family, f"a good scan{suffix} called {words}", partial(_called, stem, suffix, good), may=read)
            yield Mutant(
                family, f"a bad scan{suffix} called {words}", partial(_called, stem, suffix, bad), may=_REFUSED
            )
        yield Mutant(family, f"a bad plan called {words}", partial(_called, stem, ".yaml", b"a: ["), "plan", _REFUSED)
        yield Mutant(family, f"a dataset of files called {words}", partial(_dataset_called, stem), "dataset", ANY)
        yield Mutant(family, f"a series in a folder called {words}", partial(_series_called, stem), may=read)
        text = settings.CSV.encode().replace(b"case_00", stem.replace(b"\n", b"").replace(b'"', b""))
        yield Mutant(
            family, f"a manifest that names files {words}", partial(settings.dataset, text, "cases.csv"), "dataset", ANY
        )

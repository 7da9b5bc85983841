"""Files among the inputs that may be images of kinds that are not read.

They are named, so that nobody takes them for done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from cpfnet import formats
from cpfnet.data.sources.unread_files import unread_suffix
from cpfnet.formats.file_types import looks_like_dicom

_NO_IMAGES = frozenset(
    [
        *(".txt", ".md", ".rst", ".csv", ".tsv", ".xls", ".xlsx", ".ods", ".json", ".jsonl", ".yaml", ".yml"),
        *(".toml", ".ini", ".cfg", ".xml", ".html", ".htm", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".ppt"),
        *(".pptx", ".log", ".py", ".ipynb", ".sh", ".bat", ".m", ".r", ".zip", ".tar", ".tgz", ".7z"),
        *(".rar", ".db", ".sqlite", ".bval", ".bvec", ".md5", ".sha256", ".tmp", ".lock", ".bak", ".safetensors"),
        *(".pt", ".pth", ".onnx", ".bin", ".h", ".c", ".js", ".css", ".url", ".lnk", ".exe", ".dll"),
    ]
)  # fmt: skip
"""What stands beside images as a rule, and is none."""

_LETTERS = re.compile(r"\.[a-z][a-z0-9_]{0,9}", re.IGNORECASE)
"""A suffix that tells of a format; DICOM files often end in a number."""


def unread_images(folder: Path, out: Path | None, label_folders: Collection[str]) -> list[Path]:
    """Such files in a folder or below, but for label folders, hidden ones and the output folder."""
    found = []
    own = None if out is None else out.resolve()
    for parent, below, names in os.walk(folder):
        below[:] = sorted(
            name
            for name in below
            if not name.startswith(".") and name.lower() not in label_folders and Path(parent, name).resolve() != own
        )
        found += [Path(parent, name) for name in sorted(names) if may_be_image(Path(parent, name))]
    return found


def may_be_image(path: Path) -> bool:
    """May it be an image, by its suffix, that is not read, by its name and its first bytes?"""
    if path.name.startswith(".") or formats.suffix_of(path):
        return False
    known = unread_suffix(path) or (_LETTERS.fullmatch(path.suffix) and path.suffix.lower() not in _NO_IMAGES)
    if not known:
        return False
    if not path.is_file():  # opening a pipe would wait for ever
        return False
    try:
        with path.open("rb") as file:
            return not looks_like_dicom(file.read(144))
    except OSError:
        return False

"""Entries of a list of cases, of a CSV manifest and of JSON alike: files, ids, folds; which are missing or repeated."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpfnet import formats
from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, shown
from cpfnet.errors import DatasetError
from cpfnet.text import printable


def fold_number(value: Any, where: str) -> int | None:
    """The fold that an entry names, if any."""
    if value in (None, ""):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(
            f"fold {str(value)[:40]!r} is not a number", where=where, fix="number the folds from 0"
        ) from None


def case_id(case: str) -> str:
    """A case id that files can be called after, and that leads nowhere else."""
    name = printable(case).replace("/", "_")
    return name.replace(".", "_") if name in (".", "..") else name


def unique(cases: Iterable[Case], manifest: Path) -> tuple[tuple[Case, ...], list[Finding]]:
    """The first case of every id; the others become problems."""
    first: dict[str, Case] = {}
    problems = []
    for case in cases:
        if case.id not in first:
            first[case.id] = case
            continue
        problems.append(
            Finding(
                "error",
                "duplicate-case",
                printable(manifest.name),
                f"case {case.id} is listed twice ({first[case.id].images[0].name}, {case.images[0].name}); the second "
                "is left out",
                f"remove the second entry of case `{case.id}` from `{printable(manifest.name)}`; "
                "or give it another id, in `case`",
                case.id,
            )
        )
    return tuple(first.values()), problems


def is_there(path: Path) -> bool:
    """Does a listed file exist, or the series of a folder that is named by its UID? A broken link is there, too."""
    return os.path.lexists(path) or formats.exists(path)


def listed_path(folder: Path, name: str) -> Path:
    """A listed file, also where the list was made on Windows, or on macOS, which parts letters from their accents."""
    path = folder / name
    if is_there(path) or (name.isascii() and "\\" not in name):
        return path
    plain = name.replace("\\", "/")
    ways = [folder / unicodedata.normalize(form, plain) for form in ("NFC", "NFD")]
    return next((way for way in ways if is_there(way)), folder / plain)


def missing_files(dataset: Dataset) -> list[Finding]:
    """Listed files that do not exist."""
    source = printable(dataset.manifest.name) if dataset.manifest else "the list"
    missing = [(case, path) for case in dataset.cases for path in case.files if not is_there(path)]
    found = []
    for case, path in missing:
        name = shown(path, dataset.root)
        what = f"case {case.id} names this file, which does not exist"
        fix = f"add the file `{name}`"
        if here := _here(path, dataset.root):
            what += f": a path of another computer; `{here}` is beside the list"
            fix = f"write `{here}` in place of `{name}` into `{source}`, and the others likewise"
        fix += f"; or remove the entry of case `{case.id}` from `{source}`"
        found.append(Finding("error", "missing-file", name, what, fix, case.id))
    return found


def _here(path: Path, root: Path) -> str | None:
    """The end of a whole path of another computer (``D:\\…``, ``/home/…``) that exists beside the list."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    if not re.match(r"[A-Za-z]:/|/", name):
        return None
    parts = [part for part in name.split("/") if part]
    ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((shown(root / end, root) for end in ends if is_there(root / end)), None)

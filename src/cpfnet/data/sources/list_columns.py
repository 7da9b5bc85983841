"""Columns of a list of cases, and keys of a datalist's entries: what they are called, and what they mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from cpfnet.errors import DatasetError
from cpfnet.text import printable

COLUMNS = ("case", "image", "label", "roi", "patient", "split", "fold")
_AT_MOST = 1000
HEADER = "the first line names the columns: case,image,label,roi,patient,split (image alone is needed)"

ALSO = {
    "image": "image images img imgs scan scans picture photo input",
    "label": "label labels mask masks seg segs segmentation segmentations annotation annotations groundtruth gt truth "
    "target",
    "roi": "roi fov",
}
"""What lists call their columns besides."""


def role(name: str) -> str:
    """The column or key that is meant: ``"Ground Truth"``, ``"mask_path"`` → ``"label"``; "" if none of these."""
    word = re.sub(r"[-_ .]", "", name.lower())
    bare = re.sub(r"(path|file|filename)s?$", "", word) or word
    return next((known for known, words in ALSO.items() if bare in words.split()), "")


def only(names: Iterable[str], wanted: str, where: Path | str) -> str | None:
    """The one of these names that means ``wanted``: itself, else what is called so besides.

    Raises:
        DatasetError: two of them do.
    """
    found = [name for name in dict.fromkeys(names) if role(name) == wanted]
    if wanted in found or not found:
        return wanted if found else None
    if len(found) > 1:
        raise DatasetError(
            f"{' and '.join(repr(printable(name)) for name in found)} could each be the {wanted}",
            where=where,
            fix=f"rename the one that is meant to `{wanted}`",
        )
    return found[0]


def places(columns: list[str], path: Path) -> dict[str, int]:
    """Column, as this module names it → its place."""
    if len(columns) > _AT_MOST:
        raise DatasetError(f"has {len(columns)} columns; at most {_AT_MOST} are read", where=path, fix=HEADER)
    repeated = {name for name in columns if columns.count(name) > 1 and name}
    if repeated:
        raise DatasetError(
            f"columns repeat: {printable(', '.join(sorted(repeated)))}", where=path, fix="keep one of each"
        )
    meant = {known: name for known in ALSO if (name := only(columns, known, path))}
    if "image" not in meant:
        near = difflib.get_close_matches("image", columns, n=1)
        fix = f"rename the column {near[0]!r} to 'image'" if near else HEADER
        raise DatasetError(f"no column 'image' (found: {printable(', '.join(columns))})", where=path, fix=fix)
    readers = [name for name in columns if name.startswith("label_") and not role(name)]
    meant |= {name: name for name in (*COLUMNS, *readers) if name in columns and name not in ALSO}
    for name in set(columns) - set(meant.values()):
        near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.8)
        if near and near[0] not in meant:
            raise DatasetError(
                f"unknown column {printable(name)!r}", where=path, fix=f"did you mean {near[0]!r}? rename the column"
            )
    return {known: columns.index(name) for known, name in meant.items()}

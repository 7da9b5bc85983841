"""Patterns of one file a structure, such as ``{case}/segmentations/liver.dcm``: what is the structure in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpfnet.formats.file_types import FILES, stem
from cpfnet.formats.structure_folder import masks_in
from cpfnet.planning import Labels

_PLACEHOLDERS = re.compile(r"\{(?:case|patient)\}")
_SEPARATORS = "-_. "


@dataclass(frozen=True)
class SideBySide:
    """Patterns of files in one folder, whose names differ in their structures alone.

    Attributes:
        before, after: what the names of all files begin and end with; they may hold placeholders.
        structures: what stands between, a pattern each.
    """

    before: str
    after: str
    structures: tuple[str, ...]

    def reference(self, path: Path, names: dict[str, str]) -> Path:
        """What stands for all files of a case (`cpfnet.formats.structure_folder`), of which ``path`` is one."""
        before, after = (
            re.sub(r"\{(\w+)\}", lambda found: names[found[1]], part) for part in (self.before, self.after)
        )
        return path.with_name(f"{FILES}{before}*{after}")


def claimed_twice(references: Iterable[Path], labels: Labels) -> tuple[Path, Path, Path] | None:
    """A file that is a structure of two cases, with what stands for both of them, or None.

    Where one case is called as another begins (``case1``, ``case1_2``) and a structure begins with *, the file of the
    one fits the other, too.

    Args:
        references: of all cases, as `SideBySide.reference` gives them.
        labels: what structures mean.
    """
    owners: dict[Path, Path] = {}
    for reference in _nested(references):
        for structure, file in masks_in(reference).items():
            if any(one.means(structure) for one in labels.classes):
                other = owners.setdefault(file, reference)
                if other != reference:
                    return file, other, reference
    return None


def _nested(references: Iterable[Path]) -> list[Path]:
    """Those whose names begin with another's, or end with it where the structure comes first; and these others."""

    def key(reference: Path) -> tuple[Path, str]:
        before, _, after = reference.name.removeprefix(FILES).partition("*")
        return reference.parent, before or after[::-1]

    found: dict[Path, None] = {}
    outer: list[Path] = []
    for reference in sorted(references, key=key):
        folder, name = key(reference)
        while outer and not (key(outer[-1])[0] == folder and name.startswith(key(outer[-1])[1])):
            outer.pop()
        if outer:
            found |= dict.fromkeys((outer[-1], reference))
        outer.append(reference)
    return list(found)


def is_path(text: object) -> bool:
    """Is this the pattern of a file, which tells cases apart, and not the name of a structure?"""
    return isinstance(text, str) and bool(_PLACEHOLDERS.search(text))


def side_by_side(patterns: Sequence[str]) -> SideBySide:
    """What tells the structures of these patterns apart.

    Raises:
        ValueError: they are no files of one folder, called alike.
    """
    folders = {pattern.rpartition("/")[0] for pattern in patterns}
    names = [pattern.rpartition("/")[2] for pattern in patterns]
    for ways in zip(*(list(_ways(name)) for name in names), strict=True):
        ends = {(before, after) for before, _, after in ways}
        if len(folders) == len(ends) == 1 and all(structure for _, structure, _ in ways):
            ((before, after),) = ends
            return SideBySide(before, after, tuple(structure for _, structure, _ in ways))
    raise ValueError(
        f"the files of structures {patterns[0]!r} and {patterns[-1]!r} are not called alike in one folder; write such "
        "as '{case}/segmentations/liver.nii.gz' or 'masks/{case}_liver.nii.gz', which differ in the structure alone"
    )


def _ways(name: str) -> Iterator[tuple[str, str, str]]:
    """Before, structure and after: the structure stands behind the last placeholder, or before the first."""
    plain = stem(name)
    suffix, found = name[len(plain) :], list(_PLACEHOLDERS.finditer(plain))
    start = end = 0
    if found:
        start, end = found[-1].end(), found[0].start()
    behind = plain[start:].lstrip(_SEPARATORS)
    yield plain[: len(plain) - len(behind)], behind, suffix
    front = plain[:end].rstrip(_SEPARATORS)
    yield "", front, name[len(front) :]

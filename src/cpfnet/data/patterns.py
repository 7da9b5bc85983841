"""Find cases by the patterns of a ``dataset.yaml``."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cpfnet.data.case import Case, Dataset
from cpfnet.data.declaration import Declaration
from cpfnet.data.finding import Finding, printable, quoted, shown
from cpfnet.data.layouts import holds_dicom, without_image
from cpfnet.errors import DatasetError

Names = dict[str, str]


@cache
def _expression(segment: str) -> re.Pattern[str]:
    out, seen = "", set()
    for part in re.split(r"(\{case\}|\{patient\}|\*|\?)", segment):
        if part in ("{case}", "{patient}"):
            name = part[1:-1]
            out += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            seen.add(name)
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(out)


def find(root: Path, pattern: str) -> Iterator[tuple[Names, Path]]:
    """Every file, or folder of DICOM objects, that ``pattern`` matches, with what its placeholders stand for.

    Hidden ones only where they are named.
    """

    def descend(folder: Path, segments: list[str], names: Names) -> Iterator[tuple[Names, Path]]:
        segment, *rest = segments
        if not re.search(r"[{*?]", segment):
            entries = [folder / segment] if os.path.lexists(folder / segment) else []
        else:
            expression = _expression(segment)
            try:
                listed = sorted(os.listdir(folder))  # noqa: PTH208 (names only: thousands of files)
            except OSError:
                return
            entries = [folder / name for name in listed if not name.startswith(".") and expression.fullmatch(name)]
        for entry in entries:
            matched = _expression(segment).fullmatch(entry.name)
            found = matched.groupdict() if matched else {}
            if any(names.get(key, value) != value for key, value in found.items()):
                continue
            if rest and entry.is_dir():
                yield from descend(entry, rest, {**names, **found})
            elif not rest and (not entry.is_dir() or holds_dicom(entry)):
                yield {**names, **found}, entry

    yield from descend(root, [part for part in pattern.split("/") if part not in ("", ".")], {})


class _Index:
    """Files of one pattern, found again by the names of a case."""

    def __init__(self, root: Path, pattern: str, known: set[str]):
        self.files = list(find(root, pattern))
        self.keys = sorted(set(re.findall(r"\{(case|patient)\}", pattern)) & known)
        self.by_names: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for names, path in self.files:
            self.by_names[tuple(names[key] for key in self.keys)].append(path)
        self.used: set[Path] = set()

    def of(self, names: Names) -> list[Path]:
        found = self.by_names.get(tuple(names[key] for key in self.keys), [])
        self.used.update(found)
        return found


def by_patterns(root: Path, declaration: Declaration, where: Path) -> Dataset:
    """The cases that ``image`` finds, with the labels and regions of the same names.

    Raises:
        DatasetError: a pattern finds nothing, or shares no placeholder with the image's.
    """
    channels = declaration.images
    first_channel, first_pattern = next(iter(channels.items()))
    known = set(re.findall(r"\{(case|patient)\}", first_pattern))
    patterns = {("image", name): p for name, p in channels.items() if name != first_channel}
    patterns |= {("label", name): p for name, p in declaration.readers.items()}
    patterns |= {("roi", "roi"): declaration.roi} if declaration.roi else {}
    first = list(find(root, first_pattern))
    indices = {key: _Index(root, pattern, known) for key, pattern in patterns.items()}
    for (kind, _), files, pattern in [
        (("image", ""), first, first_pattern),
        *((key, index.files, patterns[key]) for key, index in indices.items()),
    ]:
        if not files:
            raise DatasetError(
                f"{kind}: {pattern!r} finds no file in {printable(str(root))}{_nearest(root, pattern)}",
                where=where,
                mend="correct the pattern, or set `root` to the folder that it starts from",
            )
    for key, index in indices.items():
        if not index.keys:
            raise DatasetError(
                f"{key[0]}: {patterns[key]!r} shares no placeholder with image: {first_pattern!r}",
                where=where,
                mend="use {case} (or {patient}) in both",
            )
    return _assemble(root, declaration, first, indices)


def _nearest(root: Path, pattern: str) -> str:
    """What lies where the pattern stops matching."""
    folder = root
    for segment in pattern.split("/")[:-1]:
        if re.search(r"[{*?]", segment) or not (folder / segment).is_dir():
            break
        folder = folder / segment
    names = sorted(printable(name) for name in os.listdir(folder) if not name.startswith("."))[:5]  # noqa: PTH208
    place = "it" if folder == root else f"{shown(folder, root)}/"
    return f"; {place} holds {', '.join(names)} …" if names else f"; {place} is empty"


def _assemble(
    root: Path, declaration: Declaration, first: list[tuple[Names, Path]], indices: dict[tuple[str, str], _Index]
) -> Dataset:
    ids = [names.get("case", names.get("patient", "")) for names, _ in first]
    if len(set(ids)) < len(ids):  # the same scan name under several patients
        ids = ["_".join(names[key] for key in ("patient", "case") if key in names) for names, _ in first]
    cases: dict[str, Case] = {}
    problems: list[Finding] = []
    for raw_id, (names, image) in zip(ids, first, strict=True):
        case = printable(raw_id)
        found = {key: index.of(names) for key, index in indices.items()}
        images = [image, *(path for key, paths in found.items() if key[0] == "image" for path in paths[:1])]
        labels = {reader: paths[0] for (kind, reader), paths in found.items() if kind == "label" and paths}
        roi = next((paths[0] for (kind, _), paths in found.items() if kind == "roi" and paths), None)
        trouble = _trouble(case, found, images, root, cases)
        problems += trouble
        if not trouble:
            patient = printable(names.get("patient", raw_id))
            cases[case] = Case(case, patient, tuple(images), labels, roi)
    strays: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for index in indices.values():
        for names, path in index.files:
            if path not in index.used:
                strays[tuple(names[key] for key in index.keys)].append(path)
    problems += [without_image(paths, root, []) for paths in strays.values()]
    named = isinstance(declaration.image, dict)
    return Dataset(
        root,
        root.resolve().name,
        tuple(cases.values()),
        channels=tuple(declaration.images) if named else None,
        layout="patterns of dataset.yaml",
        problems=tuple(problems),
    )


def _trouble(
    case: str, found: dict[tuple[str, str], list[Path]], images: list[Path], root: Path, cases: dict[str, Case]
) -> list[Finding]:
    present = [*images, *(path for (kind, _), paths in found.items() if kind != "image" for path in paths)]
    delete = f"delete {quoted(present, root)}"
    where = shown(images[0], root)
    if case in cases:
        other = cases[case].images[0]
        mend = f"{delete}; or delete {quoted([other], root)}"
        return [
            Finding(
                "error",
                "duplicate-case",
                where,
                f"a second image for case {case}, beside {shown(other, root)}",
                mend,
                case,
            )
        ]
    problems = []
    for (kind, name), paths in found.items():
        if len(paths) > 1:
            mends = [f"delete {quoted([p for p in paths if p != keep], root)}" for keep in paths]
            text = f"{len(paths)} files could be the {kind} of case {case}: {quoted(paths, root)}; the case is left out"
            problems.append(
                Finding("error", f"ambiguous-{kind}", shown(paths[0], root), text, "; or ".join(mends), case)
            )
        elif kind == "image" and not paths:
            text = f"case {case} lacks the channel {name}; it is left out"
            problems.append(
                Finding("error", "missing-channel", where, text, f"add the channel {name}; or {delete}", case)
            )
    return problems

"""Find cases by the patterns of a ``dataset.yaml``."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from cpfnet.data.case import Case, Dataset
from cpfnet.data.dataset_yaml import Declaration
from cpfnet.data.finding import Finding, elsewhere, quoted, shown
from cpfnet.data.sources.folders import holds_dicom
from cpfnet.data.sources.suggest_dataset_yaml import in_yaml, pattern_for, suggest
from cpfnet.data.sources.unread_files import unread_below, unread_fix
from cpfnet.data.structure_files import claimed_twice, side_by_side
from cpfnet.errors import DatasetError
from cpfnet.formats.file_types import is_stack
from cpfnet.formats.structure_folder import is_structure_folder
from cpfnet.planning import Labels
from cpfnet.text import printable

Names = dict[str, str]


@cache
def _expression(segment: str) -> re.Pattern[str]:
    out, seen = "", set()
    parts = [part for part in re.split(r"(\{case\}|\{patient\}|\*|\?)", segment) if part]
    for before, part, after in zip(["", *parts], parts, [*parts[1:], ""], strict=False):
        if part in ("{case}", "{patient}"):
            name = part[1:-1]
            named = f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)"
            # Beside a * it is a whole word, lest fov_21 be taken for case 1.
            out += r"(?<![^\W_])" * (before == "*") + named + r"(?![^\W_])" * (after == "*")
            seen.add(name)
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(out)


def find(root: Path, pattern: str, *, labels: bool = False) -> Iterator[tuple[Names, Path]]:
    """Every file, or folder of DICOM objects, that ``pattern`` matches, with what its placeholders stand for.

    Folders of pictures, too, where the pattern ends in ``/stack=…``; of ``labels`` folders of masks. Hidden ones only
    where they are named.
    """

    def descend(folder: Path, segments: list[str], names: Names) -> Iterator[tuple[Names, Path]]:
        segment, *rest = segments
        if not re.search(r"[{*?]", segment):
            there = os.path.lexists(folder / segment) or is_stack(folder / segment)
            entries = [folder / segment] if there else []
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
            elif not rest and (not entry.is_dir() or (labels and is_structure_folder(entry)) or holds_dicom(entry)):
                yield {**names, **found}, entry

    yield from descend(root, [part for part in pattern.split("/") if part not in ("", ".")], {})


class _Index:
    """Files of one pattern, or of one a structure, found again by the names of a case.

    Attributes:
        files: what the placeholders stand for, and the file; of structures a reference to all of a case.
        taken: the files themselves.
    """

    def __init__(self, root: Path, pattern: str | tuple[str, ...], known: set[str], *, labels: bool):
        if isinstance(pattern, tuple):
            found = [one for part in pattern for one in find(root, part)]
            structures = side_by_side(pattern)
            references = {structures.reference(path, names): names for names, path in found}
            self.files = [(names, path) for path, names in references.items()]
            self.pattern = pattern[0]
        else:
            self.pattern = pattern
            self.files = found = list(find(root, pattern, labels=labels))
        self.taken = {path for _, path in found}
        self.keys = sorted(set(re.findall(r"\{(case|patient)\}", self.pattern)) & known)
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
    patterns: dict[tuple[str, str], str | tuple[str, ...]]
    patterns = {("image", name): p for name, p in channels.items() if name != first_channel}
    patterns |= {("label", name): p for name, p in declaration.readers.items()}
    patterns |= {("roi", "roi"): declaration.roi} if declaration.roi else {}
    first = list(find(root, first_pattern))
    indices = {key: _Index(root, pattern, known, labels=key[0] == "label") for key, pattern in patterns.items()}
    drawn = {path for (kind, _), index in indices.items() if kind != "image" for path in index.taken}
    first = [
        (names, path) for names, path in first if path not in drawn
    ] or first  # a_mask.png is no image of {case}.png
    for (kind, _), files, pattern in [
        (("image", ""), first, first_pattern),
        *((key, index.files, index.pattern) for key, index in indices.items()),
    ]:
        if not files:
            raise DatasetError(
                f"{kind}: {pattern!r} finds no file in {printable(str(root))}{_nearest(root, pattern)}",
                where=where,
                fix=_other_patterns(root, declaration)
                or "correct the pattern, or set `root` to the folder that it starts from",
            )
    for key, index in indices.items():
        if not index.keys:
            raise DatasetError(
                f"{key[0]}: {index.pattern!r} shares no placeholder with image: {first_pattern!r}",
                where=where,
                fix="use {case} (or {patient}) in both",
            )
    _check_telling(first_pattern, first, root, where)
    for (kind, _), index in indices.items():
        _check_meeting(kind, index, first, root, where)
    for key, index in indices.items():
        if isinstance(patterns[key], tuple) and declaration.labels is not None:
            _check_owners(index, declaration.labels, root, where)
    return _assemble(root, declaration, first, indices)


def _other_patterns(root: Path, declaration: Declaration) -> str:
    """What would find the files, as far as their names tell: or which of them are in a format that is not read."""
    simple = isinstance(declaration.image, str) and not isinstance(declaration.label, dict)
    suggestion = suggest(root) if simple else None
    return "; or ".join(filter(None, [suggestion.fix if suggestion else "", unread_fix(unread_below(root), root)]))


def _check_telling(pattern: str, found: list[tuple[Names, Path]], root: Path, where: Path) -> None:
    """Refuse a pattern by which most images would be one and the same case."""
    ids = {tuple(sorted(names.items())) for names, _ in found}
    if 2 * len(ids) > len(found) or len(found) < 3:
        return
    suggestion = suggest(root)
    shared = ", ".join(repr(names.get("case", names.get("patient"))) for names, _ in found[:2])
    raise DatasetError(
        f"image: {pattern!r} finds {len(found)} images, but only {len(ids)} name{'s' * (len(ids) > 1)} for them "
        f"({quoted([path for _, path in found[:2]], root)} are called {shared})",
        where=where,
        fix=(f"{suggestion.fix}; or " if suggestion else "")
        + "write {case} for the whole of what tells the images apart, without * beside it",
    )


def _check_meeting(kind: str, index: _Index, images: list[tuple[Names, Path]], root: Path, where: Path) -> None:
    """Refuse a pattern whose files belong to no image at all: it is the cause, not they."""
    if any(tuple(names[key] for key in index.keys) in index.by_names for names, _ in images):
        return
    names, path = index.files[0]
    as_read = " and ".join(f"{key} {names[key]!r}" for key in index.keys)
    wanted = ", ".join(dict.fromkeys(repr(names[key]) for names, _ in images[:3] for key in index.keys[:1]))
    better = pattern_for([path for _, path in index.files], _ids(images), root)
    raise DatasetError(
        f"{kind}: {index.pattern!r} finds {len(index.files)} files, but none of an image: "
        f"{quoted([path], root)} as {as_read}, and the images are called {wanted} …",
        where=where,
        fix=f"write `{kind}: {in_yaml(better)}` into it"
        if better
        else "correct the pattern: {case} stands for the same in both",
    )


def _check_owners(index: _Index, labels: Labels, root: Path, where: Path) -> None:
    """Refuse files of structures of which nobody can tell whose they are."""
    if twice := claimed_twice((path for _, path in index.files), labels):
        file, *both = (shown(path, root) for path in twice)
        raise DatasetError(
            f"label: {file} fits two cases ({' and '.join(both)})",
            where=where,
            fix="write the whole names of structures, without * where they meet the name of the case; or give each "
            "case a folder of its own",
        )


def _ids(images: list[tuple[Names, Path]]) -> set[str]:
    return {printable(names["case"]) for names, _ in images if "case" in names}


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
    problems += [_stray(names, paths, root) for names, paths in strays.items()]
    named = isinstance(declaration.image, dict)
    return Dataset(
        root,
        root.resolve().name,
        tuple(cases.values()),
        channels=tuple(declaration.images) if named else None,
        layout="patterns of dataset.yaml",
        problems=tuple(problems),
    )


def _stray(names: tuple[str, ...], paths: list[Path], root: Path) -> Finding:
    """A label or region whose pattern finds it under the name of no image."""
    others = f", nor to {quoted(paths[1:], root)}" if len(paths) > 1 else ""
    what = f"no image belongs to it{others}: the pattern finds it as {' '.join(map(repr, names))}"
    fix = f"correct the pattern, if an image with another name is meant; or add the image; or {elsewhere(paths, root)}"
    return Finding("error", "no-image", shown(paths[0], root), printable(what), fix)


def _trouble(
    case: str, found: dict[tuple[str, str], list[Path]], images: list[Path], root: Path, cases: dict[str, Case]
) -> list[Finding]:
    present = [*images, *(path for (kind, _), paths in found.items() if kind != "image" for path in paths)]
    aside = elsewhere(present, root)
    where = shown(images[0], root)
    if case in cases:
        other = cases[case].images[0]
        fix = f"correct the pattern, if they are two cases; or {aside}; or {elsewhere([other], root)}"
        return [
            Finding(
                "error",
                "duplicate-case",
                where,
                f"a second image for case {case}, beside {shown(other, root)}",
                fix,
                case,
            )
        ]
    problems = []
    for (kind, name), paths in found.items():
        if len(paths) > 1:
            fixes = [elsewhere([p for p in paths if p != keep], root) for keep in paths]
            text = f"{len(paths)} files could be the {kind} of case {case}: {quoted(paths, root)}; the case is left out"
            problems.append(
                Finding("error", f"ambiguous-{kind}", shown(paths[0], root), text, "; or ".join(fixes), case)
            )
        elif kind == "image" and not paths:
            text = f"case {case} lacks the channel {name}; it is left out"
            problems.append(
                Finding("error", "missing-channel", where, text, f"add the channel {name}; or {aside}", case)
            )
    return problems

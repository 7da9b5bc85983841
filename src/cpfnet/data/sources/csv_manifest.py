"""Data sets that are listed: a CSV manifest, or a datalist JSON (Medical Segmentation Decathlon, MONAI)."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpfnet import formats
from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, shown
from cpfnet.data.sources.folders import SPLITS, identifier
from cpfnet.data.sources.list_columns import ALSO, HEADER, only, places, role
from cpfnet.data.sources.nnunet import declared, read_json
from cpfnet.data.sources.text_encodings import texts
from cpfnet.errors import DatasetError
from cpfnet.text import from_csv_cell, printable


def _split(value: str, where: str) -> str | None:
    if value and value.lower() not in SPLITS:
        raise DatasetError(f"split {value!r} is not known", where=where, mend="write train, val or test")
    return SPLITS[value.lower()] if value else None


def _fold(value: Any, where: str) -> int | None:
    if value in (None, ""):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(
            f"fold {str(value)[:40]!r} is not a number", where=where, mend="number the folds from 0"
        ) from None


def _file_name(case: str) -> str:
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
                f"case {case.id} is listed twice ({first[case.id].images[0].name}, {case.images[0].name}); the second is left out",
                f"remove the second entry of case `{case.id}` from `{printable(manifest.name)}`; "
                "or give it another id, in `case`",
                case.id,
            )
        )
    return tuple(first.values()), problems


def read_csv(path: Path) -> Dataset:
    """A manifest with the columns ``case,image,label,roi,patient,split`` (only ``image`` is needed).

    Several channel files of one image are parted by ``;`` in ``image``; several readers have columns ``label_<reader>``;
    ``fold`` is the fold that a case validates. Relative paths start at the manifest's folder; further columns are ignored.
    Text that is not UTF-8 (nor UTF-16 with its mark) is read as that encoding by which most of the images exist.

    Raises:
        DatasetError: unreadable, without ``image``, or a value that cannot be, with its line.
    """
    read: list[tuple[int, str, tuple[Case, ...], list[Finding]]] = []
    failure: DatasetError | None = None
    for encoding, text in texts(path):
        try:
            cases, notes = _cases(text, path)
        except DatasetError as error:
            failure = failure or error
            continue
        read.append((sum(_there(case.images[0]) for case in cases), encoding, cases, notes))
    if not read:
        assert failure is not None
        raise failure
    _, encoding, cases, notes = max(read, key=lambda one: one[0])  # the first of the best
    kept, problems = unique(cases, path)
    if encoding:
        what = f"is not UTF-8: read as {encoding}"
        mend = "nothing needs to be done if names look right; else save it as CSV UTF-8"
        notes = [Finding("note", "encoding", printable(path.name), what, mend), *notes]
    return Dataset(path.parent, path.stem, kept, layout="CSV manifest", problems=(*notes, *problems), manifest=path)


def _there(path: Path) -> bool:
    return os.path.lexists(path) or formats.exists(path)


def _path(folder: Path, name: str) -> Path:
    """A listed file, also where the list was made on Windows, or on macOS, which parts letters from their accents."""
    path = folder / name
    if _there(path) or (name.isascii() and "\\" not in name):
        return path
    plain = name.replace("\\", "/")
    ways = [folder / unicodedata.normalize(form, plain) for form in ("NFC", "NFD")]
    return next((way for way in ways if _there(way)), folder / plain)


def _cases(text: str, path: Path) -> tuple[tuple[Case, ...], list[Finding]]:
    hint = re.match(r"sep=(.)\r?\n", text)  # a spreadsheet's own first line
    first = text[hint.end() if hint else 0 :].splitlines()[:1]
    delimiter = hint[1] if hint else max(",;\t", key="".join(first).count)
    try:
        reader = csv.reader(
            io.StringIO(text[hint.end() if hint else 0 :], newline=""), delimiter=delimiter, strict=True
        )
        lines = [(reader.line_num + bool(hint), line) for line in reader]
    except csv.Error as error:
        raise DatasetError(
            f"not valid CSV: {error}", where=path, mend="quote values that contain commas or quotes"
        ) from None
    columns = [name.strip() for name in lines[0][1]] if lines else []
    used = places(columns, path)
    _follow_files(used, columns, lines[1:], path.parent)
    cases = []
    for number, line in lines[1:]:
        where = f"{path}, line {number}"
        values = [value.strip() for value in line]
        if not any(values):
            continue
        row = {name: values[index] for name, index in used.items() if index < len(values) and values[index]}
        images = tuple(_path(path.parent, name.strip()) for name in row.get("image", "").split(";") if name.strip())
        if not images:
            raise DatasetError("no image named", where=where, mend="fill in `image`, or remove the line")
        case = _file_name(from_csv_cell(row.get("case", ""))) or identifier(images[0])
        cases.append(
            Case(
                case,
                printable(from_csv_cell(row.get("patient", ""))) or case,
                images,
                {
                    name.removeprefix("label_"): _path(path.parent, file)
                    for name, file in row.items()
                    if name == "label" or name.startswith("label_")
                },
                _path(path.parent, row["roi"]) if "roi" in row else None,
                _split(row.get("split", ""), where),
                _fold(row.get("fold"), where),
            )
        )
    if not cases:
        raise DatasetError("lists no case", where=path, mend=f"add one line a case; {HEADER}")
    taken = {name: columns[index] for name, index in used.items() if name in ALSO and columns[index] != name}
    notes = [
        Finding(
            "note",
            "column",
            printable(path.name),
            f"the column {printable(column)!r} is taken for `{name}`",
            "nothing needs to be done if that is right; else rename it",
        )
        for name, column in taken.items()
    ]
    return tuple(cases), notes


def _follow_files(used: dict[str, int], columns: list[str], lines: list[tuple[int, list[str]]], folder: Path) -> None:
    """Where the column `label` names no file (but a diagnosis), and one that is called so besides names some, take that one."""

    def names_files(index: int) -> bool:
        values = (line[index].strip() for _, line in lines if index < len(line))
        return any(_there(_path(folder, value)) for value in values if value)

    others = [index for index, name in enumerate(columns) if role(name) == "label" and index != used.get("label")]
    if "label" in used and others and not names_files(used["label"]):
        found = [index for index in others if names_files(index)]
        used.update({"label": found[0]} if len(found) == 1 else {})


_LISTS = {"training": None, "train": None, "validation": "val", "val": "val", "test": "test", "testing": "test"}


def is_datalist(content: dict[str, Any], root: Path) -> bool:
    """Does this JSON list its cases, by files that exist? (nnU-Net's first version lists names without channels.)"""
    entries = content.get("training") or content.get("train")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        return False
    image = next((value for key, value in entries[0].items() if role(key) == "image"), None)
    first = image[0] if isinstance(image, list) and image else image
    return isinstance(first, str) and (
        os.path.exists(_path(root, first))  # noqa: PTH110 (a name too long is none)
        or not (root / "imagesTr").is_dir()
    )


def datalist(path: Path) -> Dataset:
    """``{"training": [{"image": …, "label": …, "fold": 0}], "validation": […], "test": […]}``.

    ``image`` may be a list (one file a channel); an entry may be a bare file name. Relative paths start at the JSON's folder.

    Raises:
        DatasetError: not such a list, or an entry that cannot be, with its number.
    """
    content = read_json(path)
    cases = []
    for key, split in _LISTS.items():
        entries = content.get(key, [])
        if not isinstance(entries, list):
            raise DatasetError(f"`{key}` is not a list", where=path, mend='write [{"image": "…", "label": "…"}, …]')
        own_split = "train" if split is None and ("validation" in content or "val" in content) else split
        cases += [_entry(entry, own_split, path, f"{path}, {key}[{i}]") for i, entry in enumerate(entries)]
    if not cases:
        raise DatasetError(
            "lists no case", where=path, mend='write {"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}, …]}'
        )
    channels, labels, modality = declared(content, path)
    kept, problems = unique(cases, path)
    return Dataset(
        path.parent,
        str(content.get("name") or path.parent.resolve().name),
        kept,
        modality,
        channels,
        labels,
        "datalist JSON",
        tuple(problems),
        path,
    )


def _entry(entry: Any, split: str | None, path: Path, where: str) -> Case:
    if isinstance(entry, (str, list)):
        entry = {"image": entry}
    entry = entry if isinstance(entry, dict) else {}
    image, *others = (entry.get(only(entry, known, where)) for known in ALSO)
    names = [image] if isinstance(image, str) else image
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise DatasetError("names no image file", where=where, mend='write {"image": "…", "label": "…"}')
    if not all(other is None or isinstance(other, str) for other in others):
        raise DatasetError(
            "`label` and `roi` must be file names", where=where, mend='write {"image": "…", "label": "…"}'
        )
    label, roi = (_path(path.parent, other) if other else None for other in others)
    images = tuple(_path(path.parent, name) for name in names)
    case = _file_name(str(entry.get("case") or entry.get("id") or identifier(images[0])))
    return Case(
        case,
        str(entry.get("patient") or case),
        images,
        {} if label is None else {"label": label},
        roi,
        split,
        _fold(entry.get("fold"), where),
    )


def missing_files(dataset: Dataset) -> list[Finding]:
    """Listed files that do not exist."""
    source = printable(dataset.manifest.name) if dataset.manifest else "the list"
    missing = [(case, path) for case in dataset.cases for path in case.files if not _there(path)]
    found = []
    for case, path in missing:
        name = shown(path, dataset.root)
        what = f"case {case.id} names this file, which does not exist"
        mend = f"add the file `{name}`"
        if here := _here(path, dataset.root):
            what += f": a path of another computer; `{here}` is beside the list"
            mend = f"write `{here}` in place of `{name}` into `{source}`, and the others likewise"
        mend += f"; or remove the entry of case `{case.id}` from `{source}`"
        found.append(Finding("error", "missing-file", name, what, mend, case.id))
    return found


def _here(path: Path, root: Path) -> str | None:
    """The end of a whole path of another computer (``D:\\…``, ``/home/…``) that exists beside the list."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    if not re.match(r"[A-Za-z]:/|/", name):
        return None
    parts = [part for part in name.split("/") if part]
    ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
    return next((shown(root / end, root) for end in ends if _there(root / end)), None)

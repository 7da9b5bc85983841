"""Data sets that a CSV manifest lists."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding
from cpfnet.data.sources.folders import SPLITS, identifier
from cpfnet.data.sources.list_columns import ALSO, HEADER, places, role
from cpfnet.data.sources.list_entries import case_id, fold_number, is_there, listed_path, unique
from cpfnet.data.sources.text_encodings import texts
from cpfnet.errors import DatasetError
from cpfnet.text import from_csv_cell, printable


def _split(value: str, where: str) -> str | None:
    if value and value.lower() not in SPLITS:
        raise DatasetError(f"split {value!r} is not known", where=where, fix="write train, val or test")
    return SPLITS[value.lower()] if value else None


def read_csv(path: Path) -> Dataset:
    """A manifest with the columns ``case,image,label,roi,patient,split`` (only ``image`` is needed).

    Several channel files of one image are parted by ``;`` in ``image``; several readers have columns
    ``label_<reader>``; ``fold`` is the fold that a case validates. Relative paths start at the manifest's folder;
    further columns are ignored. Text that is not UTF-8 (nor UTF-16 with its mark) is read as that encoding by which
    most of the images exist.

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
        read.append((sum(is_there(case.images[0]) for case in cases), encoding, cases, notes))
    if not read:
        assert failure is not None
        raise failure
    _, encoding, cases, notes = max(read, key=lambda one: one[0])  # the first of the best
    kept, problems = unique(cases, path)
    if encoding:
        what = f"is not UTF-8: read as {encoding}"
        fix = "nothing needs to be done if names look right; else save it as CSV UTF-8"
        notes = [Finding("note", "encoding", printable(path.name), what, fix), *notes]
    return Dataset(path.parent, path.stem, kept, layout="CSV manifest", problems=(*notes, *problems), manifest=path)


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
            f"not valid CSV: {error}", where=path, fix="quote values that contain commas or quotes"
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
        images = tuple(
            listed_path(path.parent, name.strip()) for name in row.get("image", "").split(";") if name.strip()
        )
        if not images:
            raise DatasetError("no image named", where=where, fix="fill in `image`, or remove the line")
        case = case_id(from_csv_cell(row.get("case", ""))) or identifier(images[0])
        cases.append(
            Case(
                case,
                printable(from_csv_cell(row.get("patient", ""))) or case,
                images,
                {
                    name.removeprefix("label_"): listed_path(path.parent, file)
                    for name, file in row.items()
                    if name == "label" or name.startswith("label_")
                },
                listed_path(path.parent, row["roi"]) if "roi" in row else None,
                _split(row.get("split", ""), where),
                fold_number(row.get("fold"), where),
            )
        )
    if not cases:
        raise DatasetError("lists no case", where=path, fix=f"add one line a case; {HEADER}")
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
    """Where the column `label` names no file (but a diagnosis), take another one called so that does."""

    def names_files(index: int) -> bool:
        values = (line[index].strip() for _, line in lines if index < len(line))
        return any(is_there(listed_path(folder, value)) for value in values if value)

    others = [index for index, name in enumerate(columns) if role(name) == "label" and index != used.get("label")]
    if "label" in used and others and not names_files(used["label"]):
        found = [index for index in others if names_files(index)]
        used.update({"label": found[0]} if len(found) == 1 else {})

"""Data sets that are listed: a CSV manifest, or a datalist JSON (Medical Segmentation Decathlon, MONAI)."""

from __future__ import annotations

import csv
import difflib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cpfnet import formats
from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, printable, shown
from cpfnet.data.layouts import SPLITS, identifier
from cpfnet.data.nnunet import declared, read_json
from cpfnet.errors import DatasetError

_COLUMNS = ("case", "image", "label", "roi", "patient", "split", "fold")
_COLUMNS_AT_MOST = 1000
_HEADER = "the first line names the columns: case,image,label,roi,patient,split (image alone is needed)"


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

    Raises:
        DatasetError: unreadable, without ``image``, or a value that cannot be, with its line.
    """
    try:
        # Names on disk need not be UTF-8; surrogates give their bytes back when the file is opened.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror}", where=path, mend="give the path of a CSV manifest"
        ) from None
    if "\0" in text:
        raise DatasetError("is no plain text, or UTF-16", where=path, mend="save it as CSV UTF-8 (comma delimited)")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="", strict=True)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise DatasetError(
            f"not valid CSV: {error}", where=path, mend="quote values that contain commas or quotes"
        ) from None
    columns = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    readers = {"label": "label", **{name: name.removeprefix("label_") for name in columns if name.startswith("label_")}}
    _check_columns(columns, set(readers), path)
    cases = []
    for number, raw in rows:
        where = f"{path}, line {number}"
        row = {str(key).strip(): (value or "").strip() for key, value in raw.items() if isinstance(value, str | None)}
        if not any(row.values()):
            continue
        images = tuple(path.parent / name.strip() for name in row["image"].split(";") if name.strip())
        if not images:
            raise DatasetError("no image named", where=where, mend="fill in `image`, or remove the line")
        case = _file_name(row.get("case", "")) or identifier(images[0])
        labels = {readers[name]: path.parent / row[name] for name in readers if row.get(name)}
        cases.append(
            Case(
                case,
                printable(row.get("patient", "")) or case,
                images,
                labels,
                path.parent / row["roi"] if row.get("roi") else None,
                _split(row.get("split", ""), where),
                _fold(row.get("fold"), where),
            )
        )
    if not cases:
        raise DatasetError("lists no case", where=path, mend=f"add one line a case; {_HEADER}")
    kept, problems = unique(cases, path)
    return Dataset(path.parent, path.stem, kept, layout="CSV manifest", problems=tuple(problems), manifest=path)


def _check_columns(columns: list[str], labels: set[str], path: Path) -> None:
    if len(columns) > _COLUMNS_AT_MOST:
        raise DatasetError(f"has {len(columns)} columns; at most {_COLUMNS_AT_MOST} are read", where=path, mend=_HEADER)
    if "image" not in columns:
        near = difflib.get_close_matches("image", columns, n=1)
        mend = f"rename the column {near[0]!r} to 'image'" if near else _HEADER
        raise DatasetError(f"no column 'image' (found: {printable(', '.join(columns))})", where=path, mend=mend)
    for name in set(columns) - set(_COLUMNS) - labels:
        near = difflib.get_close_matches(name.lower(), _COLUMNS, n=1, cutoff=0.8)
        if near and near[0] not in columns:
            raise DatasetError(
                f"unknown column {printable(name)!r}", where=path, mend=f"did you mean {near[0]!r}? rename the column"
            )
    repeated = {name for name in columns if columns.count(name) > 1 and name}
    if repeated:
        raise DatasetError(f"columns repeat: {', '.join(sorted(repeated))}", where=path, mend="keep one of each")


_LISTS = {"training": None, "train": None, "validation": "val", "val": "val", "test": "test", "testing": "test"}


def is_datalist(content: dict[str, Any], root: Path) -> bool:
    """Does this JSON list its cases, by files that exist? (nnU-Net's first version lists names without channels.)"""
    entries = content.get("training") or content.get("train")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        return False
    image = entries[0].get("image")
    first = image[0] if isinstance(image, list) and image else image
    return isinstance(first, str) and (
        os.path.exists(root / first)  # noqa: PTH110 (a name too long is none)
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
    image = entry.get("image") if isinstance(entry, dict) else None
    names = [image] if isinstance(image, str) else image
    others = [entry.get(key) for key in ("label", "roi")] if isinstance(entry, dict) else []
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise DatasetError("names no image file", where=where, mend='write {"image": "…", "label": "…"}')
    if not all(other is None or isinstance(other, str) for other in others):
        raise DatasetError(
            "`label` and `roi` must be file names", where=where, mend='write {"image": "…", "label": "…"}'
        )
    label, roi = (path.parent / other if other else None for other in others)
    images = tuple(path.parent / name for name in names)
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
    return [
        Finding(
            "error",
            "missing-file",
            shown(path, dataset.root),
            f"case {case.id} names this file, which does not exist",
            f"add the file `{shown(path, dataset.root)}`; or remove the entry of case `{case.id}` from `{source}`",
            case.id,
        )
        for case in dataset.cases
        for path in case.files
        if not (os.path.lexists(path) or formats.exists(path))
    ]

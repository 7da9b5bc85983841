"""DATASET → list of `Case`: the layouts understood without help, and `dataset.yaml` for all others."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from cpfnet.data.case import Case, Dataset
from cpfnet.data.dataset_yaml import Declaration, Splits
from cpfnet.data.finding import Finding
from cpfnet.data.sources.csv_manifest import read_csv
from cpfnet.data.sources.dataset_json import datalist, is_datalist, read_json
from cpfnet.data.sources.dicom_patients import group_by_patient
from cpfnet.data.sources.dicom_studies import studies
from cpfnet.data.sources.folders import images_and_masks
from cpfnet.data.sources.list_entries import missing_files
from cpfnet.data.sources.nnunet import raw
from cpfnet.data.sources.not_understood import UNDERSTOOD, no_list, not_understood
from cpfnet.data.sources.patterns import by_patterns
from cpfnet.data.sources.structure_folders import structure_folders
from cpfnet.errors import DatasetError
from cpfnet.settings import read_yaml
from cpfnet.text import natural


def load(path: Path | str) -> Dataset:
    """Find the cases of a DATASET; no pixel is read.

    Args:
        path: a folder, a ``dataset.yaml``, a CSV manifest or a datalist JSON (or nnU-Net's ``dataset.json``).

    Raises:
        DatasetError: it cannot be understood at all. What is wrong with single cases stands in ``Dataset.problems``.
        PlanError: a mistake in a ``dataset.yaml``, with its line.
    """
    path = Path(path)
    if os.path.isdir(path):  # noqa: PTH112 (False, too, for what no path can be)
        own = path / "dataset.yaml"
        dataset = _declared(own) if own.is_file() else _by_header(_folder(path, Declaration()))
    elif path.suffix.lower() in (".yaml", ".yml"):
        dataset = _declared(path)
    elif os.path.isfile(path):  # noqa: PTH113
        dataset = _by_header(_listed(path))
    else:
        near = []
        if os.path.exists(path):  # noqa: PTH110
            raise DatasetError("is a device or a pipe", where=path, fix=UNDERSTOOD)
        if os.path.isdir(path.parent):  # noqa: PTH112
            near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
        fix = f"did you mean {near[0]!r}?" if near else "give the path of a folder, dataset.yaml, CSV or JSON"
        raise DatasetError("no such file or folder", where=path, fix=fix)
    problems = (*dataset.problems, *missing_files(dataset))
    if not dataset.cases:
        similar = sum(problem.kind == problems[0].kind for problem in problems[1:])
        more = f" (and {similar} more like it)" if similar else ""
        first = f"; the first problem: {problems[0].where}: {problems[0].what}{more}" if problems else ""
        raise DatasetError(
            f"holds no usable case (understood as: {dataset.layout}){first}",
            where=path,
            fix=problems[0].fix if problems else UNDERSTOOD,
        )
    return replace(dataset, cases=tuple(sorted(dataset.cases, key=lambda c: natural(c.id))), problems=problems)


def _folder(root: Path, declaration: Declaration) -> Dataset:
    listing = root / "dataset.json"
    if not declaration.label and listing.is_file() and is_datalist(read_json(listing), root):
        return datalist(listing)
    plain = None if declaration.label else raw(root) or images_and_masks(root) or structure_folders(root)
    if plain is not None and any(case.labels for case in plain.cases):
        return plain
    by_reference = studies(root, declaration)  # also where names tell nothing, as in images/ and masks/ of one export
    if by_reference is not None and (plain is None or any(case.labels for case in by_reference.cases)):
        return by_reference
    if plain is not None:
        return plain
    if declaration.label:
        raise DatasetError(
            "`label` needs `image`, too: alone it chooses among the labels of DICOM studies, and no DICOM image lies "
            "here",
            where=root / "dataset.yaml",
            fix="add `image`, such as `image: scans/{case}.nii.gz`; or remove `label`",
        )
    raise not_understood(root)


def _listed(path: Path) -> Dataset:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return read_csv(path)
    if suffix != ".json":
        raise no_list(path)
    if is_datalist(read_json(path), path.parent) or path.name != "dataset.json":
        return datalist(path)
    return _folder(path.parent, Declaration())


def _declared(path: Path) -> Dataset:
    declaration = read_yaml(Declaration, path)
    root = path.parent
    if declaration.root is not None:
        root /= os.path.expanduser(declaration.root)  # noqa: PTH111 (an unknown user stays as it is)
    if not os.path.isdir(root):  # noqa: PTH112 (names too long or with null bytes are no folder, too)
        raise DatasetError(
            f"root: no such folder: {str(root)[:300]}", where=path, fix="correct `root` (relative to this file)"
        )
    if declaration.image is not None:
        dataset = by_patterns(root, declaration, path)
    elif declaration.manifest is not None:
        manifest = root / declaration.manifest
        if not os.path.isfile(manifest):  # noqa: PTH113
            raise DatasetError(f"manifest: no such file: {str(manifest)[:300]}", where=path, fix="correct `manifest`")
        dataset = _listed(manifest)
    else:
        dataset = _folder(root, declaration)
    given = {key: getattr(declaration, key) for key in ("name", "modality", "channels", "labels")}
    dataset = replace(dataset, declaration=path, **{key: value for key, value in given.items() if value is not None})
    if declaration.patient is not None:
        cases = _with_patients(dataset.cases, declaration.patient, path)
    else:
        cases = _by_header(dataset).cases
    if declaration.split is not None:
        cases = _with_splits(cases, declaration.split, path, dataset.problems)
    return replace(dataset, cases=cases)


def _by_header(dataset: Dataset) -> Dataset:
    return replace(dataset, cases=group_by_patient(dataset.cases))


def _with_patients(cases: Iterable[Case], expression: str, where: Path) -> tuple[Case, ...]:
    out = []
    for case in cases:
        matched = re.search(expression, case.id)
        if not matched:
            raise DatasetError(
                f"patient: {expression!r} matches nothing in the case id {case.id!r}",
                where=where,
                fix="write an expression that matches every case, such as '^(.*)_[LR]$'",
            )
        named = next((group for group in matched.groups() if group), matched[0])
        out.append(replace(case, patient=named))
    return tuple(out)


def _with_splits(
    cases: tuple[Case, ...], splits: Splits, where: Path, problems: tuple[Finding, ...]
) -> tuple[Case, ...]:
    def means(wanted: str, case: Case) -> bool:
        names = (case.id, case.patient)
        same_number = wanted.isdecimal() and any(
            n.isdecimal() and int(n) == int(wanted) for n in names
        )  # 007 is 7 in YAML
        return same_number or any(fnmatchcase(name, wanted) for name in names)

    chosen: dict[str, str] = {}
    for name in ("val", "test"):
        for wanted in getattr(splits, name):
            found = [case.id for case in cases if means(wanted, case)]
            if not found:
                raise _no_case(f"split.{name}: no case {wanted!r}", wanted, cases, problems, where)
            for case in found:
                if chosen.setdefault(case, name) != name:
                    raise DatasetError(
                        f"split: case {case!r} stands in val and in test", where=where, fix="name it in one of them"
                    )
    return tuple(replace(case, split=chosen.get(case.id, "train"), fold=None) for case in cases)


def _no_case(
    what: str, wanted: str, cases: tuple[Case, ...], problems: tuple[Finding, ...], where: Path
) -> DatasetError:
    """The error for a case that is not there: left out because of a problem, or mistyped."""
    errors = [finding for finding in problems if finding.severity == "error"]
    own = next((finding for finding in errors if finding.case and fnmatchcase(finding.case, wanted)), None)
    if own is not None:
        return DatasetError(f"{what}; {own.where}: {own.what}", where=where, fix=own.fix)
    if not cases and errors:
        return DatasetError(
            f"{what}, and none at all; {errors[0].where}: {errors[0].what}", where=where, fix=errors[0].fix
        )
    near = difflib.get_close_matches(wanted, [case.id for case in cases], n=1)
    names = ", ".join(case.id for case in cases[:3]) + " …" * (len(cases) > 3)
    fix = f"did you mean {near[0]!r}?" if near else f"cases are called {names}"
    if errors:
        fix += f"; {len(errors)} more could not be taken: `cpfnet check` without `split` tells why"
    return DatasetError(what, where=where, fix=fix)

"""Findings on a folder of DICOM studies as a whole.

That is what its headers do not tell, and what is left alone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.data.dataset_yaml import Declaration
from cpfnet.data.finding import Finding, shown
from cpfnet.data.sources.unread_files import KIND, counted, unread_below, unread_fix
from cpfnet.formats.file_types import RASTER_SUFFIXES, VOLUME_SUFFIXES, placeholder

if TYPE_CHECKING:
    from cpfnet.formats.dicom import Scan, Series


def other_files(root: Path, first: Series, cases: Sequence[Case], *, labelled: bool) -> list[Finding]:
    """Files of other formats lie among the studies, and no case uses them.

    How to list them, or the labels that they may be.

    Args:
        root: the data set.
        first: any image series.
        cases: all of them.
        labelled: is there any segmentation or structure set?
    """
    files = sorted(path for path in root.rglob("*") if formats.suffix_of(path) in (*VOLUME_SUFFIXES, *RASTER_SUFFIXES))
    files = [path for path in files if not any(name.startswith(".") for name in path.relative_to(root).parts)]
    volumes = [path for path in files if formats.suffix_of(path) in VOLUME_SUFFIXES]
    aside = unread_below(root)
    unread = [_unread(aside, root, labelled=labelled)] if aside else []
    if not files:
        return unread
    count, such = f"{len(files)} image file{'s' * (len(files) > 1)}", shown((volumes or files)[0], root)
    if labelled:
        example = next((case for case in cases if case.labels), None)
        reference, label = (example.images[0], *example.labels.values())[:2] if example else (first.reference, None)
        line = f"{shown(reference, root)},{shown(label, root) if label else 'LABEL'}"
        what = (
            f"{count} of other formats, such as {such}, lie{'s' * (len(files) == 1)} among the DICOM studies: no case "
            f"uses {'them' if len(files) > 1 else 'it'}"
        )
        fix = (
            "nothing needs to be done if that is right, else list all cases: write `image,label` and one line a "
            f"case, such as `{line}`, into `cases.csv`, images and masks of other formats likewise, and use that as "
            "DATASET"
        )
    else:
        count = f"{len(volumes)} volume{'s' * (len(volumes) > 1)}" if volumes else count
        what = f"no DICOM segmentation or structure set was found, but {count}, such as {such}"
        line = f"{shown(first.reference, root)},{such}"
        fix = (
            "if these are the labels, say what each belongs to: write `image,label` and one line a case, such as "
            f"`{line}`, into `cases.csv`, and use that as DATASET"
        )
    return [*unread, Finding("note", "listing", root.resolve().name, what, fix)]


def _unread(paths: Sequence[Path], root: Path, *, labelled: bool) -> Finding:
    what = (
        f"{counted(paths)}, which is no format that is read, among the DICOM studies: no case uses "
        f"{'it' if len(paths) == 1 else 'them'}"
    )
    if labelled:
        fix = f"nothing needs to be done if that is right; else {unread_fix(paths, root)}"
    else:
        fix = (
            f"if these are the labels, {unread_fix(paths, root)}; then list the cases in a CSV file with the columns "
            "`image,label`"
        )
    files = tuple(shown(path, root) for path in paths)
    return Finding("note" if labelled else "error", KIND, root.resolve().name, what, fix, files=files)


def patients(root: Path, declaration: Declaration, chosen: Sequence[Series], ids: Sequence[str]) -> list[Finding]:
    """What the headers do not tell about patients; ``ids`` are those of the cases."""
    studies = {one.study: one.patient for one in chosen}
    if declaration.patient is not None or len(studies) < 2:
        return []
    unknown = sum(not patient for patient in studies.values())
    if unknown:
        what = f"{unknown} of {len(studies)} studies have no PatientID: each counts as a patient of its own"
        fix = "nothing needs to be done if they are different patients"
        if example := _example(ids):
            fix += (
                f", else say what part of a case's id is the patient: write for example `patient: '{example}'` into "
                "`dataset.yaml`"
            )
        else:
            fix += ", else list the cases with a column `patient` in a CSV file"
        return [Finding("note", "no-patient", root.resolve().name, what, fix)]
    if len(set(studies.values())) == 1:
        what = f"all {len(studies)} studies have the same PatientID, so no patient is left to validate on"
        fix = (
            "if it was overwritten to make them anonymous, write `patient: '.+'` into `dataset.yaml`: each case is a "
            "patient; or add studies of other patients"
        )
        return [Finding("warning", "one-patient", root.resolve().name, what, fix)]
    return []


def _example(ids: Sequence[str]) -> str | None:
    """An expression that matches every id, and makes fewer patients of them than cases, but several."""
    for expression in (r"^(.*)_", r"^([^_]+)_", r"^(.*)-", r"^([^-]+)-"):
        found = [re.search(expression, case) for case in ids]
        if all(found) and 1 < len({match[1] for match in found if match}) < len(ids):
            return expression
    return None


def damaged(root: Path, found: Scan, chosen: Sequence[Series]) -> list[Finding]:
    """Files that cannot be read, where no case will say so: what lies in a case's own folder fails with the case.

    Those of one folder with the same trouble, as a series that was never fetched, are one finding.
    """
    own = {one.reference for one in chosen}
    groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path, reason in found.unreadable:
        if not own & {path, *path.parents}:
            groups[path.parent, reason].append(path)
    findings = []
    for (folder, reason), paths in groups.items():
        kind, several = placeholder(paths[0]), len(paths) > 1
        one = f"`{shown(paths[0], root)}`"
        ways = (
            ["replace them by readable copies", "move them elsewhere"]
            if several
            else [f"replace {one} by a readable copy", f"move {one} elsewhere"]
        )
        if kind == "lfs-pointer":
            ways.insert(0, "fetch the content with `git lfs pull`")
        what = f"{reason}: an image series or label lacks it"
        if several:
            what = f"{len(paths)} files, such as {one}, of which each {what}"
        where = shown(folder if several else paths[0], root)
        files = tuple(shown(path, root) for path in paths) if several else ()
        findings.append(Finding("error", kind or "unreadable", where, what, "; or ".join(ways), files=files))
    return findings

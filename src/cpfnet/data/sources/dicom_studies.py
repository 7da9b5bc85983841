"""A folder of DICOM studies, as archives and treatment planning systems export them, however it is nested.

Each image series that a segmentation (SEG) or structure set (RTSTRUCT) was drawn on is a case, wherever the label lies.
Of a study without any label its largest series is an unlabelled case; all other series are left out, saying so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpfnet import formats
from cpfnet.data.case import STUDIES, Case, Dataset
from cpfnet.data.dataset_yaml import LABEL_KINDS, Declaration
from cpfnet.data.finding import Finding, quoted
from cpfnet.data.sources.dicom_archives import scan_with_archives
from cpfnet.data.sources.dicom_references import (
    ReferenceMatcher,
    alone,
    elsewhere,
    folder_of_all,
    several,
    taken_together,
    unclear,
)
from cpfnet.data.sources.dicom_warnings import damaged, other_files, patients
from cpfnet.data.sources.folders import SPLITS
from cpfnet.data.sources.patterns import find
from cpfnet.data.sources.pseudonyms import case_ids, patient_of
from cpfnet.errors import DatasetError

if TYPE_CHECKING:
    from cpfnet.formats.dicom import LabelObject, Series

Drawn = dict[Path, dict[str, list["LabelObject"]]]
"""Reference of a series → reader → labels."""


def studies(root: Path, declaration: Declaration) -> Dataset | None:
    """Understand a folder of studies; None where no DICOM object lies in it.

    Args:
        root: the folder; ZIP archives in it are looked into, too.
        declaration: its ``modality`` chooses image series, its ``label`` label objects.

    Raises:
        DatasetError: labels without images, a ``label`` or ``modality`` that finds none, or labelled series of several
            modalities.
    """
    from cpfnet.formats.dicom import modality_of

    found, problems = scan_with_archives(root)
    every, labels = found.series, found.labels
    if not every and labels:
        what = f"holds {len(labels)} DICOM segmentations or structure sets, but no image"
        raise DatasetError(what, where=root, fix="add the image series that they were drawn on")
    if not every:
        unread = [finding for finding in problems if finding.kind == "unreadable"]
        return Dataset(root, root.resolve().name, (), layout=STUDIES, problems=tuple(unread)) if unread else None
    kinds = {one.reference: modality_of(one.modality) for one in every}
    series = [one for one in every if declaration.modality in (None, kinds[one.reference])]
    if not series:
        raise DatasetError(
            f"modality: none of {len(every)} image series is {declaration.modality}; there are "
            f"{_counted(kinds.values())}",
            where=root,
            fix="correct `modality` in dataset.yaml",
        )
    drawn = _joined(root, declaration, every, kinds, labels, problems)
    _one_modality(root, {reference: kinds[reference] for reference in drawn})
    chosen, note = _chosen(series, drawn, kinds)
    problems += note
    cases = _cases(root, declaration, chosen, every, labels, drawn, problems)
    problems += other_files(root, series[0], cases, labelled=bool(labels))
    problems += patients(root, declaration, chosen, [case.id for case in cases])
    problems += damaged(root, found, chosen)
    return Dataset(root, root.resolve().name, tuple(cases), layout=STUDIES, problems=tuple(problems))


def _readers(
    root: Path, declaration: Declaration, labels: Sequence[LabelObject]
) -> Mapping[str, Sequence[LabelObject]]:
    """Reader → label objects; without a declaration all of them are one reader's."""
    if declaration.label is None:
        return {"label": labels}
    out = {}
    for reader, pattern in declaration.readers.items():
        assert isinstance(pattern, str)  # files of one structure each need `image`, and are no studies
        files = set() if pattern in LABEL_KINDS else {path for _, path in find(root, pattern)}
        out[reader] = [one for one in labels if one.kind == pattern or one.path in files]
        if not out[reader]:
            there = (
                f"{quoted([one.path for one in labels[:3]], root)}{' …' if len(labels) > 3 else ''}"
                if labels
                else "none"
            )
            raise DatasetError(
                f"label: {pattern!r} finds no segmentation or structure set (there are: {there})",
                where=root,
                fix=f"write one of {', '.join(LABEL_KINDS)}, or a pattern with one * for each folder, such as "
                "'*/RS*.dcm'",
            )
    return out


def _joined(
    root: Path,
    declaration: Declaration,
    every: Sequence[Series],
    kinds: Mapping[Path, str],
    labels: Sequence[LabelObject],
    problems: list[Finding],
) -> Drawn:
    """Give each label to the series that it was drawn on.

    Those on series of other modalities than the declared are dropped, saying so.
    """
    joining = ReferenceMatcher(every)
    drawn: Drawn = defaultdict(lambda: defaultdict(list))
    others: dict[Path, str] = {}
    for reader, objects in _readers(root, declaration, labels).items():
        for label in objects:
            found, referred = joining.fitting(label)
            fitting = [one for one in found if declaration.modality in (None, kinds[one.reference])]
            if len(fitting) == 1:
                drawn[fitting[0].reference][reader].append(label)
                if not referred and (label.series or label.instances):
                    problems.append(elsewhere(label, fitting[0], root))
            elif fitting:
                problems.append(unclear(label, fitting, [kinds[one.reference] for one in fitting], root))
            elif not found:
                problems.append(alone(label, root))
            else:
                others |= {one.reference: kinds[one.reference] for one in found}
    if others:
        what = (
            f"{len(others)} labelled image series of another modality left out ({_counted(others.values())}): "
            f"{quoted(sorted(others)[:5], root)}"
        )
        fix = (
            f"nothing needs to be done if `modality: {declaration.modality}` shall choose, else correct it in "
            "`dataset.yaml`"
        )
        problems.append(Finding("note", "left-out", "image series", f"{what}{' …' * (len(others) > 5)}", fix))
    return drawn


def _counted(names: Iterable[str]) -> str:
    """``5 ct, 1 mr``."""
    return ", ".join(f"{count} {name or 'unknown'}" for name, count in Counter(names).most_common())


def _one_modality(root: Path, labelled: Mapping[Path, str]) -> None:
    counts = Counter(labelled[reference] for reference in sorted(labelled))
    if len(counts) < 2:
        return
    (usual, _), *rarer = counts.most_common()
    named = []
    for kind, count in rarer:
        places = sorted(reference for reference in labelled if labelled[reference] == kind)
        named.append(f"{kind} {'are' if count > 1 else 'is'} {quoted(places[:5], root)}{' …' * (count > 5)}")
    raise DatasetError(
        f"the labelled image series are of several modalities: {_counted(labelled.values())}; {', '.join(named)}",
        where=root,
        fix="; or ".join(f"write `modality: {kind}` into `dataset.yaml`" for kind in (usual, *(k for k, _ in rarer))),
    )


def _chosen(series: list[Series], drawn: Drawn, kinds: Mapping[Path, str]) -> tuple[list[Series], list[Finding]]:
    """The series that are cases, and a note on those that are not."""
    if not drawn:
        return series, []
    kind = {kinds[reference] for reference in drawn}
    settled = {one.study for one in series if one.reference in drawn}
    largest: dict[str, Series] = {}
    for one in sorted(series, key=lambda one: (-one.count, one.reference)):
        if one.study not in settled and kinds[one.reference] in kind:
            largest.setdefault(one.study, one)
    chosen = [one for one in series if one.reference in drawn or largest.get(one.study) is one]
    left = [one for one in series if one not in chosen]
    if not left:
        return chosen, []
    same_study = sum(one.study in settled for one in left)
    parts = [f"{same_study} beside a labelled series of the same study"] if same_study else []
    parts += (
        [f"{len(left) - same_study} of other modality, or smaller than the one kept of their study"]
        if len(left) > same_study
        else []
    )
    what = (
        f"{len(left)} image series without label left out ({_counted(one.modality for one in left)}): "
        f"{', '.join(parts)}"
    )
    fix = "nothing needs to be done: a series is a case as soon as a segmentation or structure set refers to it"
    return chosen, [Finding("note", "left-out", "image series", what, fix)]


def _folders(one: Series, root: Path) -> tuple[str, ...]:
    """The names of the folders that a series lies in, from the root down.

    An archive, or the file of a series of one, counts as one.
    """
    place = (one.reference if one.reference.is_file() else one.folder).relative_to(root)
    parts = (*place.parts[:-1], formats.stem(place)) if (root / place).is_file() else place.parts
    return tuple(
        sorted(parts, key=lambda name: name.lower() in SPLITS)
    )  # train/ and test/ tell apart only what nothing else does


def _cases(
    root: Path,
    declaration: Declaration,
    chosen: list[Series],
    every: Sequence[Series],
    objects: Sequence[LabelObject],
    drawn: Drawn,
    problems: list[Finding],
) -> list[Case]:
    folders = [_folders(one, root) for one in chosen]
    often = Counter(one.uid for one in chosen)  # pictures of one series are cases of their own
    uids = [one.uid if often[one.uid] == 1 else min(one.instances) for one in chosen]
    ids = case_ids(folders, uids, root.resolve().name)
    studies_of: dict[str, set[str]] = defaultdict(set)
    for one in every:
        studies_of[one.patient or one.study].add(one.study)
    chosen_by_pattern = not set(declaration.readers.values()) <= set(LABEL_KINDS)
    cases = []
    for case, one in zip(ids, chosen, strict=True):
        labels = drawn.get(one.reference, {})
        places = {
            reader: found[0].path if len(found) == 1 else folder_of_all(found, objects)
            for reader, found in labels.items()
        }
        trouble = [
            several(case, found, root, chosen=chosen_by_pattern, only=len(drawn) == 1)
            for reader, found in labels.items()
            if places[reader] is None
        ]
        problems += trouble
        problems += [
            taken_together(case, found, root) for reader, found in labels.items() if places[reader] and len(found) > 1
        ]
        if not trouble:
            above = one.folder.relative_to(root).parts[:2]
            split = next((SPLITS[name.lower()] for name in above if name.lower() in SPLITS), None)
            paths = {reader: place for reader, place in places.items() if place is not None}
            cases.append(
                Case(case, patient_of(studies_of[one.patient or one.study]), (one.reference,), paths, split=split)
            )
    return cases

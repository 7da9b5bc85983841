"""What can be wrong with images: single files, pairs that do not fit, and sets that do not belong together."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from cpfnet.data.case import STUDIES, Case
from cpfnet.data.checks.file_summary import Content, Examined
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.checks.geometry_checks import fourth_axes, geometry, spacings
from cpfnet.data.checks.intensity_checks import intensities, units
from cpfnet.data.finding import UNPAIRED, Finding, Severity
from cpfnet.data.sources.folders import called, identifier
from cpfnet.data.sources.unread_files import KIND, unread_fix, unread_suffix
from cpfnet.data.splits import by_patient
from cpfnet.formats.file_types import is_dicom, is_reference
from cpfnet.planning import Folds

_VARYING = re.compile(r"""^(['"]).*?\1|[0-9.]+""")
"""What notes of one sense differ in: the name of the structure that they begin with, and numbers."""

_AGAIN = re.compile(r"(copy|export|fetch|download|save|give an? image|give the image) |the file is damaged")
"""Begins the fix of an error that another copy of the file would be without."""

FOLDS = Folds().count
"""Folds that a Plan has unless the user says otherwise."""


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def files(examined: Examined, fixes: FixSuggestions) -> Iterator[Finding]:
    """Each file by itself, and against the first image of its case."""
    case, drop = examined.case, fixes.drop(examined.case)
    for content in examined.contents:
        where = fixes.shown(content.path)
        if content.failure is not None:
            if unread_suffix(content.path):
                yield _unread(case, content.path, fixes)
                continue
            what, advice = map(fixes.relative, content.failure)
            # A DICOM label is rarely damaged: it does not fit. And other errors are fixed otherwise.
            copied = _AGAIN.match(advice) and not content.names
            fix = f"replace `{where}` by a readable copy ({advice})" if copied else advice
            yield Finding("error", content.kind or "unreadable", where, what, f"{fix}; or {drop}", case.id)
        if content.nonfinite is not None:
            count, first = content.nonfinite
            what = f"holds {count} NaN or infinite values, the first at index {list(first)} (channel, …, height, width)"
            yield Finding("error", "non-finite", where, what, f"replace them by 0 in `{where}`; or {drop}", case.id)
    for content in examined.images:
        if content.constant:
            where = fixes.shown(content.path)
            whole = len(content.constant) == content.channels
            parts = ", ".join(
                f"{value:g}" + ("" if whole else f" in channel {i}") for i, value in content.constant.items()
            )
            what = f"constant {'image' if whole else 'channel'}: every pixel is {parts}"
            severity: Severity = "error" if whole else "warning"
            yield Finding(severity, "constant", where, what, f"export `{where}` again; or {drop}", case.id)
    yield from geometry(examined, fixes)
    if examined.roi is not None and examined.roi.readable and not any(v != 0 for v in examined.roi.values):
        where = fixes.shown(examined.roi.path)
        fix = f"draw the region in `{where}`; or {drop}"
        yield Finding("error", "empty-roi", where, "empty region of interest: no pixel would count", fix, case.id)
    elif examined.roi is not None and examined.roi.distinct > 2:
        where = fixes.shown(examined.roi.path)
        what = f"region of interest with {examined.roi.distinct} different values: every pixel that is not 0 counts"
        fix = f"export `{where}` again, without loss, with 0 outside and one value inside; or {drop}"
        yield Finding("warning", "soft-roi", where, what, fix, case.id)


def _unread(case: Case, path: Path, fixes: FixSuggestions) -> Finding:
    """A file that is named by a list or a pattern, in a format that is not read."""
    place = fixes.list or (fixes.dataset.declaration and fixes.shown(fixes.dataset.declaration))
    fix = unread_fix([path], fixes.root) + (f", and name that in `{place}`" if place else "")
    what = f"{unread_suffix(path)} is no format that is read"
    return Finding("error", KIND, fixes.shown(path), what, fix, case.id)


_MISLAID = ("ambiguous-image", "ambiguous-label", "no-image", "other-series", "unreadable", "lfs-pointer", "html-page")
"""Kinds of findings on labels of DICOM studies that say why a case lacks its own."""


def _mislaid(case: Case, fixes: FixSuggestions, earlier: Sequence[Finding]) -> bool:
    """Is it known why a case of DICOM studies lacks its label: a finding on its image, or in a folder of its own?"""
    if fixes.dataset.layout != STUDIES:
        return False

    def near(one: Case, folder: Path) -> bool:
        place = one.images[0].parent if is_reference(one.images[0]) else one.images[0]
        return place == folder or place in folder.parents or folder in place.parents

    for finding in earlier:
        if finding.kind in _MISLAID:
            folders = [(fixes.root / name).parent for name in finding.files or (finding.where,)]
            if finding.case == case.id or any(
                [c for c in fixes.dataset.cases if near(c, f)] == [case] for f in folders
            ):
                return True
    return False


def _unpaired(case: Case, earlier: Sequence[Finding]) -> bool:
    """Is it known why a case lacks its label: it is there, but not read, or called otherwise?"""
    names = {case.id, identifier(case.images[0])}
    return any(
        finding.kind in UNPAIRED
        and (finding.kind == "names" or finding.case in names or any(called(Path(n)) in names for n in finding.files))
        for finding in earlier
    )


def completeness(cases: Sequence[Case], fixes: FixSuggestions, *, earlier: Sequence[Finding] = ()) -> Iterator[Finding]:
    """Cases without label or region of interest, patients in two splits, too few for folds.

    Args:
        cases: of the data set.
        fixes: for their words.
        earlier: findings that may explain what is missing.
    """
    labelled = [case for case in cases if case.labels]
    if not labelled:
        if any(finding.kind in UNPAIRED for finding in earlier):
            return
        fix = "add labels to the cases that shall train"
        if fixes.list and not fixes.list.endswith(".json"):
            fix = f"add a column `label` to `{fixes.list}`, with the mask of each case"
        yield Finding("error", "no-label", fixes.dataset.name, f"none of the {len(cases)} cases has a label", fix)
        return
    with_roi = {case.split for case in cases if case.roi is not None}
    for case in cases:
        where = fixes.shown(case.images[0])
        if (
            not case.labels
            and case.split != "test"
            and not (_mislaid(case, fixes, earlier) or _unpaired(case, earlier))
        ):
            fix = f"{fixes.add_label(case)}; or {fixes.drop(case)}"
            yield Finding("warning", "no-label", where, "image without label: it is left out of training", fix, case.id)
        if case.roi is None and case.split in with_roi:
            fix = f"{fixes.add_roi(case)}; or {fixes.drop(case)}"
            yield Finding(
                "warning", "no-roi", where, "no region of interest, though other cases have one", fix, case.id
            )
    for patient, group in by_patient(cases).items():
        splits = Counter(case.split or "train" for case in group)
        if len(splits) > 1:
            yield _torn(patient, group, splits, fixes)
    pool = [case for case in labelled if case.split != "test"]
    patients = len(by_patient(pool))
    numbered = len({case.fold for case in pool}) > 1
    if patients < FOLDS and not numbered and not any(case.split == "val" for case in pool):
        what = f"labelled cases of {patients} patient{'s' * (patients > 1)} are too few for {FOLDS} folds"
        fix = f"add labelled cases of {FOLDS - patients} more patient{'s' * (FOLDS - patients > 1)}"
        if patients > 1:
            fix += "; or " + fixes.declare(f"split: {{{_splits(cases, {pool[-1].patient: 'val'})}}}")
        yield Finding("warning", "few-cases", fixes.dataset.name, what, fix)


def _splits(cases: Sequence[Case], moved: dict[str, str]) -> str:
    """The value of dataset.yaml's ``split`` after moving patients."""
    names = defaultdict(list)
    for case in cases:
        split = moved.get(case.patient, case.split) if case.split != "test" or case.patient in moved else "test"
        names[split].append("'" + case.id.replace("'", "''") + "'")
    return ", ".join(f"{split}: [{', '.join(names[split])}]" for split in ("val", "test") if names[split])


def _torn(patient: str, group: list[Case], splits: Counter[str], fixes: FixSuggestions) -> Finding:
    home = splits.most_common(1)[0][0]
    strays = [case for case in group if (case.split or "train") != home]
    if fixes.dataset.declaration:
        fix = fixes.declare(f"split: {{{_splits(fixes.dataset.cases, {patient: home})}}}")
    elif fixes.list and fixes.list.endswith(".csv"):
        fix = f"set `split` of case {' and '.join(f'`{c.id}`' for c in strays)} to `{home}` in `{fixes.list}`"
    else:
        fix = fixes.drop(*strays)
    return Finding(
        "error",
        "patient-split",
        fixes.shown(strays[0].images[0]),
        f"patient {patient} stands in several splits ({', '.join(f'{n} in {s}' for s, n in splits.items())}): scores "
        "would lie",
        fix,
        strays[0].id,
    )


def duplicates(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Images with the same pixels."""
    same: dict[tuple[bytes, ...], list[Case]] = defaultdict(list)
    for one in examined:
        usable = [c for c in one.images if c.readable and len(c.constant) < c.channels]
        if len(usable) == len(one.case.images):
            same[tuple(content.digest for content in usable)].append(one.case)
    keep = {"test": 0, "val": 1}  # a test set is fixed; the copy elsewhere goes
    for group in same.values():
        first, *others = sorted(group, key=lambda case: keep.get(case.split or "", 2))
        for case in others:
            splits = case.split or "train", first.split or "train"
            leak = splits[0] != splits[1]
            text = f"the same pixels as {fixes.shown(first.images[0])}"
            text += f": the {splits[0]} case {case.id} leaks into {splits[1]}" if leak else ": folds would leak"
            yield Finding(
                "error" if leak else "warning",
                "leakage" if leak else "duplicate",
                fixes.shown(case.images[0]),
                text,
                f"{fixes.drop(case)}; or {fixes.drop(first)}",
                case.id,
            )


def consistency(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Images that are of another kind than the others: dimensions, channels, depth of bits, spacing."""
    whole = [
        e for e in examined if e.images and len(e.images) == len(e.case.images) and all(c.readable for c in e.images)
    ]
    if not whole:
        return

    def odd(kind: str, values: list[object], text: str, fix: str) -> Iterator[Finding]:
        usual = Counter(values).most_common(1)[0][0]
        for one, value in zip(whole, values, strict=True):
            if value != usual:
                where = fixes.shown(one.images[0].path)
                what = text.format(value, usual)
                severity: Severity = "warning" if kind == "bit-depth" else "error"
                way = fix.format(where, usual)
                yield Finding(severity, kind, where, what, f"{way}; or {fixes.drop(one.case)}", one.case.id)

    dims: list[object] = [len(e.images[0].shape) for e in whole]
    yield from odd("dimensions", dims, "{0} spatial axes, the others have {1}", "export `{0}` with {1} axes")
    counts = [e.channels for e in whole]
    usual = Counter(counts).most_common(1)[0][0]
    declared = fixes.dataset.channels
    if declared is not None and len(set(counts)) == 1 and counts[0] != len(declared):
        yield _channels_declared(declared, counts[0], fixes)
    yield from fourth_axes(whole, usual, fixes)
    grey = declared is None and all(
        len(e.images) == 1 and e.images[0].picture and len(set(e.images[0].levels)) == 1 for e in whole
    )
    mixed = grey and set(counts) == {1, 3}
    if mixed:
        yield _grey_stored_in_two_ways([e for e in whole if e.channels == 1], len(whole), fixes)
    channels: list[object] = [usual if mixed or any(c.fourth for c in e.images) else e.channels for e in whole]
    yield from odd("channels", channels, "number of channels {0}, of the others {1}", "convert `{0}` to {1} channels")
    if all(e.images[0].affine is None for e in whole):
        depths: list[object] = [e.images[0].dtype for e in whole]
        yield from odd("bit-depth", depths, "pixels are {0}, of the others {1}", "convert `{0}` to {1}")
        common = Counter(depths).most_common(1)[0][0]
        yield from intensities([e for e in whole if e.images[0].dtype == common], fixes)
    else:
        yield from intensities(whole, fixes)
    yield from units(whole, fixes)
    yield from spacings([e for e in whole if e.images[0].affine is not None], fixes)


def _grey_stored_in_two_ways(greys: Sequence[Examined], count: int, fixes: FixSuggestions) -> Finding:
    names = tuple(fixes.shown(e.images[0].path) for e in greys)
    where = names[0] if len(names) == 1 else f"{len(names)} files: {', '.join(names[:3])}{' …' * (len(names) > 3)}"
    what = (
        f"{len(greys)} of {count} pictures are stored in grey, the others in red, green and blue, which are equal; "
        "all are read so"
    )
    fix = "nothing needs to be done if that is right"
    return Finding("note", "channels", where, what, fix, files=names if len(names) > 1 else ())


def _channels_declared(declared: tuple[str, ...], count: int, fixes: FixSuggestions) -> Finding:
    declaration = fixes.dataset.declaration
    names = ", ".join(f"channel{i}" for i in range(count))
    fix = fixes.declare(f"channels: [{names}]")
    if fixes.dataset.layout.startswith("patterns"):
        fix = (
            f"name no channel in `{fixes.shown(declaration)}`: write `image` as one pattern, or a list"
            if declaration
            else fix
        )
    what = f"{len(declared)} channels declared ({', '.join(declared)}), but the images have {count}"
    return Finding("error", "channels", fixes.dataset.name, what, fix)


def notes(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """What was repaired or assumed while reading; the same of many files is one finding."""
    kinds: dict[tuple[Severity, str], list[tuple[Case, Content, str]]] = defaultdict(list)
    for one in examined:
        for content in one.contents:
            empty = [repr(name) for name, pixels in (content.structures or {}).items() if not pixels]
            # What concerns a mask of structures wants a look.
            severity: Severity = "warning" if content.structures is not None else "note"
            for warning in content.warnings:
                if not warning.startswith(tuple(empty)):  # a finding of its own
                    kinds[severity, _VARYING.sub("", warning)].append((one.case, content, warning))
    for (severity, _), group in kinds.items():
        case, _, warning = group[0]
        names = tuple(dict.fromkeys(fixes.shown(content.path) for _, content, _ in group))
        alone = len(names) == 1
        where = names[0] if alone else f"{len(names)} files: {', '.join(names[:3])}{' …' * (len(names) > 3)}"
        what = warning if len({warning for *_, warning in group}) == 1 else f"{warning} (the first; others likewise)"
        fix = "nothing needs to be done if that is right"
        fix += "; `--html` shows a picture" if severity == "warning" else ""
        kind = "dicom-note" if is_dicom(group[0][1].path) else "reading-note"
        yield Finding(severity, kind, where, what, fix, case.id if alone else None, () if alone else names)

"""What can be wrong with labels that name their structures (DICOM segments and ROIs).

That is names that vary, are missing, or meet.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cpfnet.data.case import Case
from cpfnet.data.checks.file_summary import Content, Examined
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.checks.label_checks import rare
from cpfnet.data.dataset_yaml import short_labels
from cpfnet.data.finding import Finding
from cpfnet.data.structure_names import MOST_NAMES, classes_of, matches, normal, pattern
from cpfnet.errors import DatasetError
from cpfnet.labels import conflict
from cpfnet.planning import LabelClass, Labels
from cpfnet.text import natural

Pairs = Sequence[tuple[Case, Content]]

_USUAL = 0.5
"""A structure that this share of the labels hold is expected in the others."""


def structures(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """All rules on names, against what is declared, or else against what most labels hold."""
    pairs = [
        (one.case, content)
        for one in examined
        for content in one.labels.values()
        if content.readable and content.structures is not None
    ]
    if not pairs:
        return
    declared = fixes.dataset.labels
    yield from _declared(pairs, declared, fixes) if declared is not None else _undeclared(pairs, fixes)


def _drawn(content: Content) -> list[str]:
    return [name for name, pixels in (content.structures or {}).items() if pixels]


def _users(pairs: Pairs, names: Sequence[str] | None = None) -> dict[str, tuple[str, ...]]:
    """Name → cases whose label has it, the commonest name first."""
    users: dict[str, list[str]] = defaultdict(list)
    for case, content in pairs:
        for name in dict.fromkeys((*content.names, *(content.structures or {}))):
            if names is None or name in names:
                users[name].append(case.id)
    return {
        name: tuple(dict.fromkeys(users[name])) for name in sorted(users, key=lambda n: (-len(users[n]), natural(n)))
    }


def _empty(case: Case, content: Content, names: Sequence[str], fixes: FixSuggestions) -> Finding:
    where = fixes.shown(content.path)
    every = len(names) == len(content.structures or ())
    what = "empty label: " if every else ""
    what += f"nothing is drawn of {', '.join(names)}" if names else "it has no structure"
    fix = f"draw it in `{where}`; or {fixes.drop(case)}"
    if why := _enclosing_nothing(content, names):
        what += f": {why}"
        fix = f"draw {', '.join(names)} with closed contours in `{where}`, or leave points and lines out of the classes"
    return Finding("warning", "empty-label" if every else "empty-structure", where, what, fix, case.id)


def _enclosing_nothing(content: Content, names: Sequence[str]) -> str:
    """What reading warned of structures whose contours enclose no pixel; "" where it warned of nothing."""
    messages = [
        warning.removeprefix(f"{name!r}: ")
        for name in names
        for warning in content.warnings
        if warning.startswith(f"{name!r}: ")
    ]
    return "; ".join(dict.fromkeys(messages))


def _declared(pairs: Pairs, labels: Labels, fixes: FixSuggestions) -> Iterator[Finding]:
    classes_in = {content.path: _classes(content.names, labels) for _, content in pairs}
    varying = _unmatched(pairs, labels, classes_in)
    if varying:
        yield _varying(pairs, labels, varying, fixes)
    holders: dict[str, list[Case]] = defaultdict(list)
    for case, content in pairs:
        shown = {c for name in _drawn(content) for c in _classes([name], labels)}
        for name in shown:
            holders[name].append(case)
        if not classes_in[content.path] and not any(name in varying for name in content.names):
            yield _meaningless(case, content, labels, fixes)
        elif empty := [name for name in content.structures or {} if not (content.structures or {})[name]]:
            yield _empty(case, content, empty, fixes)
        yield from _meeting(case, content, labels, fixes)
    yield from _lacking(pairs, labels, classes_in, varying, fixes)
    usable = [case for case, content in pairs if classes_in[content.path]]
    yield from rare(holders, usable, labels, fixes, named=True)
    unused = [n for n in _users(pairs) if not _classes([n], labels) and n not in varying]
    if unused:
        what = f"{len(unused)} names of structures mean no class: they count as background"
        fix = "nothing needs to be done if they are not to be learnt, else name them under `labels`"
        yield Finding("note", "unused-structures", fixes.dataset.name, what, fix, variants=_users(pairs, unused))


def _classes(names: Sequence[str], labels: Labels) -> set[str]:
    return {labels.classes[k].name for name in names for k in labels.meant(name)}


def _unmatched(pairs: Pairs, labels: Labels, classes_in: Mapping[Path, set[str]]) -> dict[str, str]:
    """Names that mean no class → the class that they may mean: one that their case lacks, called alike."""
    out: dict[str, str] = {}
    for _, content in pairs:
        lacking = [c for c in labels.classes if c.name not in classes_in[content.path]]
        for name in content.names:
            if _classes([name], labels):
                continue
            for c in lacking:
                if any(matches(name, known.replace("*", "").replace("?", "")) for known in (c.name, *c.names)):
                    out.setdefault(name, c.name)
    return out


def _varying(pairs: Pairs, labels: Labels, varying: Mapping[str, str], fixes: FixSuggestions) -> Finding:
    extended = labels.model_copy(
        update={
            "classes": tuple(
                c.model_copy(update={"names": (*c.names, *(pattern(n) for n, k in varying.items() if k == c.name))})
                for c in labels.classes
            )
        }
    )
    similar = [name for name in _users(pairs) if name in varying or _classes([name], labels) & set(varying.values())]
    shown = ", ".join(f"{name} ({meant}?)" for name, meant in varying.items())
    what = (
        f"structures are called differently from case to case: {shown} mean no class, in cases that lack one called "
        "alike"
    )
    fix = fixes.declare(f"labels: {short_labels(extended)}")
    return Finding("error", "structure-names", fixes.dataset.name, what, fix, variants=_users(pairs, similar))


def _meaningless(case: Case, content: Content, labels: Labels, fixes: FixSuggestions) -> Finding:
    where = fixes.shown(content.path)
    found = f"none of its structures ({', '.join(content.names[:8])}{' …' * (len(content.names) > 8)})"
    what = (
        f"{found if content.names else 'it has no structure that'} means one of the classes "
        f"{', '.join(c.name for c in labels.classes)}"
    )
    fix = fixes.drop(case)
    if content.names and len(labels.classes) == 1:
        (only,) = labels.classes
        first = labels.model_copy(
            update={"classes": (only.model_copy(update={"names": (*only.names, pattern(content.names[0]))}),)}
        )
        fix = f"{fixes.declare(f'labels: {short_labels(first)}')} if {content.names[0]} is meant; or {fix}"
    return Finding("error", "structure-names", where, what, fix, case.id)


def _meeting(case: Case, content: Content, labels: Labels, fixes: FixSuggestions) -> Iterator[Finding]:
    """Pixels of several exclusive classes without a declared order, or of regions that no value stands for."""
    alone = Counter(content.structures or {})
    for names, pixels in content.overlaps.items():
        alone.subtract(dict.fromkeys(names, pixels))
    meeting: Counter[tuple[str, str]] = Counter()
    for names, pixels in [*((frozenset({name}), n) for name, n in alone.items()), *content.overlaps.items()]:
        if pixels > 0 and (trouble := conflict(names, labels)):
            meeting[trouble] += pixels
    if not meeting:
        return
    what = "structures cannot be told apart: " + ", ".join(
        f"{what} on {pixels} pixels" for (what, _), pixels in meeting.most_common(3)
    )
    fix = meeting.most_common(1)[0][0][1]
    if labels.exclusive:
        ordered = labels.model_copy(update={"overlap": "last"})
        fix = f"{fixes.declare(f'labels: {short_labels(ordered)}')}: the last of them in this order has such pixels"
    yield Finding("error", "overlap", fixes.shown(content.path), what, f"{fix}; or {fixes.drop(case)}", case.id)


def _lacking(
    pairs: Pairs,
    labels: Labels,
    classes_in: Mapping[Path, set[str]],
    varying: Mapping[str, str],
    fixes: FixSuggestions,
) -> Iterator[Finding]:
    """Classes that most labels hold and some do not: there, what was never drawn would be learnt as background."""
    usable = [(case, content) for case, content in pairs if classes_in[content.path]]
    for c in labels.classes:
        if c.name in varying.values():
            continue
        lacking = [(case, content.path) for case, content in usable if c.name not in classes_in[content.path]]
        if len(lacking) == len(usable):
            left = labels.model_copy(update={"classes": tuple(o for o in labels.classes if o is not c)})
            what = f"class {c.name} occurs in no label"
            fix = f"{fixes.declare(f'labels: {short_labels(left)}')}; or add cases that show it"
            if left.classes:
                yield Finding("warning", "absent-class", fixes.dataset.name, what, fix)
        elif lacking and len(lacking) <= (1 - _USUAL) * len(usable):
            what = (
                f"class {c.name} was not drawn in {len(lacking)} of {len(usable)} labels "
                f"({', '.join([case.id for case, _ in lacking[:6]])}{' …' * (len(lacking) > 6)}): there it would be "
                "learnt as background"
            )
            fix = (
                f"draw {c.name} in {fixes.quoted([path for _, path in lacking])} if it is to be seen; or "
                f"{fixes.drop(*(case for case, _ in lacking))}"
            )
            yield Finding("warning", "missing-structure", fixes.dataset.name, what, fix)


def _undeclared(pairs: Pairs, fixes: FixSuggestions) -> Iterator[Finding]:
    sound = []
    known = {normal(name) for _, content in pairs for name in _drawn(content)}
    for case, content in pairs:
        if known and not any(normal(name) in known for name in content.names):
            yield _strange(case, content, fixes)
        elif empty := [name for name in content.structures or {} if not (content.structures or {})[name]]:
            yield _empty(case, content, empty, fixes)
        elif not content.structures:
            yield _empty(case, content, [], fixes)
        if _drawn(content):
            sound.append((case, content))
    if not sound:
        return
    merged = _merged(sound)
    if len(merged) > MOST_NAMES:
        yield from _coverings(sound, fixes)
        return
    proposed = _proposed(sound, merged)
    if any(c.names for c in proposed.classes):
        yield _varied(sound, proposed, fixes)
        return
    coverings = list(_coverings(sound, fixes))
    yield from coverings
    if not coverings:
        yield from _lacking(
            sound, proposed, {content.path: _classes(content.names, proposed) for _, content in sound}, {}, fixes
        )
        holders = {
            c.name: [case for case, content in sound if c.name in _classes(_drawn(content), proposed)]
            for c in proposed.classes
        }
        yield from rare(holders, [case for case, _ in sound], proposed, fixes, named=True)


def _strange(case: Case, content: Content, fixes: FixSuggestions) -> Finding:
    """A label that shares no structure with the others, nor draws its own.

    It says nothing about what there is to learn.
    """
    names = ", ".join(content.names[:8])
    what = (
        f"nothing is drawn of {names}, which no other label draws either"
        if names
        else "empty label: it has no structure"
    )
    fix = f"draw what the others show in `{fixes.shown(content.path)}`; or {fixes.drop(case)}"
    if why := _enclosing_nothing(content, content.names):
        what += f": {why}"
        fix = f"draw what the others show with closed contours in `{fixes.shown(content.path)}`"
    return Finding("error", "empty-label", fixes.shown(content.path), what, fix, case.id)


def _merged(pairs: Pairs) -> dict[str, set[str]]:
    """Classes to propose: the commonest name → normalised names that may mean it; names of one case are never one."""
    both_in_one: Counter[frozenset[str]] = Counter()
    counts: Counter[str] = Counter()
    for _, content in pairs:
        keys = sorted({normal(name) for name in _drawn(content) if normal(name) != "background"})
        counts.update(keys)
        both_in_one.update(frozenset((a, b)) for a in keys for b in keys if a < b)
    groups: dict[str, set[str]] = {}
    for key in sorted(counts, key=lambda k: (-counts[k], natural(k))):
        fitting = (
            group
            for first, group in groups.items()
            if matches(key, first) and not any(both_in_one[frozenset((key, other))] for other in group)
        )
        group = next(fitting, None)
        if group is None:
            groups[key] = {key}
        else:
            group.add(key)
    return groups


def _proposed(pairs: Pairs, merged: Mapping[str, set[str]]) -> Labels:
    """A class for each structure, with all names that may mean it.

    The order of overlap, if there is any, is from common to rare.
    """
    used: dict[str, Counter[str]] = {}
    for first, group in merged.items():
        used[first] = Counter(n.strip() for _, content in pairs for n in _drawn(content) if normal(n) in group)
    classes = []
    for number, names in enumerate(used.values(), start=1):
        ordered = sorted(names, key=lambda n: (-names[n], natural(n)))
        others = {pattern(n): n for n in ordered[1:] if n.casefold() != ordered[0].casefold()}
        classes.append(LabelClass(name=ordered[0], values=(number,), names=tuple(others)))
    covered = any(
        len(_classes(sorted(names), Labels(classes=tuple(classes)))) > 1 for _, c in pairs for names in c.overlaps
    )
    return Labels(classes=tuple(classes), overlap="last" if covered else None)


def _varied(pairs: Pairs, proposed: Labels, fixes: FixSuggestions) -> Finding:
    variants = ", ".join(f"{c.name} also as {' and '.join(c.names)}" for c in proposed.classes if c.names)
    merged = fixes.declare(f"labels: {short_labels(proposed)}")
    if all(normal(name) == normal(c.name) for c in proposed.classes for name in c.names):
        what = f"structures are spelt differently from case to case: {variants}; planning takes them as one"
        separate = fixes.declare(f"labels: {short_labels(_apart(proposed))}")
        fix = f"{merged} to settle that; or {separate} if they do not mean the same"
    else:
        what = (
            f"structures seem to be called differently from case to case: {variants}; planning takes as one what "
            "differs in case, blanks, hyphens and underscores alone"
        )
        fix = f"{merged} if these names mean the same"
    return Finding("warning", "structure-names", fixes.dataset.name, what, fix, variants=_users(pairs))


def _apart(merged: Labels) -> Labels:
    """A class for each of the names."""
    names = {name.casefold(): name for c in merged.classes for name in (c.name, *c.names)}
    classes = (LabelClass(name=name, values=(number,)) for number, name in enumerate(names.values(), start=1))
    return merged.model_copy(update={"classes": tuple(classes)})


def _coverings(pairs: Pairs, fixes: FixSuggestions) -> Iterator[Finding]:
    """What planning would refuse: too many structures, or some that cover each other."""
    contents = [content for _, content in pairs]
    try:
        classes_of([c.structures or {} for c in contents], [c.overlaps for c in contents], fixes.root)
    except DatasetError as error:
        lines = re.findall(r"`(labels: \{.*\})`", error.fix or "")
        meeting = any(c.overlaps for c in contents)
        fix = (
            (error.fix or "").replace(f"write `{lines[0]}` into dataset.yaml", fixes.declare(lines[0]))
            if lines
            else error.fix or ""
        )
        yield Finding(
            "error",
            "overlap" if meeting else "structure-names",
            fixes.dataset.name,
            error.what,
            fix,
            variants=_users(pairs),
        )

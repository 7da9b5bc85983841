"""What can be wrong with labels: values that mean nothing, soft edges, empty or wholly ignored ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cpfnet.data.case import Case
from cpfnet.data.checks.file_summary import KEPT_VALUES, Content, Examined, Value
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.checks.image_checks import FOLDS
from cpfnet.data.checks.soft_mask_checks import between_colours, between_greys, several_shades
from cpfnet.data.dataset_yaml import short_labels
from cpfnet.data.finding import Finding
from cpfnet.data.infer_labels import meaning_of, shaded, values_in
from cpfnet.formats.file_types import JPEG_SUFFIXES
from cpfnet.label_values import MOST_VALUES, shade
from cpfnet.labels import brightness, format_value, nearest_integer, number_of
from cpfnet.planning import LabelClass, Labels

FEWEST = 3
"""Patients that a class needs: one to train, one to validate, one to test on."""

_RARE = 0.05
"""A value in no more than this share of the labels (or in one) is unexpected, where nothing is declared."""


def labels(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """All rules on label values; against what is declared, or else against what most labels hold."""
    pairs = [
        (one.case, content)
        for one in examined
        for content in one.labels.values()
        if content.readable and content.nonfinite is None and content.structures is None
    ]
    if not pairs:
        return
    declared = fixes.dataset.labels
    if declared is None or declared.threshold is None:
        soft = [(case, content) for case, content in pairs if content.soft]
        if soft:
            yield from between_greys(soft, pairs, fixes)
        blurred = [pair for pair in pairs if pair[1].main and not _known(pair[1], declared)]
        pairs = [pair for pair in pairs if not pair[1].soft and pair not in blurred]
        yield from between_colours(blurred, pairs, fixes)
    if pairs and declared:
        yield from _declared(pairs, declared, fixes)
    elif pairs:
        yield from _undeclared(pairs, fixes)


def _known(content: Content, labels: Labels | None) -> bool:
    """Are all values declared?"""
    return labels is not None and set(content.values) <= {
        *labels.background, *labels.ignore, *(v for c in labels.classes for v in c.values)
    }  # fmt: skip


def _nonsense(content: Content, fixes: FixSuggestions, case: Case) -> Finding | None:
    """Too many values, or fractions: an image in place of a label."""
    fractions = [v for v in content.values if isinstance(v, float) and not v.is_integer()]
    if not fractions and content.distinct <= (KEPT_VALUES if fixes.dataset.labels else MOST_VALUES):
        return None
    where = fixes.shown(content.path)
    if fractions and all(nearest_integer(v) is not None for v in fractions):
        what = f"holds {', '.join(map(format_value, fractions[:4]))}: farther from whole numbers than rounding leaves"
        fix = f"round the values in `{where}` to whole numbers, and save it as integers; or {fixes.drop(case)}"
        return Finding("error", "label-values", where, what, fix, case.id)
    what = f"holds {content.distinct} different values" + (f", such as {fractions[0]:g}" if fractions else "")
    lossy = content.path.suffix.lower() in JPEG_SUFFIXES
    what += ": classes do not survive a lossy format (JPEG)" if lossy else ": an image, not a label?"
    kind = "without loss, " if lossy else ""
    fix = f"export `{where}` again, {kind}with one integer for each class; or {fixes.drop(case)}"
    return Finding("error", "label-values", where, what, fix, case.id)


def _values(values: Sequence[Value]) -> str:
    return ", ".join(str(v) for v in values[:8]) + " …" * (len(values) > 8)


def _empty(case: Case, content: Content, fixes: FixSuggestions) -> Finding:
    where = fixes.shown(content.path)
    fix = f"draw the missing structure in `{where}`; or {fixes.drop(case)}"
    only = f": every pixel is {next(iter(content.values))}" if len(content.values) == 1 else ""
    return Finding("warning", "empty-label", where, f"empty label{only}", fix, case.id)


def _below(case: Case, content: Content, drawn: list[Value], labels: Labels, fixes: FixSuggestions) -> Finding:
    """Something is drawn, such as 1 on 0, where a threshold for 0 … 255 makes background of both."""
    where, values = fixes.shown(content.path), sorted(drawn, key=_number)
    what = f"the values {_values(values)} all lie below the threshold {labels.threshold:g}: the label counts as empty"
    fix = f"replace the values {_values(values[1:])} by {labels.classes[0].written} in `{where}`; or {fixes.drop(case)}"
    return Finding("error", "label-values", where, what, fix, case.id)


def _declared(pairs: list[tuple[Case, Content]], labels: Labels, fixes: FixSuggestions) -> Iterator[Finding]:
    meant = {value for c in labels.classes for value in c.values}
    known: set[Value] = {*labels.background, *labels.ignore, *meant}
    seen: set[Value] = set()
    holding = Counter(value for _, content in pairs for value in content.values if value not in known)
    extended = _with(
        labels, [v for v, n in sorted(holding.items(), key=str) if isinstance(v, int | str)], len(pairs), holding
    )
    for case, content in pairs:
        seen |= set(content.values)
        if labels.threshold is not None:
            drawn = [v for v in content.values if v not in labels.ignore]
            numbers = np.array([_number(v) for v in drawn])
            if (brightness(numbers) <= labels.threshold).all():
                below = len(drawn) > 1
                yield _below(case, content, drawn, labels, fixes) if below else _empty(case, content, fixes)
            continue
        if nonsense := _nonsense(content, fixes, case):
            yield nonsense
            continue
        unexpected_values = [v for v in content.values if v not in known]
        where = fixes.shown(content.path)
        if unexpected_values:
            what = (
                f"unexpected label values {_values(unexpected_values)} on "
                f"{sum(content.values[v] for v in unexpected_values)} pixels; "
                f"declared are {_values(sorted(known, key=str))}"
            )
            declare = fixes.declare(f"labels: {short_labels(extended)}")
            if set(unexpected_values) <= set(extended.ignore):  # a slip of the pen
                fix = (
                    f"replace the values {_values(unexpected_values)} by "
                    f"{labels.background[0] if labels.background else 0} in `{where}`; or {declare}"
                )
            else:  # what most labels hold is what was drawn
                fix = f"{declare}; or export `{where}` again, with the values that are declared"
            yield Finding("error", "label-values", where, what, fix, case.id)
        elif set(content.values) <= set(labels.ignore):
            fix = f"annotate `{where}`; or {fixes.drop(case)}"
            yield Finding(
                "error",
                "ignored-label",
                where,
                "every pixel is ignored: nothing to learn from or to score",
                fix,
                case.id,
            )
        elif not meant & set(content.values):
            yield _empty(case, content, fixes)
    yield from _absent(labels, seen, fixes)
    yield from _rare(pairs, labels, fixes)


def _with(labels: Labels, unexpected_values: list[int | str], count: int, holding: Counter[Value]) -> Labels:
    """Labels that allow some more values.

    What half of the labels hold must be the class (or one more), what few hold is ignored.
    """
    common = tuple(v for v in unexpected_values if holding[v] >= count / 2)
    rare = tuple(v for v in unexpected_values if v not in common)
    classes = labels.classes
    if common and len(classes) == 1:
        classes = (classes[0].model_copy(update={"values": (*common, *classes[0].values)}),)
    elif common:
        classes = (*classes, *(_named(v) for v in common))
    return labels.model_copy(update={"classes": classes, "ignore": (*labels.ignore, *rare)})


def _named(value: int | str) -> LabelClass:
    return LabelClass(name=f"class_{str(value).lstrip('#')}".replace("-", "minus"), values=(value,))


def _absent(labels: Labels, seen: set[Value], fixes: FixSuggestions) -> Iterator[Finding]:
    absent = [c for c in labels.classes if not seen & set(c.values)]
    if labels.threshold is not None or not absent or len(absent) == len(labels.classes):
        return
    left = labels.model_copy(update={"classes": tuple(c for c in labels.classes if c not in absent)})
    for c in absent:
        what = f"class {c.name} (values {_values(c.values)}) occurs in no label"
        fix = f"{fixes.declare(f'labels: {short_labels(left)}')}; or add cases that show it"
        yield Finding("warning", "absent-class", fixes.dataset.name, what, fix)


def _rare(pairs: list[tuple[Case, Content]], labels: Labels, fixes: FixSuggestions) -> Iterator[Finding]:
    holders = {c.name: [case for case, content in pairs if set(c.values) & set(content.values)] for c in labels.classes}
    yield from rare(holders, [case for case, _ in pairs], labels, fixes)


def rare(
    holders: dict[str, list[Case]],
    labelled: Sequence[Case],
    labels: Labels,
    fixes: FixSuggestions,
    *,
    named: bool = False,
) -> Iterator[Finding]:
    """Classes that too few patients show to train, validate and test on, though there are patients enough for folds.

    Args:
        holders: class → cases that show it; classes that none shows have findings of their own.
        labelled: all cases with a usable label.
        labels: what is declared, or would be proposed.
        fixing: of the data set.
        named: the labels name what they hold: what means no class is background without further ado.
    """
    if len(labels.classes) < 2 or len({case.patient for case in labelled if case.split != "test"}) < FOLDS:
        return
    for c in labels.classes:
        cases = [case for case in holders[c.name] if case.split != "test"]
        patients = {case.patient for case in cases}
        if not 0 < len(patients) < FEWEST:
            continue
        rest = tuple(other for other in labels.classes if other is not c)
        kept = {v for other in rest for v in other.values}
        freed = () if named else tuple(v for v in c.values if v not in kept)
        background = (*labels.background, *freed)
        left = labels.model_copy(update={"classes": rest, "background": background})
        what = (
            f"class {c.name} is drawn in {len(cases)} of {len(labelled)} labels "
            f"({', '.join(case.id for case in cases)}): too few to train, validate and test on"
        )
        fix = (
            f"{fixes.declare(f'labels: {short_labels(left)}')}, so that it counts as background; or add cases that "
            "show it"
        )
        yield Finding("warning", "rare-class", fixes.dataset.name, what, fix)


def _undeclared(pairs: list[tuple[Case, Content]], fixes: FixSuggestions) -> Iterator[Finding]:
    sound = []
    for case, content in pairs:
        if nonsense := _nonsense(content, fixes, case):
            yield nonsense
        else:
            sound.append((case, content))
    held = [values_in(content) for _, content in sound]
    if shaded(held):
        _, what = meaning_of(fixes.dataset, held)
        yield Finding("note", "label-values", fixes.dataset.name, what, "nothing needs to be done if that is right")
        sound = [(case, replace(content, values=_in_black_and_white(content))) for case, content in sound]
    holding = Counter(_whole(value) for _, content in sound for value in content.values)
    if not holding or len(holding) > MOST_VALUES:  # the latter is what `plan_checks` finds
        return
    yield from several_shades(holding, fixes)
    background = 0 if 0 in holding else min((v for v in holding if isinstance(v, int)), default=0)
    limit = max(1, int(_RARE * len(sound)))
    rare = {v for v, n in holding.items() if n <= limit and v != background} if len(sound) >= 4 else set()
    usual = sorted((v for v in holding if v not in rare and v != background), key=lambda v: (str(type(v)), v))
    if not usual:  # nothing but rare values: then no value is usual, and none is odd
        rare, usual = set(), sorted(rare, key=str)
    for case, content in sound:
        values = {_whole(v): n for v, n in content.values.items()}
        odd = sorted(rare & set(values), key=str)
        where = fixes.shown(content.path)
        if odd:
            # one structure under another number, or a slip of the pen
            target = usual[0] if len(usual) == 1 and usual[0] not in values else background
            what = (
                f"unexpected label values {_values(odd)} on {sum(values[v] for v in odd)} pixels; the other labels "
                f"hold {_values([background, *usual])}"
            )
            choice = short_labels(_proposed(background, usual, tuple(sorted(rare, key=str))))
            fix = f"replace the values {_values(odd)} by {target} in `{where}`; or {fixes.declare(f'labels: {choice}')}"
            yield Finding("warning", "label-values", where, what, fix, case.id)
        elif set(values) <= {background}:
            yield _empty(case, content, fixes)
    codings = list(_codings(sound, background, usual, fixes))
    yield from codings
    if usual and not codings:
        yield from _rare(sound, _proposed(background, usual), fixes)


def _in_black_and_white(content: Content) -> dict[Value, int]:
    return {shade(_number(v)) or 0: pixels for v, pixels in content.values.items()}


def _number(value: Value) -> float:
    return number_of(value) if isinstance(value, str) else value


def _whole(value: Value) -> int | str:
    return value if isinstance(value, str) else int(value)


def _proposed(background: int, usual: Sequence[int | str], ignore: tuple[int | str, ...] = ()) -> Labels:
    if len(usual) == 1:
        classes = [LabelClass(name="foreground", values=(usual[0],))]
    else:
        classes = [_named(value) for value in usual]
    return Labels(background=(background,), classes=tuple(classes), ignore=ignore)


def _codings(
    pairs: list[tuple[Case, Content]], background: int, usual: Sequence[int | str], fixes: FixSuggestions
) -> Iterator[Finding]:
    """Masks of one structure, some written 0/1 and some 0/255."""
    groups: Counter[int | str] = Counter()
    for _, content in pairs:
        found = {_whole(v) for v in content.values} & set(usual)
        if len(found) > 1:
            return
        groups.update(found)
    if len(groups) < 2:
        return
    counts = ", ".join(f"{n} with {v}" for v, n in groups.most_common())
    one = Labels(background=(background,), classes=(LabelClass(name="foreground", values=tuple(groups)),))
    ways = [fixes.declare(f"labels: {short_labels(chosen)}") for chosen in (one, _proposed(background, usual))]
    fix = f"{ways[0]}; or {ways[1]}, if they are different structures"
    yield Finding(
        "warning",
        "label-coding",
        fixes.dataset.name,
        f"every label holds one value only, but not the same: {counts}",
        fix,
    )

"""What undeclared names of structures (DICOM segments and ROIs) mean: one class for each name, however it is spelt."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from cpfnet.data.dataset_yaml import short_labels
from cpfnet.errors import DatasetError
from cpfnet.planning import LabelClass, Labels
from cpfnet.text import natural

MOST_NAMES = 64
"""More structures than these need a declaration: nobody wants to learn all of them."""


def normal(name: str) -> str:
    """What a name is compared by: case, blanks, underscores and hyphens do not count."""
    return re.sub(r"[\s_\-]+", "", name.casefold())


def pattern(name: str) -> str:
    """A name as a pattern that matches itself and little else: a star would match more than a question mark."""
    return name.strip().replace("*", "?")


def matches(first: str, second: str) -> bool:
    """May two names mean one structure: equal but for digits and signs, or one is the other with an ending?"""
    a, b = sorted((_letters(first), _letters(second)), key=len)
    return b.startswith(a) and (a == b or len(a) >= 3)


def _letters(name: str) -> str:
    return "".join(filter(str.isalpha, name.casefold())) or name


def classes_of(
    structures: Sequence[Mapping[str, int]], overlaps: Sequence[Mapping[frozenset[str], int]], where: Path
) -> tuple[Labels, str]:
    """One class, numbered from 1, for each structure; spellings of one name are one class.

    Args:
        structures: of each case, name → pixels.
        overlaps: of each case, names that cover the same pixels → pixels.
        where: the data set, for messages.

    Returns:
        Exclusive labels, and why.

    Raises:
        DatasetError: nothing is drawn, too many structures, or some cover each other: the message orders them.
    """
    drawn: dict[str, Counter[str]] = defaultdict(Counter)
    size: Counter[str] = Counter()
    for one in structures:
        for name, pixels in one.items():
            if pixels and normal(name) != "background":
                drawn[normal(name)][name] += 1
                size[normal(name)] += pixels
    if not drawn:
        raise DatasetError(
            "no structure is drawn in any label: there is nothing to learn", where=where, fix="draw the structures"
        )
    if len(drawn) > MOST_NAMES:
        examples = ", ".join(_class_name(drawn[key]) for key in sorted(drawn, key=lambda k: (-drawn[k].total(), k))[:5])
        raise DatasetError(
            f"the labels hold {len(drawn)} different structures ({examples} …)",
            where=where,
            fix="name those to learn under `labels:` in dataset.yaml, for example `labels: {tumour: 'GTV*', lung: "
            "['Lung*', 'lungs']}`",
        )
    classes = {key: _class(variants) for key, variants in drawn.items()}
    covered: Counter[tuple[str, ...]] = Counter()
    for each in overlaps:
        for names, pixels in each.items():
            shared = {normal(name) for name in names} & classes.keys()
            if len(shared) > 1:
                covered[tuple(sorted(shared, key=natural))] += pixels
    if covered:
        _refuse_overlap(covered, [classes[key] for key in sorted(classes, key=lambda k: (-size[k], k))], where)
    ordered = sorted(classes.values(), key=lambda c: natural(c.name))
    spelt = [f"{c.name} also as {', '.join(c.names)}" for c in ordered if c.names]
    why = f"each structure that the labels name is a class{'; ' * bool(spelt)}{'; '.join(spelt)}"
    return Labels(classes=_numbered(ordered)), why


def _class_name(variants: Counter[str]) -> str:
    """The commonest spelling."""
    return min(variants, key=lambda name: (-variants[name], natural(name), name)).strip()


def _class(variants: Counter[str]) -> LabelClass:
    name = _class_name(variants)
    others = {v.strip() for v in variants if v.strip().casefold() != name.casefold()}
    names = tuple(pattern(other) for other in sorted(others, key=lambda v: (natural(v), v)))
    return LabelClass(name=name, values=(1,), names=names)


def _numbered(classes: Sequence[LabelClass]) -> tuple[LabelClass, ...]:
    return tuple(c.model_copy(update={"values": (number,)}) for number, c in enumerate(classes, start=1))


def _refuse_overlap(covered: Counter[tuple[str, ...]], classes: list[LabelClass], where: Path) -> None:
    called = {normal(c.name): c.name for c in classes}
    shown = ", ".join(
        f"{' and '.join(called[key] for key in keys)} on {pixels} pixels" for keys, pixels in covered.most_common(3)
    )
    line = short_labels(Labels(classes=_numbered(classes), overlap="last"))
    raise DatasetError(
        f"structures cover each other: {shown}{' …' if len(covered) > 3 else ''}",
        where=where,
        fix=f"say who has such pixels: write `labels: {line}` into dataset.yaml: here the last, the smallest, has "
        "them; leave out what shall not be learnt",
    )

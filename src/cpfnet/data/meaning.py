"""What the values in undeclared label files mean."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cpfnet import formats
from cpfnet.data.dataset import Case, Dataset
from cpfnet.data.examine import count_values, is_soft
from cpfnet.data.names import classes_of
from cpfnet.errors import DatasetError
from cpfnet.formats import Header
from cpfnet.labels import pack, value_of
from cpfnet.planning import LabelClass, Labels

MOST_VALUES = 64
"""More label values than these need a declaration: nobody can guess what they mean."""


@dataclass(frozen=True)
class Values:
    """Label values of one case.

    Attributes:
        numbers: value → pixels, over all readers.
        soft: some reader's label has soft edges.
        single: the only value beside the lowest, where there is one.
        structures: name → pixels likewise, of labels that name what they hold.
        overlaps: names that cover the same pixels → these pixels.
    """

    numbers: dict[int | float, int]
    soft: bool
    single: int | None
    structures: dict[str, int]
    overlaps: dict[frozenset[str], int]


def values_of(case: Case, image: Header, labels: Labels | None) -> Values:
    """Read the labels of a case; ``image`` and ``labels`` (the declared ones) as for `formats.read_label`."""
    total: Counter[int | float] = Counter()
    structures: Counter[str] = Counter()
    overlaps: Counter[frozenset[str]] = Counter()
    soft = False
    for path in case.labels.values():
        label = formats.read_label(path, image, labels)
        if label.meanings is not None:
            numbers, counts = count_values(label.array)
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
                names = label.meanings[number]
                structures.update(dict.fromkeys(names, count))
                overlaps.update({names: count} if len(names) > 1 else {})
            continue
        packed = pack(label.array, where=str(path))
        numbers, counts = count_values(packed)
        total.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        soft = soft or is_soft(packed, numbers, counts)
    if len(total) > MOST_VALUES:  # an image or a soft mask: its extremes will do
        total = Counter({v: total[v] for v in (min(total), *sorted(total)[1:MOST_VALUES], max(total))})
    single = int(max(total)) if len(total) == 2 else None
    return Values(dict(total), soft, single, dict(structures), dict(overlaps))


def meaning_of(dataset: Dataset, values: list[Values]) -> tuple[Labels, str]:
    """What is declared, or else what the values look like; and why.

    Raises:
        DatasetError: the values are too many, no integers, or all the same; or names cannot become classes.
    """
    if dataset.labels is not None:
        return dataset.labels, "declared by the data set"
    named = [one for one in values if one.structures or not one.numbers]
    if named and any(one.numbers for one in values):
        name = next((name for one in named for name in one.structures), "GTV-1")
        raise DatasetError(
            f"{len(named)} of {len(values)} labels name their structures (DICOM), the others hold values",
            where=dataset.root,
            mend=f"declare both in dataset.yaml, for example `labels: {{tumour: {{values: 1, names: ['{name}']}}}}`",
        )
    if named:
        return classes_of([one.structures for one in values], [one.overlaps for one in values], dataset.root)
    found = sorted({number for one in values for number in one.numbers})
    low, high = found[0], found[-1]
    soft = sum(one.soft for one in values)
    if soft and high > low:
        threshold = float((low + high) // 2 if high - low > 2 else (low + high) / 2)
        _refuse_erasing(dataset, values, low, high, threshold)
        foreground = LabelClass(name="foreground", values=(int(high),))
        return (
            Labels(background=(int(low),), classes=(foreground,), threshold=threshold),
            f"soft edges in {soft} of {len(values)} labels (values {low:g} to {high:g}): above the threshold is the class",
        )
    if len(found) > MOST_VALUES or any(not float(v).is_integer() for v in found):
        raise DatasetError(
            f"the labels hold {f'more than {MOST_VALUES}' if len(found) > MOST_VALUES else len(found)} different values, "
            f"from {_shown(low)} to {_shown(high)}",
            where=dataset.root,
            mend="declare what they mean under `labels:` in dataset.yaml, for example `labels: {lesion: 255}`",
        )
    numbers = [int(v) for v in found]
    background = 0 if 0 in numbers else numbers[0]
    rest = [v for v in numbers if v != background]
    if not rest:
        raise DatasetError(
            f"every pixel of every label is {value_of(background)}: there is nothing to learn",
            where=dataset.root,
            mend="draw the structures, or declare `labels:` in dataset.yaml with another background",
        )
    shown = ", ".join(str(value_of(v)) for v in numbers)
    back = (value_of(background),)
    if len(rest) == 1:
        one = LabelClass(name="foreground", values=(value_of(rest[0]),))
        return Labels(background=back, classes=(one,)), f"all labels hold {shown}"
    singles = {v for v in (one.single for one in values) if v is not None and v != background}
    if all(len(one.numbers) <= 2 for one in values) and singles == set(rest) and {1, 255} == set(rest):
        both = LabelClass(name="foreground", values=tuple(value_of(v) for v in rest))
        return Labels(
            background=back, classes=(both,)
        ), f"some labels hold 0 and 1, others 0 and 255 ({shown}): one class"
    ignore: tuple[int | str, ...] = ()
    why = f"the labels hold {shown}: each value a class"
    if 255 in rest and len(rest) > 2 and max(v for v in rest if v != 255) == len(rest) - 1:
        rest.remove(255)
        ignore = (255,)
        why = f"the labels hold {shown}: classes are numbered without a gap, and 255 is what many tools write for 'not annotated'"
    classes = tuple(
        LabelClass(name=f"class_{value_of(v)}".replace("#", "").replace("-", "minus"), values=(value_of(v),))
        for v in rest
    )
    return Labels(background=back, classes=classes, ignore=ignore), why


def _shown(number: float) -> str:
    return str(value_of(int(number))) if float(number).is_integer() else f"{number:g}"


def _refuse_erasing(dataset: Dataset, values: list[Values], low: float, high: float, threshold: float) -> None:
    """A threshold made for soft masks must not turn the structures of hard ones into background."""
    edge = (high - low) / 10
    for one in values:
        drawn = [v for v in one.numbers if v != low]
        erased = [v for v in drawn if low + edge < v < high - edge or max(drawn) <= threshold]
        if erased and not one.soft:
            raise DatasetError(
                f"some labels have soft edges from {low:g} to {high:g}, and in others {erased[0]:g} is a value of its own: "
                f"a threshold at {threshold:g} would erase it",
                where=dataset.root,
                mend="export the labels with soft edges again, without loss; `cpfnet check` names them",
            )

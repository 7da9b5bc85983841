"""What the values in undeclared label files mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cpfnet import formats
from cpfnet.contour_gaps import find_gaps
from cpfnet.data.case import Case, Dataset
from cpfnet.data.checks.file_summary import Content
from cpfnet.data.dataset_yaml import short_labels
from cpfnet.data.structure_names import classes_of
from cpfnet.errors import DatasetError
from cpfnet.formats import Header
from cpfnet.formats.file_types import NRRD_SUFFIXES
from cpfnet.label_values import DARK, MOST_VALUES, colours_of_blurred, count_values, is_black_and_white, is_soft, shade
from cpfnet.labels import brightness, format_value, nearest_integer, number_of, pack, value_of
from cpfnet.planning import LabelClass, Labels


@dataclass(frozen=True)
class Values:
    """Label values of one case.

    Attributes:
        numbers: value → pixels, over all readers.
        distinct: different values, of which `numbers` holds `MOST_VALUES` at most, and the highest.
        soft: some reader's label has soft edges.
        main: of a label with soft edges between other values than two greys, these.
        shades: the label of every reader holds two values, nearly black and nearly white (or one of them).
        structures: name → pixels likewise, of labels that name what they hold.
        overlaps: names that cover the same pixels → these pixels.
        warnings: what was repaired while reading, and which structures skip slices.
    """

    numbers: dict[int | float, int]
    distinct: int
    soft: bool
    main: tuple[int | str, ...]
    shades: bool
    structures: dict[str, int]
    overlaps: dict[frozenset[str], int]
    warnings: tuple[str, ...] = ()

    @property
    def single(self) -> int | None:
        return int(max(self.numbers)) if len(self.numbers) == 2 else None


def values_of(case: Case, image: Header, labels: Labels | None) -> Values:
    """Read the labels of a case; ``image`` and ``labels`` (the declared ones) as for `formats.read_label`."""
    total: Counter[int | float] = Counter()
    structures: Counter[str] = Counter()
    overlaps: Counter[frozenset[str]] = Counter()
    soft, shades = False, True
    main: tuple[int | str, ...] = ()
    warnings: list[str] = []
    for path in case.labels.values():
        label = formats.read_label(path, image, labels)
        warnings += [*label.warnings, *map(str, find_gaps(label, labels))]
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
        if is_soft(packed, numbers, counts):
            soft = True
        else:
            main = main or tuple(map(value_of, colours_of_blurred(packed, numbers, counts)))
        shades = shades and is_black_and_white(numbers[:3].tolist())
    distinct = len(total)
    if distinct > MOST_VALUES:  # an image or a soft mask: its extremes will do
        total = Counter({v: total[v] for v in (min(total), *sorted(total)[1:MOST_VALUES], max(total))})
    return Values(
        dict(total), distinct, soft, main, shades, dict(structures), dict(overlaps), tuple(dict.fromkeys(warnings))
    )


def values_in(content: Content) -> Values:
    """The same of one label that `check` has read."""
    numbers = {number_of(v) if isinstance(v, str) else v: n for v, n in content.values.items()}
    structures = content.structures or {}
    shades = is_black_and_white(numbers)
    return Values(numbers, content.distinct, content.soft, content.main, shades, structures, content.overlaps)


def threshold_between(low: float, high: float) -> float:
    """Where the class of a soft mask begins: halfway; of probabilities at 0.5, whatever their highest is."""
    if low >= 0 and high <= 1:
        return 0.5
    whole = float(low).is_integer() and float(high).is_integer() and high - low > 2
    return float((low + high) // 2 if whole else (low + high) / 2)


def soft_edges(main: Sequence[int | str], distinct: int) -> tuple[str, str, Labels | None]:
    """What is wrong with a label whose edges are smooth between its main values; how to save it, or read it as it is.

    The last where it holds one colour on black: a threshold is compared with the brightest channel.
    """
    what = (
        f"soft edges: {distinct} different values, most of them between the main ones {', '.join(map(str, main))}, as "
        "smoothing (anti-aliasing) or JPEG leaves them"
    )
    fix = "export it again without smoothing and without loss, one value or colour for each class"
    if len(main) != 2:
        return what, fix, None
    dark, bright = sorted(brightness(np.array([number_of(v) for v in main])).tolist())
    if dark > DARK or bright < 4 * DARK:
        return (
            what,
            f"{fix}, or convert it to grey: soft edges between two greys are read, with `labels.threshold`",
            None,
        )
    foreground = LabelClass(name="foreground", values=(255,))
    return what, fix, Labels(classes=(foreground,), threshold=float((dark + bright) // 2))


def _coloured(labels: Labels, dataset: Dataset) -> Labels:
    """The classes with the colours that their segments have in 3D Slicer, in the first case that has them."""
    from cpfnet.formats import seg_nrrd

    files = [path for case in dataset.cases for path in case.labels.values() if path.is_file()]
    found = [one for path in files if formats.suffix_of(path) in NRRD_SUFFIXES for one in seg_nrrd.listed(path)]

    def colour(structure: LabelClass) -> str | None:
        return next((one.colour for one in found if one.colour and structure.means(one.name)), structure.colour)

    classes = tuple(one.model_copy(update={"colour": colour(one)}) for one in labels.classes)
    return labels.model_copy(update={"classes": classes})


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
            fix=f"declare both in dataset.yaml, for example `labels: {{tumour: {{values: 1, names: ['{name}']}}}}`",
        )
    if named:
        meant, why = classes_of([one.structures for one in values], [one.overlaps for one in values], dataset.root)
        return _coloured(meant, dataset), why
    found = sorted({number for one in values for number in one.numbers})
    low, high = found[0], found[-1]
    if smooth := [one for one in values if one.main]:
        what, fix, labels = soft_edges(smooth[0].main, smooth[0].distinct)
        if labels is not None:
            fix = f"write `labels: {short_labels(labels)}` into dataset.yaml; or {fix}"
        raise DatasetError(f"{len(smooth)} of {len(values)} labels have {what}", where=dataset.root, fix=fix)
    soft = sum(one.soft for one in values)
    if soft and high > low:
        threshold = threshold_between(low, high)
        _refuse_erasing(dataset, values, low, high, threshold)
        foreground = LabelClass(name="foreground", values=(max(1, int(high)),))
        return (
            Labels(background=(int(low),), classes=(foreground,), threshold=threshold),
            f"soft edges in {soft} of {len(values)} labels (values {low:g} to {high:g}): above the threshold is the "
            "class",
        )
    fractions = [v for v in found if not float(v).is_integer()]
    if len(found) > MOST_VALUES or fractions:
        several = f"more than {MOST_VALUES}" if len(found) > MOST_VALUES else len(found)
        what = f"the labels hold {several} different values, from {format_value(low)} to {format_value(high)}"
        fix = "declare what they mean under `labels:` in dataset.yaml, for example `labels: {lesion: 255}`"
        if fractions and all(nearest_integer(v) is not None for v in fractions):
            what = (
                f"the labels hold {', '.join(map(format_value, fractions[:4]))}, farther from whole numbers than "
                "rounding leaves"
            )
            fix = "round the values to whole numbers, and save the labels as integers"
        raise DatasetError(what, where=dataset.root, fix=fix)
    if shaded(values):
        dark = [v for v in found if v not in (0, 255)]
        return (
            Labels(classes=(LabelClass(name="foreground", values=(255,)),)),
            f"all labels hold two values, nearly black and nearly white ({', '.join(map(format_value, dark))}): "
            "background and class",
        )
    numbers = [int(v) for v in found]
    background = 0 if 0 in numbers else numbers[0]
    rest = [v for v in numbers if v != background]
    if not rest:
        raise DatasetError(
            f"every pixel of every label is {value_of(background)}: there is nothing to learn",
            where=dataset.root,
            fix="draw the structures, or declare `labels:` in dataset.yaml with another background",
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
        why = (
            f"the labels hold {shown}: classes are numbered without a gap, and 255 is what many tools write for 'not "
            "annotated'"
        )
    classes = tuple(
        LabelClass(name=f"class_{value_of(v)}".replace("#", "").replace("-", "minus"), values=(value_of(v),))
        for v in rest
    )
    return Labels(background=back, classes=classes, ignore=ignore), why


def shaded(values: Sequence[Values]) -> bool:
    """Do all labels hold two values, nearly black and nearly white, and not all the same, of which the lower is 0?"""
    found = {v for one in values for v in one.numbers}
    plain = len(found) < 2 or (len(found) == 2 and 0 in found)
    return all(one.shades for one in values) and not plain and {shade(v) for v in found} == {0, 255}


def _refuse_erasing(dataset: Dataset, values: list[Values], low: float, high: float, threshold: float) -> None:
    """A threshold made for soft masks must not turn the structures of others into background."""
    edge = (high - low) / 10
    for one in values:
        if not one.soft and one.distinct > MOST_VALUES:
            raise DatasetError(
                f"some labels have soft edges from {low:g} to {high:g}, and others hold {one.distinct} values that "
                "are no soft edges",
                where=dataset.root,
                fix="export the labels again with one integer for each class; `cpfnet check` names them",
            )
        drawn = [v for v in one.numbers if v != low]
        erased = [v for v in drawn if low + edge < v < high - edge or max(drawn) <= threshold]
        if erased and not one.soft:
            raise DatasetError(
                f"some labels have soft edges from {low:g} to {high:g}, and in others {erased[0]:g} is a value of its "
                f"own: a threshold at {threshold:g} would erase it",
                where=dataset.root,
                fix="export the labels with soft edges again, without loss; `cpfnet check` names them",
            )

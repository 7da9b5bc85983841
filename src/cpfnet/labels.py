"""What a Plan's `labels` mean in pixels: file values → codes → classes, and back.

A *code map* holds one small integer a pixel, for all kinds of labels: 0 background, 1…n one for each set of classes
that can occur together (for exclusive classes: one a class, in the Plan's order), `IGNORED` not annotated. Everything
between reading and the loss handles one code map, so masks stay exact; `membership` turns codes into classes.
"""

from __future__ import annotations

import numpy as np

from cpfnet.errors import DatasetError
from cpfnet.image import Image
from cpfnet.planning import COLOURS, LabelClass, Labels

IGNORED = 255
"""Code of pixels that count neither in the loss nor in metrics."""

OUTSIDE = 254
"""Code of pixels outside the region of interest where the picture is empty: background to the loss, in no metric."""

_ROUNDING, _SCALING = 1e-3, 2e-5
"""How far a value may be from the integer that it means: absolutely, and as a share of that integer."""

_NEAR = 0.05
"""A fraction nearer than this to a whole number was most likely one."""


def number_of(value: int | str) -> int:
    """An integer, or a colour as `COLOURS` + 0xRRGGBB (the Plan holds grey colours as integers)."""
    return COLOURS + int(value[1:], 16) if isinstance(value, str) else value


def value_of(number: int) -> int | str:
    """A packed value as a Plan writes it: an integer, or ``'#rrggbb'``."""
    return f"#{number - COLOURS:06x}" if number >= COLOURS else number


def brightness(packed: np.ndarray) -> np.ndarray:
    """The number that is compared with a threshold: greys themselves, and the brightest channel of colours."""
    if not packed.size or packed.max() < COLOURS:
        return packed
    brightest = np.max([packed >> shift & 255 for shift in (16, 8, 0)], axis=0)
    return np.where(packed >= COLOURS, brightest, packed)


def nearest_integer(value: float) -> int | None:
    """The whole number that a fraction most likely was; None for whole numbers and for fractions far from any."""
    whole = round(value) if abs(value) < COLOURS else 0
    return whole if 0 < abs(value - whole) < _NEAR else None


def format_value(value: float) -> str:
    """A value as messages show it: an integer, a colour, or a fraction and what it is near to."""
    if float(value).is_integer():
        return str(value_of(int(value)))
    meant = nearest_integer(value)
    return f"{value:g}" if meant is None else f"{value:g} (near {meant})"


def pack(array: np.ndarray, *, where: str | None = None) -> np.ndarray:
    """File values as one integer per pixel.

    Args:
        array: ``(1, …)`` grey, or ``(3, …)`` / ``(4, …)`` RGB(A) uint8. A colour with R = G = B is its grey value.
        where: the file, for the message.

    Returns:
        ``(…)`` integers: those of up to 16 bits as they are, others as int64, and floats as int32. Float only where a
        label file holds fractions, which `encode` refuses without a threshold.

    Raises:
        DatasetError: neither grey nor 8-bit RGB, NaN or infinite, or too large for a label value.
    """
    if len(array) == 1:
        plane = array[0]
        low, high = (plane.min(), plane.max()) if plane.size else (0, 0)
        if not (low >= -COLOURS and high < COLOURS):  # also NaN, which compares as False
            raise DatasetError(
                f"label values from {low} to {high}; expected finite numbers from {-COLOURS} to {COLOURS - 1}",
                where=where,
                fix="replace NaN and infinities, renumber larger labels",
            )
        if plane.dtype.kind == "f":
            whole = round_to_integers(plane)
            return plane if whole is None else whole[0]
        return plane if plane.dtype.name in ("uint8", "uint16", "int16") else plane.astype(np.int64)
    if len(array) not in (3, 4) or array.dtype != np.uint8:
        raise DatasetError(
            f"a label has {len(array)} channels of {array.dtype}; expected one channel, or 8-bit RGB",
            where=where,
            fix="store one integer (or one 8-bit colour) a pixel",
        )
    red, green, blue = (plane.astype(np.int64) for plane in array[:3])
    colour = COLOURS + (red << 16 | green << 8 | blue)
    return np.where((red == green) & (green == blue), red, colour)


def round_to_integers(array: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Whole numbers up to rounding, as int32, and the largest difference; None if one of the floats is no such number.

    Files that store integers with a scale (NIfTI) give 1.0000153 and 0.99999994 for 1; for large numbers the rounding
    of the scale is larger. Numbers that are too large for a label give None, too.
    """
    out, furthest = np.empty(array.shape, dtype=np.int32), 0.0
    planes = (part.reshape(-1, *array.shape[-2:]) for part in (array, out))
    for plane, numbers in zip(*planes, strict=True):  # plane by plane, for the memory
        if not (np.abs(plane) < COLOURS).all():  # also NaN, which compares as False
            return None
        whole = np.rint(plane)
        off = np.abs(plane - whole)
        worst = float(off.max(initial=0))
        if worst > _ROUNDING and (off > np.maximum(_ROUNDING, _SCALING * np.abs(whole))).any():
            return None
        numbers[...] = whole
        furthest = max(furthest, worst)
    return out, furthest


def codes_of(labels: Labels) -> list[tuple[tuple[int, ...], frozenset[int]]]:
    """For each code from 1: the (packed) file values that mean it, and the indices of the classes it belongs to."""
    owners: dict[int, set[int]] = {}
    for index, label_class in enumerate(labels.classes):
        for value in label_class.values:
            owners.setdefault(number_of(value), set()).add(index)
    groups: dict[frozenset[int], list[int]] = {}
    for value, indices in owners.items():
        groups.setdefault(frozenset(indices), []).append(value)
    codes = [(tuple(values), group) for group, values in groups.items()]
    if len(codes) >= OUTSIDE:
        raise DatasetError(f"{len(codes)} classes; at most {OUTSIDE - 1} fit", fix="merge classes in `labels.classes`")
    return codes


def membership(labels: Labels) -> np.ndarray:
    """bool ``(256, classes)``: does code c belong to class k? Rows of background and IGNORED are all False."""
    table = np.zeros((256, len(labels.classes)), dtype=bool)
    for code, (_, classes) in enumerate(codes_of(labels), start=1):
        table[code, list(classes)] = True
    return table


def encode(label: Image, labels: Labels, *, where: str | None = None) -> np.ndarray:
    """File values → code map.

    Args:
        label: as read by the formats, ``(1 or 3, [depth,] height, width)``; with `Image.meanings`, names decide.
        labels: the Plan's.
        where: the file, for the message.

    Returns:
        uint8 ``([depth,] height, width)``.

    Raises:
        DatasetError: a value that `labels` does not name, with its share of the pixels; or, for named structures, none
            of them means a class, or exclusive classes overlap.
    """
    if label.meanings is not None:
        return _encode_structures(label.array[0], label.meanings, labels, where)
    packed = pack(label.array, where=where)
    if labels.threshold is not None:
        codes = (brightness(packed) > labels.threshold).astype(np.uint8)
        for value in labels.ignore:
            codes[packed == number_of(value)] = IGNORED
        return codes
    table = {number_of(value): 0 for value in labels.background}
    table |= {number_of(value): IGNORED for value in labels.ignore}
    for code, (values, _) in enumerate(codes_of(labels), start=1):
        table |= dict.fromkeys(values, code)
    stored = distinct_values(packed)
    unexpected = [value for value in stored.tolist() if value not in table]
    if unexpected:
        share = float(np.isin(packed, unexpected).mean())
        shown = ", ".join(map(format_value, unexpected[:8])) + " …" * (len(unexpected) > 8)
        known = ", ".join(str(value_of(v)) for v in sorted(table))
        fix = (
            "add them to a class, to `background` or to `ignore` under `labels`, or correct the file; "
            "for soft edges set `labels.threshold`"
        )
        if all(nearest_integer(value) is not None for value in unexpected):
            fix = "round the values to whole numbers, and save the file as integers"
        elif len(unexpected) > 8 and unexpected[-1] >= COLOURS:
            fix = "export the file again without smoothing and without loss, one value or colour for each class"
        raise DatasetError(
            f"unexpected label values {shown} on {share:.2%} of the pixels; known are {known}", where=where, fix=fix
        )
    return replace_values(packed, stored, np.array([table[value] for value in stored.tolist()], dtype=np.uint8))


def distinct_values(packed: np.ndarray) -> np.ndarray:
    """Distinct values, in order."""
    if not _small(packed):
        return np.unique(packed)
    present = np.zeros(int(packed.max()) + 1, dtype=bool)
    for plane in packed:  # slice by slice, since counting needs 8 bytes a pixel
        present |= np.bincount(plane.ravel(), minlength=len(present)) > 0
    return np.flatnonzero(present)


def replace_values(packed: np.ndarray, values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """``codes[i]`` wherever ``packed`` holds ``values[i]``; ``values`` are all that `distinct_values` returned."""
    if not _small(packed):
        return np.asarray(codes[np.searchsorted(values, packed)])
    lookup = np.zeros(int(values[-1]) + 1, dtype=codes.dtype)
    lookup[values] = codes
    return look_up(lookup, packed)


def _small(packed: np.ndarray) -> bool:
    """Are these numbers small enough to be counted, which is far faster than sorting? Grey labels are."""
    return bool(packed.size and packed.dtype.kind in "iu" and packed.min() >= 0 and packed.max() < 2**16)


def _encode_structures(
    array: np.ndarray, meanings: tuple[frozenset[str], ...], labels: Labels, where: str | None
) -> np.ndarray:
    """Structures by name; names that mean no class are background, unless none means any."""
    names = sorted(set[str]().union(*meanings))
    if names and not any(map(labels.meant, names)):
        known = ", ".join(c.name for c in labels.classes)
        raise DatasetError(
            f"none of its structures ({', '.join(names)}) is one of the classes ({known})",
            where=where,
            fix="add the name to `names` of its class under `labels`, such as `names: ['GTV*']`, or take the case out",
        )
    codes = {classes: code for code, (_, classes) in enumerate(codes_of(labels), start=1)}
    codes[frozenset()] = 0
    lookup = np.zeros(len(meanings), dtype=np.uint8)
    for number, structures in enumerate(meanings):
        classes = _classes(structures, labels)
        if classes not in codes and number in array and (problem := conflict(structures, labels)):
            what, fix = problem
            pixels = int(np.count_nonzero(array == number))
            raise DatasetError(f"{what} on {pixels} pixels ({', '.join(sorted(structures))})", where=where, fix=fix)
        lookup[number] = codes.get(classes, 0)
    return look_up(lookup, array)


def _classes(structures: frozenset[str], labels: Labels) -> frozenset[int]:
    """The classes of a pixel covered by exactly these structures, as far as `overlap` decides."""
    classes = frozenset[int]().union(*map(labels.meant, structures))
    if labels.exclusive and len(classes) > 1 and labels.overlap is not None:
        return frozenset({min(classes) if labels.overlap == "first" else max(classes)})
    return classes


def conflict(structures: frozenset[str], labels: Labels) -> tuple[str, str] | None:
    """Why pixels covered by exactly these structures have no code, and how to fix that; None where they have a code."""
    classes = _classes(structures, labels)
    if not classes or classes in {group for _, group in codes_of(labels)}:
        return None
    named = " and ".join(labels.classes[k].name for k in sorted(classes))
    if not labels.exclusive:
        alone = len(classes) == 1
        return (
            f"region {named} lies outside all others" if alone else f"regions {named} overlap",
            "list a file value in `values` of "
            + ("this region alone" if alone else "both classes, and of no other,")
            + " under `labels`; or correct the outlines",
        )
    order = "`overlap: last` (or first) under `labels`"
    if any(len(labels.meant(name)) > 1 for name in structures):
        return f"one name means both {named}", f"narrow the patterns in `names` of these classes; or write {order}"
    return f"{named} overlap", f"say which has them: {order}"


def missing_classes(label: Image, labels: Labels) -> tuple[str, ...]:
    """Messages about classes that no structure of a label means: they count as background, as if nobody had found any.

    Args:
        label: as read; without `Image.meanings` there is no message.
        labels: the Plan's.
    """
    if label.meanings is None:
        return ()
    meant = frozenset[int]().union(*map(labels.meant, frozenset[str]().union(*label.meanings)))
    return tuple(
        f"no structure of its label means {c.name!r}: there it counts as background"
        for k, c in enumerate(labels.classes)
        if k not in meant
    )


def decode(classes: np.ndarray, labels: Labels, *, overwrite: bool = False) -> np.ndarray:
    """Predicted classes → file values.

    Args:
        classes: exclusive: ``([depth,] height, width)`` integers, 0 background, k+1 class k. Regions: bool
            ``(classes, [depth,] height, width)``; a pixel takes the value of exactly its regions, or, where there is
            none, the value of the last.
        labels: the Plan's.
        overwrite: ``classes`` may hold the result where that is possible: this halves the memory.

    Returns:
        ``([depth,] height, width)``, uint8 where all values fit, else uint16 or int32; colours packed as
        0x1000000 + 0xRRGGBB in int32 (the raster writer turns them back).
    """
    background = number_of(labels.background[0]) if labels.background else 0
    written = [number_of(label_class.written) for label_class in labels.classes]
    shared = [] if labels.exclusive else _shared(labels, written)
    values = [background, *written, *(value for value, _ in shared)]
    low, high = min(values), max(values)
    dtype = np.uint8 if low >= 0 and high < 2**8 else np.uint16 if low >= 0 and high < 2**16 else np.int32
    if labels.exclusive:
        return look_up(
            np.array(values, dtype=dtype), classes, out=classes if overwrite and classes.dtype == dtype else None
        )
    out = np.full(classes.shape[1:], background, dtype=dtype)
    for plane, value in zip(classes, written, strict=True):
        out[plane] = value
    for value, group in shared:
        exactly = np.all([plane == (k in group) for k, plane in enumerate(classes)], axis=0)
        out[exactly] = value
    return out


def classes_present(array: np.ndarray, labels: Labels) -> tuple[bool, ...]:
    """For each class: does it occur in a label map that `decode` made?"""

    def occurs(value: int | str) -> bool:
        # Slice by slice: no mask of a whole volume.
        return any(bool((plane == number_of(value)).any()) for plane in array)

    return tuple(any(map(occurs, (c.written,) if labels.exclusive else c.values)) for c in labels.classes)


def look_up(table: np.ndarray, codes: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``table[codes]``, slice by slice, since indexing needs 8 bytes a pixel; ``out`` may be ``codes``."""
    if out is None:
        out = np.empty(codes.shape, dtype=table.dtype)
    for index, own in enumerate(codes):
        out[index] = table[own]
    return out


def _shared(labels: Labels, written: list[int]) -> list[tuple[int, frozenset[int]]]:
    """Sets of regions that have a value of their own, other than the one that painting in order would give them."""
    return [(values[0], group) for values, group in codes_of(labels) if written[max(group)] not in values]


def _predicted(structures: frozenset[str], labels: Labels) -> frozenset[str]:
    """Structures as names of classes; for regions, with those that the innermost lies in."""
    names = set[str]()
    for structure in structures:
        own = {c.name for c in labels.classes if c.is_called(structure)}
        names |= own or {labels.classes[k].name for k in labels.meant(structure)} or {structure}
    if not labels.exclusive:
        innermost = [c.written for c in labels.classes if c.name in names][-1:]
        names |= {c.name for c in labels.classes for value in innermost if value in c.values}
    return frozenset(names)


def encode_prediction(label: Image, labels: Labels, *, where: str | None = None) -> np.ndarray:
    """The code map of a written prediction: its values are the classes' `written` ones.

    A region that an inner one covers still belongs to the pixel, because regions are nested in the Plan's order. For
    exclusive classes, the data set's own values are understood, too, unless they are written for another class. Named
    structures (a DICOM segmentation or structure set) are the classes of these names, else those whose patterns match.
    """
    if label.meanings is not None:
        meanings = tuple(_predicted(m, labels) for m in label.meanings)
        nameless = tuple(c.model_copy(update={"names": ()}) for c in labels.classes)
        return _encode_structures(label.array[0], meanings, labels.model_copy(update={"classes": nameless}), where)
    written = {c.written for c in labels.classes}
    classes = tuple(
        LabelClass(name=c.name, values=(c.written, *(v for v in c.values if v not in written)))
        if labels.exclusive
        else c
        for c in labels.classes
    )
    try:
        return encode(label, labels.model_copy(update={"classes": classes, "threshold": None}), where=where)
    except DatasetError as error:
        values = ", ".join(f"{c.name} {c.written}" for c in classes)
        fix = f"write predictions without loss, each class as its label value: {values}"
        raise DatasetError(error.what, where=error.where, fix=fix) from None


def empty_outside(array: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Where there is no picture outside the region of interest: around a fundus photograph, for example.

    Every photograph shows such places, and nothing else would teach the network that they are background. They are
    darker than all but the darkest 0.5 % inside. Where less than half of the outside is so dark, the region was drawn
    for another reason.

    Args:
        array: ``(channels, [depth,] height, width)``, as read.
        inside: bool ``([depth,] height, width)``.

    Returns:
        bool, of the same shape.
    """
    brightest = array.max(axis=0)
    if inside.all() or not inside.any():
        return np.zeros_like(inside)
    dark = ~inside & (brightest < np.quantile(brightest[inside], 0.005))
    return dark if dark.sum() > (~inside).sum() / 2 else np.zeros_like(inside)

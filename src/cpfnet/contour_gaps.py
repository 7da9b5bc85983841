"""Slices between the first and the last of a structure that show nothing of it.

Either a contour was forgotten, or the contours are farther apart than the slices. A gap counts only where the contours
on both sides overlap in the plane: else they belong to two separate parts. `interpolate_gaps` fills the gaps where a
plan says so (`Labels.interpolate_contours`), by shape: it adds the signed distances to the outlines on both sides,
weighted by how near each is (S. P. Raya, J. K. Udupa, IEEE Transactions on Medical Imaging 9, 1990).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cpfnet.errors import DatasetError
from cpfnet.image import Image, spacing_of
from cpfnet.label_values import MOST_VALUES
from cpfnet.labels import codes_of, distinct_values, pack, replace_values, value_of
from cpfnet.planning import Labels

_THICK = 1.2
"""Slices are stacked along the axis whose spacing is this many times that of the others."""

_COMMON = 0.5
"""Of values: both sides of a gap have this share of the smaller area in common; two parts may overlap a little by
chance."""

_TAPERING = 0.5
"""Two parts that shrink towards each other by more than this, both together, are two; a forgotten slice does not shrink
them."""

_SHOWN = 8


@dataclass(frozen=True)
class Gap:
    """Where one structure is missing between its slices.

    Attributes:
        name: of the structure or class; ``value 2`` where the meaning of a value is not known.
        axis: of the slices: 0 depth, 1 height, 2 width.
        holes: the last slice before each hole and the first after it, counted from 0.
        length: slices from the first to the last with the structure, both counted.
    """

    name: str
    axis: int
    holes: tuple[tuple[int, int], ...]
    length: int

    @property
    def slices(self) -> tuple[int, ...]:
        """The slices without the structure, counted from 0."""
        return tuple(index for low, high in self.holes for index in range(low + 1, high))

    def __str__(self) -> str:
        along = f" along the {('depth', 'height', 'width')[self.axis]} axis" if self.axis else ""
        shown = ", ".join(map(str, self.slices[:_SHOWN])) + " …" * (len(self.slices) > _SHOWN)
        verb = "has" if len(self.slices) == 1 else "have"
        return (
            f"{self.name!r}: {len(self.slices)} of {self.length} slices between first and last{along} {verb} "
            f"no contour ({shown}, counted from 0), though what is drawn on both sides overlaps"
        )


@dataclass(frozen=True)
class _Drawn:
    """A label volume by structures.

    Attributes:
        array: ``(depth, height, width)`` numbers, 0 where nothing is drawn.
        names: of the structures.
        table: bool ``(numbers, structures)``: which structures a number belongs to.
        own: structures have contours of their own (DICOM), independent of what else is drawn there.
    """

    array: np.ndarray
    names: tuple[str, ...]
    table: np.ndarray
    own: bool

    @cached_property
    def window(self) -> tuple[slice, ...]:
        """The part in which anything is drawn."""
        drawn = self.array != 0
        covered = (np.flatnonzero(drawn.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3))
        return tuple(slice(int(index[0]), int(index[-1]) + 1) if index.size else slice(0, 0) for index in covered)


def find_gaps(label: Image, labels: Labels | None = None) -> tuple[Gap, ...]:
    """The structures of a label volume that skip slices.

    Named structures (DICOM) are searched along their slices, other labels along the axis of thick slices. Where voxels
    are as long as wide, nothing says along which axis a label was drawn: then along the axis with most gaps. A single
    gap from left to right does not count there, since the halves of a paired organ lie so.

    In a label of values, a class may have many parts. There a gap has further conditions: the two sides overlap by half
    and do not taper towards each other, nothing else is drawn between them, and the gap is no longer than what is drawn
    (except between single slices, which are no parts).

    Args:
        label: as read, ``(1, depth, height, width)``; others have no gaps.
        labels: what its values mean; None: each value except the background is a structure.
    """
    drawn = _drawn(label, labels)
    if drawn is None or not drawn.names:
        return ()
    axes = _axes(label)
    across = None if len(axes) == 1 or label.affine is None else _left_right(label.affine)
    by_axis = [tuple(_along(drawn, axis, paired=axis == across)) for axis in axes]
    return max(by_axis, key=lambda some: sum(len(gap.slices) for gap in some))


def interpolate_gaps(label: Image, labels: Labels | None) -> Image:
    """The same label with its gaps filled where ``labels`` say so, and a message on what was filled; else unchanged.

    A voxel of a gap belongs to the structure where the signed distances to its outlines before and after, weighted by
    how near these slices are, add up to the inside. Voxels of other values stay.
    """
    if labels is None or not labels.interpolate_contours:
        return label
    drawn, found = _drawn(label, labels), find_gaps(label, labels)
    if drawn is None or not found:
        return label
    meanings = list(label.meanings or ())
    array = label.array[0].astype(np.uint16) if meanings else label.array[0].copy()
    for gap in found:
        member = drawn.table[:, drawn.names.index(gap.name)]
        numbers, values = (np.moveaxis(a, gap.axis, 0) for a in (drawn.array, array))
        for low, high in gap.holes:
            first, last = member[numbers[low]], member[numbers[high]]
            value = int(values[low][first].max())
            for index, mask in _between(first, last, low, high, _in_plane(label, gap.axis)):
                if meanings:
                    _cover(values[index], mask, gap.name, meanings)
                else:
                    values[index][mask & (numbers[index] == 0)] = value
    warnings = tuple(f"{gap.name!r}: {len(gap.slices)} slices without contour interpolated" for gap in found)
    source = (
        None
        if label.source is None
        else dataclasses.replace(label.source, warnings=(*label.source.warnings, *warnings))
    )
    return dataclasses.replace(label, array=array[None], source=source, meanings=tuple(meanings) if meanings else None)


def _cover(plane: np.ndarray, mask: np.ndarray, name: str, meanings: list[frozenset[str]]) -> None:
    """Add a structure to the pixels of a mask; new sets of structures are appended."""
    pixels = plane[mask]
    for number in np.unique(pixels).tolist():
        structures = meanings[number] | {name}
        if structures not in meanings:
            meanings.append(structures)
        pixels[plane[mask] == number] = meanings.index(structures)
    plane[mask] = pixels


def _drawn(label: Image, labels: Labels | None) -> _Drawn | None:
    if label.array.ndim != 4 or len(label.array) != 1:
        return None
    if label.meanings is not None:
        names = tuple(sorted(frozenset[str]().union(*label.meanings)))
        table = np.array([[name in structures for name in names] for structures in label.meanings], dtype=bool)
        return _Drawn(label.array[0], names, table, own=True)
    try:
        packed = pack(label.array)
    except DatasetError:  # not a label: the error is raised where its values are read
        return None
    if labels is not None and labels.threshold is not None:
        (only,) = labels.classes
        return _Drawn((packed > labels.threshold).astype(np.uint8), (only.name,), np.eye(2, 1, -1, bool), own=False)
    values = distinct_values(packed)
    if len(values) > MOST_VALUES or values.dtype.kind == "f":
        return None
    background, groups = _groups(values, labels)
    lookup = np.array([0 if v in background else groups.get(v, ("", 1))[1] for v in values.tolist()], dtype=np.uint8)
    columns = dict(groups.values())
    table = np.zeros((len(columns) + 2, len(columns)), dtype=bool)
    table[list(columns.values()), range(len(columns))] = True
    return _Drawn(replace_values(packed, values, lookup), tuple(columns), table, own=False)


def _groups(values: np.ndarray, labels: Labels | None) -> tuple[set[int], dict[int, tuple[str, int]]]:
    """Values that are background; for each value with a meaning, its name and a number from 2 (1: something else)."""
    if labels is None:
        background = {0 if 0 in values else int(values[0])}
        others = [v for v in values.tolist() if v not in background]
        return background, {v: (f"value {value_of(v)}", number) for number, v in enumerate(others, start=2)}
    background = {v for v in labels.background if isinstance(v, int)}
    codes = codes_of(labels)
    names = [" and ".join(labels.classes[k].name for k in sorted(group)) for _, group in codes]
    return background, {
        v: (name, number)
        for number, (name, (values, _)) in enumerate(zip(names, codes, strict=True), 2)
        for v in values
    }


def _axes(label: Image) -> tuple[int, ...]:
    """The axes along which the slices may have been drawn."""
    if label.meanings is not None or label.affine is None:
        return (0,)
    spacing = spacing_of(label.affine)
    thickest = int(np.argmax(spacing))
    return (thickest,) if spacing[thickest] >= _THICK * sorted(spacing)[1] else (0, 1, 2)


def _left_right(affine: np.ndarray) -> int:
    return int(np.argmax(np.abs(affine[0, :3]) / np.array(spacing_of(affine))))


def _along(drawn: _Drawn, axis: int, *, paired: bool) -> Iterator[Gap]:
    window = list(drawn.window)
    window[axis] = slice(None)
    planes = np.moveaxis(drawn.array[tuple(window)], axis, 0)
    count = len(drawn.table)
    shown_on = np.array([np.bincount(plane.ravel(), minlength=count) > 0 for plane in planes]) @ drawn.table
    for name, member, shown in zip(drawn.names, drawn.table.T, shown_on.T, strict=True):
        covered = np.flatnonzero(shown)
        pairs = zip(covered[:-1].tolist(), covered[1:].tolist(), strict=True)
        holes = tuple(pair for pair in pairs if _is_hole(planes, member, *pair, None if drawn.own else len(covered)))
        if holes and not (paired and len(holes) == 1):
            yield Gap(name, axis, holes, int(covered[-1] - covered[0]) + 1)


def _is_hole(planes: np.ndarray, member: np.ndarray, low: int, high: int, longest: int | None) -> bool:
    """Is a contour missing between two slices?

    Args:
        planes: numbers of `_Drawn`, slice by slice.
        member: bool: which numbers belong to the structure.
        low, high: the two slices.
        longest: slices that a gap in values may have, except between single slices; None: these are contours, any gap.
    """
    if high - low < 2:
        return False
    before, after = member[planes[low]], member[planes[high]]
    both = before & after
    common = np.count_nonzero(both)
    if longest is None or not common:
        return bool(common)
    if common < _COMMON * min(np.count_nonzero(before), np.count_nonzero(after)):
        return False
    ends = _narrowing(planes, member, low, -1), _narrowing(planes, member, high, 1)
    single = np.isinf(ends).all()  # slices drawn far apart, and those between are left to be filled
    if ends[0] * ends[1] < _TAPERING or (high - low - 1 > longest and not single):
        return False
    # Something else is drawn there if it has most of the common area in every slice between.
    return any(np.count_nonzero(plane[both]) <= common / 2 for plane in planes[low + 1 : high])


def _narrowing(planes: np.ndarray, member: np.ndarray, end: int, away: int) -> float:
    """The area of a part on the slice at its end, as a share of its area on the next slice away from the gap."""
    if not 0 <= end + away < len(planes):
        return np.inf
    own, further = (np.count_nonzero(member[planes[index]]) for index in (end, end + away))
    return own / further if further else np.inf


def _in_plane(label: Image, axis: int) -> tuple[float, float]:
    spacing = (1.0, 1.0, 1.0) if label.affine is None else spacing_of(label.affine)
    first, second = (step for index, step in enumerate(spacing) if index != axis)
    return first, second


def _between(
    first: np.ndarray, last: np.ndarray, low: int, high: int, spacing: tuple[float, float]
) -> Iterator[tuple[int, np.ndarray]]:
    """The slices between two, and the masks that the shape of both gives there."""
    from scipy.ndimage import distance_transform_edt

    rows, columns = (np.flatnonzero((first | last).any(axis=axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    half = min(spacing) / 2

    def signed(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask[window], 1)  # so that there is an outside
        inside, outside = (distance_transform_edt(part, sampling=spacing) for part in (padded, ~padded))
        # The outline runs half a pixel beyond the last centre inside.
        return np.asarray(np.where(padded, inside - half, half - outside))[1:-1, 1:-1]

    before, after = signed(first), signed(last)
    for index in range(low + 1, high):
        share = (index - low) / (high - low)
        mask = np.zeros_like(first)
        mask[window] = (1 - share) * before + share * after >= 0
        yield index, mask

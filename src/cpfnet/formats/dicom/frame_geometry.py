"""Where the frames of a segmentation lie in the patient, and on which slices of a grid."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.dicom.image.datasets import DicomObject
from cpfnet.formats.dicom.image.functional_groups import Frame, frames_of
from cpfnet.formats.dicom.image.slice_stack import size_of
from cpfnet.formats.dicom.referenced_images import items
from cpfnet.formats.file_types import Header
from cpfnet.image import Image, geometry_difference, is_flat

_IN_PLANE = 1e-3
"""Pixels: how far a corner of a frame may lie from the corner of its slice."""
_ALONG = 0.01
"""Slices: how far a frame may lie from its slice."""
_SLICES = 10_000
"""The most slices that frames without an image may span."""
_PLACE = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
_FIX = "pair it with the series that it was drawn on"


@dataclass(frozen=True)
class Planes:
    """Where frames lie.

    Attributes:
        size: (rows, columns) of each.
        places: ``(frames, 3, 3)``, LPS mm: the first pixel, the step to the next row, and to the next column; empty if
            the frames have no place in the patient.
        step: mm between slices, if it is given.
        warnings: messages about what was taken from the image.
    """

    size: tuple[int, int]
    places: np.ndarray
    step: float | None
    warnings: tuple[str, ...] = ()


def planes_of(frames: list[Frame], image: Image | Header | None = None) -> Planes:
    """Where the frames of one object lie (functional groups: PS3.3, C.7.6.16.2.1, .3 and .4).

    Args:
        frames: of the object.
        image: the image that it was drawn on. What its frames do not have is taken from it, if they have its size:
            orientation and spacing, which all its slices share, and the position of the slice that a frame names as its
            source. OHIF writes no spacing.

    Raises:
        FormatError: positions are damaged, or missing on part of the frames; or something is missing, and there is no
            image to take it from.
    """
    size = size_of(frames[0])
    affine = None if image is None or tuple(image.shape[-2:]) != size else image.affine
    slices = {} if image is None or affine is None else _by_instance(image)
    places, absent, taken = [], Counter[str](), Counter[str]()
    for frame in frames:
        position, cosines, spacing = (frame.numbers(keyword, count) for keyword, count in _PLACE)
        missing = [k for (k, _), value in zip(_PLACE, (position, cosines, spacing), strict=True) if value is None]
        if affine is not None:
            steps = np.linalg.norm(affine[:3, 1:3], axis=0)
            if position is None:
                uid, number = _source_of(frame)
                source = slices.get((uid, number)) or slices.get((uid, 0))
                position = None if source is None else source.numbers(*_PLACE[0])
            if cosines is None:
                cosines = (affine[:3, 1:3] / steps)[:, ::-1].T.ravel()
            if spacing is None:
                spacing = steps
        if position is None or cosines is None or spacing is None:
            absent.update(missing)
            continue
        taken.update(missing)
        places.append([position, cosines[3:] * spacing[0], cosines[:3] * spacing[1]])
    if places and len(places) < len(frames):
        raise FormatError(
            f"{len(frames) - len(places)} of its {len(frames)} frames have no position, orientation or spacing",
            fix="export it again",
        )
    if not places and absent["ImagePositionPatient"] < len(frames) and (image is None or image.affine is not None):
        raise FormatError(f"has no {' and no '.join(absent)}: its frames have no place of their own", fix=_FIX)
    step = frames[0].number_or("SpacingBetweenSlices", 0.0) or frames[0].number_or("SliceThickness", 0.0)
    warnings = [f"has no {' and no '.join(taken)}: taken from its image"] if taken else []
    return Planes(size, np.reshape(places, (-1, 3, 3)), step if step > 0 else None, tuple(warnings))


def _source_of(frame: Frame) -> tuple[str, int]:
    """The image that a frame was drawn on (derivation image macro, PS3.3, C.7.6.16.2.6).

    Returns:
        SOPInstanceUID, and number of the frame, from 1.
    """
    for group in frame.groups[:-1]:  # the last is the object's header
        derived = [group, *items(group, "DerivationImageSequence")]
        for source in (source for item in derived for source in items(item, "SourceImageSequence")):
            number = text(source, "ReferencedFrameNumber")
            return text(source, "ReferencedSOPInstanceUID"), int(number) if number.isdecimal() else 1
    return "", 0


def _slices(image: Image | Header) -> list[Frame]:
    """The frames that the slices of a DICOM image were read from; empty for others."""
    details = image.source.details if image.source is not None else {}
    headers, numbers = details.get("headers", []), details.get("frames", [])
    if not headers or len(numbers) != image.shape[0]:
        return []
    frames = [frames_of(DicomObject(Path(), None, header)) for header in headers]
    slices = zip(frames if len(frames) > 1 else frames * len(numbers), numbers, strict=True)
    return [of_object[number] for of_object, number in slices]


def _by_instance(image: Image | Header) -> dict[tuple[str, int], Frame]:
    """Frames by the key that `_source_of` returns; the single frame of a classic object has the number 0, too."""
    slices = [(text(frame.object.header, "SOPInstanceUID"), frame) for frame in _slices(image)]
    single = {(uid, 0): frame for uid, frame in slices} if len({uid for uid, _ in slices}) == len(slices) else {}
    return single | {(uid, frame.number + 1): frame for uid, frame in slices}


def own_grid(planes: Planes) -> Header:
    """The smallest grid that holds all frames; a picture if they have no positions.

    Slices ascend along rows × columns, as those of series do. Their step is the given one if all frames lie on it, else
    the smallest distance between frames.

    Raises:
        FormatError: they span far too many slices.
    """
    if not len(planes.places):
        return Header(planes.size, None, ("structures",), np.dtype(np.uint16))
    down, right = planes.places[0, 1:]
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal) or 1.0
    along = planes.places[:, 0] @ normal
    first, last = int(along.argmin()), int(along.argmax())
    gaps = np.diff(np.sort(along))
    step = planes.step or float(gaps.max(initial=0.0)) or 1.0
    gaps = gaps[gaps > _ALONG * step]
    if gaps.size and (planes.step is None or (np.abs(gaps / step - np.rint(gaps / step)) > _ALONG).any()):
        step = float(gaps.min())
    span = float(along[last] - along[first])
    if span > _SLICES * step:
        raise FormatError(f"its frames span {span:.6g} mm in steps of {step:.6g} mm", fix="export it again")
    count = round(span / step)
    depth = (planes.places[last, 0] - planes.places[first, 0]) / count if count else normal * step
    affine = np.eye(4)
    affine[:3] = np.column_stack([depth, down, right, planes.places[first, 0]])
    return Header((count + 1, *planes.size), affine, ("structures",), np.dtype(np.uint16))


def slice_offsets(image: Image | Header, affine: np.ndarray) -> np.ndarray:
    """How far each slice of a series lies from the regular grid, in voxels, ``(depth, 3)``; zeros if unknown."""
    if not (frames := _slices(image)):
        return np.zeros((image.shape[0], 3))
    positions = [frame.numbers("ImagePositionPatient", 3) for frame in frames]
    away = np.array(positions) - affine[:3, 3] - np.arange(len(frames))[:, None] * affine[:3, 0]
    return away @ np.linalg.inv(affine)[:3, :3].T


class Place(NamedTuple):
    """Where a frame lies on the grid of its image: the slice, and the row and column of its first pixel.

    It may lie outside.
    """

    slice: int
    row: int
    column: int

    def on_whole_slice(self, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The values of the frame on a whole slice, with 0 around them.

        Args:
            values: ``(rows, columns)`` of the frame.
            shape: ([depth,] height, width) of the image.

        Raises:
            FormatError: values other than 0 lie outside the image.
        """
        depth, height, width = (1, *shape)[-3:]
        if (self.row, self.column) == (0, 0) and values.shape == (height, width) and 0 <= self.slice < depth:
            return values
        out = np.zeros((height, width), values.dtype)
        rows, columns = (np.arange(n) + first for n, first in zip(values.shape, self[1:], strict=True))
        inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
        if not 0 <= self.slice < depth or np.count_nonzero(values) > np.count_nonzero(values[inside]):
            raise FormatError(
                f"shows something outside its image: frames of {values.shape[0]}×{values.shape[1]} pixels, "
                f"the image slices of {height}×{width}; "
                f"one begins at row {self.row} and column {self.column} of slice {self.slice}",
                fix=_FIX,
            )
        out[np.ix_(rows[(rows >= 0) & (rows < height)], columns[(columns >= 0) & (columns < width)])] = values[inside]
        return out


def place_on_slices(planes: Planes, chosen: list[int], image: Image | Header) -> list[Place]:
    """Where each frame lies on the grid of the image; frames may be smaller than its slices.

    Args:
        planes: of all frames.
        chosen: indices of the frames that matter.
        image: frames are compared with its real slices, whose spacing may be slightly irregular. A picture, without an
            affine, has one slice for all.

    Raises:
        FormatError: a frame does not lie on a slice and its pixels, or has no position although the
            image has positions.
    """
    affine, depth = image.affine, image.shape[0] if len(image.shape) == 3 else 1
    sizes = (
        f"frames of {planes.size[0]}×{planes.size[1]} pixels, the image slices of {image.shape[-2]}×{image.shape[-1]}"
    )
    same = planes.size == tuple(image.shape[-2:])
    if affine is None and depth == 1 and same:
        return [Place(0, 0, 0)] * len(chosen)
    if not same and (affine is None or not len(planes.places)):
        raise FormatError(f"has {sizes}", fix=_FIX)
    if affine is None or not len(planes.places):
        which = "the image" if affine is None else "it"
        raise FormatError(f"cannot be placed: {which} has no positions in the patient", fix=_FIX)
    rows, columns = planes.size
    ends = np.array([(0, 0), (rows - 1, 0), (0, columns - 1), (rows - 1, columns - 1)])
    origin, steps = planes.places[chosen, 0], planes.places[chosen, 1:]
    inverse = np.linalg.inv(affine)[:3, :3]
    corners = (origin[:, None] + ends @ steps - affine[:3, 3]) @ inverse.T
    slices = np.rint(corners[:, :, 0].mean(axis=1)).astype(np.int64)
    within = np.clip(slices, 0, depth - 1)
    off = corners - slice_offsets(image, affine)[within, None]
    off[:, :, 0] -= slices[:, None]
    first = np.rint(off[:, 0, 1:]).astype(np.int64)
    off[:, :, 1:] -= ends + first[:, None]
    worst = np.abs(off).max(axis=1, initial=0.0)
    wrong = np.flatnonzero((worst > (_ALONG, _IN_PLANE, _IN_PLANE)).any(axis=1))
    if wrong.size:
        at = int(wrong[0])
        ours, theirs = affine.copy(), affine.copy()
        ours[:3, 3] += slices[at] * affine[:3, 0]
        theirs[:3, 1:] = np.column_stack([*steps[at], origin[at]])
        turned = is_flat(theirs)  # they run across the image's slices
        size = (1, rows, columns)
        difference = "across its slices" if turned else geometry_difference(size, theirs, size, ours, tolerance=0.0)
        raise FormatError(
            f"{'' if same else f'has {sizes}; '}{len(wrong)} of its frames do not lie on a slice of the image, "
            f"such as frame {chosen[at] + 1}: {difference}",
            fix=_FIX,
        )
    return [Place(*place) for place in np.column_stack([slices, first]).tolist()]

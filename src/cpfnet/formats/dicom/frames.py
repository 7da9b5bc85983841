"""Where the frames of a segmentation lie in the patient, and on which slices of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.enhanced import Frame, frames_of
from cpfnet.formats.dicom.objects import DicomObject
from cpfnet.formats.dicom.stack import size_of
from cpfnet.formats.files import Header
from cpfnet.image import Image, geometry_difference

_IN_PLANE = 1e-3
"""Pixels: how far a corner of a frame may lie from the corner of its slice."""
_ALONG = 0.01
"""Slices: how far a frame may lie from its slice."""
_SLICES = 10_000
"""What frames without an image may span."""
_MEND = "pair it with the series that it was drawn on"


@dataclass(frozen=True)
class Planes:
    """Where frames lie.

    Attributes:
        size: (rows, columns) of each.
        places: ``(frames, 3, 3)``, LPS mm: the first pixel, the step to the next row, and to the next column; empty where frames
            have no place in the patient.
        step: mm between slices, as far as it is given.
    """

    size: tuple[int, int]
    places: np.ndarray
    step: float | None


def planes_of(frames: list[Frame]) -> Planes:
    """Where the frames of one object lie (functional groups: PS3.3, C.7.6.16.2.1, .3 and .4).

    Raises:
        FormatError: positions are damaged, or missing on part of the frames.
    """
    places = []
    for frame in frames:
        position = frame.numbers("ImagePositionPatient", 3)
        cosines = frame.numbers("ImageOrientationPatient", 6)
        spacing = frame.numbers("PixelSpacing", 2)
        if position is not None and cosines is not None and spacing is not None:
            places.append([position, cosines[3:] * spacing[0], cosines[:3] * spacing[1]])
    if places and len(places) < len(frames):
        raise FormatError(
            f"{len(frames) - len(places)} of its {len(frames)} frames have no position, orientation or spacing",
            mend="export it again",
        )
    step = frames[0].number_or("SpacingBetweenSlices", 0.0) or frames[0].number_or("SliceThickness", 0.0)
    return Planes(size_of(frames[0]), np.reshape(places, (-1, 3, 3)), step if step > 0 else None)


def own_grid(planes: Planes) -> Header:
    """The smallest grid that holds all frames; a picture where they have no positions.

    Slices ascend along rows × columns, as those of series. Their step is the given one where all frames lie on it, else the
    smallest distance between frames.

    Raises:
        FormatError: they span absurdly many slices.
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
        raise FormatError(f"its frames span {span:.6g} mm in steps of {step:.6g} mm", mend="export it again")
    count = round(span / step)
    depth = (planes.places[last, 0] - planes.places[first, 0]) / count if count else normal * step
    affine = np.eye(4)
    affine[:3] = np.column_stack([depth, down, right, planes.places[first, 0]])
    return Header((count + 1, *planes.size), affine, ("structures",), np.dtype(np.uint16))


def unevenness(image: Image | Header, affine: np.ndarray) -> np.ndarray:
    """How far each slice of a series lies from its place in the regular grid, voxels ``(depth, 3)``; zeros where that is unknown."""
    details = image.source.details if image.source is not None else {}
    headers, numbers = details.get("headers", []), details.get("frames", [])
    if not headers or len(numbers) != image.shape[0]:
        return np.zeros((image.shape[0], 3))
    frames = [frames_of(DicomObject(Path(), None, header)) for header in headers]
    slices = zip(frames if len(frames) > 1 else frames * len(numbers), numbers, strict=True)
    positions = [of_object[number].numbers("ImagePositionPatient", 3) for of_object, number in slices]
    away = np.array(positions) - affine[:3, 3] - np.arange(len(numbers))[:, None] * affine[:3, 0]
    return away @ np.linalg.inv(affine)[:3, :3].T


def on_slices(planes: Planes, chosen: list[int], image: Image | Header) -> list[int]:
    """The slice that each frame covers; below 0 or beyond the last where it lies outside the image.

    Args:
        planes: of all frames.
        chosen: indices of those that matter.
        image: frames are compared with its very slices, which need not stand perfectly evenly. A picture, without an affine,
            has one slice for all.

    Raises:
        FormatError: sizes differ, a frame does not lie on a slice, or has no position in an image that has.
    """
    affine, depth = image.affine, image.shape[0] if len(image.shape) == 3 else 1
    if planes.size != tuple(image.shape[-2:]):
        raise FormatError(
            f"has frames of {planes.size[0]}×{planes.size[1]} pixels, the image slices of {image.shape[-2]}×{image.shape[-1]}",
            mend=_MEND,
        )
    if affine is None and depth == 1:
        return [0] * len(chosen)
    if affine is None or not len(planes.places):
        lacking = "the image" if affine is None else "it"
        raise FormatError(f"cannot be placed: {lacking} has no positions in the patient", mend=_MEND)
    rows, columns = planes.size
    ends = np.array([(0, 0), (rows - 1, 0), (0, columns - 1), (rows - 1, columns - 1)])
    origin, steps = planes.places[chosen, 0], planes.places[chosen, 1:]
    inverse = np.linalg.inv(affine)[:3, :3]
    corners = (origin[:, None] + ends @ steps - affine[:3, 3]) @ inverse.T
    slices = np.rint(corners[:, :, 0].mean(axis=1)).astype(np.int64)
    within = np.clip(slices, 0, depth - 1)
    off = corners - unevenness(image, affine)[within, None]
    off[:, :, 0] -= slices[:, None]
    off[:, :, 1:] -= ends
    worst = np.abs(off).max(axis=1, initial=0.0)
    wrong = np.flatnonzero((worst > (_ALONG, _IN_PLANE, _IN_PLANE)).any(axis=1))
    if wrong.size:
        first = int(wrong[0])
        ours, theirs = affine.copy(), affine.copy()
        ours[:3, 3] += slices[first] * affine[:3, 0]
        theirs[:3, 1:] = np.column_stack([*steps[first], origin[first]])
        difference = geometry_difference((1, rows, columns), theirs, (1, rows, columns), ours, tolerance=0.0)
        raise FormatError(
            f"{len(wrong)} of its frames do not lie on a slice of the image, such as frame {chosen[first] + 1}: {difference}",
            mend=_MEND,
        )
    return slices.tolist()

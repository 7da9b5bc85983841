"""Segmentations (SEG) as labels: binary, fractional and label map segments, placed on the slices of their image.

Segmentation IOD and Label Map Segmentation IOD: DICOM PS3.3, A.51; segmentation image module C.8.20.2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pydicom

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.dicom.frame_geometry import Place, own_grid, place_on_slices, planes_of
from cpfnet.formats.dicom.image.datasets import Archives, DicomObject, read_object
from cpfnet.formats.dicom.image.functional_groups import Frame, frames_of
from cpfnet.formats.dicom.image.pixel_data import stored_values
from cpfnet.formats.dicom.image.pixel_description import check_declared_size, refuse_surplus, storage_of
from cpfnet.formats.dicom.referenced_images import check_belongs, items, segments
from cpfnet.formats.file_types import Header
from cpfnet.formats.overlap_map import OverlapMap, duplicate_names, select_structures
from cpfnet.image import Image, Source
from cpfnet.planning import Labels

_KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")


def read(
    item: DicomObject, archives: Archives, image: Image | Header | None = None, labels: Labels | None = None
) -> Image:
    """Read a segmentation, on the grid of its image or on its own.

    Segments may lie on part of the slices, frames may come in any order, and segments may overlap. Frames may be cut
    out of the slices, pixel on pixel.

    Args:
        item: the segmentation, whose pixels are read from its file.
        archives: those open during this call.
        image: the image; None: the segmentation's own grid, from its first to its last frame.
        labels: only segments that mean one of its classes are read, and of fractional ones the pixels above its
            `fraction` of MaximumFractionalValue (0.5 without labels).

    Returns:
        ``(1, [depth,] height, width)`` with `Image.meanings`.

    Raises:
        FormatError: it refers to another image; frames do not lie on the image's grid (orientation, spacing and corners
            within 1e-3 of a pixel, slices within 1 %); a segment lies beyond the image's slices, or has two frames on
            one; it is damaged, or of an unknown type.
        DatasetError: no segment means any class.
    """
    header = item.header
    kind = text(header, "SegmentationType")
    if kind not in _KINDS:
        raise FormatError(
            f"has the segmentation type {kind or 'none'}; known are {', '.join(_KINDS)}", fix="export it again"
        )
    named = segments(header)
    names = select_structures(named, labels)
    warnings = [*item.warnings, *(check_belongs(header, image) if image is not None else ())]
    warnings += duplicate_names(names.values(), "segments")
    frames = _frames(item)
    if not frames:
        if image is None:
            raise FormatError("holds no frame, and so has no place", fix="give the series that it was drawn on")
        warnings.append("holds no frame: all its segments are empty")
        empty = OverlapMap((1, *image.shape)[-3:], names.values())  # type: ignore[arg-type]
        return empty.image(image.shape, image.affine, Source((item.path,), "dicom", warnings=tuple(warnings)))
    planes = planes_of(frames, image)
    warnings += planes.warnings
    image = image or own_grid(planes)
    shown = [None] * len(frames) if kind == "LABELMAP" else [segment_of(frame, named) for frame in frames]
    wanted = [index for index, segment in enumerate(shown) if segment is None or segment in names]
    places = place_on_slices(planes, wanted, image)
    overlap_map = OverlapMap((1, *image.shape)[-3:], names.values())  # type: ignore[arg-type]
    above = _limit(header, kind, labels)
    seen: dict[tuple[int | None, Place], Frame] = {}
    arrays = stored_frames([frames[index] for index in wanted], archives)
    for index, place, array in zip(wanted, places, arrays, strict=True):
        segment = shown[index]
        if (other := seen.setdefault((segment, place), frames[index])) is not frames[index]:
            raise FormatError(
                f"frames {other.number + 1} and {index + 1} show the same segment on the same slice",
                fix="export each time point as an object of its own",
            )
        if segment is None:
            _refuse_unknown_segments(array, named, header)
        for number in names if segment is None else (segment,):
            mask = array == number if segment is None else array > above
            if mask.any() and not 0 <= place.slice < overlap_map.depth:
                raise FormatError(
                    f"{names[number]!r} lies on slice {place.slice}, too; "
                    f"the image has the slices 0 to {overlap_map.depth - 1}",
                    fix="give all slices of the series that it was drawn on",
                )
            if mask.any():
                overlap_map.add(names[number], place.slice, place.on_whole_slice(mask, image.shape))
    return overlap_map.image(image.shape, image.affine, Source((item.path,), "dicom", warnings=tuple(warnings)))


def _frames(item: DicomObject) -> list[Frame]:
    """Its frames; none if nothing was drawn in the segmentation.

    Raises:
        FormatError: it has no pixels; or as `functional_groups.frames_of`.
    """
    header = item.header
    if text(header, "NumberOfFrames") == "0" and not items(header, "PerFrameFunctionalGroupsSequence"):
        return []
    if {text(header, "Rows"), text(header, "Columns")} & {"", "0"}:
        raise _without_pixels(item)
    return frames_of(item)


def _without_pixels(item: DicomObject) -> FormatError:
    frames = text(item.header, "NumberOfFrames") or "its"
    return FormatError(
        f"describes {frames} frame{'s' * (frames != '1')} and holds no pixels: it was exported without them",
        fix="fetch the object itself from the archive, not its description",
    )


def segment_of(frame: Frame, named: dict[int, str]) -> int:
    """The number of the segment that a frame shows.

    Raises:
        FormatError: no such segment is described.
    """
    number = int(frame.number_or("ReferencedSegmentNumber", 0))
    if number not in named:
        raise FormatError(
            f"frame {frame.number + 1} shows segment {number or 'none'}, described are {sorted(named)}",
            fix="export it again",
        )
    return number


def _limit(header: pydicom.Dataset, kind: str, labels: Labels | None) -> float:
    """The stored value above which a pixel belongs to its segment."""
    if kind != "FRACTIONAL":
        return 0.0
    maximum = text(header, "MaximumFractionalValue")
    if not maximum.isdecimal() or not int(maximum):
        raise FormatError(
            f"is fractional, with the MaximumFractionalValue {maximum or 'missing'}", fix="export it again"
        )
    return (0.5 if labels is None else labels.fraction) * int(maximum)


def _refuse_unknown_segments(array: np.ndarray, named: dict[int, str], header: pydicom.Dataset) -> None:
    """Pixels of a label map are numbers of segments, or background: 0 or PixelPaddingValue."""
    known = {0, *named}
    if (padding := text(header, "PixelPaddingValue")).isdecimal():
        known.add(int(padding))
    unknown = sorted(set(np.flatnonzero(np.bincount(array.ravel())).tolist()) - known)
    if unknown:
        raise FormatError(f"has pixels of segment {unknown[0]}, described are {sorted(named)}", fix="export it again")


def stored_frames(frames: list[Frame], archives: Archives) -> Iterator[np.ndarray]:
    """The stored values of frames of one object, ``(rows, columns)`` unsigned; a palette is only used for display."""
    if not frames:
        return
    whole = read_object(frames[0].object.location, archives, pixels=True)
    if whole is None:
        raise FormatError("changed while it was read")
    if not any(keyword in whole.header for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise _without_pixels(frames[0].object)
    storage = storage_of(frames[0])
    check_declared_size(frames[0], storage)
    refuse_surplus(frames[0], storage, len(whole.header.get("PixelData", b"")))  # every byte must belong to a frame
    yield from stored_values(whole.header, frames, storage)

"""The images that a segmentation or structure set says it belongs to, and whether an image is one of them.

Sources: Segmentation IOD (DICOM PS3.3, A.51; common instance references C.12.2, derivation image macro C.7.6.16.2.6)
and RT Structure Set IOD (A.19; structure set module C.8.8.5, ROI contour module C.8.8.6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pydicom

from cpfnet.errors import FormatError, redacted_message
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.file_types import Header
from cpfnet.image import Image

KINDS = {
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.66.7": "seg",
    "1.2.840.10008.5.1.4.1.1.481.3": "rtstruct",
}
"""SOP classes (PS3.4, annex B.5) that are read as labels: segmentation, label map segmentation, structure set."""


@dataclass(frozen=True)
class References:
    """UIDs that a label names, or those of an image.

    Attributes:
        series: SeriesInstanceUIDs.
        instances: SOPInstanceUIDs.
        frames: FrameOfReferenceUIDs.
    """

    series: frozenset[str]
    instances: frozenset[str]
    frames: frozenset[str]


def items(parent: pydicom.Dataset, keyword: str) -> list[pydicom.Dataset]:
    """The items of a sequence; none where it is absent.

    Raises:
        FormatError: it is damaged.
    """
    try:
        return [item for item in parent.get(keyword) or () if isinstance(item, pydicom.Dataset)]
    except Exception as error:  # pydicom decodes on access, and raises anything on damaged values
        raise FormatError(
            f"its {keyword} is damaged: {redacted_message(error)}", fix="copy or export it again"
        ) from error


def _values(parents: Iterable[pydicom.Dataset], *path: str) -> Iterator[str]:
    """Texts of the attribute at the end of ``path``, through nested sequences."""
    *sequences, keyword = path
    for item in parents:
        if sequences:
            yield from _values(items(item, sequences[0]), *sequences[1:], keyword)
        elif value := text(item, keyword):
            yield value


_INSTANCE = "ReferencedSOPInstanceUID"
_STRUCTURE_SET = ("ReferencedFrameOfReferenceSequence", "RTReferencedStudySequence", "RTReferencedSeriesSequence")


def references(header: pydicom.Dataset) -> References:
    """The images that a label (kind by `KINDS`) refers to, and the frames of reference that it is drawn in."""
    if KINDS.get(text(header, "SOPClassUID")) == "rtstruct":
        series = _values([header], *_STRUCTURE_SET, "SeriesInstanceUID")
        instances = {*_values([header], *_STRUCTURE_SET, "ContourImageSequence", _INSTANCE)}
        if not instances:  # each contour names its image, too; there may be thousands
            instances = {*_values([header], "ROIContourSequence", "ContourSequence", "ContourImageSequence", _INSTANCE)}
        frames = {
            text(header, "FrameOfReferenceUID"),
            *_values([header], "ReferencedFrameOfReferenceSequence", "FrameOfReferenceUID"),
            *_values([header], "StructureSetROISequence", "ReferencedFrameOfReferenceUID"),
        }
        return References(frozenset(series), frozenset(instances), frozenset(frames - {""}))
    series = _values([header], "ReferencedSeriesSequence", "SeriesInstanceUID")
    instances = {
        *_values([header], "ReferencedSeriesSequence", "ReferencedInstanceSequence", _INSTANCE),
        *_values([header], "SourceImageSequence", _INSTANCE),
    }
    if not instances:  # all of them are also named frame by frame, but this takes far longer to read
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            instances |= {*_values([header], groups, "DerivationImageSequence", "SourceImageSequence", _INSTANCE)}
    frames = {text(header, "FrameOfReferenceUID")}
    return References(frozenset(series), frozenset(instances), frozenset(frames - {""}))


def _named(header: pydicom.Dataset, sequence: str, number: str, name: str, what: str) -> dict[int, str]:
    names: dict[int, str] = {}
    for item in items(header, sequence):
        key = text(item, number)
        if not key.isdecimal() or int(key) in names:
            problem = f"number {key}, as another one" if key.isdecimal() else f"the number {key!r}"
            raise FormatError(f"a {what} has {problem}", fix="copy or export it again")
        names[int(key)] = text(item, name) or f"{what} {key}"
    return names


def segments(header: pydicom.Dataset) -> dict[int, str]:
    """SegmentNumber → name, in the order of the segmentation, without the background of label maps (number 0).

    Raises:
        FormatError: a segment has no number, or that of another one.
    """
    names = _named(header, "SegmentSequence", "SegmentNumber", "SegmentLabel", "segment")
    return {number: name for number, name in names.items() if number}


def regions(header: pydicom.Dataset) -> dict[int, str]:
    """ROINumber → name, in the order of the structure set.

    Raises:
        FormatError: a ROI has no number, or that of another one.
    """
    return _named(header, "StructureSetROISequence", "ROINumber", "ROIName", "ROI")


def structure_names(header: pydicom.Dataset) -> tuple[str, ...]:
    """Names of the segments or ROIs of a label, without repetitions.

    Raises:
        FormatError: as `segments` and `regions`.
    """
    named = regions(header) if KINDS.get(text(header, "SOPClassUID")) == "rtstruct" else segments(header)
    return tuple(dict.fromkeys(named.values()))


def image_references(image: Image | Header) -> References:
    """The UIDs of an image; empty if it does not come from DICOM."""
    headers = image.source.details.get("headers", ()) if image.source is not None else ()

    def uids(keyword: str) -> frozenset[str]:
        return frozenset(text(header, keyword) for header in headers) - {""}

    return References(uids("SeriesInstanceUID"), uids("SOPInstanceUID"), uids("FrameOfReferenceUID"))


def check_belongs(label: pydicom.Dataset, image: Image | Header) -> tuple[str, ...]:
    """Check that a label can belong to an image: it refers to it, or lies in the same frame of reference.

    Args:
        label: header of the segmentation or structure set.
        image: the image.

    Returns:
        Messages about what had to be assumed, because the references do not say it.

    Raises:
        FormatError: it refers to other images, and does not share the frame of reference of this one.
    """
    theirs, ours = references(label), image_references(image)
    same_frame = bool(theirs.frames & ours.frames)
    known = theirs.instances & ours.instances if theirs.instances and ours.instances else theirs.series & ours.series
    if known:
        if theirs.frames and ours.frames and not same_frame:
            return (
                f"refers to this image, but names another frame of reference ({_shown(theirs.frames)} against "
                f"{_shown(ours.frames)}): taken by its references",
            )
        return ()
    if not (theirs.series or theirs.instances) or not (ours.series or ours.instances):
        if theirs.frames and ours.frames and not same_frame:
            raise FormatError(
                f"is drawn in the frame of reference {_shown(theirs.frames)}, the image lies in {_shown(ours.frames)}",
                fix="pair it with the series that it was drawn on",
            )
        if same_frame:
            return ()
        silent = "the image is no DICOM series" if not (ours.series or ours.instances) else "refers to no image"
        return (f"{silent}: matched by position alone",)
    what = "series" if theirs.series and not theirs.series & ours.series else "instances"
    other, own = getattr(theirs, what), getattr(ours, what)
    if same_frame:
        return (
            f"refers to other {what} ({_shown(other)}) than the image ({_shown(own)}), in the same frame of reference: "
            "matched by position",
        )
    raise FormatError(
        f"refers to the {what} {_shown(other)}, the image is {_shown(own)}",
        fix="pair it with the series that it was drawn on",
    )


def _shown(uids: frozenset[str]) -> str:
    first, *others = sorted(uids) or ["none"]
    return f"{first} and {len(others)} more" if others else first

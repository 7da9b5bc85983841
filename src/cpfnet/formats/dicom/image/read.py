"""A DICOM image: one series, or one photograph, as `Image` or `Header`.

Values are those after rescaling (HU for CT); geometry is exact (see `stack`); what was repaired or assumed stands in the notes of the source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats.dicom.attributes import quiet, text
from cpfnet.formats.dicom.image.datasets import Archives, DicomObject, read_object
from cpfnet.formats.dicom.image.functional_groups import frames_of
from cpfnet.formats.dicom.image.pixel_data import Values, decode, values_of
from cpfnet.formats.dicom.image.series import Series, modality_of, one_series
from cpfnet.formats.dicom.image.slice_stack import Stack, arrange, listed
from cpfnet.formats.dicom.patient_study import unidentified
from cpfnet.formats.file_types import Header
from cpfnet.image import Image, Source


@contextmanager
def _about(place: Path) -> Iterator[None]:
    """Say which series an error is about."""
    try:
        with quiet():
            yield
    except CpfnetError as error:
        if error.where is not None:
            raise
        raise type(error)(error.what, where=place, fix=error.fix) from error


def _objects(series: Series, archives: Archives) -> tuple[list[DicomObject], list[str]]:
    """The objects of a series, each once, and notes on them."""
    found: dict[str, DicomObject] = {}
    notes: Counter[str] = Counter()
    copies = []
    for location in series.locations:
        item = read_object(location, archives)
        if item is None:
            raise FormatError(f"{location.name} changed while it was read")
        uid = text(item.header, "SOPInstanceUID")
        if uid not in found:
            found[uid] = item
            notes.update(item.notes)
            continue
        other = found[uid]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "Rows", "Columns"):
            if text(item.header, keyword) != text(other.header, keyword):
                raise FormatError(
                    f"{item.name} and {other.name} have the same SOPInstanceUID and another {keyword}",
                    fix="take one away, or export the series again",
                )
        copies.append(item.name)
    said = [f"{note} (in {count} of {len(found)} files)" for note, count in notes.items()]
    if copies:
        said.append(f"copies of files that are there already were left out: {listed(copies)}")
    return list(found.values()), said


def _source(series: Series, stack: Stack, unit: str, notes: Sequence[str]) -> Source:
    objects = {id(frame.object): frame.object for frame in stack.frames}
    headers = [frame.object.header for frame in stack.frames]
    return Source(
        paths=tuple(dict.fromkeys(frame.object.path for frame in stack.frames)),
        format="dicom",
        details={
            "headers": headers[:1] if len(objects) == 1 else headers,
            "frames": [frame.number for frame in stack.frames],
            "unit": unit,
            "reference": series.reference,
            "locations": series.locations,
        },
        notes=tuple(notes),
    )


def _prepare(series: Series, beside: Sequence[str], archives: Archives) -> tuple[Stack, Values, Header]:
    objects, notes = _objects(series, archives)
    stack = arrange([frame for item in objects for frame in frames_of(item)])
    values = values_of(stack)
    if left := unidentified(stack.frames[0].object.header):
        notes.append(left)
    source = _source(series, stack, values.unit, (*beside, *notes, *stack.notes, *values.notes))
    modality = modality_of(series.modality) if series.modality else None
    return stack, values, Header(stack.shape, stack.affine, values.channels, values.dtype, modality, source)


def read_header(*paths: Path) -> Header:
    """What `read` gives, without decoding pixels.

    Raises:
        FormatError: as `read`, as far as headers tell.
    """
    series, beside = one_series(paths)
    with _about(series.reference), Archives() as archives:
        return _prepare(series, beside, archives)[2]


def read(*paths: Path) -> Image:
    """Read the one image series that ``paths`` mean (see `series`).

    Returns:
        ``(1, depth, height, width)`` slices ascending along their normal (row × column direction), ``(3, …)`` uint8 for
        colours; without depth and affine for a single image without a position. ``source.details`` holds ``headers`` (in
        slice order; one for a multi-frame object), ``frames`` (numbers from 0), ``unit`` and ``reference``.

    Raises:
        FormatError: there is no series or several; the slices make no volume; a header lies; pixels cannot be decoded.
    """
    series, beside = one_series(paths)
    with _about(series.reference), Archives() as archives:
        stack, values, header = _prepare(series, beside, archives)
        array = decode(stack, values, archives)
        return Image(array, header.affine, header.channels, header.modality, header.source)

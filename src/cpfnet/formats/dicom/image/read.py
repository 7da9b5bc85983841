"""A DICOM image: one series, or one photograph, as `Image` or `Header`.

Values are those after rescaling (HU for CT), and geometry is exact (see `slice_stack`). The warnings of the source say
what was repaired or assumed.
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
from cpfnet.formats.dicom.patient_study import identity_warning
from cpfnet.formats.file_types import Header
from cpfnet.image import Image, Source


@contextmanager
def _name_series_in_errors(place: Path) -> Iterator[None]:
    """Add the series to errors."""
    try:
        with quiet():
            yield
    except CpfnetError as error:
        if error.where is not None:
            raise
        raise type(error)(error.what, where=place, fix=error.fix) from error


def _objects(series: Series, archives: Archives) -> tuple[list[DicomObject], list[str]]:
    """The objects of a series, without copies, and messages about them."""
    objects: dict[str, DicomObject] = {}
    warnings: Counter[str] = Counter()
    copies = []
    for location in series.locations:
        item = read_object(location, archives)
        if item is None:
            raise FormatError(f"{location.name} changed while it was read")
        uid = text(item.header, "SOPInstanceUID")
        if uid not in objects:
            objects[uid] = item
            warnings.update(item.warnings)
            continue
        other = objects[uid]
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "Rows", "Columns"):
            if text(item.header, keyword) != text(other.header, keyword):
                raise FormatError(
                    f"{item.name} and {other.name} have the same SOPInstanceUID and another {keyword}",
                    fix="take one away, or export the series again",
                )
        copies.append(item.name)
    texts = [f"{warning} (in {count} of {len(objects)} files)" for warning, count in warnings.items()]
    if copies:
        texts.append(f"copies of files that are there already were left out: {listed(copies)}")
    return list(objects.values()), texts


def _source(series: Series, stack: Stack, unit: str, warnings: Sequence[str]) -> Source:
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
        warnings=tuple(warnings),
    )


def _prepare(
    series: Series, damaged: Sequence[str], archives: Archives, *, numbers: bool = False
) -> tuple[Stack, Values, Header]:
    objects, warnings = _objects(series, archives)
    stack = arrange([frame for item in objects for frame in frames_of(item)])
    values = values_of(stack, numbers=numbers)
    if left_empty := identity_warning(stack.frames[0].object.header):
        warnings.append(left_empty)
    source = _source(series, stack, values.unit, (*damaged, *warnings, *stack.warnings, *values.warnings))
    modality = modality_of(series.modality) if series.modality else None
    return stack, values, Header(stack.shape, stack.affine, values.channels, values.dtype, modality, source)


def read_header(*paths: Path) -> Header:
    """The header that `read` would give, without decoding pixels.

    Raises:
        FormatError: as `read`, if headers show the problem.
    """
    series, damaged = one_series(paths)
    with _name_series_in_errors(series.reference), Archives() as archives:
        return _prepare(series, damaged, archives)[2]


def read(*paths: Path, numbers: bool = False) -> Image:
    """Read the one image series that ``paths`` mean (see `series`).

    Args:
        paths: as there.
        numbers: its values are those of labels: no padding is replaced.

    Returns:
        ``(1, depth, height, width)``, slices ascending along their normal (row × column direction), ``(3, …)`` uint8
        for colours; without depth and affine for a single image without a position. ``source.details`` holds
        ``headers`` (in slice order; one for a multi-frame object), ``frames`` (numbers from 0), ``unit`` and
        ``reference``.

    Raises:
        FormatError: there is no series, or several; the slices make no volume; a header is wrong; pixels
            cannot be decoded.
    """
    series, damaged = one_series(paths)
    with _name_series_in_errors(series.reference), Archives() as archives:
        stack, values, header = _prepare(series, damaged, archives, numbers=numbers)
        array = decode(stack, values, archives)
        return Image(array, header.affine, header.channels, header.modality, header.source)

"""A short summary of one file, kept for every file of a data set: an image, a label, or something else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pydicom

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import is_localizer, patient_digest, quiet, text
from cpfnet.formats.dicom.image.datasets import Archives, DicomObject, Location, read_object
from cpfnet.formats.dicom.persons import persons
from cpfnet.formats.dicom.referenced_images import KINDS, references, structure_names
from cpfnet.formats.file_types import DICOM_SUFFIXES, SERIES, check_dicom, suffix_of

_OTHERS = {  # SOP classes (PS3.4, annex B.5) with pixels that are not images
    "1.2.840.10008.5.1.4.1.1.481.2": "RTDOSE",
    "1.2.840.10008.5.1.4.1.1.30": "parametric map",
    "1.2.840.10008.5.1.4.1.1.4.2": "MR spectroscopy",  # no pixels, but rows and columns
    "1.2.840.10008.1.3.10": "DICOMDIR",
}


@dataclass(frozen=True)
class LabelObject:
    """A segmentation or structure set.

    Attributes:
        path: the path that `cpfnet.formats.read_label` takes: the file, or ``ARCHIVE.zip/series=UID``.
        kind: ``"seg"`` or ``"rtstruct"``.
        uid: SOPInstanceUID.
        study: StudyInstanceUID.
        patient: digest of the PatientID, "" if it is empty; for comparisons, never to show.
        frame_of_reference: UID of the frame of reference that it is drawn in, or "".
        series, instances: UIDs of the image series and SOP instances that it refers to.
        names: of its structures.
        persons: words of the names of persons in its header; for comparisons, never to show.
    """

    path: Path
    kind: str
    uid: str
    study: str
    patient: str = field(repr=False)
    frame_of_reference: str
    series: frozenset[str]
    instances: frozenset[str] = field(repr=False)
    names: tuple[str, ...]
    persons: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True)
class Summary:
    """The attributes of a header that say what a file is.

    Attributes:
        location: of the file.
        kind: ``"image"``, a label's ``"seg"`` or ``"rtstruct"``, or another word (``"RTDOSE"``).
        uid, study, series, frame_of_reference: UIDs, the last may be "".
        patient: digest, as in `LabelObject`.
        modality: DICOM's word.
        frames: number of frames.
        shape: (rows, columns).
        localizer: it is a scout view.
        placed: it has a position in the patient.
        colour: it has three channels.
        label: of a segmentation or structure set.
    """

    location: Location
    kind: str
    uid: str
    study: str
    series: str
    patient: str
    frame_of_reference: str
    modality: str
    frames: int
    shape: tuple[int, int]
    localizer: bool
    placed: bool
    colour: bool
    label: LabelObject | None


def _label(header: pydicom.Dataset, location: Location) -> LabelObject:
    own, referred = text(header, "SeriesInstanceUID"), references(header)
    return LabelObject(
        path=location.path if location.member is None else location.path / f"{SERIES}{own}",
        kind=KINDS[text(header, "SOPClassUID")],
        uid=text(header, "SOPInstanceUID"),
        study=text(header, "StudyInstanceUID"),
        patient=patient_digest(header),
        frame_of_reference=min(referred.frames, default=""),
        series=referred.series,
        instances=referred.instances,
        names=structure_names(header),
        persons=persons(header),
    )


def _count(header: pydicom.Dataset, keyword: str) -> int:
    value = text(header, keyword)
    return int(value) if value.isdecimal() else 0


def _summary_of(item: DicomObject, location: Location) -> Summary:
    header = item.header
    modality = text(header, "Modality")
    shape = (_count(header, "Rows"), _count(header, "Columns"))
    sop_class = text(header, "SOPClassUID")
    if not all(shape) and (not sop_class or pydicom.uid.UID(sop_class).name.endswith("Image Storage")):
        missing = "Rows and Columns" if sop_class else "SOPClassUID"
        raise FormatError(f"is damaged or cut short: it has no {missing}")
    kind = KINDS.get(sop_class) or _OTHERS.get(sop_class) or ("image" if all(shape) else modality or "without pixels")
    return Summary(
        location=location,
        kind=kind,
        uid=text(header, "SOPInstanceUID"),
        study=text(header, "StudyInstanceUID"),
        series=text(header, "SeriesInstanceUID"),
        patient=patient_digest(header),
        frame_of_reference=text(header, "FrameOfReferenceUID"),
        modality=modality,
        frames=_count(header, "NumberOfFrames") or 1,
        shape=shape,
        localizer=is_localizer(header),
        placed=bool(text(header, "ImagePositionPatient")),
        colour=_count(header, "SamplesPerPixel") > 1 or text(header, "PhotometricInterpretation") == "PALETTE COLOR",
        label=_label(header, location) if kind in KINDS.values() else None,
    )


_CACHE: dict[Location, Summary | str | None] = {}
_CACHED = 50_000


def summarise(location: Location, archives: Archives) -> Summary | str | None:
    """The summary of a file, or why it cannot be read; None if it is not DICOM. Cached until the file changes."""
    if location not in _CACHE:
        if len(_CACHE) >= _CACHED:
            _CACHE.clear()
        try:
            with quiet():
                item = read_object(location, archives)
                if item is None and location.member is None and suffix_of(location.path) in DICOM_SUFFIXES:
                    check_dicom(location.path)  # its error says what the file is instead
                _CACHE[location] = None if item is None else _summary_of(item, location)
        except FormatError as error:
            _CACHE[location] = error.what
        except OSError as error:
            return f"cannot be opened: {error.strerror or error}"
    return _CACHE[location]

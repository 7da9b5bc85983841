"""DICOM Segmentation objects, through highdicom: BINARY, LABELMAP, and FRACTIONAL for probabilities.

Segmentation IOD, DICOM PS3.3, A.51 and C.8.20; Label Map Segmentation IOD, A.51.5. Every frame refers to the image that
it lies on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.seg import SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as concepts
from pydicom.sr.coding import Code as Concept

import cpfnet
from cpfnet.errors import OutputError, redacted_message
from cpfnet.formats.dicom.attributes import quiet, text
from cpfnet.formats.dicom.patient_study import allowed_value
from cpfnet.formats.dicom.segment_descriptions import Structure, describe_classes, structures
from cpfnet.formats.dicom.source_images import Origin, decimals, numbers, origin
from cpfnet.image import Segmentation
from cpfnet.planning import Code, LabelClass

_SERIES_NUMBER = 1000
"""Numbers of series are only displayed; this one comes after those of the scanner."""

_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def write(segmentation: Segmentation, path: Path, *, kind: Literal["BINARY", "LABELMAP"], where: Path) -> None:
    """Write the classes of a Segmentation as segments: all classes of the Plan, in its order.

    Frames without pixels are left out; if the whole mask is empty, one empty frame a segment stays.

    Args:
        segmentation: made from DICOM; a picture without position is possible.
        path: the file.
        kind: LABELMAP cannot hold regions that overlap.
        where: for messages.

    Raises:
        OutputError: see `origin` and `structures`; overlapping regions as LABELMAP; or images to which
            segmentations cannot refer.
    """
    classes = structures(segmentation, where)
    if kind == "LABELMAP" and classes.overlap:
        raise OutputError(
            "regions that overlap do not fit into one label map",
            where=where,
            fix="write --format dicom-seg: one binary segment a region",
        )
    pixels = classes.codes
    if classes.overlap:
        pixels = np.stack([mask.astype(np.uint8) for _, mask in classes.masks()], axis=-1)
    _save(pixels, classes.items, segmentation, path, kind, where)


def write_map(
    array: np.ndarray, segmentation: Segmentation, path: Path, names: tuple[str, ...], *, where: Path
) -> None:
    """Write probabilities of the classes as a FRACTIONAL segmentation, in steps of 1/255.

    Args:
        array: float32 ``(planes, [depth,] height, width)``, 0…1. The background is the rest of the classes,
            and no segment.
        segmentation, path, where: as `write`.
        names: of classes, one a plane.

    Raises:
        OutputError: as `write`; or a plane does not belong to a class.
    """
    classes = {c.name: c for c in (() if segmentation.labels is None else segmentation.labels.classes)}
    kept = [index for index, name in enumerate(names) if name != "background" or name in classes]
    unknown = [names[index] for index in kept if classes and names[index] not in classes]
    if unknown or not kept:
        raise OutputError(
            f"{', '.join(unknown or names)}: not the probabilities of classes, "
            "which is what fractional segmentations hold",
            where=where,
            fix="write NIfTI (--format nifti)",
        )
    items = describe_classes(tuple(classes.get(names[i]) or LabelClass(name=names[i], values=(1,)) for i in kept))
    planes = np.rint(np.clip(np.stack([array[i] for i in kept], axis=-1), 0, 1) * 255) / np.float32(255)
    _save(planes, items, segmentation, path, "FRACTIONAL", where)


def _save(
    pixels: np.ndarray, items: tuple[Structure, ...], segmentation: Segmentation, path: Path, kind: str, where: Path
) -> None:
    """Write ``([depth,] height, width[, segments])``."""
    source = origin(segmentation, where)
    if kind == "BINARY" and segmentation.array.size // len(source.frames) < 8:
        raise OutputError(  # highdicom 0.28 packs their bits wrongly
            "images of fewer than 8 pixels are not written as binary segments", where=where, fix="write NIfTI"
        )
    if source.positions is None:
        pixels = pixels[None]
    if source.multiframe:  # highdicom takes planes in the order of the frames
        order = np.argsort([frame.number for frame in source.frames])
        pixels = pixels[order]
    with quiet():
        headers, others = _headers(source), []
    some = bool(pixels.any())
    if not some:  # one frame a segment, since an object needs at least one
        pixels = pixels[:1]
        if source.multiframe:
            headers[0].NumberOfFrames = 1
            headers[0].PerFrameFunctionalGroupsSequence = headers[0].PerFrameFunctionalGroupsSequence[:1]
        else:
            headers, others = headers[:1], headers[1:]
    name, version = segmentation.algorithm or ("cpfnet", cpfnet.__version__)
    with quiet():
        try:
            dataset = highdicom.seg.Segmentation(
                source_images=headers,
                further_source_images=others,
                pixel_array=pixels,
                segmentation_type=kind,
                segment_descriptions=[_description(item, source, name, version) for item in items],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="cpfnet",
                manufacturer_model_name="cpfnet",
                software_versions=cpfnet.__version__,
                device_serial_number="0",  # required; software has none
                series_description=f"Segmentation by {name}"[:64],
                omit_empty_frames=some,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(
                f"no DICOM segmentation can be made of these images: {redacted_message(error)}",
                where=where,
                fix="write another format (--format nifti, or png for a picture)",
            ) from error
        source.identify(dataset)
        dataset.ContentCreatorName = ""
        if source.positions is None:  # then this attribute is required
            dataset.PatientOrientation = source.header.get("PatientOrientation") or ""
        dataset.save_as(path, enforce_file_format=True)


def _concept(code: Code) -> Concept:
    return Concept(code.value, code.scheme, code.meaning)


def _description(item: Structure, source: Origin, name: str, version: str) -> SegmentDescription:
    label, uid = item.tracking(source.header.SeriesInstanceUID)
    return SegmentDescription(
        segment_number=item.number,
        segment_label=item.name,
        segmented_property_category=_concept(item.category),
        segmented_property_type=_concept(item.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name[:64], concepts.DCM.ArtificialIntelligence, version
        ),
        tracking_uid=uid,
        tracking_id=label,
        display_color=CIELabColor.from_rgb(*item.rgb),
    )


def _headers(source: Origin) -> list[Dataset]:
    """The headers of the source images that highdicom needs, one dataset an object."""
    measures, orientation, places = _geometry(source)
    if not source.multiframe:
        headers = [_bare(source, frame.object.header) for frame in source.frames]
        for header, place in zip(headers, places, strict=True):
            for part in (measures, orientation, place):
                header.update(part)
        return headers
    header = _bare(source, source.header)
    header.NumberOfFrames = len(source.frames)
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    header.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for number in np.argsort([frame.number for frame in source.frames]):
        group = Dataset()
        group.PlanePositionSequence = [places[number]]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    return [header]


def _bare(source: Origin, own: Dataset) -> Dataset:
    """An image's header without patient, study and geometry."""
    header = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns"):
        setattr(header, keyword, own.get(keyword))
    for keyword in (*_LOSSY, "Modality"):
        if text(own, keyword):
            setattr(header, keyword, own.get(keyword))
    header.Modality = text(own, "Modality") or "OT"
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(header, keyword, "")  # highdicom would log them; they are set after it
    header.StudyDate = header.StudyTime = header.ReferringPhysicianName = ""
    if source.positions is not None:
        header.FrameOfReferenceUID = source.frame_of_reference
        header.PositionReferenceIndicator = allowed_value(own, "PositionReferenceIndicator") or ""
    return header


def _geometry(source: Origin) -> tuple[Dataset, Dataset, list[Dataset]]:
    """Pixel measures and orientation of all slices, and the position of each; empty for a picture without position."""
    measures, orientation, places = Dataset(), Dataset(), [Dataset() for _ in source.frames]
    if source.positions is None:
        return measures, orientation, places
    frame = source.frames[0]
    measures.PixelSpacing = decimals(numbers(frame, "PixelSpacing", 2))
    measures.SliceThickness = decimals([frame.number_or("SliceThickness", 0.0) or source.normal])[0]
    measures.SpacingBetweenSlices = decimals([source.normal])[0]
    orientation.ImageOrientationPatient = decimals(numbers(frame, "ImageOrientationPatient", 6))
    for place, position in zip(places, source.positions, strict=True):
        place.ImagePositionPatient = decimals(position)
    return measures, orientation, places

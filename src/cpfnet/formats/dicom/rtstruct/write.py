"""RT Structure Sets: each class as closed planar contours on the slices of its images.

RT Structure Set IOD, DICOM PS3.3, A.19; structure set C.8.8.5, ROI contours C.8.8.6, observations C.8.8.8.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

import cpfnet
from cpfnet.errors import OutputError
from cpfnet.formats.dicom.attributes import quiet
from cpfnet.formats.dicom.codes import ANATOMY
from cpfnet.formats.dicom.rtstruct.trace_contours import outlines
from cpfnet.formats.dicom.segment_descriptions import Structure, structures
from cpfnet.formats.dicom.source_images import Origin, origin
from cpfnet.image import Segmentation

_COMPONENT_STUDY = "1.2.840.10008.3.1.2.3.1"  # detached study management: what type 1 of a retired reference expects
_CONTOUR_DATA = Tag("ContourData")


def write(segmentation: Segmentation, path: Path, *, where: Path) -> None:
    """Write the classes of a Segmentation as regions of interest: all classes of the Plan, in its order.

    Contours enclose the centres of exactly the pixels of the class (`outlines`). A class without pixels becomes a
    region without contours.

    Args:
        segmentation: a volume made from DICOM; one slice is enough.
        path: the file.
        where: for messages.

    Raises:
        OutputError: see `origin` and `structures`; or the images have no position in the patient.
    """
    source = origin(segmentation, where)
    if source.positions is None:
        raise OutputError(
            "contours are in millimetres, and this picture has no position in the patient",
            where=where,
            fix="write --format dicom-seg or png",
        )
    classes = structures(segmentation, where)
    name, version = segmentation.algorithm or ("cpfnet", cpfnet.__version__)
    now = datetime.datetime.now()
    with quiet():
        dataset = _header(source, name, now)
        dataset.StructureSetROISequence = [_region(item, source, name, version) for item in classes.items]
        dataset.ROIContourSequence = [_contours(item, mask, source) for item, mask in classes.masks()]
        dataset.RTROIObservationsSequence = [_observation(item) for item in classes.items]
        dataset.save_as(path, enforce_file_format=True)


def _header(source: Origin, name: str, now: datetime.datetime) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    # Implicit, because explicit elements of decimal strings end at 64 KiB, and large contours are longer.
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    source.identify(dataset)
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    dataset.Modality, dataset.SeriesInstanceUID, dataset.SeriesNumber = "RTSTRUCT", generate_uid(), 1001
    dataset.SeriesDescription = f"Structures by {name}"[:64]
    dataset.InstanceNumber, dataset.OperatorsName = 1, ""
    dataset.Manufacturer = dataset.ManufacturerModelName = "cpfnet"
    dataset.SoftwareVersions = cpfnet.__version__
    dataset.FrameOfReferenceUID = source.frame_of_reference
    dataset.PositionReferenceIndicator = ""
    dataset.StructureSetLabel = "cpfnet"
    dataset.StructureSetDate, dataset.StructureSetTime = date, time
    dataset.ApprovalStatus = "UNAPPROVED"
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.header.SeriesInstanceUID
    series.ContourImageSequence = [source.reference(number) for number in range(len(source.frames))]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _COMPONENT_STUDY, source.header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = source.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    return dataset


def _region(item: Structure, source: Origin, name: str, version: str) -> Dataset:
    region = Dataset()
    region.ROINumber, region.ROIName = item.number, item.name
    region.ReferencedFrameOfReferenceUID = source.frame_of_reference
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = f"{name} {version}"[:64]
    return region


def _contours(item: Structure, mask: np.ndarray, source: Origin) -> Dataset:
    out = Dataset()
    out.ReferencedROINumber, out.ROIDisplayColor = item.number, list(item.rgb)
    contours = list(_contour_items(mask, source))
    if contours:
        out.ContourSequence = contours
    return out


def _contour_items(mask: np.ndarray, source: Origin) -> Iterator[Dataset]:
    assert source.positions is not None
    assert source.rows is not None
    assert source.columns is not None
    # A thousandth of a pixel is enough: texts of 16 characters would triple the file.
    smallest = min(np.linalg.norm(source.rows), np.linalg.norm(source.columns))
    digits = max(3, 3 - math.floor(math.log10(smallest)))
    for number in np.flatnonzero(mask.any(axis=(1, 2))):
        for outline in outlines(mask[number]):
            points = source.positions[number] + outline @ np.stack([source.rows, source.columns])
            contour = Dataset()
            contour.ContourImageSequence = [source.reference(int(number))]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour[_CONTOUR_DATA] = _decimals(points.ravel().tolist(), digits)
            contour.set_original_encoding(True, True, "iso8859")  # as it is: it holds only numbers
            yield contour


def _decimals(values: list[float], digits: int) -> RawDataElement:
    """Decimal strings as bytes: pydicom takes 20 µs to check one, and a scan has millions."""
    texts = [f"{value:.{digits}f}" for value in values]
    content = "\\".join(text if len(text) <= 16 else format_number_as_ds(float(text)) for text in texts).encode()
    content += b" " * (len(content) % 2)
    return RawDataElement(_CONTOUR_DATA, "DS", len(content), content, 0, True, True)


def _observation(item: Structure) -> Dataset:
    out, code = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator = item.type.value, item.type.scheme
    code.CodeMeaning = item.type.meaning
    out.ObservationNumber = out.ReferencedROINumber = item.number
    out.RTROIIdentificationCodeSequence = [code]
    out.RTROIInterpretedType = _interpreted(item)
    out.ROIInterpreter = ""
    return out


def _interpreted(item: Structure) -> str:
    """GTV, CTV and PTV by name; ORGAN for anatomy; empty if neither is known (C.8.8.8.1)."""
    for volume in ("GTV", "CTV", "PTV"):
        if item.name.upper().startswith(volume):
            return volume
    return "ORGAN" if item.category == ANATOMY else ""

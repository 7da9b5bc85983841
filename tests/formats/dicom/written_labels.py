"""Segmentations and structure sets for the tests, written with highdicom and pydicom alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.pixels import pack_bits
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, SegmentationStorage

from tests.synthetic import dicom_uid

Edit = Callable[[pydicom.Dataset], object]


def write_seg(
    path: Path,
    sources: Sequence[Path],
    segments: Mapping[int, str],
    pixels: np.ndarray,
    kind: str = "BINARY",
    *,
    fractions: str = "PROBABILITY",
    syntax: str = ExplicitVRLittleEndian,
    edit: Edit | None = None,
    **options: object,
) -> Path:
    """A segmentation of highdicom.

    Args:
        path: the file.
        sources: the slices that ``pixels`` lie on, in this order; or one multi-frame file.
        segments: number → label.
        pixels: ``(depth, height, width, segments)``, or ``(depth, height, width)`` numbers for LABELMAP.
        kind: BINARY, FRACTIONAL (pixels in 0…1) or LABELMAP.
        fractions: PROBABILITY or OCCUPANCY.
        syntax: transfer syntax.
        edit: called with the object before writing.
        options: of highdicom.
    """
    images = [pydicom.dcmread(source) for source in sources]
    described = [
        highdicom.seg.SegmentDescription(number, label, codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
        for number, label in segments.items()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = highdicom.seg.Segmentation(
            images,
            pixels,
            kind,
            described,
            series_instance_uid=dicom_uid(path.name, "series"),
            series_number=9,
            sop_instance_uid=dicom_uid(path.name),
            instance_number=1,
            manufacturer="tests",
            manufacturer_model_name="tests",
            software_versions="1",
            device_serial_number="1",
            fractional_type=fractions if kind == "FRACTIONAL" else None,
            transfer_syntax_uid=syntax,
            **options,
        )
    return _save(path, made, edit)


def write_plain_seg(
    path: Path,
    source: Path,
    segments: Mapping[int, str],
    frames: Sequence[tuple[int, np.ndarray, Sequence[float]]],
    *,
    edit: Edit | None = None,
) -> Path:
    """A binary segmentation as dcmqi writes them: orientation and spacing in every frame, no references to instances.

    Args:
        path: the file.
        source: a slice, whose orientation, spacing and frame of reference are taken.
        segments: number → label.
        frames: in this order: number of the segment, bool ``(height, width)``, and position in LPS mm.
        edit: called with the object before writing.
    """
    image = pydicom.dcmread(source, stop_before_pixels=True)
    made = _object(path, SegmentationStorage, "SEG", image)
    made.FrameOfReferenceUID = image.FrameOfReferenceUID
    made.SegmentationType = "BINARY"
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = 0
    made.Rows, made.Columns = frames[0][1].shape
    made.NumberOfFrames = len(frames)
    made.SegmentSequence = [_item(SegmentNumber=number, SegmentLabel=label) for number, label in segments.items()]
    made.PerFrameFunctionalGroupsSequence = [
        _item(
            SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
            PlanePositionSequence=[_item(ImagePositionPatient=[float(f"{x:.8g}") for x in position])],
            PlaneOrientationSequence=[_item(ImageOrientationPatient=image.ImageOrientationPatient)],
            PixelMeasuresSequence=[_item(PixelSpacing=image.PixelSpacing, SliceThickness=image.SliceThickness)],
        )
        for number, _, position in frames
    ]
    made.PixelData = pack_bits(np.stack([mask for _, mask, _ in frames]).astype(np.uint8).ravel())
    made["PixelData"].VR = "OB"
    return _save(path, made, edit)


def write_rtstruct(
    path: Path,
    source: Path,
    rois: Sequence[tuple[str, Sequence[np.ndarray]]],
    *,
    kind: str = "CLOSED_PLANAR",
    instances: Sequence[Path] = (),
    edit: Edit | None = None,
) -> Path:
    """A structure set.

    Args:
        path: the file.
        source: a slice of the series that it refers to.
        rois: name, and contours ``(points, 3)`` in LPS mm.
        kind: geometric type of all contours.
        instances: images that it names beside the series.
        edit: called with the object before writing.
    """
    image = pydicom.dcmread(source, stop_before_pixels=True)
    made = _object(path, RTStructureSetStorage, "RTSTRUCT", image)
    named = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in instances]
    series = _item(
        SeriesInstanceUID=image.SeriesInstanceUID,
        ContourImageSequence=[_item(ReferencedSOPInstanceUID=uid) for uid in named],
    )
    study = _item(ReferencedSOPInstanceUID=image.StudyInstanceUID, RTReferencedSeriesSequence=[series])
    frame = _item(FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[study])
    made.ReferencedFrameOfReferenceSequence = [frame]
    made.StructureSetROISequence = [
        _item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=image.FrameOfReferenceUID)
        for number, (name, _) in enumerate(rois, start=1)
    ]
    made.ROIContourSequence = [
        _item(
            ReferencedROINumber=number,
            ContourSequence=[
                _item(
                    ContourGeometricType=kind,
                    NumberOfContourPoints=len(contour),
                    ContourData=[f"{value:.9g}" for value in np.ravel(contour)],
                )
                for contour in contours
            ],
        )
        for number, (_, contours) in enumerate(rois, start=1)
    ]
    return _save(path, made, edit)


def _item(**attributes: object) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.update(attributes)
    return item


def _object(path: Path, sop_class: str, modality: str, image: pydicom.Dataset) -> pydicom.Dataset:
    made = _item(SOPClassUID=sop_class, SOPInstanceUID=dicom_uid(path.name), Modality=modality)
    made.update({"StudyInstanceUID": image.StudyInstanceUID, "SeriesInstanceUID": dicom_uid(path.name, "series")})
    made.update({"PatientName": image.get("PatientName", ""), "PatientID": image.get("PatientID", "")})
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def _save(path: Path, made: pydicom.Dataset, edit: Edit | None) -> Path:
    if edit is not None:
        edit(made)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path

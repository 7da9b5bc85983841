"""DICOM studies with labels for the tests, written with pydicom and highdicom alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage

from tests.synthetic import PRIVATE, blobs, dicom_uid, write_series

SHAPE = (6, 24, 20)
BOX = np.s_[2:5, 6:14, 5:12]
"""Where `scan` draws, unless told otherwise."""


def scan(folder: Path, *, seed: int = 0, shape: tuple[int, int, int] = SHAPE, **options: object) -> list[Path]:
    """A series of stored values 900…1300 (in CT: -124…276 HU); options as of `write_series`."""
    image, _ = blobs(np.random.default_rng(seed), shape)
    return write_series(folder, np.uint16(900 + 400 * image), **options)  # type: ignore[arg-type]


def _referred(files: Sequence[Path]) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]


def write_rtstruct(
    path: Path,
    files: Sequence[Path],
    structures: Mapping[str, tuple[slice, slice, slice]] = {"GTV-1": BOX},
    *,
    refer: bool = True,
    frame: bool = True,
    name: str = "a",
) -> Path:
    """A structure set of boxes on axial slices of 1 mm.

    Args:
        path: the file.
        files: slices that it is drawn on, in ascending order.
        structures: name → (depth, height, width) of its box.
        refer: name series and instances.
        frame: name the frame of reference.
        name: several structure sets of one series differ by it.
    """
    slices = _referred(files)
    first = slices[0]
    dataset = pydicom.Dataset()
    for keyword, value in PRIVATE.items():
        setattr(dataset, keyword, value)
    dataset.update({"SOPClassUID": RTStructureSetStorage, "SOPInstanceUID": dicom_uid(first.SeriesInstanceUID, name)})
    dataset.update({"StudyInstanceUID": first.StudyInstanceUID, "PatientID": first.PatientID, "Modality": "RTSTRUCT"})
    dataset.SeriesInstanceUID = dicom_uid(first.SeriesInstanceUID, name, "series")
    group = pydicom.Dataset()
    group.FrameOfReferenceUID = first.FrameOfReferenceUID if frame else ""
    if refer:
        series, study = pydicom.Dataset(), pydicom.Dataset()
        series.SeriesInstanceUID = first.SeriesInstanceUID
        series.ContourImageSequence = [_instance(one) for one in slices]
        study.update({"ReferencedSOPClassUID": "1.2.840.10008.3.1.2.3.1", "ReferencedSOPInstanceUID": "1.2.3"})
        study.RTReferencedSeriesSequence = [series]
        group.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [group]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (roi_name, box) in enumerate(structures.items(), start=1):
        roi, contours = pydicom.Dataset(), pydicom.Dataset()
        roi.update({"ROINumber": number, "ROIName": roi_name, "ROIGenerationAlgorithm": "MANUAL"})
        roi.ReferencedFrameOfReferenceUID = group.FrameOfReferenceUID
        contours.ReferencedROINumber = number
        contours.ContourSequence = []
        for z in range(box[0].start, box[0].stop):
            contour = pydicom.Dataset()
            x0, y0, _ = map(float, slices[z].ImagePositionPatient)
            x, y = (x0 + box[2].start - 0.5, x0 + box[2].stop - 0.5), (y0 + box[1].start - 0.5, y0 + box[1].stop - 0.5)
            height = float(slices[z].ImagePositionPatient[2])
            corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
            contour.update({"ContourGeometricType": "CLOSED_PLANAR", "NumberOfContourPoints": 4})
            contour.ContourData = [value for corner in corners for value in (*corner, height)]
            contours.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(contours)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _instance(one: pydicom.Dataset) -> pydicom.Dataset:
    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    return reference


def write_seg(
    path: Path, files: Sequence[Path], structures: Mapping[str, tuple[slice, slice, slice]] = {"GTV-1": BOX}
) -> Path:
    """A binary segmentation of boxes, on slices in ascending order."""
    slices = [pydicom.dcmread(file) for file in files]
    masks = np.zeros((len(slices), slices[0].Rows, slices[0].Columns, len(structures)), dtype=np.uint8)
    descriptions = []
    for index, (name, box) in enumerate(structures.items()):
        masks[(*box, index)] = 1
        descriptions.append(
            highdicom.seg.SegmentDescription(
                index + 1,
                name,
                codes.SCT.Tissue,
                codes.SCT.Tissue,
                highdicom.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        segmentation = highdicom.seg.Segmentation(
            source_images=slices,
            pixel_array=masks,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=descriptions,
            series_instance_uid=dicom_uid(path.name, slices[0].SeriesInstanceUID, "seg series"),
            series_number=9,
            sop_instance_uid=dicom_uid(path.name, slices[0].SeriesInstanceUID, "seg"),
            instance_number=1,
            manufacturer="tests",
            manufacturer_model_name="tests",
            software_versions="1",
            device_serial_number="1",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)
    return path

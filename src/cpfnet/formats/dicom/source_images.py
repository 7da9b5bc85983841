"""What a written object takes over from its images: identity, references and geometry, and nothing else.

Attributes are copied one by one, so that everything else in the source's headers (age, weight, institution, private
tags) stays there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from cpfnet.errors import OutputError
from cpfnet.formats.dicom.attributes import derived_uid, quiet, text
from cpfnet.formats.dicom.image.datasets import DicomObject
from cpfnet.formats.dicom.image.functional_groups import Frame, frames_of
from cpfnet.formats.dicom.patient_study import IDENTITY, allowed_value
from cpfnet.image import Segmentation, geometry_difference


def decimals(values: Iterable[float]) -> list[DSfloat]:
    """Decimal strings of at most 16 characters, as exact as possible."""
    return [DSfloat(float(value), auto_format=True) for value in values]


@dataclass(frozen=True)
class Origin:
    """The images that a Segmentation was made from.

    Attributes:
        frames: one a slice, in slice order.
        positions: ``(slices, 3)``, LPS mm of the first pixel of each; None for a picture without position.
        rows, columns: mm vectors from one pixel to the next down a column, and along a row; None without position.
        normal: mm between slices, along the normal.
        where: the file to be written, for messages.
    """

    frames: tuple[Frame, ...]
    positions: np.ndarray | None
    rows: np.ndarray | None
    columns: np.ndarray | None
    normal: float
    where: Path

    @property
    def header(self) -> Dataset:
        """The header of the first slice: for attributes that all slices share."""
        return self.frames[0].object.header

    @property
    def multiframe(self) -> bool:
        """Are all slices frames of one object?"""
        return len(self.frames[0].groups) > 1

    @property
    def frame_of_reference(self) -> str:
        """Its UID; if the images give none, one derived from the series."""
        return text(self.header, "FrameOfReferenceUID") or derived_uid(
            "frame of reference", self.header.SeriesInstanceUID
        )

    def reference(self, number: int) -> Dataset:
        """A reference to the image of a slice (PS3.3, table 10-3)."""
        frame, item = self.frames[number], Dataset()
        item.ReferencedSOPClassUID = frame.object.header.SOPClassUID
        item.ReferencedSOPInstanceUID = frame.object.header.SOPInstanceUID
        if self.multiframe:
            item.ReferencedFrameNumber = frame.number + 1
        return item

    def identify(self, dataset: Dataset) -> None:
        """Write patient and study into ``dataset``, in UTF-8; values that the standard forbids are left empty."""
        dataset.SpecificCharacterSet = "ISO_IR 192"
        dataset.StudyInstanceUID = self.header.StudyInstanceUID
        for keyword in IDENTITY:
            setattr(dataset, keyword, allowed_value(self.header, keyword) or "")


def origin(segmentation: Segmentation, where: Path) -> Origin:
    """The images of a Segmentation.

    Raises:
        OutputError: it was not made from DICOM, or does not lie on the grid of its images.
    """
    source = segmentation.source
    if source is None or source.format != "dicom":
        raise OutputError(
            "DICOM refers to the images that were segmented, and these are "
            + ("unknown" if source is None else f"no DICOM but {source.format}"),
            where=where,
            fix="segment the DICOM series itself, or write another format (--format nifti, png, tiff)",
        )
    order = source.details["frames"]
    with quiet():
        objects = [frames_of(DicomObject(source.paths[0], None, header)) for header in source.details["headers"]]
    frames = tuple(
        own[number] for own, number in zip(objects * (len(order) if len(objects) == 1 else 1), order, strict=True)
    )
    header = frames[0].object.header
    shape = (*(len(frames),) * (segmentation.affine is not None), int(header.Rows), int(header.Columns))
    positions = rows = columns = affine = None
    normal = 1.0
    if segmentation.affine is not None:
        orientation = numbers(frames[0], "ImageOrientationPatient", 6)
        down, along = numbers(frames[0], "PixelSpacing", 2)
        columns, rows = orientation[:3] * along, orientation[3:] * down
        positions = np.stack([numbers(frame, "ImagePositionPatient", 3) for frame in frames])
        affine = np.eye(4)
        affine[:3, :3] = np.stack([segmentation.affine[:3, 0], rows, columns], axis=1)
        if len(frames) > 1:
            affine[:3, 0] = (positions[-1] - positions[0]) / (len(frames) - 1)
        affine[:3, 3] = positions[0]
        across = np.cross(orientation[:3], orientation[3:])
        normal = abs(float(affine[:3, 0] @ across / np.linalg.norm(across)))
    difference = geometry_difference(segmentation.array.shape, segmentation.affine, shape, affine)
    if difference is not None:
        raise OutputError(
            f"the label map does not lie on the grid of its images: {difference}",
            where=where,
            fix="put it back onto the grid of the images, or write NIfTI (--format nifti)",
        )
    return Origin(frames, positions, rows, columns, normal, where)


def numbers(frame: Frame, keyword: str, count: int) -> np.ndarray:
    """An attribute of a placed image, as float64."""
    value = frame.numbers(keyword, count)
    assert value is not None  # the image was read with it
    return value

"""Frames of objects: what a header says about one image plane, wherever it says so.

Classic objects hold one frame, described by their attributes. Multi-frame objects describe each frame in functional
groups, per frame or shared by all (DICOM PS3.3, C.7.6.16). The code above this module treats both in the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom

from cpfnet.errors import FormatError, redacted_message
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.dicom.image.datasets import DicomObject

_GROUPS = {  # the functional group of PS3.3, C.7.6.16.2, C.8.13, C.8.15 and C.8.20.3 that holds an attribute
    "ImagePositionPatient": ("PlanePositionSequence",),
    "ImageOrientationPatient": ("PlaneOrientationSequence",),
    "PixelSpacing": ("PixelMeasuresSequence",),
    "SliceThickness": ("PixelMeasuresSequence",),
    "SpacingBetweenSlices": ("PixelMeasuresSequence",),
    "RescaleSlope": ("PixelValueTransformationSequence",),
    "RescaleIntercept": ("PixelValueTransformationSequence",),
    "RescaleType": ("PixelValueTransformationSequence",),
    "StackID": ("FrameContentSequence",),
    "TemporalPositionIndex": ("FrameContentSequence",),
    "FrameAcquisitionNumber": ("FrameContentSequence",),
    "EffectiveEchoTime": ("MREchoSequence",),
    "DiffusionBValue": ("MRDiffusionSequence",),
    "InversionTimes": ("MRModifierSequence",),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence",),
    "FrameType": ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence", "PETFrameTypeSequence"),
    "NominalPercentageOfCardiacPhase": ("CardiacSynchronizationSequence",),
    "KVP": ("CTXRayDetailsSequence",),
    "ConvolutionKernel": ("CTReconstructionSequence",),
    "ReferencedSegmentNumber": ("SegmentIdentificationSequence",),
}


@dataclass(frozen=True)
class Frame:
    """One plane of an object.

    Attributes:
        object: the object of this plane.
        number: from 0; always 0 in classic objects.
        groups: the datasets in which its attributes are looked up, first to last.
    """

    object: DicomObject
    number: int
    groups: tuple[pydicom.Dataset, ...]

    @property
    def name(self) -> str:
        """File, InstanceNumber and frame (from 1, as in DICOM), for messages."""
        return f"{self.object.name}, frame {self.number + 1}" if len(self.groups) > 1 else self.object.name

    def value(self, keyword: str) -> Any:
        """An attribute, None where it is absent or empty.

        Raises:
            FormatError: it is damaged.
        """
        try:
            for group in self.groups:
                for place in [group, *(item for s in _GROUPS.get(keyword, ()) for item in group.get(s) or ())]:
                    value = place.get(keyword)
                    if value is not None and value != "":
                        return value
        except Exception as error:  # pydicom decodes on access, and raises anything on damaged values
            raise FormatError(
                f"{keyword} of {self.name} cannot be understood: {redacted_message(error)}",
                fix="copy or export the series again",
            ) from error
        return None

    def numbers(self, keyword: str, count: int) -> np.ndarray | None:
        """An attribute of ``count`` finite numbers as float64, None where it is absent or empty.

        Raises:
            FormatError: it is damaged, or holds another count of numbers.
        """
        value = self.value(keyword)
        if value is None:
            return None
        try:
            array = np.array(value, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError, OverflowError):
            array = np.array([math.nan])
        if array.size != count or not np.isfinite(array).all():
            raise FormatError(
                f"{keyword} of {self.name} is {str(value)[:80]!r}; expected {count} finite number{'s' * (count > 1)}",
                fix="export the series again, or correct the attribute",
            )
        return array

    def number_or(self, keyword: str, default: float) -> float:
        """An attribute of one finite number, or ``default`` where it is absent or empty."""
        array = self.numbers(keyword, 1)
        return default if array is None else float(array[0])


def frames_of(item: DicomObject) -> list[Frame]:
    """The frames of an object, in stored order.

    Raises:
        FormatError: it promises another number of frames than it describes; or frames of a multi-frame object have no
            functional groups, which hold their positions (cine loops).
    """
    header = item.header
    count = text(header, "NumberOfFrames") or "1"
    try:
        shared = header.get("SharedFunctionalGroupsSequence") or ()
        each = header.get("PerFrameFunctionalGroupsSequence") or ()
    except Exception as error:
        raise FormatError(
            f"functional groups of {item.name} cannot be understood: {redacted_message(error)}"
        ) from error
    if not each:
        if count != "1":
            raise FormatError(
                f"{item.name} holds {count} frames and no position for each: a film, or a volume without geometry",
                fix="export single images, or a multi-frame object with functional groups",
            )
        return [Frame(item, 0, (*shared, header))]
    if count != str(len(each)):
        raise FormatError(
            f"{item.name} promises {count} frames (NumberOfFrames) and describes {len(each)}",
            fix="copy or export it again",
        )
    return [Frame(item, number, (group, *shared, header)) for number, group in enumerate(each)]

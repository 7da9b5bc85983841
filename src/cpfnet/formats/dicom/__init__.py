"""DICOM: image series, segmentations and structure sets, in folders, ZIP archives and files."""

from cpfnet.formats.dicom.image.datasets import is_archive
from cpfnet.formats.dicom.image.read import read, read_header
from cpfnet.formats.dicom.image.series import Scan, Series, modality_of, one_series, scan
from cpfnet.formats.dicom.image.summary import LabelObject
from cpfnet.formats.file_types import is_reference

__all__ = [
    "LabelObject",
    "Scan",
    "Series",
    "is_archive",
    "is_reference",
    "modality_of",
    "one_series",
    "read",
    "read_header",
    "scan",
]

"""DICOM: image series, segmentations and structure sets, in folders, ZIP archives and files."""

from cpfnet.formats.dicom.objects import is_archive
from cpfnet.formats.dicom.read import read, read_header
from cpfnet.formats.dicom.series import Scan, Series, modality_of, one_series, scan
from cpfnet.formats.dicom.summary import LabelObject
from cpfnet.formats.files import is_reference

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

"""Files ↔ `Image` and `Segmentation`: one module for each family of formats, chosen by suffix.

Everything is read as ``(channels, [depth,] height, width)``: pictures (PNG, TIFF, JPEG, BMP, GIF) without millimetres,
stacks of them with spacing alone, NIfTI, NRRD, MetaImage and DICOM with their affine in LPS. Files are written
completely, under a temporary name first, or not at all.
"""

from cpfnet.formats.file_types import (
    DICOM_SUFFIXES,
    RASTER_SUFFIXES,
    VOLUME_SUFFIXES,
    Header,
    exists,
    is_dicom,
    stem,
    suffix_of,
)
from cpfnet.formats.reading import files_of, read, read_header, read_label, read_map
from cpfnet.formats.writing import OutputFormat, write, write_image, write_map

__all__ = [
    "IMAGE_SUFFIXES",
    "Header",
    "OutputFormat",
    "exists",
    "files_of",
    "is_dicom",
    "read",
    "read_header",
    "read_label",
    "read_map",
    "stem",
    "suffix_of",
    "write",
    "write_image",
    "write_map",
]

IMAGE_SUFFIXES = (*RASTER_SUFFIXES, *VOLUME_SUFFIXES, *DICOM_SUFFIXES)
"""Suffixes that `read` accepts, in lower case; upper case is accepted, too. DICOM files need no suffix; their folders
and ZIP archives are read, too."""

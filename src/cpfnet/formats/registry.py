"""Which module reads and writes a suffix; each is imported when it is first needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cpfnet.formats.file_types import (
    META_SUFFIXES,
    NIFTI_SUFFIXES,
    NRRD_SUFFIXES,
    RASTER_SUFFIXES,
    is_dicom,
    is_stack,
    suffix_of,
)


def reader(path: Path) -> Any:
    """The module that reads ``path``."""
    if is_stack(path):
        from cpfnet.formats import stack

        return stack
    return family("" if is_dicom(path) else suffix_of(path))


def family(suffix: str) -> Any:
    """The module that reads and writes ``suffix``, imported when it is first needed. Unknown suffixes are DICOM."""
    if suffix in NIFTI_SUFFIXES:
        from cpfnet.formats import nifti

        return nifti
    if suffix in NRRD_SUFFIXES:
        from cpfnet.formats import nrrd

        return nrrd
    if suffix in META_SUFFIXES:
        from cpfnet.formats import metaimage

        return metaimage
    if suffix in RASTER_SUFFIXES:
        from cpfnet.formats import raster

        return raster
    from cpfnet.formats import dicom

    return dicom


def writer(suffix: str) -> Any:
    """The module that writes ``suffix``."""
    if suffix == ".seg.nrrd":
        from cpfnet.formats import seg_nrrd

        return seg_nrrd
    if suffix == ".seg.dcm":
        from cpfnet.formats.dicom.seg import write as write_seg

        return write_seg
    if suffix == ".rtstruct.dcm":
        from cpfnet.formats.dicom.rtstruct import write as write_rtstruct

        return write_rtstruct
    return family(suffix)

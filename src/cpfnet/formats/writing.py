"""From a `Segmentation`, `Image` or map to a file: in which format, under which suffix, completely or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from cpfnet.errors import OutputError
from cpfnet.files import replacing
from cpfnet.formats.file_types import DICOM_SUFFIXES, JPEG_SUFFIXES, RASTER_SUFFIXES, stem, suffix_of
from cpfnet.formats.registry import family, writer
from cpfnet.image import Image, Segmentation

OutputFormat = Literal[
    "same", "nifti", "nrrd", "seg-nrrd", "mha", "png", "tiff", "dicom-seg", "dicom-labelmap", "rtstruct"
]

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "nifti": (".nii.gz", ".nii"),
    "nrrd": (".nrrd",),
    "seg-nrrd": (".seg.nrrd",),
    "mha": (".mha",),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "dicom-seg": (".seg.dcm",),
    "dicom-labelmap": (".seg.dcm",),
    "rtstruct": (".rtstruct.dcm",),
}
_WRITTEN_INSTEAD = {
    **dict.fromkeys((*JPEG_SUFFIXES, ".webp", ".jp2", ".j2k"), ".png"),
    **dict.fromkeys((*DICOM_SUFFIXES, ".zip"), ".seg.dcm"),
    ".hdr": ".nii.gz",
    ".nhdr": ".nrrd",
    ".mhd": ".mha",
}
"""Replacements of suffixes that label maps cannot have: JPEG and WebP change values, DICOM images are no
segmentations, and a header whose voxels lie beside it would be two files."""


def mask_suffix(image_suffix: str, format: OutputFormat) -> str:
    """Suffix of the label map of an image: of its own format, else of the one that is asked for."""
    return _WRITTEN_INSTEAD.get(image_suffix, image_suffix) if format == "same" else _SUFFIXES[format][0]


def map_suffix(suffix: str) -> str:
    """Suffix of a file of float32 planes beside a label map with this one, which may hold integers only."""
    if suffix in (".rtstruct.dcm", ".seg.nrrd"):
        return {".rtstruct.dcm": ".seg.dcm", ".seg.nrrd": ".nrrd"}[suffix]
    return ".tif" if suffix in RASTER_SUFFIXES and suffix not in (".tif", ".tiff") else suffix


def _target(segmentation: Segmentation, path: Path, format: OutputFormat, *, floats: bool = False) -> Path:
    """``path`` with the suffix of the format to be written."""
    source, named = segmentation.source, suffix_of(path)
    if format == "same" and named:
        suffix = mask_suffix(named, format)
    elif format == "same" and source is not None and source.format == "dicom":
        suffix = ".seg.dcm"
    elif format == "same" and source is not None and source.format in ("nifti", "nrrd", "metaimage"):
        suffix = mask_suffix(suffix_of(source.paths[0]), format)
    elif format == "same":
        own = source.details.get("suffix", "") if source is not None else ""
        picture = segmentation.affine is None and segmentation.array.ndim == 2
        suffix = own or ".png" if picture else own if own in (".tif", ".tiff") else ".nii.gz"
    elif format not in _SUFFIXES:
        raise OutputError(f"unknown format {format!r}", where=path, fix=f"choose same, {', '.join(_SUFFIXES)}")
    else:
        kinds = _SUFFIXES[format]
        suffix = named if named in kinds else kinds[0]
    return path.with_name(stem(path) + (map_suffix(suffix) if floats else suffix))


def write(
    segmentation: Segmentation, path: Path | str, *, format: OutputFormat = "same", overwrite: bool = False
) -> Path:
    """Write a label map in the geometry of its source, value by value.

    Args:
        segmentation: its values must fit the format: 0…255 for BMP and GIF, 0…65535 for PNG and for volumes in TIFF, 32
            bits for pictures in TIFF and for NIfTI; packed colours become RGB.
        path: the file; its suffix is added, or replaced by the suffix of ``format``.
        format: ``"same"``: what the suffix of ``path`` says, or without one the format of the source (PNG for a JPEG,
            which would change the values). NIfTI keeps the source's shape, axis order, sform and qform; an image
            without millimetres becomes one slice with a pixel of 1 mm, upright in viewers. PNG can hold a volume of one
            slice, TIFF any volume, as a stack of ImageJ with the distances of its voxels, but no place in the patient;
            so is a volume of pictures written. ``"dicom-seg"`` (one binary segment a class;
            the default for DICOM), ``"dicom-labelmap"`` (one label map, which fewer viewers know) and ``"rtstruct"``
            (contours) need a DICOM source and refer to it. ``"seg-nrrd"`` is a segmentation of 3D Slicer, with the
            names and colours of the classes.
        overwrite: replace an existing file; the source image itself is never replaced.

    Returns:
        The file written.

    Raises:
        OutputError: values do not fit, the file exists, or it cannot be written; nothing is left behind.
    """
    target = _target(segmentation, Path(path), format)
    keep = segmentation.source.paths if segmentation.source is not None else ()
    with replacing(target, overwrite=overwrite, keep=keep) as temporary:
        if suffix_of(target) == ".seg.dcm":
            kind = "LABELMAP" if format == "dicom-labelmap" else "BINARY"
            writer(".seg.dcm").write(segmentation, temporary, kind=kind, where=target)
        else:
            writer(suffix_of(target)).write(segmentation, temporary, where=target)
    return target


def write_image(image: Image, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the pixels of an image, for other tools; nothing else of the source is written.

    Args:
        image: NIfTI, NRRD and MetaImage take any volume with an affine (channels along a fourth axis), rasters one grey
            channel or 8-bit RGB.
        path: ends in .nii, .nii.gz, .nrrd, .mha, .png (8 and 16 bits), .tif or .tiff.
        overwrite: replace an existing file; the image's own source is never replaced.

    Returns:
        The file written.

    Raises:
        OutputError: the format does not hold such an image, the file exists, or it cannot be written.
    """
    target = Path(path)
    if suffix_of(target) not in (".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif", ".tiff"):
        raise OutputError(
            f"images are not written as {target.suffix or 'files without suffix'}",
            where=target,
            fix="choose .nii.gz, .nii, .nrrd, .mha, .png or .tif",
        )
    with replacing(target, overwrite=overwrite, keep=() if image.source is None else image.source.paths) as temporary:
        family(suffix_of(target)).write_image(image, temporary, where=target)
    return target


def write_map(
    array: np.ndarray,
    segmentation: Segmentation,
    path: Path | str,
    *,
    names: Sequence[str] = (),
    format: OutputFormat = "same",
    overwrite: bool = False,
) -> Path:
    """Write probabilities or uncertainty as float32 in the geometry of ``segmentation``.

    Args:
        array: ``(planes, [depth,] height, width)``, or one plane without the first axis.
        segmentation: whose geometry and source it shares.
        path, format, overwrite: as in `write`; rasters are always TIFF, one page a plane. DICOM holds only
            probabilities of classes, as a fractional segmentation in steps of 1/255.
        names: one a plane; they become the descriptions of TIFF pages (NIfTI has no place for them).

    Returns:
        The file written.

    Raises:
        OutputError: as `write`; or the shapes do not fit.
    """
    target = _target(segmentation, Path(path), format, floats=True)
    array = np.asarray(array, dtype=np.float32)
    planes = array if array.ndim > segmentation.array.ndim else array[None]
    if planes.shape[1:] != segmentation.array.shape or len(planes) < 1 or (names and len(names) != len(planes)):
        raise OutputError(
            f"{len(names)} names and planes of shape {array.shape} do not fit a label map "
            f"of shape {segmentation.array.shape}",
            where=target,
        )
    labels = tuple(names) or tuple(f"plane {i}" for i in range(len(planes)))
    keep = segmentation.source.paths if segmentation.source is not None else ()
    with replacing(target, overwrite=overwrite, keep=keep) as temporary:
        writer(suffix_of(target)).write_map(planes, segmentation, temporary, labels, where=target)
    return target

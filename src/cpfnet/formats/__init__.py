"""Files ↔ `Image` and `Segmentation`: one module for each family of formats, chosen by suffix.

Everything is read as ``(channels, [depth,] height, width)``: rasters (PNG, TIFF, JPEG, BMP, GIF) without millimetres, NIfTI and DICOM
with their affine in LPS. Files are written whole, under a temporary name first, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cpfnet.errors import FormatError, OutputError
from cpfnet.files import replacing
from cpfnet.formats.files import (
    DICOM_SUFFIXES,
    NIFTI_SUFFIXES,
    RASTER_SUFFIXES,
    Header,
    check_dicom,
    check_readable,
    exists,
    is_dicom,
    suffix_of,
)
from cpfnet.formats.turning import turned
from cpfnet.image import Image, Segmentation, Source, geometry_difference
from cpfnet.planning import Labels

__all__ = [
    "IMAGE_SUFFIXES",
    "Header",
    "OutputFormat",
    "exists",
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

IMAGE_SUFFIXES = (*RASTER_SUFFIXES, *NIFTI_SUFFIXES, *DICOM_SUFFIXES)
"""Names that `read` accepts, in lower case; upper case is accepted too. DICOM files need none; their folders and ZIP archives are read, too."""

OutputFormat = Literal["same", "nifti", "png", "tiff", "dicom-seg", "dicom-labelmap", "rtstruct"]

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "nifti": (".nii.gz", ".nii"),
    "png": (".png",),
    "tiff": (".tif", ".tiff"),
    "dicom-seg": (".seg.dcm",),
    "dicom-labelmap": (".seg.dcm",),
    "rtstruct": (".rtstruct.dcm",),
}
_WRITTEN_INSTEAD = {".jpg": ".png", ".jpeg": ".png"} | dict.fromkeys((*DICOM_SUFFIXES, ".zip"), ".seg.dcm")
"""Of suffixes that label maps do not have: JPEG would change the values, images are no segmentations."""

Paths = Path | str | Sequence[Path | str]


def stem(path: Path | str) -> str:
    """The file name without its image suffix (.nii.gz counts as one); other names stay whole."""
    name = Path(path).name
    return name[: len(name) - len(suffix_of(name))]


def _family(suffix: str) -> Any:
    """The module that reads and writes ``suffix``; loaded when first needed. What has no known one is DICOM."""
    if suffix in NIFTI_SUFFIXES:
        from cpfnet.formats import nifti

        return nifti
    if suffix in RASTER_SUFFIXES:
        from cpfnet.formats import raster

        return raster
    from cpfnet.formats import dicom

    return dicom


def _writer(suffix: str) -> Any:
    """The module that writes ``suffix``."""
    if suffix == ".seg.dcm":
        from cpfnet.formats.dicom import write_seg

        return write_seg
    if suffix == ".rtstruct.dcm":
        from cpfnet.formats.dicom import write_rtstruct

        return write_rtstruct
    return _family(suffix)


def _groups(paths: Paths) -> tuple[list[list[Path]], Any]:
    """What makes one image each (a file; all DICOM files of a series; a folder, archive or reference), and their family."""
    files = [Path(paths)] if isinstance(paths, (Path, str)) else [Path(p) for p in paths]
    if not files:
        raise FormatError("no file was given", mend="give at least one image file")
    for file in files:
        check_dicom(file) if is_dicom(file) else check_readable(file)
    families = [_family("" if is_dicom(file) else suffix_of(file)) for file in files]
    for file, family in zip(files, families, strict=True):
        if family is not families[0]:
            raise FormatError(
                f"is of another kind than {files[0].name}: channels of one image must all be rasters, all NIfTI or all DICOM",
                where=file,
                mend="convert one of them",
            )
    instances = all(is_dicom(file) and file.is_file() and suffix_of(file) != ".zip" for file in files)
    return [files] if instances else [[file] for file in files], families[0]


def _agree(first: Image | Header, other: Image | Header, files: tuple[Path, Path]) -> None:
    difference = geometry_difference(first.shape, first.affine, other.shape, other.affine)
    if difference is not None:
        raise FormatError(
            f"differs from {files[0].name}, another channel of the same image: {difference}",
            where=files[1],
            mend="resample one onto the other, or correct the pairing of channels",
        )


def _channel_names(parts: Sequence[Image | Header]) -> tuple[str, ...]:
    """Names of concatenated channels; those of single files would repeat, so several are numbered."""
    names = tuple(name for part in parts for name in part.channels)
    return names if len(parts) == 1 else tuple(f"channel{i}" for i in range(len(names)))


def read(paths: Paths) -> Image:
    """Read an image.

    Args:
        paths: one file, or several whose channels are concatenated in this order. DICOM: a folder, a ZIP archive or a file
            that holds one image series, or ``FOLDER/series=UID`` (the end of the UID is enough); several files are the
            instances of one series, several folders, archives or references are channels.

    Returns:
        ``(channels, height, width)`` for rasters and DICOM images without a position, ``(channels, depth, height, width)``
        for NIfTI and DICOM series; values as stored, after the slope and intercept of NIfTI and DICOM (HU for CT). Several
        files of different dtypes take their common one.

    Raises:
        FormatError: a file is missing, not what its name says, damaged or of a kind that is not read; the geometries of
            several files differ by more than 1e-3 of a voxel; or DICOM files hold several series, or make no volume.
    """
    groups, family = _groups(paths)
    images: list[Image] = []
    for group in groups:
        images.append(family.read(*group))
        _agree(images[0], images[-1], (groups[0][0], group[0]))
    if len(images) == 1:
        return images[0]
    source = images[0].source
    assert source is not None
    files = [path for group in groups for path in group]
    notes = dict.fromkeys(note for image in images if image.source is not None for note in image.source.notes)
    return Image(
        np.concatenate([image.array for image in images]),
        images[0].affine,
        _channel_names(images),
        images[0].modality,
        Source(tuple(files), source.format, source.details, tuple(notes)),
    )


def read_label(path: Path | str, image: Image | Header | None = None, labels: Labels | None = None) -> Image:
    """Read a label file: ``(1, …)`` values, or ``(3, …)`` 8-bit colours.

    Palette images give their colours, never their indices; alpha is dropped; 1-bit images give 0 and 255. DICOM
    segmentations and structure sets give numbers with `Image.meanings`, on the grid of their image.

    Args:
        path: the file.
        image: the image that is labelled, read or only its header. Structure sets need it; a DICOM segmentation without it
            comes on its own grid. For DICOM images the axes of labels in other formats are turned to theirs, where both have the
            same voxels; other formats do not look at it.
        labels: DICOM: read only structures that mean one of its classes; its `fraction` is the threshold of
            fractional segmentations.

    Raises:
        FormatError: as `read`; or the file holds neither one value nor one RGB colour a pixel.
    """
    path = Path(path)
    if is_dicom(path):
        from cpfnet.formats.dicom import labels as dicom_labels

        check_dicom(path)
        return dicom_labels.read_label(path, image, labels)
    label = read(path)
    if label.channels != ("red", "green", "blue") and len(label.array) != 1:
        raise FormatError(
            f"holds {len(label.array)} channels; a label has one value, or one RGB colour, a pixel",
            where=path,
            mend="merge the planes of a one-hot label into one map of integers; give overlapping regions values of their own",
        )
    if image is not None and image.source is not None and image.source.format == "dicom":
        return turned(label, image)
    return label


def read_header(paths: Paths) -> Header:
    """What `read` would give, without decoding pixels.

    Raises:
        FormatError: as `read`, as far as the header tells.
    """
    groups, family = _groups(paths)
    headers: list[Header] = []
    for group in groups:
        headers.append(family.read_header(*group))
        _agree(headers[0], headers[-1], (groups[0][0], group[0]))
    first = headers[0]
    dtype = np.result_type(*(header.dtype for header in headers))
    return Header(first.shape, first.affine, _channel_names(headers), dtype, first.modality, first.source)


def _target(segmentation: Segmentation, path: Path, format: OutputFormat, *, floats: bool = False) -> Path:
    """``path`` with the suffix of the format that is to be written."""
    source, named = segmentation.source, suffix_of(path)
    if format == "same" and named:
        suffix = _WRITTEN_INSTEAD.get(named, named)
    elif format == "same" and source is not None and source.format == "dicom":
        suffix = ".seg.dcm"
    elif format == "same" and source is not None and source.format == "nifti":
        suffix = suffix_of(source.paths[0])
    elif format == "same":
        raster = segmentation.affine is None and segmentation.array.ndim == 2
        details = source.details if source is not None else {}
        suffix = details.get("suffix", ".png") if raster else ".nii.gz"
    elif format not in _SUFFIXES:
        raise OutputError(f"unknown format {format!r}", where=path, mend=f"choose same, {', '.join(_SUFFIXES)}")
    else:
        kinds = _SUFFIXES[format]
        suffix = named if named in kinds else kinds[0]
    if floats and suffix == ".rtstruct.dcm":
        suffix = ".seg.dcm"
    if floats and suffix in RASTER_SUFFIXES and suffix not in (".tif", ".tiff"):
        suffix = ".tif"
    return path.with_name(stem(path) + suffix)


def write(
    segmentation: Segmentation, path: Path | str, *, format: OutputFormat = "same", overwrite: bool = False
) -> Path:
    """Write a label map in the geometry of its source, value by value.

    Args:
        segmentation: values fit the format: 0…255 for BMP and GIF, 0…65535 for PNG, 32 bits for TIFF and NIfTI; packed
            colours become RGB.
        path: the file; its suffix is added, or replaced by the one of ``format``.
        format: ``"same"``: what the suffix of ``path`` says, or without one the format of the source (PNG for a JPEG,
            which would change the values). NIfTI keeps the source's shape, axis order, sform and qform; an image without
            millimetres becomes one slice with a pixel for 1 mm, upright in viewers. PNG takes a volume of one slice, TIFF any: a
            page a slice, without millimetres. ``"dicom-seg"`` (a binary segment a class; the default for DICOM), ``"dicom-labelmap"`` (one
            label map, which fewer viewers know) and ``"rtstruct"`` (contours) need a DICOM source and refer to it.
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
            _writer(".seg.dcm").write(segmentation, temporary, kind=kind, where=target)
        else:
            _writer(suffix_of(target)).write(segmentation, temporary, where=target)
    return target


def write_image(image: Image, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the pixels of an image, for other tools; no other content of the source goes along.

    Args:
        image: NIfTI takes any volume with an affine (channels along a fourth axis), rasters one grey channel or 8-bit RGB.
        path: ends in .nii, .nii.gz, .png (8 and 16 bits), .tif or .tiff.
        overwrite: replace an existing file; the image's own source is never replaced.

    Returns:
        The file written.

    Raises:
        OutputError: the format does not hold such an image, the file exists, or it cannot be written.
    """
    target = Path(path)
    if suffix_of(target) not in (".nii", ".nii.gz", ".png", ".tif", ".tiff"):
        raise OutputError(
            f"images are not written as {target.suffix or 'files without suffix'}",
            where=target,
            mend="choose .nii.gz, .nii, .png or .tif",
        )
    with replacing(target, overwrite=overwrite, keep=() if image.source is None else image.source.paths) as temporary:
        _family(suffix_of(target)).write_image(image, temporary, where=target)
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
        path, format, overwrite: as in `write`; rasters are always TIFF, a page a plane. DICOM holds probabilities of classes
            only, as a fractional segmentation in steps of 1/255.
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
            f"{len(names)} names and planes of shape {array.shape} do not fit a label map of shape {segmentation.array.shape}",
            where=target,
        )
    labels = tuple(names) or tuple(f"plane {i}" for i in range(len(planes)))
    keep = segmentation.source.paths if segmentation.source is not None else ()
    with replacing(target, overwrite=overwrite, keep=keep) as temporary:
        _writer(suffix_of(target)).write_map(planes, segmentation, temporary, labels, where=target)
    return target


def read_map(path: Path | str, image: Image | Header | None = None) -> np.ndarray:
    """What `write_map` wrote.

    Args:
        path: the file.
        image: as of `read_label`.

    Returns:
        float32 ``(planes, depth, height, width)`` from NIfTI and DICOM, ``(pages, height, width)`` from TIFF and of DICOM
        pictures.

    Raises:
        FormatError: as `read`.
    """
    ((file,),), family = _groups(path)
    if is_dicom(file):
        from cpfnet.formats.dicom import fractions

        return fractions.read_map(file, image)
    if suffix_of(file) in NIFTI_SUFFIXES and image is not None and image.source and image.source.format == "dicom":
        return np.asarray(turned(family.read(file), image).array, dtype=np.float32)
    return np.asarray(family.read_map(file), dtype=np.float32)

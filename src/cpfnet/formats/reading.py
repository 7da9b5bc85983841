"""From paths to an `Image`, label, header or map: which files make one image, and which module reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cpfnet.contour_gaps import interpolate_gaps
from cpfnet.errors import FormatError
from cpfnet.formats.file_types import (
    NRRD_SUFFIXES,
    VOLUME_SUFFIXES,
    Header,
    check_dicom,
    check_readable,
    is_dicom,
    is_listing,
    is_stack,
    suffix_of,
)
from cpfnet.formats.lossy import refuse_lossy_classes
from cpfnet.formats.registry import reader
from cpfnet.formats.reorient import reorient
from cpfnet.image import RGB, Image, Source, geometry_difference
from cpfnet.label_values import correct_values
from cpfnet.planning import Labels

Paths = Path | str | Sequence[Path | str]


def _groups(paths: Paths) -> tuple[list[list[Path]], Any]:
    """The paths that make one image each, and their family of formats.

    One image is a file, all DICOM files of a series, or a folder, archive or reference.
    """
    files = [Path(paths)] if isinstance(paths, (Path, str)) else [Path(p) for p in paths]
    if not files:
        raise FormatError("no file was given", fix="give at least one image file")
    for file in files:
        check_dicom(file) if is_dicom(file) else check_readable(file)
    families = [reader(file) for file in files]
    for file, module in zip(files, families, strict=True):
        if module is not families[0]:
            raise FormatError(
                f"is of another kind than {files[0].name}: channels of one image must all be of one format",
                where=file,
                fix="convert one of them",
            )
    instances = all(is_dicom(file) and file.is_file() and suffix_of(file) != ".zip" for file in files)
    return [files] if instances else [[file] for file in files], families[0]


def _agree(first: Image | Header, other: Image | Header, files: tuple[Path, Path]) -> None:
    difference = geometry_difference(first.shape, first.affine, other.shape, other.affine)
    if difference is not None:
        raise FormatError(
            f"differs from {files[0].name}, another channel of the same image: {difference}",
            where=files[1],
            fix="resample one onto the other, or correct the pairing of channels",
        )


def _channel_names(parts: Sequence[Image | Header]) -> tuple[str, ...]:
    """Names of concatenated channels; those of single files would repeat, so the channels of several are numbered."""
    names = tuple(name for part in parts for name in part.channels)
    return names if len(parts) == 1 else tuple(f"channel{i}" for i in range(len(names)))


def read(paths: Paths) -> Image:
    """Read an image.

    Args:
        paths: one file, or several whose channels are concatenated in this order. DICOM: a folder, a ZIP archive or a
            file that holds one image series, or ``FOLDER/series=UID`` (the end of the UID is enough); several files are
            the instances of one series, several folders, archives or references are channels. A folder of numbered
            pictures is a volume as ``FOLDER/stack=5x0.8x0.8`` (mm between slices, rows and columns).

    Returns:
        ``(channels, height, width)`` for rasters and DICOM images without a position,
        ``(channels, depth, height, width)`` for volumes (NIfTI, NRRD, MetaImage) and DICOM series; values as stored,
        after the slope and intercept of NIfTI and DICOM (HU for CT). Several files of different dtypes get their common
        dtype.

    Raises:
        FormatError: a file is missing, not what its name says, damaged or of an unsupported kind; the geometries of
            several files differ by more than 1e-3 of a voxel; or DICOM files hold several series, or make no volume.
    """
    groups, module = _groups(paths)
    images: list[Image] = []
    for group in groups:
        images.append(module.read(*group))
        _agree(images[0], images[-1], (groups[0][0], group[0]))
    if len(images) == 1:
        return images[0]
    source = images[0].source
    assert source is not None
    files = [path for group in groups for path in group]
    warnings = dict.fromkeys(
        warning for image in images if image.source is not None for warning in image.source.warnings
    )
    return Image(
        np.concatenate([image.array for image in images]),
        images[0].affine,
        _channel_names(images),
        images[0].modality,
        Source(tuple(files), source.format, source.details, tuple(warnings)),
    )


def read_label(path: Path | str, image: Image | Header | None = None, labels: Labels | None = None) -> Image:
    """Read a label file: ``(1, …)`` values, or ``(3, …)`` 8-bit colours.

    Palette images give their colours, never their indices; alpha is dropped; 1-bit images give 0 and 255. DICOM
    segmentations and structure sets, and segmentations of 3D Slicer, give numbers with `Image.meanings`, on the grid of
    their image; so does a folder of masks, each called after its structure. Of a DICOM image series its values are the
    labels.

    Args:
        path: the file, or such a folder.
        image: the image of the label, or only its header. Structure sets need it; a DICOM segmentation without it is
            read on its own grid. The axes of labels in other formats are turned to the image's, if both have the same
            voxels; nothing is interpolated.
        labels: where structures have names: read only structures that mean one of its classes; its `fraction` is the
            threshold of fractional segmentations. Other formats: two colours, nearly black and white, become the values
            that it names. All: with `interpolate_contours`, the slices that a structure skips are filled.

    Raises:
        FormatError: as `read`; or the file holds neither one value nor one RGB colour a pixel, or holds
            classes in JPEG.
    """
    path = Path(path)
    if is_listing(path) or os.path.isdir(path):  # noqa: PTH112 (False, too, for what no path can be)
        from cpfnet.formats import structure_folder

        if structure_folder.is_structure_folder(path):
            return interpolate_gaps(structure_folder.read_label(path, image, labels), labels)
    if is_dicom(path):
        from cpfnet.formats.dicom import read_label as dicom_labels

        check_dicom(path)
        label = dicom_labels.read_label(path, image, labels)
        if label.meanings is not None:
            return interpolate_gaps(label, labels)
        return _numbers(label, path, image, labels)
    if suffix_of(path) in NRRD_SUFFIXES:
        from cpfnet.formats import seg_nrrd

        check_readable(path)
        if seg_nrrd.is_segmentation(path):
            return interpolate_gaps(seg_nrrd.read_label(path, image, labels), labels)
    return _numbers(read(path), path, image, labels)


def _numbers(label: Image, path: Path, image: Image | Header | None, labels: Labels | None) -> Image:
    """A label of values or colours, as `read_label` gives it."""
    if label.channels != RGB and len(label.array) != 1:
        raise FormatError(
            f"holds {len(label.array)} channels; a label has one value, or one RGB colour, a pixel",
            where=path,
            fix="merge the planes of a one-hot label into one map of integers; "
            "give overlapping regions values of their own",
        )
    for picture, file in _pictures(label):
        refuse_lossy_classes(picture, file, labels)
    label = correct_values(label, labels)
    if image is not None:
        label = _turned_to(label, image)
    return interpolate_gaps(label, labels)


def _pictures(label: Image) -> Iterator[tuple[Image, Path]]:
    """The pictures that make a label, with their files: itself, or the slices of a stack."""
    assert label.source is not None
    if label.source.format != "raster" or label.array.ndim == 3:
        yield label, label.source.paths[0]
        return
    files = label.source.paths
    for index in range(label.shape[0]):
        yield Image(label.array[:, index], channels=label.channels), files[min(index, len(files) - 1)]


def _turned_to(label: Image, image: Image | Header) -> Image:
    """The label with its axes along the image's; a message says so where that is not the rule, as it is for DICOM."""
    turned = reorient(label, image)
    if turned is label or turned.source is None or (image.source is not None and image.source.format == "dicom"):
        return turned
    warning = "its axes run otherwise than its image's, in the same voxels: turned to them"
    return replace(turned, source=replace(turned.source, warnings=(*turned.source.warnings, warning)))


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that make an image or label of one path: it; of a header its voxels, too; those that it stands for.

    Raises:
        FormatError: the header cannot be read.
    """
    if is_listing(path):
        from cpfnet.formats.structure_folder import masks_in

        return tuple(part for mask in masks_in(path).values() for part in files_of(mask))
    if suffix_of(path) in VOLUME_SUFFIXES or is_stack(path):
        check_readable(path)
        return tuple(reader(path).files(path))
    return (path,)


def read_header(paths: Paths) -> Header:
    """The header that `read` would give, without decoding pixels.

    Raises:
        FormatError: as `read`, if the header shows the problem.
    """
    groups, module = _groups(paths)
    headers: list[Header] = []
    for group in groups:
        headers.append(module.read_header(*group))
        _agree(headers[0], headers[-1], (groups[0][0], group[0]))
    first = headers[0]
    dtype = np.result_type(*(header.dtype for header in headers))
    return Header(first.shape, first.affine, _channel_names(headers), dtype, first.modality, first.source)


def read_map(path: Path | str, image: Image | Header | None = None) -> np.ndarray:
    """The planes that `write_map` wrote.

    Args:
        path: the file.
        image: as for `read_label`.

    Returns:
        float32 ``(planes, depth, height, width)`` from volumes and DICOM, ``(pages, height, width)`` from TIFF and
        DICOM pictures.

    Raises:
        FormatError: as `read`.
    """
    ((file,),), module = _groups(path)
    if is_dicom(file):
        from cpfnet.formats.dicom import read_probabilities

        return read_probabilities.read_map(file, image)
    if suffix_of(file) in VOLUME_SUFFIXES and image is not None:
        return np.asarray(reorient(module.read(file), image).array, dtype=np.float32)
    return np.asarray(module.read_map(file), dtype=np.float32)

"""A folder of masks as one label: a file a structure, called after it, as TotalSegmentator writes them.

``segmentations/liver.nii.gz``, ``segmentations/spleen.nii.gz`` …: pixels that are not 0 belong to the structure of the
file's name. Structures may overlap, as in DICOM.

``FOLDER/files=case1_*.nii.gz`` stands for such files among others: the name of a structure is what * stands for. They
may be DICOM, too: then a file is one structure, however its segments are called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.file_types import (
    FILES,
    RASTER_SUFFIXES,
    VOLUME_SUFFIXES,
    Header,
    check_dicom,
    check_readable,
    is_dicom,
    is_listing,
    looks_like_dicom,
    stem,
    suffix_of,
)
from cpfnet.formats.overlap_map import OverlapMap, select_structures
from cpfnet.formats.registry import reader
from cpfnet.formats.reorient import reorient
from cpfnet.image import Image, Source, geometry_difference
from cpfnet.planning import Labels
from cpfnet.text import natural

_NO_MASKS = (".img", ".raw", ".zraw", ".gz", ".json", ".txt", ".csv", ".tsv", ".md", ".xml", ".html", ".log")
"""Voxels of a header beside them, and notes."""

_TURNED = "the axes of {} run otherwise than its image's, in the same voxels: turned to them"


def masks_in(folder: Path) -> dict[str, Path]:
    """Structure → its file, in natural order; hidden files do not count.

    Raises:
        FormatError: two files have one name but for suffix and case; or one holds several structures.
    """
    if is_listing(folder):
        before, _, after = folder.name.removeprefix(FILES).partition("*")
        files = [path for path in folder.parent.iterdir() if path.is_file() and _between(path.name, before, after)]
        return {_between(path.name, before, after): path for path in sorted(files, key=lambda one: natural(one.name))}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        if path.name.startswith(".") or suffix_of(path) not in (*VOLUME_SUFFIXES, *RASTER_SUFFIXES):
            continue
        if suffix_of(path) == ".seg.nrrd":
            raise FormatError(
                "is a segmentation of 3D Slicer, which names its own structures",
                where=path,
                fix="give it as the label itself, not its folder",
            )
        name = stem(path)
        if other := next((one for key, one in found.items() if key.lower() == name.lower()), None):
            raise FormatError(
                f"holds the structure {name!r} twice: {other.name} and {path.name}",
                where=folder,
                fix="leave one of the two files in it",
            )
        found[name] = path
    return found


def _between(name: str, before: str, after: str) -> str:
    """What stands between a beginning and an end, or ""; hidden files have nothing."""
    fits = name.startswith(before) and name.endswith(after) and not name.startswith(".")
    return name[len(before) : len(name) - len(after)] if fits else ""


def _unread(folder: Path) -> list[str]:
    """Warnings of files that may be masks, of kinds that are not read."""
    if is_listing(folder):
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    others = [path for path in files if not suffix_of(path) and path.suffix.lower() not in _NO_MASKS]
    return [f"{path.name} is of no format that is read: its structure counts as not drawn" for path in others]


def is_structure_folder(path: Path) -> bool:
    """Is it a folder with masks, and without DICOM objects, in it; or a reference to some?"""
    try:
        if is_listing(path):
            return bool(masks_in(path))
        files = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        others = [entry for entry in files if suffix_of(entry) not in (*VOLUME_SUFFIXES, *RASTER_SUFFIXES)]
        return len(others) < len(files) and not any(map(_begins_as_dicom, others))
    except OSError:
        return False


def _begins_as_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return looks_like_dicom(file.read(144))


def read_label(folder: Path, image: Image | Header | None = None, labels: Labels | None = None) -> Image:
    """Read the masks of a folder.

    Args:
        folder: as `is_structure_folder` knows it.
        image: that they were drawn on.
        labels: only structures that mean one of its classes are read.

    Returns:
        ``(1, [depth,] height, width)`` with `Image.meanings`.

    Raises:
        FormatError: a file cannot be read, holds more than one value beside 0, or lies on another grid than the first.
        DatasetError: no file is called as a class.
    """
    files = masks_in(folder)
    wanted = select_structures(dict(enumerate(files)), labels, folder)
    first: Image | None = None
    out: OverlapMap | None = None
    warnings = _unread(folder)
    for name in wanted.values():
        path = files[name]
        check_readable(path)
        stored = _dicom(path, image) if is_dicom(path) else reader(path).read(path)
        mask = stored if image is None else reorient(stored, image)
        if mask is not stored:
            warnings.append(_TURNED.format(path.name))
        warnings += mask.warnings
        first = first or mask
        if difference := geometry_difference(first.shape, first.affine, mask.shape, mask.affine):
            raise FormatError(
                f"does not lie on the grid of {files[next(iter(wanted.values()))].name}: {difference}",
                where=path,
                fix="give all masks of a folder one grid, that of their image",
            )
        out = out or OverlapMap((1, *mask.shape)[-3:], wanted.values())
        drawn = _drawn(mask, path).reshape((1, *mask.shape)[-3:])
        for index in np.flatnonzero(drawn.any(axis=(1, 2))):
            out.add(name, int(index), drawn[index])
    if first is None or out is None:
        raise FormatError("holds no mask", where=folder, fix="give a folder with a file for each structure")
    source = Source((folder,), "structures", warnings=tuple(dict.fromkeys(warnings)))
    return out.image(first.shape, first.affine, source)


def _dicom(path: Path, image: Image | Header | None) -> Image:
    """All that is drawn in a DICOM label."""
    from cpfnet.formats.dicom.read_label import read_label

    check_dicom(path)
    label = read_label(path, image)
    return label if label.meanings is None else replace(label, array=(label.array > 0).astype(np.uint8), meanings=None)


def _drawn(mask: Image, path: Path) -> np.ndarray:
    """Where a mask of one structure is not 0."""
    if len(mask.array) != 1:
        raise FormatError(
            f"holds {len(mask.array)} channels; the mask of a structure has one", where=path, fix="save it as grey"
        )
    drawn: np.ndarray = mask.array[0] != 0
    values = mask.array[0][drawn]
    if values.size and not values.min() == values.max():  # also NaN
        raise FormatError(
            f"holds values from {values.min()} to {values.max()}; where each structure has a file of its own, its mask "
            "has one value beside 0",
            where=path,
            fix="if it holds several structures, give it as the label itself, not its folder",
        )
    return drawn

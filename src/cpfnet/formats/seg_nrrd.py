"""Segmentations of 3D Slicer (.seg.nrrd): an NRRD of layers, and what its segments are called, in pairs of the header.

https://slicer.readthedocs.io/en/latest/developer_guide/modules/segmentations.html: each segment is one value in one
layer; segments of different layers may overlap. Files of Slicer before 4.11 give neither: the n-th layer is the n-th
segment. The grid may cover only a part of the image's.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpfnet.errors import FormatError, OutputError
from cpfnet.formats import nrrd
from cpfnet.formats.file_types import Header, decoding
from cpfnet.formats.overlap_map import OverlapMap, duplicate_names, select_structures
from cpfnet.formats.raw_voxels import planes
from cpfnet.formats.reorient import place_within
from cpfnet.image import Image, Segmentation, Source
from cpfnet.planning import Labels

_AGAIN = "save it again from Slicer, as a binary labelmap"
_DEFAULT = np.eye(4)[[2, 1, 0, 3]]  # of a picture without millimetres: one pixel becomes 1 mm, upright in viewers


@dataclass(frozen=True)
class Segment:
    """What the header says of a segment: its name, the layer and value of its voxels, and its colour (``#rrggbb``)."""

    name: str
    layer: int
    value: int
    colour: str | None = None


def segments(text: nrrd.Text, layers: int) -> dict[int, Segment]:
    """The segments of a header, by their numbers; none where it is a plain NRRD.

    Raises:
        FormatError: a segment has no place of its own.
    """
    keys = [match for key in text.pairs if (match := re.fullmatch(r"Segment(\d{1,6})_\w+", key))]
    found: dict[int, Segment] = {}
    for number in sorted({int(match[1]) for match in keys}):
        own = {
            key: text.pairs.get(f"Segment{number}_{key}", "").strip() for key in ("Name", "ID", "Layer", "LabelValue")
        }
        numbers = {
            "Layer": own["Layer"] or (str(number) if layers > 1 else "0"),
            "LabelValue": own["LabelValue"] or "1",
        }
        if wrong := next((word for word in numbers.values() if not re.fullmatch(r"\d{1,9}", word)), None):
            raise FormatError(f"gives segment {number} the layer or value {wrong!r:.40}", fix=_AGAIN)
        name = own["Name"] or own["ID"] or f"segment {number}"
        colour = _colour(text.pairs.get(f"Segment{number}_Color", ""))
        segment = Segment(name, int(numbers["Layer"]), int(numbers["LabelValue"]), colour)
        if segment.layer >= layers or not segment.value:
            raise FormatError(
                f"has {layers} layers; {name!r} has the value {segment.value} in layer {segment.layer}", fix=_AGAIN
            )
        same = [other.name for other in found.values() if (other.layer, other.value) == (segment.layer, segment.value)]
        if same:
            raise FormatError(f"gives the same voxels to {same[0]!r} and {name!r}", fix=_AGAIN)
        found[number] = segment
    return found


def _colour(words: str) -> str | None:
    """``0.5 0.68 0.5`` → ``#80ad80``; None where it is no colour."""
    try:
        parts = [float(word) for word in words.split()]
    except ValueError:
        return None
    return "#" + bytes(round(255 * part) for part in parts).hex() if _is_rgb(parts) else None


def _is_rgb(parts: list[float]) -> bool:
    return len(parts) == 3 and all(0 <= part <= 1 for part in parts)


def _count(found: nrrd.Layout) -> int:
    return 1 if found.channels is None else found.voxels.shape[found.channels]


def listed(path: Path) -> tuple[Segment, ...]:
    """Its segments; none where it is a plain NRRD, or cannot be read."""
    try:
        with decoding(path):
            text = nrrd.text_of(path)
            return tuple(segments(text, _count(nrrd.layout(path, text))).values())
    except FormatError:
        return ()


def is_segmentation(path: Path) -> bool:
    """Has the header of this NRRD any segment?"""
    with decoding(path):
        return any(re.match(r"Segment\d+_", key) for key in nrrd.text_of(path).pairs)


def read_label(path: Path, image: Image | Header | None = None, labels: Labels | None = None) -> Image:
    """Read the segments, on the grid of the image where that has the same voxels, else on their own.

    Args:
        path: the file.
        image: that they were drawn on.
        labels: only segments that mean one of its classes are read.

    Returns:
        ``(1, depth, height, width)`` with `Image.meanings`.

    Raises:
        FormatError: as `cpfnet.formats.read`; voxels belong to no segment, or lie outside the image; or the segments
            are fractional.
        DatasetError: no segment means any class.
    """
    with decoding(path):
        text = nrrd.text_of(path)
        found = nrrd.layout(path, text)
        named = segments(text, _count(found))
        representation = text.pairs.get("Segmentation_SourceRepresentation", "")
        if found.voxels.dtype.kind == "f" or "ractional" in representation or len(found.shape) != 3:
            raise FormatError("holds no binary labelmap of a volume", fix=_AGAIN)
        wanted = select_structures({number: segment.name for number, segment in named.items()}, labels)
        warnings = (*found.warnings, *duplicate_names(wanted.values(), "segments"))
        source = Source(tuple(dict.fromkeys((path, found.voxels.path))), "nrrd", warnings=warnings)
        layers = planes(found.voxels.read(), found.channels)
        if math.prod(found.shape) == 1 and not layers.any() and image is not None and len(image.shape) == 3:
            # Slicer saves a segmentation without a voxel so, since no NRRD can be empty.
            return OverlapMap(image.shape, wanted.values()).image(image.shape, image.affine, source)
        label = _overlaid(layers, named, wanted).image(found.shape, found.affine, source)
        return label if image is None else place_within(label, image)


def _overlaid(layers: np.ndarray, named: dict[int, Segment], wanted: dict[int, str]) -> OverlapMap:
    owners = {(segment.layer, segment.value): number for number, segment in named.items()}
    out = OverlapMap(layers.shape[1:], wanted.values())
    for layer, volume in enumerate(layers):
        for index, plane in enumerate(volume):
            low, high = int(plane.min()), int(plane.max())
            values = np.flatnonzero(np.bincount(plane.ravel())) if low >= 0 and high < 2**16 else np.unique(plane)
            for value in map(int, values):
                if value and (layer, value) not in owners:
                    raise FormatError(
                        f"has voxels of {value} in layer {layer}, which is the value of no segment", fix=_AGAIN
                    )
                if value and (number := owners[layer, value]) in wanted:
                    out.add(wanted[number], index, plane == value)
    return out


def write(segmentation: Segmentation, path: Path, *, where: Path) -> None:
    """The classes of a Segmentation as segments, all of them, in the Plan's order, with their names and colours.

    Where they cannot overlap they share one layer, in which each has the data set's own value if that is a number. A
    picture without millimetres becomes one slice with a pixel of 1 mm.

    Raises:
        OutputError: a volume has no affine; or its values are not those of its labels.
    """
    from scipy.ndimage import find_objects

    from cpfnet.formats.dicom.segment_descriptions import structures

    if segmentation.affine is None and segmentation.array.ndim == 3:
        size = "×".join(map(str, segmentation.array.shape))
        raise OutputError(
            f"a label map of {size} without an affine cannot be placed in the patient",
            where=where,
            fix="keep the `affine` of the image in the Segmentation",
        )
    classes = structures(segmentation, where)
    codes = classes.codes.reshape((1, *classes.codes.shape)[-3:])
    count = len(classes.items)
    values = list(range(1, count + 1))
    if classes.overlap:
        array: np.ndarray = np.moveaxis(classes.table[:, :count].T[:, codes], 0, -1).astype(np.uint8)
        places = [(layer, 1) for layer in range(count)]
    else:
        written = [c.written for c in segmentation.labels.classes] if segmentation.labels is not None else values
        if len({*written}) == count and all(isinstance(value, int) and 0 < value < 2**16 for value in written):
            values = [int(value) for value in written]
        owner = np.array([0, *values], np.uint8 if max(values) < 2**8 else np.uint16)
        lookup = owner[np.where(classes.table.any(axis=1), classes.table.argmax(axis=1) + 1, 0)]
        array = lookup[codes]
        places = [(0, value) for value in values]
    lines, boxes = [], find_objects(codes)  # of each code, from 1
    for number, (item, (layer, value)) in enumerate(zip(classes.items, places, strict=True)):
        own = [box for code, box in enumerate(boxes, start=1) if box is not None and classes.table[code, number]]
        terms = "~".join(f"{code.scheme}^{code.value}^{code.meaning}" for code in (item.category, item.type))
        entry = (
            f"Segmentation category and type - DICOM master list~{terms}~^^~Anatomic codes - DICOM master list~^^~^^"
        )
        pairs = {
            "Color": " ".join(f"{part / 255:.6f}" for part in item.rgb),
            "ColorAutoGenerated": "0",
            "Extent": _extent(own),
            "ID": f"Segment_{number + 1}",
            "LabelValue": str(value),
            "Layer": str(layer),
            "Name": " ".join(item.name.split()),
            "NameAutoGenerated": "0",
            "Tags": f"Segmentation.Status:inprogress|TerminologyEntry:{entry}|",
        }
        lines += [f"Segment{number}_{key}:={text}" for key, text in pairs.items()]
    lines += [
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|",
        "Segmentation_MasterRepresentation:=Binary labelmap",  # the name of the next in Slicer before 5.2
        "Segmentation_ReferenceImageExtentOffset:=0 0 0",
        "Segmentation_SourceRepresentation:=Binary labelmap",
    ]
    affine = _DEFAULT if segmentation.affine is None else segmentation.affine
    grid = Segmentation(np.zeros(codes.shape, np.uint8), affine)
    kinds = ["list"] * classes.overlap + ["domain"] * 3
    nrrd.save(array, kinds, [*nrrd.space_lines(grid, int(classes.overlap)), *lines], path)


def _extent(boxes: list[tuple[slice, ...]]) -> str:
    """First and last index along x, y, z of what lies in any of these boxes; those of nothing where there is none."""
    out = []
    for axis in (2, 1, 0):
        out += [min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes) - 1] if boxes else [0, -1]
    return " ".join(map(str, out))

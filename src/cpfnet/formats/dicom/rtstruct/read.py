"""Structure sets (RTSTRUCT) as labels: closed planar contours in patient coordinates, drawn onto an image's slices.

RT Structure Set IOD, DICOM PS3.3, A.19; structure set module C.8.8.5, ROI contour module C.8.8.6.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pydicom

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import text
from cpfnet.formats.dicom.frame_geometry import slice_offsets
from cpfnet.formats.dicom.image.datasets import DicomObject
from cpfnet.formats.dicom.referenced_images import check_belongs, image_references, items, references, regions
from cpfnet.formats.dicom.rtstruct.rasterise import crossing, fill
from cpfnet.formats.file_types import Header
from cpfnet.formats.overlap_map import OverlapMap, duplicate_names, select_structures
from cpfnet.image import Image, Source
from cpfnet.planning import Labels

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_OPEN = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_FLAT = 0.1
"""Slices: how far the points of one contour may lie apart along the normal; a contour with more does not lie in a
slice."""
_EXACT = 0.01
"""Slices: contours nearer to a slice than this lie on it; others were drawn between slices, and cause a message."""
_LONGEST = 2**24
"""Bytes, or numbers, of one contour: some 500,000 points, far more than pixels along any edge."""
_INSTANCE = "ReferencedSOPInstanceUID"
_ABSURD = 1e6
"""Voxels from the image: coordinates so far away are damaged."""


def read(item: DicomObject, image: Image | Header | None, labels: Labels | None = None) -> Image:
    """Draw the structures of a structure set onto the grid of its image.

    A contour belongs to the slice nearest to its plane. Contours of one structure in one plane are combined by the
    even–odd rule (`rasterise.fill`), so inner ones are holes. Where several planes are nearest to the same slice, only
    the nearest of them counts.

    Args:
        item: the structure set.
        image: the image, with its affine (mm).
        labels: only structures that mean one of its classes are read; None: all.

    Returns:
        ``(1, depth, height, width)`` with `Image.meanings`, on the image's grid.

    Raises:
        FormatError: there is no image, or it has no place in the patient; the structure set refers to another one; a
            contour is damaged, does not lie in the plane of the slices, or lies beyond the first or last slice; a
            structure lies outside the image.
        DatasetError: no structure means any class.
    """
    if image is None or image.affine is None:
        raise FormatError(
            "is a structure set: contours need an image with positions in the patient",
            fix="give the series that it was drawn on",
        )
    header = item.header
    for keyword in ("StructureSetROISequence", "ROIContourSequence"):
        if keyword not in header:
            raise FormatError(f"has no {keyword}", fix="it is cut short or damaged: copy or export it again")
    warnings = [*item.warnings, *check_belongs(header, image)]
    names = select_structures(regions(header), labels)
    _refuse_other_frames(header, image, names)
    warnings += duplicate_names(names.values(), "ROIs")
    depth, height, width = image.shape
    overlap_map = OverlapMap((depth, height, width), names.values())
    contours: dict[int, list[pydicom.Dataset]] = defaultdict(list)
    for roi in items(header, "ROIContourSequence"):
        contours[int(text(roi, "ReferencedROINumber"))] += items(roi, "ContourSequence")
    heights, instances = np.arange(depth) + slice_offsets(image, image.affine)[:, 0], _slices(image)
    for number, name in names.items():
        structure = _Structure(name, (depth, height, width), np.linalg.inv(image.affine), heights, instances)
        for contour in contours[number]:
            structure.add(contour)
        for index, mask in structure.slices():
            overlap_map.add(name, index, mask)
        warnings += structure.warnings()
    return overlap_map.image(image.shape, image.affine, Source((item.path,), "dicom", warnings=tuple(warnings)))


def _refuse_other_frames(header: pydicom.Dataset, image: Image | Header, names: dict[int, str]) -> None:
    """Refuse structures in another frame of reference than the image's: a structure set may hold several frames."""
    ours, theirs = image_references(image).frames, references(header).frames
    for roi in items(header, "StructureSetROISequence"):
        frame, number = text(roi, "ReferencedFrameOfReferenceUID"), int(text(roi, "ROINumber"))
        if number in names and frame and ours & theirs and frame not in ours:
            raise FormatError(
                f"{names[number]!r} is drawn in the frame of reference {frame}, the image lies in {min(ours)}",
                fix="give the series that it was drawn on, or leave the structure out of the classes",
            )


def _slices(image: Image | Header) -> dict[str, int]:
    """SOPInstanceUID → slice, for a series with one object a slice; empty for other images."""
    headers = image.source.details.get("headers", ()) if image.source is not None else ()
    if len(headers) != image.shape[0]:
        return {}
    return {text(header, "SOPInstanceUID"): index for index, header in enumerate(headers)}


def _points(contour: pydicom.Dataset) -> np.ndarray:
    """``(points, 3)``, LPS mm, parsed from the text: pydicom makes an object of every number, which takes minutes."""
    element = contour.get_item("ContourData")
    value = element.value if element is not None else None
    if value is not None and len(value) > _LONGEST:
        raise FormatError(
            f"a contour has {len(value)} bytes of coordinates; up to {_LONGEST} are read", fix="export it again"
        )
    if isinstance(value, bytes):
        value = value.decode("ascii").strip(" \0").split("\\")
    return np.array(value or [], dtype=np.float64).reshape(-1, 3)


@dataclass
class _Structure:
    """The contours of one ROI in voxels of the image, and counts for messages about them.

    Attributes:
        name: of the ROI.
        shape: of the image, (depth, height, width).
        inverse: LPS mm → array indices.
        heights: the real position of each slice along the depth axis.
        instances: SOPInstanceUID → slice.
        contours: slice → how far the contour's plane lies from it, in slices, and (row, column) of
            the contour's points.
        counts: text → number of contours that were treated so.
        points, outside: number of points, and of those that lie beyond the edges of the slices.
    """

    name: str
    shape: tuple[int, int, int]
    inverse: np.ndarray
    heights: np.ndarray
    instances: dict[str, int]
    contours: dict[int, list[tuple[float, np.ndarray]]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)
    points: int = 0
    outside: int = 0

    def _refuse(self, what: str, fix: str) -> FormatError:
        return FormatError(f"a contour of {self.name!r} {what}", fix=fix)

    def add(self, contour: pydicom.Dataset) -> None:
        """Place a contour; contours that enclose nothing are only counted."""
        kind = text(contour, "ContourGeometricType")
        if kind in _OPEN:
            self.counts[f"contours of type {kind}, which enclose nothing, ignored"] += 1
            return
        if kind not in _CLOSED:
            raise self._refuse(f"has the ContourGeometricType {kind!r}", f"known are {', '.join((*_CLOSED, *_OPEN))}")
        try:
            points = _points(contour)
        except ValueError:
            raise self._refuse("has damaged coordinates: no triples of numbers", "export it again") from None
        if len(points) < 3:
            self.counts["contours of fewer than 3 points, which enclose nothing, ignored"] += 1
            return
        voxels = points @ self.inverse[:3, :3].T + self.inverse[:3, 3]
        if not (np.abs(voxels) < _ABSURD).all():  # NaN, too
            raise self._refuse(f"has impossible coordinates, such as {points[0].tolist()} mm", "export it again")
        plane = float(voxels[:, 0].mean())
        if np.ptp(voxels[:, 0]) > _FLAT:
            first, last = voxels[:, 0].min(), voxels[:, 0].max()
            raise self._refuse(
                f"does not lie in a slice: its points reach from slice {first:.2f} to {last:.2f}",
                "pair it with the series that it was drawn on",
            )
        if not -0.5 <= plane <= self.shape[0] - 0.5:
            raise self._refuse(
                f"lies at slice {plane:.2f} ({np.round(points[0], 2).tolist()} mm), "
                f"the image has the slices 0 to {self.shape[0] - 1}",
                "give all slices of the series, or leave the structure out of the classes",
            )
        named = {self.instances.get(text(item, _INSTANCE), plane) for item in items(contour, "ContourImageSequence")}
        if named and min(abs(slice_ - plane) for slice_ in named) > 0.5 + _FLAT:
            self.counts["contours that name the image of another slice, drawn where they lie"] += 1
        self.points += len(voxels)
        self.outside += int(
            np.any((voxels[:, 1:] < -0.5) | (voxels[:, 1:] > np.array(self.shape[1:]) - 0.5), axis=1).sum()
        )
        index = min(round(plane), self.shape[0] - 1)
        self.contours[index].append((plane - self.heights[index], voxels[:, 1:]))

    def slices(self) -> Iterator[tuple[int, np.ndarray]]:
        """The slices that it covers, and the bool ``(height, width)`` masks there."""
        covered = False
        for index, contours in sorted(self.contours.items()):
            nearest = min((abs(away), away) for away, _ in contours)[1]
            outlines = {outline.tobytes(): outline for away, outline in contours if abs(away - nearest) <= _FLAT}
            same = sum(abs(away - nearest) <= _FLAT for away, _ in contours)
            self.counts["contours left out for others that lie nearer to the same slice"] += len(contours) - same
            self.counts["contours that stand twice in a plane, taken once"] += same - len(outlines)
            self.counts["contours between slices, drawn on the nearest"] += same * (abs(nearest) > _EXACT)
            if crossing(list(outlines.values()), self.shape[1:]):
                self.counts["contours that cross, what lies in two of them left out (even–odd)"] += len(outlines)
            mask = fill(list(outlines.values()), self.shape[1:])
            covered |= bool(mask.any())
            yield index, mask
        if self.outside and not covered:
            raise FormatError(
                f"all of {self.name!r} lies outside the image",
                fix="pair it with the series that it was drawn on",
            )

    def warnings(self) -> Iterator[str]:
        """Messages about everything that was changed or ignored."""
        if not self.contours and not self.counts:
            yield f"{self.name!r} has no contours"
        yield from (f"{self.name!r}: {what}: {count}" for what, count in self.counts.items() if count)
        if self.outside:
            share = self.outside / self.points
            yield f"{self.name!r}: {share:.1%} of its contour points lie outside the image: cut off"

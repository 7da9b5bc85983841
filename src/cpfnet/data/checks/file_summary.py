"""Read the files of a case once, and keep what `check` must know about them.

That is a few numbers and words, never the pixels.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cpfnet import formats
from cpfnet.contour_gaps import Gap, find_gaps
from cpfnet.data.case import Case
from cpfnet.errors import CpfnetError
from cpfnet.formats.file_types import NRRD_SUFFIXES, is_reference, place_of, placeholder
from cpfnet.formats.lossy import LossyLabelError
from cpfnet.formats.structure_folder import is_structure_folder, masks_in
from cpfnet.image import GREY, RGB, Image, geometry_difference
from cpfnet.label_values import black_and_white, colours_of_blurred, count_values, is_soft
from cpfnet.labels import pack, value_of
from cpfnet.planning import Labels

if TYPE_CHECKING:
    from cpfnet.formats.dicom.image.summary import LabelObject

Value = int | str | float

KEPT_VALUES = 255
"""Distinct label values remembered for a file; of more than these, which are no label values, only a few are."""

SAMPLE = 2**14
"""Pixels of a channel that its quantiles are taken from, about."""


@dataclass(frozen=True)
class Content:
    """What one file holds.

    Attributes:
        path: the file.
        failure: why it cannot be read: what, and the reader's advice; all else is then empty.
        kind: of failure, where it is a known one: ``"lfs-pointer"``, ``"html-page"``, ``"lossy-label"``,
            ``"other-series"`` (a DICOM label of another image).
        shape, affine, channels, dtype: as read.
        digest: of the pixels.
        nonfinite: count of NaN and infinities, and where the first is.
        constant: channels that hold one value only, channel → value.
        levels: 1 %, 50 % and 99 % quantiles of each channel of an image, from a sample of its pixels.
        picture: the channels of an image are grey, or red, green and blue.
        fourth: the channels of an image are a fourth axis of its one file (NIfTI, NRRD, MetaImage).
        outside: of a label off the image's grid: drawn voxels whose place lies outside the image, and all drawn ones.
        values: label value → pixels; all, or of more than `KEPT_VALUES` the lowest, the highest and the most frequent.
        distinct: number of different label values.
        soft: label values spread between two poles along the edges (a lossy or interpolated mask).
        main: colours (or greys) between which all other values lie, along the edges, where these are no two greys.
        gaps: structures that skip slices.
        structures: of a label that names what it holds (DICOM, Slicer): name → pixels, of all structures that were
            read; else None.
        names: of all its structures, read or not.
        overlaps: names that cover the same pixels → these pixels.
        unit: of an image's values, where its format says it (DICOM).
        burned_in: an image says that words stand in its pixels (DICOM).
        personal: which of ``names``, counted from 1, may be persons' names.
        warnings: what was repaired or assumed while reading.
        orientation: the tag by which a picture was turned (`cpfnet.formats.orientation`).
    """

    path: Path
    failure: tuple[str, str] | None = None
    kind: str = ""
    shape: tuple[int, ...] = ()
    affine: np.ndarray | None = None
    channels: int = 0
    dtype: str = ""
    digest: bytes = b""
    nonfinite: tuple[int, tuple[int, ...]] | None = None
    constant: dict[int, float] = field(default_factory=dict)
    levels: tuple[tuple[float, float, float], ...] = ()
    picture: bool = False
    fourth: bool = False
    outside: tuple[int, int] = (0, 0)
    values: dict[Value, int] = field(default_factory=dict)
    distinct: int = 0
    soft: bool = False
    main: tuple[int | str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    structures: dict[str, int] | None = None
    names: tuple[str, ...] = ()
    overlaps: dict[frozenset[str], int] = field(default_factory=dict)
    unit: str = ""
    burned_in: bool = False
    personal: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    orientation: int = 1

    @property
    def readable(self) -> bool:
        return self.failure is None


@dataclass(frozen=True)
class Examined:
    """A case and what its files hold; files that do not exist are left out."""

    case: Case
    images: tuple[Content, ...]
    labels: dict[str, Content]
    roi: Content | None

    @property
    def contents(self) -> tuple[Content, ...]:
        return (*self.images, *self.labels.values(), *(() if self.roi is None else (self.roi,)))

    @property
    def channels(self) -> int:
        return sum(content.channels for content in self.images)


def examine(case: Case, labels: Labels | None = None) -> Examined:
    """Read a case, one file after the other; errors become `Content.failure`.

    Args:
        case: its files may be missing: they are left out.
        labels: what is declared: of DICOM labels only the structures that mean a class are then read.
    """
    images, headers = [], []
    for path in case.images:
        if _there(path):
            content, header = _image(path)
            images.append(content)
            headers.append(header)
    first = headers[0] if headers else None
    return Examined(
        case,
        tuple(images),
        {
            reader: _with_persons(_label(path, first, labels), first)
            for reader, path in case.labels.items()
            if _there(path)
            and (first is not None or not formats.is_dicom(path))  # those have no place without their image
        },
        _region(case.roi, first) if case.roi is not None and _there(case.roi) else None,
    )


def _there(path: Path) -> bool:
    return os.path.lexists(path) or formats.exists(path)


def _failure(path: Path, error: CpfnetError, kind: str, names: tuple[str, ...] = ()) -> Content:
    first, *listed = (" ".join(line.split()) for line in error.what.splitlines())  # findings are one line each
    what = f"{first} {'; '.join(listed)}".strip()
    return Content(path, (what, error.fix or "export it again"), kind, names=names)


def _common(path: Path, image: Image) -> dict[str, object]:
    array = image.array
    out: dict[str, object] = {
        "path": path,
        "shape": image.shape,
        "affine": image.affine,
        "channels": len(array),
        "dtype": array.dtype.name,
    }
    if array.dtype.kind == "f":
        bad = ~np.isfinite(array)
        if count := int(np.count_nonzero(bad)):
            first = np.unravel_index(int(bad.argmax()), array.shape)
            out["nonfinite"] = (count, tuple(int(i) for i in first))
    if image.source is not None:
        out["warnings"] = image.source.warnings
        out["orientation"] = image.source.details.get("orientation", 1)
    return out


def _image(path: Path) -> tuple[Content, formats.Header | None]:
    """What the file holds, and what is needed to place labels on it."""
    try:
        image = formats.read(path)
    except CpfnetError as error:
        return _failure(path, error, placeholder(path)), None
    source = image.source
    assert source is not None
    digest = hashlib.blake2b(repr(image.array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image.array).view(np.uint8).data)
    content = Content(
        **_common(path, image),  # type: ignore[arg-type]
        digest=digest.digest(),
        constant={i: float(c.flat[0]) for i, c in enumerate(image.array) if c.min() == c.max()},
        levels=tuple(_levels(channel) for channel in image.array),
        picture=image.channels in (GREY, RGB),
        fourth=source.format in ("nifti", "nrrd", "metaimage") and len(image.array) > 1 and image.channels != RGB,
        unit=source.details.get("unit", ""),
        burned_in=_burned_in(source.details.get("headers", ())),
    )
    header = formats.Header(image.shape, image.affine, image.channels, image.array.dtype, image.modality, source)
    return content, header


def _levels(channel: np.ndarray) -> tuple[float, float, float]:
    sample = channel.ravel()[:: channel.size // SAMPLE | 1]  # an odd step, or it could meet one column only
    sample = sample[np.isfinite(sample)]
    low, middle, high = np.percentile(sample, (1, 50, 99)).tolist() if sample.size else (0.0, 0.0, 0.0)
    return low, middle, high


def _label(path: Path, labelled: formats.Header | None, labels: Labels | None) -> Content:
    names: tuple[str, ...] = ()
    try:
        names = _names(path)
        named = bool(names) or (formats.is_dicom(path) and bool(_objects(path)))
        if named and labels is not None and not any(c.means(name) for c in labels.classes for name in names):
            shape, affine = ((), None) if labelled is None else (labelled.shape, labelled.affine)
            # Reading it would only say so.
            return Content(path, shape=shape, affine=affine, structures={}, names=names)
        image = formats.read_label(path, labelled, labels)
        common = _common(path, image)
        if image.meanings is not None:
            return Content(**common, names=names, gaps=find_gaps(image), **_structures(image))  # type: ignore[arg-type]
        if "nonfinite" in common:
            return Content(**common)  # type: ignore[arg-type]
        packed = pack(image.array, where=str(path))
    except CpfnetError as error:
        lossy = isinstance(error, LossyLabelError)
        kind = "lossy-label" if lossy else "other-series" if _foreign(path, labelled) else placeholder(path)
        return _failure(path, error, kind, names)
    numbers, counts = count_values(packed)
    kept: Iterable[int] = range(len(numbers))
    if len(numbers) > KEPT_VALUES:
        kept = sorted({0, len(numbers) - 1, *np.argsort(-counts, kind="stable")[:8].tolist()})
    values: dict[Value, int] = {
        (value_of(int(numbers[i])) if packed.dtype.kind in "iu" else float(numbers[i])): int(counts[i]) for i in kept
    }
    soft = is_soft(packed, numbers, counts)
    return Content(
        **common,  # type: ignore[arg-type]
        values=values,
        distinct=len(numbers),
        soft=soft,
        main=() if soft else tuple(map(value_of, colours_of_blurred(packed, numbers, counts))),
        gaps=find_gaps(image, labels),
        outside=(0, 0) if labelled is None else _outside(packed, image.affine, labelled),
    )


def _region(path: Path, labelled: formats.Header | None) -> Content:
    """Of a region of interest in two colours, nearly black and white, the values that they mean."""
    content = _label(path, labelled, None)
    values = content.values
    if len(values) > 2 or 0 in values or content.dtype != "uint8" or not content.readable:
        return content
    found = black_and_white(formats.read_label(path, labelled).array)
    if found is None:
        return content
    *shades, bright = found
    templates = zip(shades, ("nearly black ({}) taken as outside", "nearly white ({}) taken as inside"), strict=True)
    warnings = [template.format(value_of(shade)) for shade, template in templates if shade not in (None, 255)]
    pixels = int(np.count_nonzero(bright))
    numbers: dict[Value, int] = {value: count for value, count in ((0, bright.size - pixels), (255, pixels)) if count}
    return replace(content, values=numbers, warnings=(*content.warnings, *warnings))


def _burned_in(headers: Iterable[Any]) -> bool:
    """Do headers say that words stand in the pixels (DICOM)?"""
    from cpfnet.formats.dicom.attributes import text

    return any(text(header, "BurnedInAnnotation").upper() == "YES" for header in headers)


def _with_persons(content: Content, labelled: formats.Header | None) -> Content:
    """With those of its structures' names that may be persons', by its own headers and the first of its image."""
    if not content.names:
        return content
    from cpfnet.formats.dicom.persons import personal, persons

    own = frozenset[str]().union(*(label.persons for label in _objects(content.path)))
    source = None if labelled is None else labelled.source
    known = frozenset[str]().union(*map(persons, source.details.get("headers", ())[:1] if source else ()))
    return replace(content, personal=personal(content.names, known | own))


def _structures(label: Image) -> dict[str, dict[str, int] | dict[frozenset[str], int]]:
    """Pixels of each structure, of those without any too, and of those that meet."""
    assert label.meanings is not None
    numbers, counts = count_values(label.array[0])
    pixels: Counter[str] = Counter(dict.fromkeys(set().union(*label.meanings), 0))
    overlaps: Counter[frozenset[str]] = Counter()
    for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
        names = label.meanings[number]
        pixels.update(dict.fromkeys(names, count))
        if len(names) > 1:
            overlaps[names] += count
    return {"structures": dict(pixels), "overlaps": dict(overlaps)}


def _outside(packed: np.ndarray, affine: np.ndarray | None, image: formats.Header) -> tuple[int, int]:
    """How many of the voxels that are not 0 have their centre outside the image, and how many there are."""
    if affine is None or image.affine is None:
        return 0, 0
    if geometry_difference(image.shape, image.affine, packed.shape, affine) is None:
        return 0, 0
    to_image = np.linalg.inv(image.affine) @ affine
    limits = np.array(image.shape)[:, None] - 0.5
    outside = drawn = 0
    for depth, plane in enumerate(packed):  # slice by slice: coordinates take 24 bytes a voxel
        rows, columns = np.nonzero(plane)
        places = to_image @ np.stack([np.full(rows.size, depth), rows, columns, np.ones(rows.size)])
        outside += int(((places[:3] < -0.5) | (places[:3] > limits)).any(axis=0).sum())
        drawn += rows.size
    return outside, drawn


def _objects(path: Path) -> tuple[LabelObject, ...]:
    """What a DICOM label says of itself, or the several that are one."""
    from cpfnet.formats.dicom.image.series import scan

    try:
        found = tuple(scan(place_of(path)).labels)
    except CpfnetError:
        return ()
    return tuple(label for label in found if label.path == path) or (found[:1] if is_reference(path) else found)


def _names(path: Path) -> tuple[str, ...]:
    if is_structure_folder(path):
        return tuple(masks_in(path))
    if formats.suffix_of(path) in NRRD_SUFFIXES:
        from cpfnet.formats import seg_nrrd

        return tuple(segment.name for segment in seg_nrrd.listed(path))
    labels = _objects(path) if formats.is_dicom(path) else ()
    return tuple(dict.fromkeys(name for label in labels for name in label.names))


def _foreign(path: Path, image: formats.Header | None) -> bool:
    """Does a DICOM label refer to series, and not to that of the image?"""
    if image is None or image.source is None or not formats.is_dicom(path):
        return False
    own = {str(header.get("SeriesInstanceUID", "")) for header in image.source.details.get("headers", ())}
    return any(label.series and label.series.isdisjoint(own) for label in _objects(path))

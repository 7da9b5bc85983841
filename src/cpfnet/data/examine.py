"""Read the files of a case once, and keep what `check` must know about them: a few numbers a file, never the pixels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.errors import CpfnetError
from cpfnet.formats.files import placeholder
from cpfnet.image import Image, geometry_difference
from cpfnet.labels import pack, value_of
from cpfnet.planning import COLOURS

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
        placeholder: what stands in its place: ``"lfs-pointer"`` or ``"html-page"``, or "".
        shape, affine, channels, dtype: as read.
        digest: of the pixels.
        nonfinite: count of NaN and infinities, and where the first is.
        constant: channels that hold one value only, channel → value.
        levels: 1 %, 50 % and 99 % quantiles of each channel of an image, from a sample of its pixels.
        fourth: the channels of an image are a fourth axis of its one file (NIfTI).
        outside: of a label off the image's grid: drawn voxels whose place lies outside the image, and all drawn ones.
        values: label value → pixels; all, or of more than `KEPT_VALUES` the lowest, the highest and the most frequent.
        distinct: number of different label values.
        soft: label values spread between two poles along the edges (a lossy or interpolated mask).
    """

    path: Path
    failure: tuple[str, str] | None = None
    placeholder: str = ""
    shape: tuple[int, ...] = ()
    affine: np.ndarray | None = None
    channels: int = 0
    dtype: str = ""
    digest: bytes = b""
    nonfinite: tuple[int, tuple[int, ...]] | None = None
    constant: dict[int, float] = field(default_factory=dict)
    levels: tuple[tuple[float, float, float], ...] = ()
    fourth: bool = False
    outside: tuple[int, int] = (0, 0)
    values: dict[Value, int] = field(default_factory=dict)
    distinct: int = 0
    soft: bool = False

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


def examine(case: Case) -> Examined:
    """Read a case, one file after the other; errors become `Content.failure`."""
    images = tuple(_image(path) for path in case.images if os.path.lexists(path))
    first = images[0] if images else None
    return Examined(
        case,
        images,
        {reader: _label(path, first) for reader, path in case.labels.items() if os.path.lexists(path)},
        _label(case.roi, first) if case.roi is not None and os.path.lexists(case.roi) else None,
    )


def _failure(path: Path, error: CpfnetError) -> Content:
    return Content(path, (error.what, error.mend or "export it again"), placeholder=placeholder(path))


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
    return out


def _image(path: Path) -> Content:
    try:
        image = formats.read(path)
    except CpfnetError as error:
        return _failure(path, error)
    digest = hashlib.blake2b(repr(image.array.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image.array).view(np.uint8).data)
    constant = {i: float(c.flat[0]) for i, c in enumerate(image.array) if c.min() == c.max()}
    return Content(
        **_common(path, image),  # type: ignore[arg-type]
        digest=digest.digest(),
        constant=constant,
        levels=tuple(_levels(channel) for channel in image.array),
        fourth=image.source is not None
        and image.source.format == "nifti"
        and len(image.array) > 1
        and image.channels[0] != "red",
    )


def _levels(channel: np.ndarray) -> tuple[float, float, float]:
    sample = channel.ravel()[:: channel.size // SAMPLE | 1]  # an odd step, or it could meet one column only
    sample = sample[np.isfinite(sample)]
    low, middle, high = np.percentile(sample, (1, 50, 99)).tolist() if sample.size else (0.0, 0.0, 0.0)
    return low, middle, high


def _label(path: Path, labelled: Content | None) -> Content:
    try:
        image = formats.read_label(path)
        common = _common(path, image)
        if "nonfinite" in common:
            return Content(**common)  # type: ignore[arg-type]
        small = len(image.array) == 1 and image.array.dtype.name in ("uint8", "uint16", "int16")
        packed = image.array[0] if small else pack(image.array, where=str(path))  # packing takes 8 bytes a pixel
    except CpfnetError as error:
        return _failure(path, error)
    numbers, counts = count_values(packed)
    kept: Iterable[int] = range(len(numbers))
    if len(numbers) > KEPT_VALUES:
        kept = sorted({0, len(numbers) - 1, *np.argsort(-counts, kind="stable")[:8].tolist()})
    values: dict[Value, int] = {
        (value_of(int(numbers[i])) if packed.dtype.kind in "iu" else float(numbers[i])): int(counts[i]) for i in kept
    }
    return Content(
        **common,  # type: ignore[arg-type]
        values=values,
        distinct=len(numbers),
        soft=is_soft(packed, numbers, counts),
        outside=(0, 0) if labelled is None else _outside(packed, image.affine, labelled),
    )


def _outside(packed: np.ndarray, affine: np.ndarray | None, image: Content) -> tuple[int, int]:
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


def count_values(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values and their counts; counting is far faster than sorting where labels are small numbers."""
    if packed.dtype.kind in "iu" and packed.min() >= 0 and (high := int(packed.max())) < 2**16:
        flat = packed.ravel()
        counts = np.zeros(high + 1, dtype=np.int64)
        for start in range(0, flat.size, 2**20):  # bincount makes 8 bytes of every pixel
            counts += np.bincount(flat[start : start + 2**20], minlength=high + 1)
        numbers = np.flatnonzero(counts)
        return numbers, counts[numbers]
    return np.unique(packed, return_counts=True)


def is_soft(packed: np.ndarray, numbers: np.ndarray, counts: np.ndarray) -> bool:
    """Two poles with values between them that lie along edges: what JPEG or interpolation makes of a mask.

    Classes lie between other values, too, but in patches: there neighbours are equal. And an image mistaken for a label has
    no two poles. Fractions from 0 to 1 are soft wherever they lie.
    """
    if len(numbers) < 4 or numbers[-1] >= COLOURS:
        return False
    low, high = float(numbers[0]), float(numbers[-1])
    if packed.dtype.kind == "f" and low >= 0 and high <= 1:
        return True  # probabilities, or shares of a voxel
    edge = (high - low) / 10
    at_low, at_high = counts[numbers <= low + edge].sum(), counts[numbers >= high - edge].sum()
    between = packed.size - at_low - at_high
    if at_low + at_high < 0.75 * packed.size or at_high < 0.25 * (at_high + between):
        return False
    if between == 0:
        return len(numbers) > 8
    middle = (packed > low + edge) & (packed < high - edge)
    flat = middle[..., 1:] & (packed[..., 1:] == packed[..., :-1])
    return bool(np.count_nonzero(flat) < between / 2)

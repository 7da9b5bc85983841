"""What `check` keeps of a file that it read: a few numbers and words, never the pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cpfnet.contour_gaps import Gap
from cpfnet.data.case import Case

Value = int | str | float

KEPT_VALUES = 255
"""Distinct label values remembered for a file; of more than these, which are no label values, only a few are."""


@dataclass(frozen=True)
class Content:
    """What one file holds.

    Attributes:
        path: the file.
        failure: why it cannot be read: what, and the reader's advice; all else is then empty.
        kind: of failure, where it is a known one: ``"lfs-pointer"``, ``"html-page"``, ``"lossy-label"``, ``"other-series"`` (a DICOM
            label of another image).
        shape, affine, channels, dtype: as read.
        digest: of the pixels.
        nonfinite: count of NaN and infinities, and where the first is.
        constant: channels that hold one value only, channel → value.
        levels: 1 %, 50 % and 99 % quantiles of each channel of an image, from a sample of its pixels.
        picture: the channels of an image are grey, or red, green and blue.
        fourth: the channels of an image are a fourth axis of its one file (NIfTI).
        outside: of a label off the image's grid: drawn voxels whose place lies outside the image, and all drawn ones.
        values: label value → pixels; all, or of more than `KEPT_VALUES` the lowest, the highest and the most frequent.
        distinct: number of different label values.
        soft: label values spread between two poles along the edges (a lossy or interpolated mask).
        main: colours (or greys) between which all other values lie, along the edges, where these are no two greys.
        gaps: structures that skip slices.
        structures: of a label that names what it holds (DICOM): name → pixels, of all structures that were read; else None.
        names: of all its structures, read or not.
        overlaps: names that cover the same pixels → these pixels.
        unit: of an image's values, where its format says it (DICOM).
        burned_in: an image says that words stand in its pixels (DICOM).
        personal: which of ``names``, counted from 1, may be persons' names.
        notes: what was repaired or assumed while reading.
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
    notes: tuple[str, ...] = ()
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

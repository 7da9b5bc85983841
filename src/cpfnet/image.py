"""Pixels with geometry: what the formats read and write, and what all steps between them pass on.

All code uses one array layout, ``(channels, [depth,] height, width)``, and one geometry convention: ``affine`` maps
array indices *in array order* ``(depth, height, width, 1)`` to patient coordinates in millimetres, LPS (x grows to the
patient's Left, y to Posterior, z to Superior), as in DICOM. Geometry is carried, never recomputed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.planning import Labels
from cpfnet.text import brief, counted


@dataclass(frozen=True)
class Source:
    """Where an Image came from, and what its format needs to write a Segmentation that lines up with it.

    Attributes:
        paths: the files, one a channel if channels are in files of their own.
        format: the family that read it: ``"raster"``, ``"nifti"``, ``"nrrd"``, ``"metaimage"`` or
            ``"dicom"``.
        details: what that family needs to write a mask back (header, stored axis order, palette …); opaque
            to all others.
        warnings: what was repaired or assumed while reading, one sentence each, without private data.
    """

    paths: tuple[Path, ...]
    format: str
    details: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    warnings: tuple[str, ...] = ()

    @property
    def place(self) -> Path | None:
        """What to call it in messages: the first file, or the folder, archive or reference of a DICOM series."""
        return self.details.get("reference") or next(iter(self.paths), None)


def _check_affine(affine: np.ndarray | None, ndim: int) -> np.ndarray | None:
    if affine is None:
        return None
    if ndim != 3:
        raise FormatError(f"an affine needs a volume (depth, height, width); this array has {ndim} spatial axes")
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], (0, 0, 0, 1)):
        raise FormatError(f"the affine is not a finite 4×4 matrix with last row 0 0 0 1: {affine.tolist()}")
    if is_flat(affine):
        raise FormatError(f"the affine is singular: {affine.tolist()}")
    return affine


_FLATTEST = 1e-6
"""Volume of a voxel as a share of the box with its edges: 0.5 at a gantry tilt of 60°, rounding only for axes in one
plane."""


def is_flat(affine: np.ndarray) -> bool:
    """Have its voxels no volume? Their size does not matter: a voxel of a microscope may have edges of 5e-5 mm."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < np.finfo(np.float32).tiny:  # headers hold float32, which knows no direction below it
        return True
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLATTEST)


def spacing_of(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance between neighbouring voxels, mm, in array order (depth, height, width)."""
    depth, height, width = np.linalg.norm(affine[:3, :3], axis=0)
    return float(depth), float(height), float(width)


GREY, RGB = ("grey",), ("red", "green", "blue")
"""Names of a picture's channels."""


@dataclass(frozen=True)
class Image:
    """Pixels with geometry.

    Attributes:
        array: ``(channels, height, width)`` or ``(channels, depth, height, width)``, any real dtype, values as stored
            (HU for CT).
        affine: 4×4, array indices (depth, height, width, 1) → LPS mm; None where the format knows none (a PNG has no
            millimetres). Only volumes have one.
        channels: one name a channel.
        modality: as the format knows it, else None.
        source: where it came from.
        meanings: of a label whose structures have names (DICOM segments and ROIs): value n of the one channel
            stands for pixels covered by exactly the structures ``meanings[n]``; ``meanings[0]`` is empty. None
            for other images.

    Raises:
        FormatError: rank, channel names and affine do not fit together.
    """

    array: np.ndarray
    affine: np.ndarray | None = None
    channels: tuple[str, ...] = ()
    modality: str | None = None
    source: Source | None = None
    meanings: tuple[frozenset[str], ...] | None = None

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4):
            raise FormatError(
                f"an image is (channels, [depth,] height, width); got an array of shape {self.array.shape}"
            )
        object.__setattr__(self, "affine", _check_affine(self.affine, self.array.ndim - 1))
        names = self.channels or tuple(f"channel{i}" for i in range(len(self.array)))
        if len(names) != len(self.array):
            raise FormatError(f"{len(names)} channel names ({', '.join(names)}) for {len(self.array)} channels")
        object.__setattr__(self, "channels", tuple(names))

    def __repr__(self) -> str:
        names = counted(len(self.channels), "channel") + f" ({brief(self.channels)})"
        modality = f", {self.modality}" if self.modality else ""
        return f"Image({_size(self.shape, self.array.dtype, self.affine)}, {names}{modality})"

    def _repr_html_(self) -> str:
        """A picture for notebooks: the middle slice of a volume."""
        from cpfnet.report.notebook import html_of_image

        return html_of_image(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape, ([depth,] height, width)."""
        return self.array.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float] | None:
        """Millimetres between neighbours, (depth, height, width); None without an affine."""
        return None if self.affine is None else spacing_of(self.affine)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was repaired or assumed while reading (`Source.warnings`)."""
        return () if self.source is None else self.source.warnings

    def to_channels(self, names: tuple[str, ...]) -> Image:
        """The same picture in other channels, if that changes nothing: grey ↔ equal red, green and blue; else as it is.

        Many collections of grey pictures hold both kinds of files. In a collection with real colours, a grey picture is
        another kind of image: the caller must know that.

        Args:
            names: of the channels wanted.
        """
        if self.channels == GREY and tuple(names) == RGB:
            return replace(self, array=np.broadcast_to(self.array, (3, *self.shape)), channels=RGB)
        if self.channels == RGB and tuple(names) == GREY and (self.array == self.array[:1]).all():
            return replace(self, array=self.array[:1], channels=GREY)
        return self


@dataclass(frozen=True)
class Assessment:
    """What a prediction says about its own quality.

    Attributes:
        confidence: mean probability inside the structures found (components that are dropped included), averaged
            over the classes; a class that all validation cases had, and this one has not, counts 0. None where
            nothing was found.
        dice: estimate of the mean Dice over the classes; None where the Model has none, or the image is darker or
            brighter than all images that the Model learned from.
        error: mean absolute error of that estimate on the Model's validation cases; None where nothing was found.
        look: why a person should look at this case first; empty: no reason known.
    """

    confidence: float | None
    dice: float | None = None
    error: float | None = None
    look: str = ""


@dataclass(frozen=True)
class Segmentation:
    """A label map in the geometry of its source, with the data set's own label values.

    Attributes:
        array: ``([depth,] height, width)`` integers: the values to be written (0/255 in, 0/255 out). RGB-coloured
            label sets hold packed colours (see `cpfnet.labels`).
        affine: as in `Image`.
        source: the image's source; writing goes back into its exact size, axis order and header.
        probabilities: ``(classes, [depth,] height, width)`` float32 in 0…1, where asked for.
        classes: one name for each plane of ``probabilities``.
        uncertainty: ``([depth,] height, width)`` float32 in 0…1, where asked for.
        quality: what the prediction says about its own quality; None for what was not predicted.
        labels: what the values mean, for formats that name structures (DICOM).
        algorithm: name and version of what made it, for formats that record it.
    """

    array: np.ndarray
    affine: np.ndarray | None = None
    source: Source | None = None
    probabilities: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    uncertainty: np.ndarray | None = None
    quality: Assessment | None = None
    labels: Labels | None = None
    algorithm: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.array.ndim not in (2, 3):
            raise FormatError(f"a segmentation is ([depth,] height, width); got an array of shape {self.array.shape}")
        object.__setattr__(self, "affine", _check_affine(self.affine, self.array.ndim))
        for name, extra in (("probabilities", self.probabilities), ("uncertainty", self.uncertainty)):
            if extra is not None and extra.shape[-self.array.ndim :] != self.array.shape:
                raise FormatError(f"{name} of shape {extra.shape} do not fit a label map of shape {self.array.shape}")

    def __repr__(self) -> str:
        parts = [_size(self.array.shape, self.array.dtype, self.affine)]
        if self.labels is not None:
            parts.append(brief(f"{c.name} {c.written}" for c in self.labels.classes))
        parts += [
            f"with {name}"
            for name, array in (("probabilities", self.probabilities), ("uncertainty", self.uncertainty))
            if array is not None
        ]
        if self.quality is not None and self.quality.dice is not None:
            parts.append(f"estimated Dice {self.quality.dice:.2f}")
        return f"Segmentation({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """A picture for notebooks: of a volume, the slice with most labelled pixels."""
        from cpfnet.report.notebook import html_of_segmentation

        return html_of_segmentation(self)


def _size(shape: tuple[int, ...], dtype: np.dtype, affine: np.ndarray | None) -> str:
    spacing = "" if affine is None else f", {' × '.join(f'{s:.3g}' for s in spacing_of(affine))} mm"
    return f"{'×'.join(map(str, shape))} {dtype.name}{spacing}"


def geometry_difference(
    shape_a: tuple[int, ...],
    affine_a: np.ndarray | None,
    shape_b: tuple[int, ...],
    affine_b: np.ndarray | None,
    *,
    tolerance: float = 1e-3,
) -> str | None:
    """How two geometries differ, or None where they agree.

    Sizes must be equal; affines agree when no corner of the grid moves by more than ``tolerance`` of a voxel (tools
    write affines that differ by 1e-8). A geometry without millimetres agrees with any of the same size.

    Returns:
        A sentence with the quantity and both values, or None.
    """
    if tuple(shape_a) != tuple(shape_b):
        return f"size {'×'.join(map(str, shape_a))} against {'×'.join(map(str, shape_b))}"
    if affine_a is None or affine_b is None:
        return None
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape_a], indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    moved = np.linalg.inv(affine_a) @ affine_b @ corners - corners
    worst = float(np.abs(moved).max())
    if worst <= tolerance:
        return None

    finest = min(*spacing_of(affine_a), *spacing_of(affine_b))
    digits = 4 + max(0, -math.floor(math.log10(finest)) - 1)

    def brief(affine: np.ndarray) -> str:
        directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        return (
            f"origin {np.round(affine[:3, 3], digits).tolist()} mm, "
            f"spacing {np.round(spacing_of(affine), digits).tolist()} mm, "
            f"directions {np.round(directions, 4).tolist()}"
        )

    return f"affines differ by {worst:.4g} voxels at a corner: {brief(affine_a)} against {brief(affine_b)}"

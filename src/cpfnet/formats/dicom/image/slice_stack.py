"""From frames to a volume with its geometry: sorted along the normal, and repaired with a message, or refused.

Positions decide, never file names or instance numbers. The affine is exact: the first position, last − first over n − 1
for the depth (which keeps a gantry tilt as shear), direction cosines times PixelSpacing in the plane (DICOM PS3.3,
C.7.6.2.1.1). Refusals name the instances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.attributes import is_localizer, text
from cpfnet.formats.dicom.image.functional_groups import Frame

_TOLERANCE = 0.01  # of the spacing: how far a slice may lie from its place in a regular stack
_ROUNDED = 0.1
"""mm, and at most this share of the spacing: the error of positions with one decimal; taken as even, with a message."""
_DIRECTION = 1e-3  # difference of direction cosines that counts as another orientation
_TILT = 0.1  # degrees between stack and normal that are worth a message
_STEEPEST = 60.0  # degrees; no gantry tilts so far
_EXPORT = "export the series again, with all of its slices"

_DISTINGUISHING = (  # attributes that distinguish the images at one position
    *("TemporalPositionIdentifier", "TemporalPositionIndex", "StackID", "EchoNumbers", "EchoTime", "EffectiveEchoTime"),
    *("DiffusionBValue", "InversionTime", "InversionTimes", "FlipAngle", "TriggerTime", "FrameReferenceTime"),
    *("NominalPercentageOfCardiacPhase", "ImageType", "FrameType", "ConvolutionKernel", "KVP", "AcquisitionNumber"),
)
_DISTINGUISHING_TIMES = ("AcquisitionTime", "ContentTime")  # their values are not shown: they are patient data


@dataclass(frozen=True)
class Stack:
    """An image, before its pixels.

    Attributes:
        frames: in slice order.
        affine: (depth, height, width) indices → LPS mm; None for a plain image, which has no depth.
        warnings: messages about what was repaired or assumed.
    """

    frames: tuple[Frame, ...]
    affine: np.ndarray | None
    warnings: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """([depth,] height, width)."""
        plane = size_of(self.frames[0])
        return plane if self.affine is None else (len(self.frames), *plane)


def size_of(frame: Frame) -> tuple[int, int]:
    """(Rows, Columns)."""
    return int(frame.object.header.Rows), int(frame.object.header.Columns)


def listed(names: Iterable[str], most: int = 6) -> str:
    """Names for a message; there may be thousands of them."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _plural(count: int, what: str = "slice") -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def arrange(frames: Sequence[Frame]) -> Stack:
    """Sort frames along their normal.

    Args:
        frames: of one series, in any order.

    Returns:
        A volume; or a plain image, if a single frame has no place in a patient (a photograph, a radiograph).

    Raises:
        FormatError: they make no volume: sizes or orientations differ, positions are missing, repeated or irregular.
    """
    frames, warnings = _without_localizers(frames)
    _same(frames, size_of, "sizes (Rows × Columns)", lambda size: f"{size[0]}×{size[1]}")
    geometry = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if len(frames) == 1 and any(frames[0].value(keyword) is None for keyword in geometry):
        missing = [keyword for keyword in geometry if frames[0].value(keyword) is None]
        if "ImagePositionPatient" not in missing:
            warnings.append(f"no {' and no '.join(missing)}: read as a plain image without millimetres")
        return Stack(tuple(frames), None, tuple(warnings))
    for keyword in geometry:
        without = [frame.name for frame in frames if frame.value(keyword) is None]
        if without:
            raise FormatError(
                f"{len(without)} of {_plural(len(frames))} have no {keyword}: {listed(without)}",
                fix="export the series with its geometry, or give images without positions one by one",
            )
    if (spaces := len({str(frame.value("FrameOfReferenceUID") or "") for frame in frames} - {""})) > 1:
        warnings.append(f"its slices name {spaces} frames of reference: taken for one, by their positions")
    along, down = _directions(frames)
    rows, columns = _pixel_spacing(frames)
    normal = np.cross(along, down)
    positions = np.array([frame.numbers("ImagePositionPatient", 3) for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    frames, positions = [frames[i] for i in order], positions[order]
    if len(frames) == 1:
        step, more = _thickness(frames[0])
        depth = normal * step
    else:
        depth, more = _depth(frames, positions, normal, min(rows, columns))
    affine = np.eye(4)
    affine[:3] = np.column_stack([depth, down * rows, along * columns, positions[0]])
    return Stack(tuple(frames), affine, (*warnings, *more))


def _without_localizers(frames: Sequence[Frame]) -> tuple[list[Frame], list[str]]:
    scouts = [frame for frame in frames if is_localizer(frame.object.header)]
    if not scouts or len(scouts) == len(frames):
        return list(frames), []
    names = listed(dict.fromkeys(frame.object.name for frame in scouts))
    kept = [frame for frame in frames if not is_localizer(frame.object.header)]
    return kept, [f"localizer images were left out: {names}"]


def _same(frames: Sequence[Frame], of: Callable[[Frame], Any], what: str, show: Callable[[Any], str] = str) -> None:
    """Refuse frames that differ in something that a volume has only once."""
    groups: dict[Any, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(of(frame), []).append(frame)
    if len(groups) > 1:
        shown = sorted(groups.items(), key=lambda item: -len(item[1]))
        words = "; ".join(f"{show(key)} in {listed((f.name for f in group), 3)}" for key, group in shown[:4])
        raise FormatError(
            f"its slices have {len(groups)} {what}: {words}",
            fix="put the images of each kind into a folder of their own",
        )


def _directions(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along rows (growing column index) and down columns (growing row index)."""
    cosines = np.array([frame.numbers("ImageOrientationPatient", 6) for frame in frames])
    along, down = cosines[0, :3], cosines[0, 3:]
    for vectors in (cosines[:, :3], cosines[:, 3:]):
        odd = np.abs(np.linalg.norm(vectors, axis=1) - 1) > 0.01
        odd |= np.abs((cosines[:, :3] * cosines[:, 3:]).sum(axis=1)) > 0.01
        if odd.any():
            index = int(np.argmax(odd))
            raise FormatError(
                f"ImageOrientationPatient of {frames[index].name} is {cosines[index].tolist()}: "
                "no two unit vectors at right angles",
                fix="correct the attribute, or export the series again",
            )
    # Cosines are compared with those of the first frame, and rounded in messages so that equal ones look the same.
    groups = {i: tuple(np.round(c, 3).tolist()) for i, c in enumerate(cosines)}
    if np.abs(cosines - cosines[0]).max() > _DIRECTION:
        numbers = {id(frame): i for i, frame in enumerate(frames)}
        near = np.abs(cosines - cosines[0]).max(axis=1) <= _DIRECTION
        _same(
            frames,
            lambda frame: groups[0] if near[numbers[id(frame)]] else groups[numbers[id(frame)]],
            "orientations (ImageOrientationPatient)",
            lambda key: str(list(key)),
        )
    return along, down


def _pixel_spacing(frames: Sequence[Frame]) -> tuple[float, float]:
    """mm between rows, and between columns."""
    spacing = np.array([frame.numbers("PixelSpacing", 2) for frame in frames])
    if (spacing <= 0).any():
        index = int(np.argmax((spacing <= 0).any(axis=1)))
        raise FormatError(
            f"PixelSpacing of {frames[index].name} is {spacing[index].tolist()} mm",
            fix="correct the attribute, or export the series again",
        )
    if (np.abs(spacing / spacing[0] - 1) > 1e-3).any():
        places = {id(f): tuple(float(f"{v:.5g}") for v in s) for f, s in zip(frames, spacing, strict=True)}
        _same(frames, lambda frame: places[id(frame)], "PixelSpacings", lambda key: f"{list(key)} mm")
    return float(spacing[0, 0]), float(spacing[0, 1])


def _thickness(frame: Frame) -> tuple[float, list[str]]:
    """The depth of a single slice, mm."""
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        if (value := frame.number_or(keyword, 0.0)) > 0:
            return value, []
    return 1.0, ["a single slice without SliceThickness: taken for 1 mm"]


def _depth(
    frames: Sequence[Frame], positions: np.ndarray, normal: np.ndarray, pixel: float
) -> tuple[np.ndarray, list[str]]:
    """The step from slice to slice, mm, from sorted positions.

    Raises:
        FormatError: slices share a place, are missing, or are irregular.
    """
    heights = positions @ normal
    gaps = np.diff(heights)
    if (gaps < _TOLERANCE * pixel).any():
        _refuse_doubled(frames, heights, _TOLERANCE * pixel)
    depth = (positions[-1] - positions[0]) / (len(frames) - 1)
    spacing = float(depth @ normal)
    places = positions[0] + np.arange(len(frames))[:, None] * depth
    away = np.linalg.norm(positions - places, axis=1)
    worst, warnings = float(away.max()), []
    if worst > _TOLERANCE * max(spacing, pixel):
        if worst > _ROUNDED * min(1.0, spacing):
            _refuse_irregular(frames, gaps, worst)
        warnings.append(f"slices lie up to {worst:.2g} mm from even spacing, as rounded positions do: taken as even")
    angle = float(np.degrees(np.arctan2(np.linalg.norm(depth - spacing * normal), spacing)))
    if angle > _STEEPEST:
        raise FormatError(
            f"its positions run at {angle:.1f}° to the normal of its slices, "
            "which lie beside rather than behind each other",
            fix="give the slices of one stack",
        )
    if angle > _TILT:
        warnings.append(f"gantry tilt of {angle:.1f}°: the slices are sheared against their normal, and stay so")
    return depth, warnings


def _differing(frames: Sequence[Frame]) -> str:
    """The attributes that distinguish ``frames``, with their values, or ""."""
    differing = []
    for keyword in _DISTINGUISHING:
        values = list(dict.fromkeys(str(v) for frame in frames if (v := frame.value(keyword)) is not None))
        if len(values) > 1:
            differing.append(f"{keyword} ({listed(values)})")
    if not differing:
        for keyword in _DISTINGUISHING_TIMES:
            values = list({text(frame.object.header, keyword) for frame in frames})
            if len(values) > 1:
                differing.append(f"{keyword} ({len(values)} values)")
    return " and ".join(differing)


def _refuse_doubled(frames: Sequence[Frame], heights: np.ndarray, tolerance: float) -> None:
    new = np.flatnonzero(np.diff(heights, prepend=-np.inf) >= tolerance)
    groups = [frames[a:b] for a, b in pairwise([*new.tolist(), len(frames)])]
    doubled = next(group for group in groups if len(group) > 1)
    attributes = _differing(doubled)
    counts = {len(group) for group in groups}
    if (len(counts) == 1 and len(groups) > 1) or attributes:
        what = f"holds {_plural(max(counts), 'image')} at one position"
        what += f", told apart by {attributes}" if attributes else ", which no attribute tells apart"
        raise FormatError(
            f"{what}; for example {listed(f.name for f in doubled)}",
            fix="put each time point, echo or reconstruction into a folder of its own",
        )
    total = sum(len(group) > 1 for group in groups)
    raise FormatError(
        f"{_plural(total)} of {len(groups)} occur{'s' * (total == 1)} more than once; "
        f"for example {listed(f.name for f in doubled)}",
        fix="take the copies away",
    )


def _refuse_irregular(frames: Sequence[Frame], gaps: np.ndarray, away: float) -> None:
    usual = float(np.median(gaps))
    attributes = _differing(frames)
    hint = f"; slices differ in {attributes}" if attributes else ""
    times = gaps / gaps.min()
    if (np.abs(times - np.rint(times)) <= 0.02 * np.rint(times)).all() and times.max() > 1.5:
        holes = np.flatnonzero(np.rint(times) > 1).tolist()
        missing = int((np.rint(times[holes]) - 1).sum())
        shown = [f"{gaps[i]:.4g} mm between {frames[i].name} and {frames[i + 1].name}" for i in holes]
        raise FormatError(
            f"{_plural(missing)} missing: {listed(shown, 3)}, elsewhere {gaps.min():.4g} mm{hint}", fix=_EXPORT
        )
    odd = np.argsort(-np.abs(gaps - usual), kind="stable")[:3].tolist()
    shown = [f"{gaps[i]:.4g} mm between {frames[i].name} and {frames[i + 1].name}" for i in sorted(odd)]
    raise FormatError(
        f"its slices are not evenly spaced, up to {away:.3g} mm from their place: {'; '.join(shown)}, "
        f"mostly {usual:.4g} mm{hint}",
        fix="export a series with even spacing, or resample it with a tool that knows the gaps",
    )

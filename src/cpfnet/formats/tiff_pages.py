"""What the pages of a TIFF are to each other: slices or channels, and how far apart, as ImageJ and OME-TIFF say it.

ImageJ: https://imagej.net/ij/developer/source/ij/io/TiffEncoder.java.html and FileSaver.java.html (lines of the first
page's description; the resolution tags count in its ``unit``). OME-TIFF: https://docs.openmicroscopy.org/ome-model.
Pages of one size in a file of neither are slices, in their order, and a message says so.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import tifffile

from cpfnet.errors import FormatError

_READ = ("ome", "imagej", "shaped", "uniform", "generic")  # by tifffile's names: of others nobody says what pages are
_UNNAMED = "IQ"  # axes that no metadata name
_XRESOLUTION, _YRESOLUTION, _RESOLUTION_UNIT = 282, 283, 296
_TAG_UNITS = {2: "inch", 3: "cm"}
_SCREEN = 72  # pixels an inch: what programs write that know no size
_TO_MM = {
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("um", "micron", "microns", "micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1e3),
    **dict.fromkeys(("in", "inch"), 25.4),
}
_PIXELS = ("", "pixel")  # units of an image without a scale
_LARGEST = 1e9  # mm of a voxel
_STRAIGHT, _NO_FUNCTION = 0, 20  # calibration functions of ImageJ


@dataclass(frozen=True)
class Planes:
    """How the pages make one image.

    Attributes:
        axes: of the pages, outermost first: ``Z`` slices, ``C`` channels; "" for a single page.
        sizes: of these axes.
        pages: where they stand in the file (the offsets of their tags), in the order of ``axes``.
        contiguous: all planes follow that of the one page, which alone has tags (ImageJ beyond 4 GB).
        spacing: mm between slices, rows and columns; None if there are no slices, or not all three are known.
        scale: slope and intercept of the values.
        warnings: what was assumed.
    """

    axes: str
    sizes: tuple[int, ...]
    pages: tuple[int, ...]
    contiguous: bool = False
    spacing: tuple[float, float, float] | None = None
    scale: tuple[float, float] = (1.0, 0.0)
    warnings: tuple[str, ...] = ()


def planes_of(tif: tifffile.TiffFile) -> Planes:
    """The one image in the file; smaller copies of it (pyramids, thumbnails) do not count.

    Raises:
        FormatError: it holds several images, points in time, or pages of which nobody says what they are.
    """
    whole = [series for series in tif.series if not series.keyframe.is_reduced]
    if len(whole) != 1:
        named = ", ".join(f"{'×'.join(map(str, series.shape))} {series.dtype}" for series in whole[:4])
        raise FormatError(
            f"holds {len(whole)} images in one file{f': {named}' if whole else ''}{' …' * (len(whole) > 4)}",
            fix="save each image as a file of its own",
        )
    (series,) = whole
    count = max(1, series.size // max(1, series.keyframe.size))
    scale, warnings = _calibration(tif)
    if count == 1:
        return Planes("", (), (series.keyframe.offset,), scale=scale, warnings=warnings)
    if series.kind not in _READ or (tif.is_ome and series.kind != "ome"):
        kind = "OME-TIFF of several files" if tif.is_ome else f"a TIFF of the kind {series.kind}"
        raise FormatError(
            f"holds {count} pages, and is {kind}, which is not read",
            fix="save it as a stack in ImageJ, or as NIfTI, which knows its millimetres",
        )
    inner = len(series.keyframe.axes)
    axes, sizes = str(series.axes[:-inner]), tuple(int(n) for n in series.shape[: len(series.shape) - inner])
    if math.prod(sizes) != count:
        raise FormatError(f"holds {count} pages, and says of them {series.axes} of {series.shape}", fix=_again(count))
    axes, more = _named(axes, sizes, series.keyframe.axes)
    pages = tuple(-1 if page is None else page.offset for page in series.pages)
    contiguous = len(pages) == 1 and series.dataoffset is not None
    if not contiguous and (len(pages) != count or -1 in pages or len({*pages}) < count):
        raise FormatError(
            f"says that it holds {count} planes, of which {count - len({*pages} - {-1})} are missing",
            fix="save it again, as one file",
        )
    spacing, unplaced = _spacing(tif, series) if "Z" in axes else (None, ())
    return Planes(axes, sizes, pages, contiguous, spacing, scale, (*more, *unplaced, *warnings))


def _named(axes: str, sizes: tuple[int, ...], inner: str) -> tuple[str, tuple[str, ...]]:
    """The axes with names, and what was assumed."""
    count = math.prod(sizes)
    if "T" in axes:
        frames = sizes[axes.index("T")]
        raise FormatError(
            f"holds {frames} points in time (frames)",
            fix="save each as a file of its own; if they are slices, exchange slices and frames in ImageJ "
            "(Image › Properties)",
        )
    warnings: tuple[str, ...] = ()
    unnamed = [axis for axis in axes if axis in _UNNAMED]
    if len(unnamed) == 1 and "Z" not in axes:
        axes = axes.replace(unnamed[0], "Z")
        n = sizes[axes.index("Z")]
        warnings = (f"nothing says what its {n} pages are: taken as slices of a volume, in their order",)
    colours = "C" in axes and "S" in inner
    if not set(axes) <= {"Z", "C"} or len({*axes}) < len(axes) or colours:
        raise FormatError(
            f"holds {count} pages along {len(axes)} axes ({axes}{' of colours' * colours}); "
            "expected are slices (Z), channels (C) or both",
            fix=_again(count),
        )
    return axes, warnings


def _again(count: int) -> str:
    return f"save its {count} pages as one stack in ImageJ, or as NIfTI, which knows its millimetres"


def _spacing(tif: tifffile.TiffFile, series: Any) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    """Millimetres between slices, rows and columns, and messages."""
    if series.kind == "ome":
        steps, warnings = _of_ome(tif.ome_metadata or "")
    elif series.kind == "imagej":
        steps, warnings = _of_imagej(tif.imagej_metadata or {}, series.keyframe)
    else:
        return None, ()
    if steps is None:
        return None, warnings
    if not all(math.isfinite(step) and 0 < step < _LARGEST for step in steps):
        size = " × ".join(f"{step:g}" for step in steps)
        return None, (*warnings, f"its voxels of {size} mm cannot be: it has no millimetres")
    return steps, (*warnings, "TIFF does not place it in the patient: its axes are taken as left, posterior, superior")


def _mm(unit: str) -> float | None:
    return _TO_MM.get(unit.strip().lower().replace("µ", "u").replace("μ", "u"))


def _resolution(page: Any, tag: int) -> float | None:
    """Pixels a unit."""
    numerator, denominator = page.tags.valueof(tag, default=(0, 0))
    return numerator / denominator if numerator and denominator else None


def _of_imagej(meta: dict[str, Any], page: Any) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    across, down = _resolution(page, _XRESOLUTION), _resolution(page, _YRESOLUTION)
    tag = int(page.tags.valueof(_RESOLUTION_UNIT, default=1))
    unit = _text(meta.get("unit", _TAG_UNITS.get(tag, "")))
    if across is None or down is None or unit in _PIXELS or ("unit" not in meta and (across, tag) == (_SCREEN, 2)):
        return None, ()
    units = [_text(meta.get(key, unit)) for key in ("zunit", "yunit", "unit")]
    factors = [_mm(word or unit) for word in (*units[:2], unit)]
    if None in factors:
        return None, (f"its unit {' × '.join(dict.fromkeys(units))!r:.40} is no length: it has no millimetres",)
    try:
        depth = float(meta.get("spacing", 0))
    except (TypeError, ValueError):
        return None, (f"its distance of slices {meta['spacing']!r:.40} is no number: it has no millimetres",)
    warnings = () if depth else (f"gives no distance of slices: taken as 1 {unit}, as ImageJ does",)
    z, y, x = (factor or 0 for factor in factors)
    return (abs(depth or 1) * z, y / down, x / across), warnings


def _text(value: object) -> str:
    r"""A word of ImageJ, which writes other letters than ASCII as ``\u00B5``."""
    return re.sub(r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), str(value)).strip()


def _of_ome(xml: str) -> tuple[tuple[float, float, float] | None, tuple[str, ...]]:
    pixels = next((one for one in ElementTree.fromstring(xml).iter() if one.tag.split("}")[-1] == "Pixels"), None)
    given = {} if pixels is None else dict(pixels.attrib)
    steps = []
    for axis in "ZYX":
        if (size := given.get(f"PhysicalSize{axis}")) is None:
            lost = "gives no size of its voxels along every axis: it has no millimetres"
            return None, (lost,) if any(f"PhysicalSize{other}" in given for other in "XYZ") else ()
        unit = given.get(f"PhysicalSize{axis}Unit", "µm")
        factor = _mm(unit)
        if factor is None:
            return None, (f"its unit {unit!r:.40} is no length: it has no millimetres",)
        steps.append(float(size) * factor)
    return (steps[0], steps[1], steps[2]), ()


def _calibration(tif: tifffile.TiffFile) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Slope and intercept by which ImageJ shows the stored values: signed numbers and HU are stored so."""
    meta = (tif.imagej_metadata or {}) if tif.is_imagej else {}
    function = meta.get("cf", _NO_FUNCTION)
    if function == _NO_FUNCTION:
        return (1.0, 0.0), ()
    try:
        intercept, slope = float(meta["c0"]), float(meta["c1"])
    except (KeyError, TypeError, ValueError):
        slope = intercept = math.nan
    if function != _STRAIGHT or not math.isfinite(slope) or not math.isfinite(intercept) or slope == 0:
        return (1.0, 0.0), (f"its ImageJ calibration (function {function}) is no straight line: values as stored",)
    return (slope, intercept), (f"its values are scaled by its ImageJ calibration: {slope:g} · stored + {intercept:g}",)

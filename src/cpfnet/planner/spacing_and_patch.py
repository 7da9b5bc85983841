"""On which grid to train: 2-D, 2.5-D or 3-D, spacing, size and patch."""

from __future__ import annotations

import math

import numpy as np

from cpfnet.errors import PlanError
from cpfnet.planner import gpu_patch
from cpfnet.planner.draft import Draft
from cpfnet.planning import VolumeMode
from cpfnet.rounding import above

THICK = 12.0
"""Median radius, pixels, that the thinnest class must keep where images are shrunk."""

BROAD = 16.0
"""Median radius, pixels, of the thinnest class that is enough on a CPU: images are shrunk until it has no more …"""

LEAST = 128
"""… or their longer side has so many pixels. In the same time a network meets four times as many images of half the
size: in PH², seven to nine minutes of one core find the lesions of 24 unseen images with a Dice of 0.94 at 96×128 and
of 0.92 at 192×256."""

ANISOTROPIC = 3.0
"""Ratio of slice distance to pixel size from which slices are segmented one by one on a CPU, and their distance is the
finest tenth's on a GPU."""

DEEP = 16
"""Slices from which volumes are learned in 3-D on a GPU, at the distance that they get there."""

WHOLE = 64
"""Most voxels along any axis of a data set whose volumes enter a network whole on a CPU, too. In five minutes of one
core `VOLUME_NETWORK` finds the hippocampus in 19 unseen volumes of about 35×50×36 with a Dice of 0.88, cpfnet-hr slice
by slice with 0.86, and in 3-D with 0.85 (narrow; 0.85 and 0.81 at the paper's width)."""

CUBIC = 2.0
"""Largest ratio of a voxel's sides for that."""

VOLUME_NETWORK = "dynunet"
"""nnU-Net's: where slices lie far apart, its first kernels look within them."""

PLANES = ("axial", "coronal", "sagittal")
_ORDER = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}  # of (inferior–superior, a–p, r–l)


def up(size: float, step: int = 32) -> int:
    """To the next multiple of ``step``, at least 32, the deepest level's stride; 8 where padding would cost more."""
    return max(32, -(-int(size) // step) * step)


def near(size: float) -> int:
    """To the nearest multiple of 32."""
    return max(32, 32 * round(size / 32))


def brief(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))


def propose_grid(draft: Draft, *, entire: bool, deep: bool, asked: VolumeMode | None = None) -> None:
    """Fill in `spatial` but for its patch.

    Args:
        draft: fingerprint and memory.
        entire: small volumes may enter the network whole on a CPU.
        deep: volumes may be learned in 3-D on a GPU.
        asked: the mode, where it is not to be what suits the volumes best.

    Raises:
        PlanError: ``asked`` of images, or 3-D of too few slices.
    """
    if draft.fingerprint.volumes:
        _volume_grid(draft, entire, deep, asked)
    elif asked is not None:
        raise PlanError("images are always learned in 2-D", where=f"--mode {asked}", fix="leave it out")
    else:
        _image_grid(draft)


def propose_patch(draft: Draft) -> None:
    """Fill in `spatial.patch`, once the network is known."""
    if draft.fingerprint.volumes:
        patch, unit = _volume_patch(draft)
        dims = len(patch)
        whole = all(p >= n for p, n in zip(patch, draft.median[-dims:], strict=True))
        kind = "volume" if dims == 3 else "slice"
        what = f"the whole of a median {kind}" + (f", in multiples of {unit}" if unit else "")
        why = what if whole else "cut from the volume" if dims == 3 else "cut from the slice"
    else:
        patch = _image_patch(draft)
        whole = all(p >= n for p, n in zip(patch, draft.median, strict=True))
        why = (
            "the whole image, in multiples of 32"
            if whole
            else "cut from the image: fine detail matters more than the whole"
        )
    if draft.memory.device == "cuda" and not whole:
        why += "; as large as nnU-Net's would be, and as the memory allows"
    draft.because("spatial.patch", why)
    draft.data["spatial"]["patch"] = patch


def _image_patch(draft: Draft) -> tuple[int, ...]:
    height, width = draft.median
    if draft.memory.device == "cuda":
        return gpu_patch.patch_2d(draft, height, width)
    if draft.data["spatial"]["size"] is not None:
        return draft.median
    radii = [c.radius for c in draft.fingerprint.classes if c.radius]
    tubular = any(c.tubular for c in draft.fingerprint.classes)
    if max(up(height), up(width)) <= 512 and not tubular and min(radii, default=0.0) >= 4:
        return up(height), up(width)
    side = 192 if draft.many_small_steps else 256
    return min(side, up(height)), min(side, up(width))


def _volume_patch(draft: Draft) -> tuple[tuple[int, ...], int]:
    """And what its sides are multiples of, where that is one number."""
    _, height, width = draft.median
    gpu, deep = draft.memory.device == "cuda", draft.data["spatial"]["mode"] == "3d"
    if deep and not draft.entire:
        spacing = draft.data["spatial"]["spacing"] or (1.0, 1.0, 1.0)
        return gpu_patch.patch_3d(draft, draft.median, spacing), 0
    if gpu:
        return gpu_patch.patch_2d(draft, height, width), gpu_patch.STEP
    unit = 8 if max(draft.median) <= 96 else 32
    if deep:
        return tuple(up(n, unit) for n in draft.median), unit
    side = 256 if min(height, width) > 96 else 96
    return (min(side, up(height, unit)), min(side, up(width, unit))), unit


def _image_grid(draft: Draft) -> None:
    fingerprint = draft.fingerprint
    height, width = fingerprint.median_size
    longest = max(height, width)
    radii = [c.radius for c in fingerprint.classes if c.radius]
    thinnest, tubular = min(radii, default=0.0), any(c.tubular for c in fingerprint.classes)
    wanted = 512
    if draft.memory.device == "cpu":
        wanted = 256 if thinnest * 256 <= BROAD * longest else max(LEAST, up(longest * BROAD / thinnest))
    size = None
    aspects = [w / h for h, w in fingerprint.sizes]
    alike = max(aspects) < 1.3 * min(aspects)
    if alike and not tubular and longest > wanted and thinnest * wanted / longest >= THICK:
        size = (near(height * wanted / longest), near(width * wanted / longest))
        draft.because(
            "spatial.size",
            f"the thinnest class has a median radius of {thinnest:.0f} pixels in {height}×{width}, and "
            f"{thinnest * wanted / longest:.0f} pixels in images shrunk so: enough to find it, with all that surrounds "
            "it in one view; and the smaller the images, the more of them are learned from in the same time"
            + " (no GPU was found)"
            * (draft.memory.device == "cpu"),
        )
    elif len(set(fingerprint.sizes)) > 1:
        smallest, largest = min(fingerprint.sizes), max(fingerprint.sizes)
        draft.because("spatial.size", f"images of {brief(smallest)} to {brief(largest)} keep their own grid")
    else:
        draft.because("spatial.size", f"all images are {height}×{width}; {_kept(longest, wanted, tubular)}")
    draft.median = size or (height, width)
    draft.data["spatial"] = {"mode": "2d", "size": size}
    if draft.modality == "fundus" and size is None:
        draft.data["spatial"]["longest"] = longest
        draft.because(
            "spatial.longest",
            "the retina fills such a photograph, so its size is its scale: those of other cameras are brought to it",
        )


def _kept(longest: int, wanted: int, tubular: bool) -> str:
    """Why images of one size are not shrunk."""
    if longest <= wanted:
        return "small enough as they are"
    return (
        "thin and long structures need every pixel" if tubular else "shrunk, the thinnest class would become too thin"
    )


def _volume_grid(draft: Draft, entire: bool, allowed: bool, asked: VolumeMode | None) -> None:
    fingerprint = draft.fingerprint
    spacing, size = fingerprint.median_spacing, fingerprint.median_size
    spread = 1.0
    if spacing is None:
        plane, order, step = "stored", (0, 1, 2), (1.0, 1.0, 1.0)
    else:
        coarse = max(range(3), key=lambda axis: (round(spacing[axis] / min(spacing), 1), -axis))
        plane = PLANES[coarse]
        order = _ORDER[plane]
        step, size = tuple(spacing[a] for a in order), tuple(size[a] for a in order)  # type: ignore[assignment]
        draft.because(
            "spatial.slices",
            f"median spacing {brief_mm(spacing)} mm (inferior–superior, anterior–posterior, right–left): "
            + (
                "nearly isotropic, so the usual plane"
                if max(spacing) < 1.3 * min(spacing)
                else "slices lie across the coarsest axis"
            ),
        )
        distances = [one[order[0]] for one in fingerprint.spacings]
        spread = max(distances) / min(distances)
    draft.median = tuple(size)
    ratio = step[0] / min(step[1:])
    depth = size[0]
    gpu = draft.memory.device == "cuda"
    figures = f"volumes of about {brief(tuple(size))}, slice distance {ratio:.1f} × pixel size"
    deep = depth >= DEEP and not above(ratio, ANISOTROPIC)
    whole = deep and not above(max(step), CUBIC * min(step)) and all(max(sizes) <= WHOLE for sizes in fingerprint.sizes)
    fine, median = _for_3d(draft, step, order)
    if gpu:
        deep = allowed and median[0] >= DEEP
    suits = deep if gpu else entire and whole
    draft.entire = not gpu and suits and asked != "2d"
    if asked == "3d" or (asked is None and suits):
        mode, neighbours = "3d", 0
        if not draft.entire:
            step, draft.median = fine, median
        why = "there is a GPU for it" if gpu else "they are small enough for it on a CPU, too"
        draft.because("spatial.mode", f"{figures}: one can look in all directions, and {why}")
    elif asked == "2d":
        mode, neighbours = "2d", 0
    else:
        neighbours = 1 if depth >= 8 and not above(ratio, ANISOTROPIC) else 0
        mode = "2.5d" if neighbours else "2d"
        if neighbours:
            if gpu:
                cost = ""
            elif whole and not entire:
                cost = f"; {VOLUME_NETWORK} would take such volumes whole, on a CPU, too"
            else:
                cost = "; 3-D takes longer, and no GPU was found (with one: spatial.mode 3d)"
            why = f"neighbouring slices look alike and enter as further channels{cost}"
        else:
            why = (
                "neighbouring slices have little to do with each other"
                if depth >= 8
                else "too few slices to look across"
            )
        draft.because("spatial.mode", f"{figures}: {why}")
    if asked is not None:
        draft.because("spatial.mode", "as asked for")
    if mode == "3d" and draft.median[0] < gpu_patch.FEWEST_SLICES:
        raise PlanError(
            f"{figures}: too few slices to look across, since 3-D needs {gpu_patch.FEWEST_SLICES}",
            where="--mode 3d",
            fix="leave it out, or plan for 2d",
        )
    if spacing is not None:
        _because_of_spacing(draft, mode, step, spread)
    kept = mode == "2d" or (mode == "2.5d" and above(spread, 1.01))
    draft.data["spatial"] = {
        "mode": mode,
        "neighbours": neighbours,
        "slices": plane,
        "spacing": None if spacing is None else (None, *step[1:]) if kept else step,
    }


def _for_3d(
    draft: Draft, step: tuple[float, ...], order: tuple[int, ...]
) -> tuple[tuple[float, float, float], tuple[int, ...]]:
    """Spacing for 3-D on a GPU, and the median size there.

    The median; but where slices lie far apart and are few, their distance is the finest tenth's, not below that of
    pixels: between coarse slices interpolation makes up nothing, and of fine ones most would be lost (nnU-Net has the
    same rule).
    """
    fingerprint = draft.fingerprint
    distance, height, width = step
    depth, *plane = draft.median
    if above(distance, ANISOTROPIC * max(height, width)) and depth * ANISOTROPIC < min(plane):
        tenth = float(np.percentile([spacing[order[0]] for spacing in fingerprint.spacings], 10))
        distance = max(float(f"{tenth:.4g}"), height, width)
    wanted = (distance, height, width)
    if not fingerprint.spacings:
        return wanted, draft.median
    sizes = [
        [size[axis] * spacing[axis] / to for axis, to in zip(order, wanted, strict=True)]
        for size, spacing in zip(fingerprint.sizes, fingerprint.spacings, strict=True)
    ]
    return wanted, tuple(max(1, math.floor(n + 0.5)) for n in np.median(sizes, axis=0))


def _because_of_spacing(draft: Draft, mode: str, step: tuple[float, ...], slices: float) -> None:
    spacings = draft.fingerprint.spacings
    spread = max(max(column) / min(column) for column in zip(*spacings, strict=True))
    median = (
        "the median, which all volumes have"
        if spread < 1.01
        else f"the median; spacings vary by a factor of up to {spread:.2g}"
    )
    if mode == "2d" or (mode == "2.5d" and above(slices, 1.01)):
        median += ". Slices stay where they are: what is seen one by one needs no common distance"
    elif mode == "3d" and step[0] < max(draft.fingerprint.median_spacing or step) and above(slices, 1.01):
        median += ", and of the distance between slices its finest tenth's"
    draft.because("spatial.spacing", median)


def brief_mm(spacing: tuple[float, ...]) -> str:
    """``1×0.8×0.8``."""
    return "×".join(f"{s:g}" for s in spacing)

"""On which grid to train: 2-D, 2.5-D or 3-D, spacing, size and patch."""

from __future__ import annotations

from cpfnet.planner.draft import Draft
from cpfnet.rounding import above

THICK = 12.0
"""Median radius, pixels, that the thinnest class must keep where images are shrunk."""

BROAD = 16.0
"""Median radius, pixels, of the thinnest class that is enough on a CPU: images are shrunk until it has no more …"""

LEAST = 128
"""… or their longer side has so many pixels. In the same time a network meets four times as many images of half the size: in PH²,
seven to nine minutes of one core find the lesions of 24 unseen images with a Dice of 0.94 at 96×128 and of 0.92 at 192×256."""

ANISOTROPIC = 3.0
"""Ratio of slice distance to pixel size from which slices are segmented one by one."""

WHOLE = 64
"""Most voxels along any axis of a data set whose volumes enter a network whole on a CPU, too. In five minutes of one core `VOLUME_NETWORK`
finds the hippocampus in 19 unseen volumes of about 35×50×36 with a Dice of 0.88, cpfnet-hr slice by slice with 0.86, and in 3-D with 0.85 (narrow; 0.85 and 0.81 at the paper's width)."""

CUBIC = 2.0
"""Largest ratio of a voxel's sides for that."""

VOLUME_NETWORK = "dynunet"
"""nnU-Net's."""

PLANES = ("axial", "coronal", "sagittal")
_ORDER = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}  # of (inferior–superior, a–p, r–l)


def up(size: float, step: int = 32) -> int:
    """To the next multiple of ``step``, at least 32, the deepest level's stride; 8 where padding would cost more than it gains."""
    return max(32, -(-int(size) // step) * step)


def near(size: float) -> int:
    """To the nearest multiple of 32."""
    return max(32, 32 * round(size / 32))


def brief(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))


def propose_grid(draft: Draft, *, entire: bool) -> None:
    """Fill in `spatial`; ``entire``: small volumes may enter the network whole on a CPU, too."""
    if draft.fingerprint.volumes:
        _volume_grid(draft, entire)
    else:
        _image_grid(draft)


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
            f"the thinnest class has a median radius of {thinnest:.0f} pixels in {height}×{width}, and {thinnest * wanted / longest:.0f} pixels "
            "in images shrunk so: enough to find it, with all that surrounds it in one view; and the smaller the images, the more of them are "
            "learned from in the same time" + " (no GPU was found)" * (draft.memory.device == "cpu"),
        )
    elif len(set(fingerprint.sizes)) > 1:
        smallest, largest = min(fingerprint.sizes), max(fingerprint.sizes)
        draft.because("spatial.size", f"images of {brief(smallest)} to {brief(largest)} keep their own grid")
    else:
        draft.because("spatial.size", f"all images are {height}×{width}; {_kept(longest, wanted, tubular)}")
    if size is not None:
        patch = size
    elif max(up(height), up(width)) <= 512 and not tubular and thinnest >= 4:
        patch = (up(height), up(width))
    else:
        side = 192 if draft.many_small_steps else 256
        patch = (min(side, up(height)), min(side, up(width)))
    whole = patch[0] >= (size or (height, width))[0] and patch[1] >= (size or (height, width))[1]
    draft.because(
        "spatial.patch",
        "the whole image, in multiples of 32"
        if whole
        else "cut from the image: fine detail matters more than the whole",
    )
    draft.data["spatial"] = {"mode": "2d", "size": size, "patch": patch}
    if draft.modality == "fundus" and size is None:
        draft.data["spatial"]["longest"] = longest
        draft.because(
            "spatial.longest",
            "the retina fills such a photograph, so its size is its scale: those of other cameras are brought to this one",
        )


def _kept(longest: int, wanted: int, tubular: bool) -> str:
    """Why images of one size are not shrunk."""
    if longest <= wanted:
        return "small enough as they are"
    return (
        "thin and long structures need every pixel" if tubular else "shrunk, the thinnest class would become too thin"
    )


def _volume_grid(draft: Draft, entire: bool) -> None:
    fingerprint = draft.fingerprint
    spacing, size = fingerprint.median_spacing, fingerprint.median_size
    if spacing is None:
        plane, step = "stored", (1.0, 1.0, 1.0)
    else:
        coarse = max(range(3), key=lambda axis: (round(spacing[axis] / min(spacing), 1), -axis))
        plane = PLANES[coarse]
        order = _ORDER[plane]
        step, size = tuple(spacing[a] for a in order), tuple(size[a] for a in order)  # type: ignore[assignment]
        draft.because(
            "spatial.slices",
            f"median spacing {_brief_mm(spacing)} mm (inferior–superior, anterior–posterior, right–left): "
            + (
                "nearly isotropic, so the usual plane"
                if max(spacing) < 1.3 * min(spacing)
                else "slices lie across the coarsest axis"
            ),
        )
        spread = [max(column) / min(column) for column in zip(*fingerprint.spacings, strict=True)]
        draft.because(
            "spatial.spacing",
            "the median, which all volumes have"
            if max(spread) < 1.01
            else f"the median; spacings vary by a factor of up to {max(spread):.2g}",
        )
    ratio = step[0] / min(step[1:])
    depth, (height, width) = size[0], size[1:]
    small, gpu = max(size) <= 96, draft.memory.device == "cuda"
    unit = 8 if small else 32
    figures = f"volumes of about {brief(tuple(size))}, slice distance {ratio:.1f} × pixel size"
    deep = depth >= 16 and not above(ratio, ANISOTROPIC)
    whole = deep and not above(max(step), CUBIC * min(step)) and all(max(sizes) <= WHOLE for sizes in fingerprint.sizes)
    if deep and (gpu or (entire and whole)):
        mode, neighbours = "3d", 0
        limits = (96, 96, 96) if small else (64, 128, 128) if ratio > 1.5 else (96, 96, 96)
        patch: tuple[int, ...] = tuple(min(limit, up(n, unit)) for limit, n in zip(limits, size, strict=True))
        why = "there is a GPU for it" if gpu else "they are small enough for it on a CPU, too"
        draft.because("spatial.mode", f"{figures}: one can look in all directions, and {why}")
    else:
        side = 256 if min(height, width) > 96 else 96
        patch = (min(side, up(height, unit)), min(side, up(width, unit)))
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
    draft.because(
        "spatial.patch",
        f"the whole of a median {'volume' if mode == '3d' else 'slice'}, in multiples of {unit}"
        if all(p >= n for p, n in zip(patch, size[-len(patch) :], strict=True))
        else "cut from the volume",
    )
    draft.data["spatial"] = {
        "mode": mode,
        "neighbours": neighbours,
        "slices": plane,
        "spacing": None if spacing is None else step,
        "patch": patch,
    }


def _brief_mm(spacing: tuple[float, ...]) -> str:
    return "×".join(f"{s:g}" for s in spacing)

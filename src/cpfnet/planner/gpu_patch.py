"""Patch and batch on a GPU: as large as nnU-Net's planner has them, as far as memory goes.

Its rule (Isensee et al., Nature Methods 2021; `ExperimentPlanner` of its second version), for networks of its size: a
patch begins with the proportions of 1/spacing, larger than any that will do, is clipped to the median image, and
rounded up to what the network's halvings divide. While two patches take too much, the axis that is longest, measured
by the median image, gives way by one step. What room is left becomes batch, of no more than a twentieth of all data
at once. "Too much" there is what fits into 8 GB; here it is `REFERENCE` or this GPU's memory, whichever is less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cpfnet.planner.costs import FLAT, flat_levels, room
from cpfnet.planner.draft import Draft

REFERENCE = {2: 12 * 512**2, 3: 5_000_000}
"""Pixels or voxels of a step, about as nnU-Net's target has them: 12 of 512², 2 of 128³, of 20×320×256 or of
64×160×192 where slices lie far apart (voxels count as `FLAT` says). With more memory a step takes no more, so that it
takes no longer."""

LEAST_BATCH = {2: 8, 3: 2}
"""Patches of a step: 2-D networks have batch normalisation; in 3-D a large patch is worth more than many."""

LARGEST_BATCH = {2: 12, 3: 12}
"""Small images make more steps, not larger ones."""

CPU_VOXELS = 64**3
"""Of a patch on a CPU, where volumes do not enter whole: a usual optimiser step there (`training.BATCH_PIXELS`)."""

SHARE = 0.05
"""Of all voxels of the data set: more at once, and a step is no sample of them any more."""

STEP = 32
"""What a 2-D patch's sides are multiples of."""

FLAT_NETWORKS, FEWEST_SLICES = ("dynunet", "dynunet-res"), 8
"""The networks that take patches of fewer than `STEP` slices, and how few."""

LARGEST_SIDE = 512
"""Of a 2-D patch."""


def multiples(patch: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """What `dynunet` needs each axis of a patch to be a multiple of: it halves an axis of at least 8 pixels while its
    spacing is within a factor of 2 of the finest."""
    sizes, steps, product = list(patch), list(spacing), [1] * len(patch)
    while True:
        finest = min(steps)
        halved = [size >= 8 and step <= 2 * finest for size, step in zip(sizes, steps, strict=True)]
        if not any(halved):
            return tuple(product)
        for axis, half in enumerate(halved):
            if half:
                sizes[axis], steps[axis], product[axis] = sizes[axis] // 2, steps[axis] * 2, product[axis] * 2


def patch_3d(draft: Draft, median: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """The largest patch of which two fit; on a CPU no more than `CPU_VOXELS`.

    Args:
        draft: network and memory.
        median: size of the median volume on the network's grid.
        spacing: mm along (depth, height, width).
    """
    inverse = [1 / step for step in spacing]
    scale = (256**3 / math.prod(inverse)) ** (1 / 3)
    least = (FEWEST_SLICES if draft.network in FLAT_NETWORKS else STEP, STEP, STEP)
    sizes = [min(round(scale * n), m) for n, m in zip(inverse, median, strict=True)]
    patch = _divisible(sizes, spacing, least)
    most = REFERENCE[3] / LEAST_BATCH[3] if draft.memory.device == "cuda" else CPU_VOXELS
    voxels = most / _more(spacing)
    while math.prod(patch) > voxels or LEAST_BATCH[3] * draft.patch_bytes(patch, spacing) > room(draft.memory.bytes):
        smaller = _cut(patch, median, spacing, least)
        if smaller == patch:
            break
        patch = smaller
    return patch


def _cut(
    patch: tuple[int, ...], median: Sequence[int], spacing: Sequence[float], least: Sequence[int]
) -> tuple[int, ...]:
    """One step shorter along the axis that is longest by the measure of the median volume; the same where nothing can
    go."""
    for axis in sorted(range(3), key=lambda a: (-patch[a] / median[a], -a)):
        shorter = list(patch)
        shorter[axis] -= multiples(patch, spacing)[axis]
        if shorter[axis] >= least[axis]:
            # A shorter axis is halved less often: between 256 and 192 there is 224.
            shorter[axis] = patch[axis] - multiples(shorter, spacing)[axis]
            cut = _divisible(shorter, spacing, least)
            if math.prod(cut) < math.prod(patch):
                return cut
    return patch


def _divisible(patch: Sequence[int], spacing: Sequence[float], least: Sequence[int]) -> tuple[int, ...]:
    """Rounded up; what is longer may be halved once more, so it is looked at again until nothing changes."""
    sizes = tuple(max(size, smallest) for size, smallest in zip(patch, least, strict=True))
    while True:
        larger = tuple(-(-size // unit) * unit for size, unit in zip(sizes, multiples(sizes, spacing), strict=True))
        if larger == sizes:
            return sizes
        sizes = larger


def _more(spacing: Sequence[float]) -> float:
    return FLAT[min(flat_levels(spacing), len(FLAT) - 1)][0]


def patch_2d(draft: Draft, height: int, width: int) -> tuple[int, int]:
    """Whole where that fits: at most `LARGEST_SIDE`, and so that `LEAST_BATCH` patches fit."""
    sides = [min(LARGEST_SIDE, max(STEP, -(-n // STEP) * STEP)) for n in (height, width)]
    while LEAST_BATCH[2] * draft.patch_bytes(sides) > room(draft.memory.bytes) and max(sides) > STEP:
        sides[sides.index(max(sides))] -= STEP
    return sides[0], sides[1]


def batch(draft: Draft, patch: Sequence[int], voxels: float, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> int:
    """Patches of a step: those of the reference, not more than `SHARE` of the data and than memory holds.

    Args:
        draft: network and memory.
        patch: 2 or 3 sizes.
        voxels: of all cases that train, on the network's grid.
        spacing: of the patch, in 3-D.
    """
    dims = len(patch)
    wanted = 2 * round(REFERENCE[dims] / (2 * math.prod(patch) * (_more(spacing) if dims == 3 else 1.0)))
    wanted = min(wanted, LARGEST_BATCH[dims], even(SHARE * voxels / math.prod(patch)))
    fits = even(room(draft.memory.bytes) / draft.patch_bytes(patch, spacing))
    return max(min(wanted, fits), LEAST_BATCH[dims])


def even(count: float) -> int:
    """No more than that, and an even number: two GPUs can share it."""
    return 2 * int(count / 2)

"""Two stages for large volumes: a first one on a grid so coarse that a patch sees enough of the body around it.

nnU-Net's rule (its `ExperimentPlanner`): where a patch holds less than a quarter of the median volume, the spacing
grows in steps of 3 % until it holds that much, first along the axes that are less than half as coarse as the coarsest.
It counts the patch's voxels; here only those within the volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cpfnet.errors import PlanError
from cpfnet.planner.draft import Draft
from cpfnet.planner.spacing_and_patch import brief, brief_mm, propose_patch

ENOUGH = 0.25
"""Share of a median volume that a patch should see."""

STEP = 1.03
"""By how much the spacing grows at a time."""


def share_seen(patch: Sequence[int], median: Sequence[int]) -> float:
    """Of a median volume, what a patch within it holds."""
    return math.prod(min(1.0, own / whole) for own, whole in zip(patch, median, strict=True))


def advise_first_stage(draft: Draft) -> None:
    """Say so where a patch sees too little; on a CPU nothing is proposed: there patches are small for other reasons."""
    spatial = draft.data["spatial"]
    if draft.memory.device != "cuda" or spatial["mode"] != "3d" or spatial["spacing"] is None:
        return
    share = share_seen(spatial["patch"], draft.median)
    if share < ENOUGH:
        draft.because(
            "first_stage",
            f"a patch sees {share:.0%} of a median volume of {brief(draft.median)}, less than a quarter: where "
            "structures are told apart by what lies far from them, train a first stage on a coarser grid "
            "(cpfnet plan --first-stage), and this plan with first_stage: true on what it finds",
        )


def propose_first_stage(draft: Draft) -> None:
    """Make the grid coarser until a patch sees enough; `spatial` is filled in before.

    Raises:
        PlanError: a first stage has no use, or cannot be had.
    """
    spatial = draft.data["spatial"]
    use = "; a first stage is for volumes in 3-D, on a GPU, of which a patch sees less than a quarter"
    fix = "leave out --first-stage"
    if draft.memory.device != "cuda" or spatial["mode"] != "3d":
        what = f"this is a plan for {spatial['mode']} on {draft.memory.place}{use}"
        raise PlanError(what, where="--first-stage", fix=f"{fix}; for another machine's GPU give --memory, too")
    if spatial["spacing"] is None:
        raise PlanError(f"the volumes have no millimetres to make coarser{use}", where="--first-stage", fix=fix)
    share = share_seen(spatial["patch"], draft.median)
    if share >= ENOUGH:
        what = f"a patch of {brief(spatial['patch'])} sees {share:.0%} of a median volume of {brief(draft.median)}"
        raise PlanError(f"{what}{use}", where="--first-stage", fix=fix)
    fine, whole = tuple(spatial["spacing"]), draft.median
    spacing = fine
    while share_seen(spatial["patch"], draft.median) < ENOUGH:
        near = [2 * step >= max(spacing) for step in spacing]
        spacing = tuple(step * (STEP if all(near) or not own else 1.0) for step, own in zip(spacing, near, strict=True))
        spatial["spacing"] = tuple(float(f"{step:.4g}") for step in spacing)
        factors = [own / coarse for own, coarse in zip(fine, spatial["spacing"], strict=True)]
        draft.median = tuple(max(1, round(n * factor)) for n, factor in zip(whole, factors, strict=True))
        propose_patch(draft)
    draft.because(
        "spatial.spacing",
        f"for a first stage: a patch would see {share:.0%} of a median volume at {brief_mm(fine)} mm, and sees "
        f"{share_seen(spatial['patch'], draft.median):.0%} of it, {brief(draft.median)}, so",
    )

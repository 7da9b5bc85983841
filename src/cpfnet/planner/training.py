"""How a network is trained: in which batches, for how long, with which loss and learning rate."""

from __future__ import annotations

import math
from typing import Any

from cpfnet.cores import cores
from cpfnet.planner import gpu_patch
from cpfnet.planner.augmentation import propose_augmentation
from cpfnet.planner.costs import GIB, room
from cpfnet.planner.draft import FINE_NETWORK, Draft
from cpfnet.planner.schedule import VALIDATION, Schedule, propose_schedule
from cpfnet.planner.spacing_and_patch import brief
from cpfnet.planner.speed import duration

BATCH_PIXELS = 4 * 256 * 256
"""Pixels of one optimiser step: 4 patches of 256², or as many smaller ones …"""

SMALL_STEP_PIXELS = BATCH_PIXELS // 4
"""… and on a CPU for fine structures in images, or where `VOLUME_NETWORK` learns from whole volumes: more steps in
the same time are worth more than smoother ones (five minutes of one core: Hippocampus, 640 steps of 1 end with a Dice
of 0.880, 360 of 2 with 0.873; DRIVE, a U-Net of 16…256 channels, 1,540 steps of 2 × 192² with 0.810, 400 of 4 × 256²
with 0.795)."""

SHRUNK_BATCH = 8
"""Most images of an optimiser step where they are shrunk to be learned from on a CPU, for the same reason; fewer than
that, and batch normalisation knows too little (PH²: 1,000 steps of 2 are worse than 250 of 8). Images that are as
small by themselves were not measured: they keep the usual steps and network."""

CPU_STEPS = 50
"""Optimiser steps of an epoch on a CPU, of `BATCH_PIXELS`."""

COMMON = 0.05
"""Share of the pixels from which a class is met in any patch."""


def propose_training(draft: Draft, hours: float | None) -> None:
    """Batch, length, loss, learning rate and augmentation; `inference.tile` is known before."""
    spatial, fingerprint = draft.data["spatial"], draft.fingerprint
    pixels = math.prod(spatial["patch"])
    shrunk = draft.shrunk
    most = SHRUNK_BATCH if shrunk else 32
    least = 1 if draft.entire else 2  # instance normalisation needs no second sample
    needed = draft.patch_bytes(spatial["patch"], spatial.get("spacing"))
    fits = max(1, int(room(draft.memory.bytes) / needed))
    if draft.memory.device == "cuda":
        voxels = math.prod(draft.median) * draft.training_cases
        wanted = gpu_patch.batch(draft, spatial["patch"], voxels, spatial.get("spacing") or (1.0, 1.0, 1.0))
    else:
        wanted = min(most, max(least, round((SMALL_STEP_PIXELS if draft.many_small_steps else BATCH_PIXELS) / pixels)))
    batch = min(wanted, fits)
    accumulate = -(-wanted // batch)
    draft.because(
        "training.batch",
        f"{wanted} patch{'es' * (wanted > 1)} of {brief(tuple(spatial['patch']))} an optimiser step; {draft.memory}, "
        f"about {needed / GIB:.2g} GiB a patch: {batch} at once"
        f"{'; many small steps learn more in the same time' if draft.many_small_steps or shrunk else ''}",
    )
    steps = CPU_STEPS
    if draft.many_small_steps or shrunk:
        steps = max(steps, round(steps * BATCH_PIXELS / (wanted * pixels)))
    schedule = propose_schedule(
        draft,
        group=batch * accumulate,
        steps=steps,
        training=draft.training_cases,
        held_out=draft.validation_cases,
        hours=hours,
    )
    epochs, steps = schedule.epochs, schedule.steps
    _because_of_schedule(draft, schedule, batch * accumulate)
    rate, why = _learning_rate(draft)
    draft.because("training.learning_rate", why)
    augmentation = propose_augmentation(draft)
    rare = min((c.frequency for c in fingerprint.classes if c.frequency), default=0.0)
    thin = bool(draft.thin)
    draft.because(
        "training.foreground",
        f"the rarest class fills {rare:.2%} of the pixels" + ", all over the image" * (thin and rare > COMMON),
    )
    options: dict[str, Any] = {"background": False} if thin else {}
    whys = ["the overlap of the structures alone: that of background is near 1 from the start"] * thin
    if draft.memory.device == "cuda" and batch > 1 and accumulate == 1:
        options["pooled"] = True
        whys.append("overlap over the whole batch: what is found in a patch without the class costs, too")
    if whys:
        draft.because("training.loss.options", "\n".join(whys))
    draft.data["training"] = {
        "epochs": epochs,
        "samples": steps * batch * accumulate,
        "batch": batch,
        "accumulate": accumulate,
        "foreground": (0.0 if thin else 0.33) if rare > COMMON else 0.5,
        "loss": {"name": "dice+ce", "options": options},
        "learning_rate": rate,
        "warmup": epochs * steps // 20,
        "workers": min(4, cores()),
        "augmentation": augmentation,
        "validation": schedule.validation,
    }


def _because_of_schedule(draft: Draft, schedule: Schedule, group: int) -> None:
    total = schedule.seconds + schedule.validation_seconds
    share = schedule.validation_seconds / total
    why = f" ({schedule.why})" if schedule.why else ""
    expected = f"about {duration(total)} on {draft.memory.place}, {share:.0%} of it for validation"
    draft.because(
        "training.epochs",
        f"{schedule.epochs} × {schedule.steps} optimiser steps{why}: "
        f"{_seen(draft, schedule.epochs * schedule.steps * group)}\n{expected}; the run corrects that once it has "
        "begun",
    )
    if schedule.validation is not None:
        whole = schedule.validation["whole"]
        draft.because(
            "training.validation",
            f"to validate all cases whole after each epoch would take more than {VALIDATION:.0%} of the run; at the "
            "end " + ("all are segmented whole" if whole is None else f"{whole} are"),
        )


def expected_time(reasons: dict[str, str]) -> str:
    """How long a run takes on the machine that is planned for, from the reasons that `propose` gives."""
    return reasons["training.epochs"].partition("\n")[2].partition(";")[0]


def _learning_rate(draft: Draft) -> tuple[float, str]:
    if draft.data["network"]["weights"] != "none":
        return 5e-4, "smaller where the encoder is pretrained, than from scratch (--weights none)"
    if draft.network == FINE_NETWORK:
        return 3e-3, "AdamW from scratch; cpfnet-hr learns more with three times the usual"
    return 1e-3, "AdamW from scratch"


def _seen(draft: Draft, patches: int) -> str:
    """How often the network meets the same data: an image, a slice of a volume, or in 3-D a volume."""
    spatial, fingerprint = draft.data["spatial"], draft.fingerprint
    count = draft.training_cases
    about = "about " if not fingerprint.validation and count < fingerprint.cases else ""
    what = f"{about}{count} case{'s' * (count != 1)}" + (
        f" that train{'s' * (count == 1)}" if count < fingerprint.cases else ""
    )
    if len(spatial["patch"]) == 3:
        return f"about {patches / count:.0f} patches of each of {what}"
    times = patches / count
    if fingerprint.volumes:
        across = {"coronal": 1, "sagittal": 2}.get(spatial["slices"], 0)
        slices = round(sum(size[across] for size in fingerprint.sizes) * count / fingerprint.cases)
        times, what = patches / slices, f"{about}{slices} slices of {what.removeprefix('about ')}"
    return f"each of {what} is seen about {times:.{0 if times >= 2 else 1}f} times"

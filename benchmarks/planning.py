"""What `cpfnet plan` proposes for twelve typical tasks on four GPUs and a CPU, beside nnU-Net's planner: python -m
benchmarks planning

Writes the table of docs/background/planning.md. The data sets are known by their fingerprints alone: sizes, spacings,
classes and channels as their papers tell them. nnU-Net's patch and batch are worked out by its published rule
(`nnunet`), restated here.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.accuracy.table import fill
from cpfnet.data.case import Dataset
from cpfnet.planner.costs import GIB
from cpfnet.planner.fingerprint import ChannelFingerprint, ClassFingerprint, Fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planner.modality import Look
from cpfnet.planner.proposal import propose
from cpfnet.planning import LabelClass, Labels, Modality, Plan

SHOWN = (
    "spatial.mode",
    "spatial.size",
    "spatial.spacing",
    "spatial.patch",
    "first_stage",
    "training.batch",
    "training.epochs",
    "training.validation",
)
"""Keys whose reasons are told."""

PAGE = Path(__file__).parents[1] / "docs" / "background" / "planning.md"

MACHINES = {f"{gib} GiB": Memory(gib * GIB, "cuda") for gib in (8, 12, 24, 80)} | {"CPU": Memory(16 * GIB, "cpu")}


@dataclass(frozen=True)
class Task:
    """A data set as its papers tell of it.

    Attributes:
        name, modality: of the data set.
        cases: labelled ones.
        size: of the median image, (depth,) height, width.
        spacing: of the median volume, mm; None for images.
        classes: how many structures.
        radius: of the thinnest, pixels.
        channels: of an image.
        spread: smallest and largest distance of slices, mm.
        cropped: what nnU-Net leaves of the median volume (it cuts away what is 0).
        tubular: thin and branching.
    """

    name: str
    modality: Modality
    cases: int
    size: tuple[int, ...]
    spacing: tuple[float, float, float] | None = None
    classes: int = 1
    radius: float = 20.0
    channels: int = 1
    spread: tuple[float, float] | None = None
    cropped: tuple[int, int, int] | None = None
    tubular: bool = False

    @property
    def distances(self) -> tuple[float, ...]:
        """Of slices, a case each: half the cases below the median, half above."""
        assert self.spacing is not None
        low, high = self.spread or (self.spacing[0], self.spacing[0])
        shares = (np.arange(self.cases) + 0.5) / self.cases
        return tuple(
            float(d) for d in np.interp(shares, (0, 0.1, 0.4, 0.6, 1), (low, low, *[self.spacing[0]] * 2, high))
        )


TASKS = (
    Task("BraTS (MSD 1)", "mr", 484, (155, 240, 240), (1, 1, 1), 3, 12, 4, cropped=(138, 169, 138)),
    Task("LiTS (MSD 3)", "ct", 131, (432, 512, 512), (1, 0.77, 0.77), 2, 9, spread=(0.7, 5)),
    Task("ACDC", "mr", 200, (9, 256, 216), (10, 1.56, 1.56), 3, 8, spread=(5, 10)),
    Task("KiTS", "ct", 210, (107, 512, 512), (3, 0.78, 0.78), 2, 15, spread=(1, 5)),
    Task("Hippocampus (MSD 4)", "mr", 260, (36, 50, 35), (1, 1, 1), 2, 4),
    Task("Prostate (MSD 5)", "mr", 32, (20, 320, 320), (3.6, 0.625, 0.625), 2, 12, 2, spread=(3.6, 4)),
    Task("DRIVE", "fundus", 20, (584, 565), None, 1, 1.4, 3, tubular=True),
    Task("ChestXray (Shenzhen)", "xray", 566, (2919, 3000), None, 1, 350),
    Task("ISIC 2018", "dermoscopy", 2594, (2016, 3024), None, 1, 350, 3),
    Task("BTCV", "ct", 30, (130, 512, 512), (3, 0.76, 0.76), 13, 4, spread=(3, 5)),
    Task("Lung (MSD 6)", "ct", 63, (252, 512, 512), (1.24, 0.79, 0.79), 1, 8, spread=(0.6, 2.5)),
    Task("Kvasir-SEG, polyps", "endoscopy", 1000, (529, 622), None, 1, 75, 3),
)

GREY = dict.fromkeys(Look.model_fields, 0.0) | {"red": 1 / 3, "green": 1 / 3, "aspect": 1.0, "spine": 1.0}


def fingerprint(task: Task) -> Fingerprint:
    """As `cpfnet plan` would find it."""
    names = [f"class {k + 1}" for k in range(task.classes)]
    low, high = (-1024.0, 3071.0) if task.modality == "ct" else (0.0, 255.0 if task.spacing is None else 3000.0)
    levels = (low, low, (low + high) / 2, high, high)
    inside = (20.0, 60.0, 100.0, 140.0, 180.0)
    spacings = [(distance, *task.spacing[1:]) for distance in task.distances] if task.spacing else []
    depth = [round(task.size[0] * task.spacing[0] / spacing[0]) for spacing in spacings] if task.spacing else []
    return Fingerprint.model_validate(
        {
            "cases": task.cases,
            "patients": task.cases,
            "volumes": task.spacing is not None,
            "sizes": [(n, *task.size[1:]) for n in depth] or [task.size] * task.cases,
            "spacings": spacings,
            "channels": [
                ChannelFingerprint(
                    name=f"channel {k}",
                    low=low,
                    high=high,
                    image=levels,
                    body=levels,
                    labels=inside,
                    typical=(0, 0, 0.5, 1, 1),
                )
                for k in range(task.channels)
            ],
            "values": {},
            "labels": Labels(classes=tuple(LabelClass(name=n, values=(k + 1,)) for k, n in enumerate(names))),
            "labels_reason": "as its paper says",
            "classes": [
                ClassFingerprint(name=n, cases=1, frequency=0.05, radius=task.radius, tubular=task.tubular)
                for n in names
            ],
            "look": Look(**(GREY | {"colour": 0.4 if task.channels == 3 and task.spacing is None else 0.0})),
            "readers": 1,
            "roi": 0,
        }
    )


def proposals(task: Task) -> dict[str, tuple[Plan, dict[str, str]]]:
    """For each machine, the plan and its reasons."""
    data, print_of = Dataset(Path(), task.name, ()), fingerprint(task)
    return {name: propose(print_of, data, modality=task.modality, memory=memory) for name, memory in MACHINES.items()}


# nnU-Net's rule, from the source of its version 2: `ExperimentPlanner`, `get_pool_and_conv_props`, `PlainConvUNet`.

LEAST_EDGE = 4
"""Voxels that every axis keeps at the deepest level."""


def topology(spacing: Sequence[float], patch: Sequence[int]) -> tuple[list[list[int]], list[int]]:
    """Strides of its levels, and the patch rounded up to what they divide."""
    steps, sizes = list(spacing), [float(n) for n in patch]
    axes, strides, times = range(len(patch)), [[1] * len(patch)], [0] * len(patch)
    while True:
        long = [a for a in axes if sizes[a] >= 2 * LEAST_EDGE]
        if not long:
            break
        finest = min(steps[a] for a in long)
        halved = [a for a in long if steps[a] / finest < 2]
        if len(halved) == 1 and sizes[halved[0]] < 3 * LEAST_EDGE:
            break
        strides.append([2 if a in halved else 1 for a in axes])
        for a in halved:
            times[a] += 1
            steps[a] *= 2
            sizes[a] = math.ceil(sizes[a] / 2)
    return strides, [-(-n // 2**t) * 2**t for n, t in zip(patch, times, strict=True)]


def feature_values(patch: Sequence[int], strides: Sequence[Sequence[int]], outputs: int) -> int:
    """Values that its network's convolutions give for one patch: the measure of its planner for memory."""
    most = 512 if len(patch) == 2 else 320
    features = [min(most, 32 * 2**level) for level in range(len(strides))]
    sizes, size = [], list(patch)
    for stride in strides:
        size = [n // s for n, s in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    encoder = sum(2 * width * n for width, n in zip(features, sizes, strict=True))
    decoder = sum(
        (2 + 1) * width * n for width, n in zip(features[:-1], sizes[:-1], strict=True)
    )  # and what is enlarged
    return encoder + decoder + outputs * sizes[0]


def nnunet(spacing: Sequence[float], median: Sequence[int], cases: int, outputs: int) -> tuple[tuple[int, ...], int]:
    """Patch and batch of its default planner, which plans for 8 GB.

    Args:
        spacing: of the grid, 2 or 3 axes, coarsest first.
        median: size of the median image there.
        cases: of the data set, for its limit of 5 % of all voxels a step (slices of a volume are voxels of the data
            set, too).
        outputs: planes, background included.
    """
    dims = len(spacing)
    reference, batch = (85e6, 12) if dims == 2 else (560e6, 2)
    inverse = [1 / step for step in spacing]
    scale = ((2048**2 if dims == 2 else 256**3) / math.prod(inverse)) ** (1 / dims)
    patch = [min(round(scale * n), m) for n, m in zip(inverse, median[-dims:], strict=True)]
    strides, patch = topology(spacing, patch)
    while feature_values(patch, strides, outputs) / batch * 2 > reference:
        ratios = [p / m for p, m in zip(patch, median[-dims:], strict=True)]
        axis = max(range(dims), key=lambda a: (ratios[a], a))
        shorter = list(patch)
        shorter[axis] -= math.prod(stride[axis] for stride in strides)
        unit = math.prod(stride[axis] for stride in topology(spacing, shorter)[0])
        patch[axis] -= unit
        strides, patch = topology(spacing, patch)
    wanted = round(reference / feature_values(patch, strides, outputs) * batch)
    limit = round(math.prod(median) * cases * 0.05 / math.prod(patch))
    return tuple(patch), max(2, min(wanted, limit))


def nnunet_of(task: Task) -> tuple[tuple[int, ...], int]:
    """3-D for volumes, 2-D for images."""
    if task.spacing is None:
        return nnunet((1.0, 1.0), task.size, task.cases, task.classes + 1)
    size, (distance, *pixel) = task.cropped or task.size, task.spacing
    if distance > 3 * max(pixel) and size[0] * 3 < min(size[1:]):
        finest = max(float(np.percentile(task.distances, 10)), max(pixel) + 1e-5)
        size, distance = (round(size[0] * distance / finest), *size[1:]), finest
    return nnunet((distance, *pixel), size, task.cases, task.classes + 1)


def cell(plan: Plan) -> str:
    """``dynunet, 3d: 128×128×128 × 2, 25,000 steps``"""
    training = plan.training
    steps = training.epochs * (training.samples // (training.batch * training.accumulate))
    size = f" of {_times(plan.spatial.size)}" if plan.spatial.size and plan.spatial.size != plan.spatial.patch else ""
    mode = f"{plan.network.name}, {plan.spatial.mode}{size}"
    return f"{mode}: {_times(plan.spatial.patch)} × {training.batch}, {steps:,} steps"


def _times(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def tables() -> dict[str, str]:
    """Markdown for the marks `proposals` and `reasons`."""
    rows = ["| task | " + " | ".join(MACHINES) + " | nnU-Net |", "|---" * (len(MACHINES) + 2) + "|"]
    reasons = []
    for task in TASKS:
        made = proposals(task)
        patch, batch = nnunet_of(task)
        theirs = f"{len(patch)}d: {_times(patch)} × {batch}, 250,000 steps"
        rows.append(
            f"| {task.name} | " + " | ".join(_merged([cell(plan) for plan, _ in made.values()])) + f" | {theirs} |"
        )
        reasons.append(f"### {task.name}\n")
        for name in ("24 GiB", "CPU"):
            why = made[name][1]
            said = [f"`{key}`: {why[key]}" for key in SHOWN if key in why]
            reasons += [_wrapped(f"- {name}. {'. '.join(part.replace(chr(10), '; ') for part in said)}."), ""]
    return {"proposals": "\n".join(rows) + "\n", "reasons": "\n".join(reasons)}


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _merged(cells: Sequence[str]) -> list[str]:
    """What is the same as in the column before is not said again."""
    return [cell if number == 0 or cell != cells[number - 1] else "the same" for number, cell in enumerate(cells)]


def main() -> None:
    print(f"{PAGE}: filled {', '.join(fill(PAGE, tables()))}")


if __name__ == "__main__":
    main()

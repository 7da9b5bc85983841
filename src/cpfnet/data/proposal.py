"""From the fingerprint of a data set to a Plan, with the reason beside each choice."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, get_args

import psutil

from cpfnet.data.dataset import Dataset
from cpfnet.data.fingerprint import ChannelFingerprint, Fingerprint
from cpfnet.data.modality import guess
from cpfnet.errors import PlanError
from cpfnet.planning import Modality, Plan
from cpfnet.settings import validate

GIB = 2**30

NETWORK = "cpfnet"
"""What is proposed where no network is named."""

PRETRAINED = ("cpfnet", "cpfnet-guide", "resnet34-unet")
"""Networks whose encoder takes ImageNet weights (in 2-D)."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BYTES_PER_PIXEL = 10_000
"""Training memory for one input pixel or voxel: what a network keeps for its gradients was measured as 1.5 to 9.7 kB in float32
(cpfnet 3.0, unet++ 8.7, cpfnet with stem_stride 1 9.7; cpfnet in 3-D 1.3)."""

FIXED_BYTES = 2 * GIB
"""Weights, gradients, optimiser and libraries."""

BATCH_PIXELS = 4 * 256 * 256
"""Pixels of one optimiser step: 4 patches of 256², or as many smaller ones."""

THICK = 12.0
"""Median radius, pixels, that the thinnest class must keep where images are shrunk."""

ANISOTROPIC = 3.0
"""Ratio of slice distance to pixel size from which slices are segmented one by one."""

PLANES = ("axial", "coronal", "sagittal")
_ORDER = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}  # of (inferior–superior, a–p, r–l)

_SIDED = re.compile(r"(^|[^a-z])(left|right|l|r|lt|rt)([^a-z]|$)|links|rechts|gauche|droit", re.IGNORECASE)


@dataclass(frozen=True)
class Memory:
    """Where training will run, as far as one can see now.

    Attributes:
        bytes: free memory for it.
        device: ``"cuda"`` or ``"cpu"``.
    """

    bytes: int
    device: str

    @classmethod
    def found(cls) -> Memory:
        """The largest CUDA device, asked of the driver without loading torch; else main memory."""
        gpu = _cuda_bytes()
        return cls(gpu, "cuda") if gpu else cls(int(psutil.virtual_memory().available), "cpu")

    def __str__(self) -> str:
        return (
            f"{self.bytes / GIB:.0f} GiB free on {'the GPU' if self.device == 'cuda' else 'this machine, no GPU found'}"
        )


def _cuda_bytes() -> int:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    if hidden or metadata.version("torch").endswith("+cpu") or not shutil.which("nvidia-smi"):
        return 0
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return max(int(line) for line in answer.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


@dataclass
class _Draft:
    """The Plan as plain data while it grows, and why."""

    fingerprint: Fingerprint
    memory: Memory
    network: str
    modality: Modality
    data: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def because(self, key: str, reason: str) -> None:
        self.reasons[key] = reason


def propose(
    fingerprint: Fingerprint,
    dataset: Dataset,
    *,
    modality: str | None = None,
    memory: Memory | None = None,
    network: str | None = None,
) -> tuple[Plan, dict[str, str]]:
    """Propose how to train on a data set.

    Args:
        fingerprint: of ``dataset``.
        dataset: what it declares wins over what the fingerprint suggests.
        modality: wins over both.
        memory: default: what is found.
        network: by name; default: the project's.

    Returns:
        The Plan, and for its keys (dotted) why they have their values.

    Raises:
        PlanError: no such modality.
    """
    if modality is not None and modality not in get_args(Modality):
        raise PlanError(
            f"unknown modality {modality!r}", where="--modality", mend=f"one of {', '.join(get_args(Modality))}"
        )
    first = fingerprint.channels[0]
    kind, why = guess(fingerprint.look, volumes=fingerprint.volumes, low=first.low, high=first.high)
    if modality is not None:
        kind, why = modality, "as asked for"  # type: ignore[assignment]  # validated with the plan
    elif dataset.modality is not None:
        kind, why = dataset.modality, "declared by the data set"
    else:
        why += "; if wrong, plan again with --modality"
    draft = _Draft(fingerprint, memory or Memory.found(), network or NETWORK, kind)
    draft.data = {
        "name": dataset.name,
        "modality": kind,
        "source": "volumes" if fingerprint.volumes else "images",
        "labels": _labels(draft),
    }
    draft.because("modality", why)
    _spatial(draft)
    _network(draft)
    draft.data["channels"] = [_channel(draft, i, channel) for i, channel in enumerate(fingerprint.channels)]
    _training(draft)
    _inference(draft)
    _folds(draft)
    return validate(Plan, draft.data, where="the proposed plan"), draft.reasons


def _labels(draft: _Draft) -> dict[str, Any]:
    fingerprint = draft.fingerprint
    labels = fingerprint.labels.model_dump(mode="json")
    figures = []
    for entry, found in zip(labels["classes"], fingerprint.classes, strict=True):
        entry["tubular"] = found.tubular
        figures.append(
            f"{found.name}: in {found.cases:.0%} of the labels, {found.frequency:.2%} of the pixels, median radius "
            f"{found.radius:.1f} pixels{', thin and long: tubular' if found.tubular else ''}"
        )
    readers = f"\nup to {fingerprint.readers} readers a case: each patch takes one at random" * (
        fingerprint.readers > 1
    )
    draft.because("labels", f"{fingerprint.labels_reason}\n" + "\n".join(figures) + readers)
    return labels


def _up(size: float) -> int:
    """To the next multiple of 32, the deepest level's stride."""
    return max(32, -(-int(size) // 32) * 32)


def _brief(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))


def _spatial(draft: _Draft) -> None:
    (_volume_grid if draft.fingerprint.volumes else _image_grid)(draft)


def _image_grid(draft: _Draft) -> None:
    fingerprint = draft.fingerprint
    height, width = fingerprint.median_size
    longest = max(height, width)
    radii = [c.radius for c in fingerprint.classes if c.radius]
    thinnest, tubular = min(radii, default=0.0), any(c.tubular for c in fingerprint.classes)
    wanted = 512 if draft.memory.device == "cuda" else 256
    size = None
    aspects = [w / h for h, w in fingerprint.sizes]
    alike = max(aspects) < 1.3 * min(aspects)
    if alike and not tubular and longest > wanted and thinnest * wanted / longest >= THICK:
        size = (_up(height * wanted / longest), _up(width * wanted / longest))
        draft.because(
            "spatial.size",
            f"the thinnest class has a median radius of {thinnest:.0f} pixels in {height}×{width}: shrunk, it keeps "
            f"{thinnest * wanted / longest:.0f}, and a network that sees the whole image sees its surroundings ({draft.memory})",
        )
    elif len(set(fingerprint.sizes)) > 1:
        smallest, largest = min(fingerprint.sizes), max(fingerprint.sizes)
        draft.because("spatial.size", f"images of {_brief(smallest)} to {_brief(largest)} keep their own grid")
    else:
        draft.because("spatial.size", f"all images are {height}×{width}; thin structures need every pixel")
    if size is not None:
        patch = size
    elif max(_up(height), _up(width)) <= 512 and not tubular and thinnest >= 4:
        patch = (_up(height), _up(width))
    else:
        patch = (min(256, _up(height)), min(256, _up(width)))
    whole = patch[0] >= (size or (height, width))[0] and patch[1] >= (size or (height, width))[1]
    draft.because(
        "spatial.patch",
        "the whole image, in multiples of 32"
        if whole
        else "cut from the image: fine detail matters more than the whole",
    )
    draft.data["spatial"] = {"mode": "2d", "size": size, "patch": patch}


def _volume_grid(draft: _Draft) -> None:
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
    figures = f"volumes of about {_brief(tuple(size))}, slice distance {ratio:.1f} × pixel size"
    if depth >= 16 and ratio <= ANISOTROPIC and gpu:
        mode, neighbours = "3d", 0
        limits = (96, 96, 96) if small else (64, 128, 128) if ratio > 1.5 else (96, 96, 96)
        patch: tuple[int, ...] = tuple(min(limit, _up(n)) for limit, n in zip(limits, size, strict=True))
        draft.because("spatial.mode", f"{figures}: one can look in all directions, and there is a GPU for it")
    else:
        side = 256 if min(height, width) > 96 else 96
        patch = (min(side, _up(height)), min(side, _up(width)))
        neighbours = 1 if depth >= 8 and ratio <= ANISOTROPIC else 0
        mode = "2.5d" if neighbours else "2d"
        if neighbours:
            cost = "" if gpu else "; 3-D takes some 10 times as long, and no GPU was found (with one: spatial.mode 3d)"
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
        "the whole, in multiples of 32"
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


def _network(draft: _Draft) -> None:
    pretrained = draft.network in PRETRAINED and len(draft.data["spatial"]["patch"]) == 2
    draft.data["network"] = {"name": draft.network, "weights": "imagenet" if pretrained else "none"}
    if pretrained:
        draft.because(
            "network.weights", "an encoder that has seen a million photographs needs fewer scans; none: from scratch"
        )
    else:
        draft.because("network.weights", "there are no ImageNet weights for this network")
    if any(c.tubular and c.radius < 2 for c in draft.fingerprint.classes) and draft.network.startswith("cpfnet"):
        draft.because(
            "network.options",
            "structures of 1 to 2 pixels: {stem_stride: 1} doubles the resolution inside the network, for four times the time",
        )


def _channel(draft: _Draft, index: int, channel: ChannelFingerprint) -> dict[str, Any]:
    fingerprint = draft.fingerprint
    names = [c.name for c in fingerprint.channels]
    middle = f"{channel.low:g} … {channel.high:g}, half below {channel.body[2]:g} in the body"
    if draft.modality == "ct":
        intensity, why = _ct(channel)
    elif draft.modality == "mr":
        intensity, why = {"kind": "zscore"}, "MR has no fixed scale: mean 0 and SD 1 inside the body"
    elif not fingerprint.volumes and len(names) == 3 and fingerprint.look.colour > 0.02:
        pretrained = draft.data["network"]["weights"] == "imagenet"
        full = 255.0 if channel.high <= 255 else 65535.0
        mean, std = (IMAGENET_MEAN[index], IMAGENET_STD[index]) if pretrained else (0.5, 0.25)
        intensity = {"kind": "scale", "full": full, "mean": mean, "std": std}
        why = "colour: 0…1, then " + (
            "the statistics of the images that the encoder has seen" if pretrained else "about mean 0 and SD 1"
        )
    elif draft.modality in ("oct", "ultrasound", "xray") or not fingerprint.volumes:
        intensity = {"kind": "percentiles"}
        why = "0…1 between two percentiles of each image: exposure differs, and single bright pixels or a constant border must not set the scale"
    else:
        intensity, why = {"kind": "minmax"}, "nothing is known of the scale: each image's own minimum and maximum"
    key = "channels" if index == 0 else f"channels.{index}.intensity"
    if index == 0 or (intensity["kind"] == "window"):
        draft.because(key, f"{channel.name}: values {middle}\n{why}")
    return {"name": channel.name, "intensity": intensity}


def _ct(channel: ChannelFingerprint) -> tuple[dict[str, Any], str]:
    if channel.labels is not None:
        low, high = channel.labels[0], channel.labels[-1]
        if high - low < 1000:
            margin = max(0.5 * (high - low), 100.0)
            window = {"kind": "window", "low": float(round(low - margin, -1)), "high": float(round(high + margin, -1))}
            return (
                window,
                f"99 % of the labelled pixels lie in {low:.0f} … {high:.0f} HU: a window around them; -1000 … 2000 is for all tissues",
            )
    return {"kind": "window", "low": -1000.0, "high": 2000.0}, "all tissues, air to bone, in HU"


def _training(draft: _Draft) -> None:
    spatial, fingerprint = draft.data["spatial"], draft.fingerprint
    pixels = 1
    for side in spatial["patch"]:
        pixels *= side
    wanted = min(32, max(2, round(BATCH_PIXELS / pixels)))
    fits = max(1, int((0.7 * draft.memory.bytes - FIXED_BYTES) / (pixels * BYTES_PER_PIXEL)))
    batch = min(wanted, fits)
    accumulate = -(-wanted // batch)
    draft.because(
        "training.batch",
        f"{wanted} patches of {_brief(tuple(spatial['patch']))} an optimiser step; {draft.memory}, about "
        f"{pixels * BYTES_PER_PIXEL / GIB:.1f} GiB a patch: {batch} at once",
    )
    epochs, steps = (100, 100) if draft.memory.device == "cuda" else (40, 50)
    draft.because(
        "training.epochs",
        f"{epochs} × {steps} optimiser steps: each of {fingerprint.cases} cases is seen about "
        f"{epochs * steps * batch * accumulate / fingerprint.cases:.0f} times",
    )
    pretrained = draft.data["network"]["weights"] != "none"
    draft.because(
        "training.learning_rate",
        "half as large where the encoder is pretrained" if pretrained else "AdamW from scratch",
    )
    flips, why = _flips(draft)
    draft.because("training.augmentation.flips", why)
    rare = min((c.frequency for c in fingerprint.classes if c.frequency), default=0.0)
    draft.because("training.foreground", f"the rarest class fills {rare:.2%} of the pixels")
    draft.data["training"] = {
        "epochs": epochs,
        "samples": steps * batch * accumulate,
        "batch": batch,
        "accumulate": accumulate,
        "foreground": 0.33 if rare > 0.05 else 0.5,
        "learning_rate": 5e-4 if pretrained else 1e-3,
        "warmup": epochs * steps // 20,
        "workers": min(4, os.cpu_count() or 1),
        "augmentation": {"flips": flips},
    }


def _flips(draft: _Draft) -> tuple[list[str], str]:
    sided = [c.name for c in draft.fingerprint.classes if _SIDED.search(c.name)]
    plane, dims = draft.data["spatial"].get("slices"), len(draft.data["spatial"]["patch"])
    if sided:
        return [], f"none: {', '.join(sided[:3])} would change its name in a mirror"
    if draft.modality in ("fundus", "dermoscopy"):
        return ["height", "width"], "either side, either way up: all of them occur"
    if draft.modality in ("oct", "ultrasound"):
        return ["width"], "left and right occur both; depth has a direction"
    if draft.modality == "mr" and plane in ("axial", "coronal"):
        return ["width"], "left and right look alike in MR of most regions; empty it where organs have a side"
    if draft.modality == "mr" and plane == "sagittal" and dims == 3:
        return ["depth"], "left and right look alike in MR of most regions; empty it where organs have a side"
    return [], "none: organs have their side in the body; add axes where the anatomy allows it"


def _inference(draft: _Draft) -> None:
    spatial = draft.data["spatial"]
    size = spatial.get("size") or draft.fingerprint.median_size[-2:]
    if len(spatial["patch"]) == 3:
        tile, why = spatial["patch"], "as large as the training patches"
    elif max(size) <= 1024:
        tile, why = None, "whole slices fit"
    else:
        tile, why = [min(512, _up(n)) for n in size], f"images of {_brief(tuple(size))} are cut into tiles"
    draft.because("inference.tile", why)
    mirror = draft.data["training"]["augmentation"]["flips"]
    draft.because("inference.mirror", "as in training: the network has seen no other mirrored images")
    draft.data["inference"] = {"tile": tile, "mirror": mirror, "batch": 1 if len(spatial["patch"]) == 3 else 4}


def _folds(draft: _Draft) -> None:
    patients = draft.fingerprint.patients
    draft.data["folds"] = {"count": max(2, min(5, patients))}
    draft.because("folds.count", f"{draft.fingerprint.cases} cases of {patients} patients; a patient is never parted")

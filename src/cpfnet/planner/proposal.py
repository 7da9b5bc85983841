"""From the fingerprint of a data set to a Plan, with the reason beside each choice."""

from __future__ import annotations

import math
import re
from typing import Any, get_args

from cpfnet.cores import cores
from cpfnet.data.case import Dataset
from cpfnet.errors import PlanError
from cpfnet.planner import gpu_patch
from cpfnet.planner.costs import GIB, room
from cpfnet.planner.draft import Draft
from cpfnet.planner.fingerprint import ChannelFingerprint, ClassFingerprint, Fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planner.modality import guess
from cpfnet.planner.schedule import VALIDATION, Schedule, propose_schedule
from cpfnet.planner.spacing_and_patch import VOLUME_NETWORK, brief, propose_grid, propose_patch, up
from cpfnet.planner.speed import duration
from cpfnet.planning import Modality, Plan
from cpfnet.settings import validate

NETWORK = "cpfnet"
"""What is proposed where no network is named, and nothing below applies …"""

FINE_NETWORK = "cpfnet-hr"
"""… and where structures are fine, or images are shrunk to be learned from on a CPU: their boundaries must come
back."""

FINE = 4.0
"""Classes of a smaller median radius, pixels, are fine: half of their width is lost at half resolution. Tubular ones
are thin, too."""

PRETRAINED = ("cpfnet", "cpfnet-hr", "cpfnet-guide", "resnet34-unet")
"""Networks whose encoder takes ImageNet weights (in 2-D)."""

NARROWED = ("cpfnet", "cpfnet-hr")
"""Networks that are made narrower where they learn from random weights on a CPU …"""

NARROW, NARROW_FINE = 16, 32
"""… and their width then, and for fine structures in images; the paper's is 64. In five minutes of one core
`cpfnet-hr` of width 64, 32 and 16 finds the lesions of 24 held-out images of PH² with a Dice of 0.934, 0.944 and
0.951, and the vessels of five of DRIVE with 0.798, 0.814 and 0.814; in twelve the latter with 0.820 at 32, and in
thirteen with 0.817 at 16. After half an hour and more the two are level."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BATCH_PIXELS = 4 * 256 * 256
"""Pixels of one optimiser step: 4 patches of 256², or as many smaller ones …"""

BRISK_PIXELS = BATCH_PIXELS // 4
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

LIKE_NNUNET: dict[str, Any] = {
    "elastic": 0.0,
    "rotation": 0.2,
    "rotation_degrees": 30.0,
    "scale": 0.2,
    "scale_factors": [0.7, 1.4],
    "low_resolution": 0.125,  # 0.25 of the samples, and of these half of the channels
    "inverted_gamma": 0.1,
    "gamma": 0.3,
    "brightness": 0.15,
    "contrast": 0.15,
    "blur": 0.2,
    "noise": 0.1,
}
"""Augmentation of volumes on a GPU: the probabilities and ranges of nnU-Net v2's trainer."""

COLOUR = 0.02
"""Mean saturation from which a photograph is in colour."""

COMMON = 0.05
"""Share of the pixels from which a class is met in any patch."""

_SIDED = re.compile(r"(^|[^a-z])(left|right|l|r|lt|rt)([^a-z]|$)|links|rechts|gauche|droit", re.IGNORECASE)


def propose(
    fingerprint: Fingerprint,
    dataset: Dataset,
    *,
    modality: str | None = None,
    memory: Memory | None = None,
    network: str | None = None,
    weights: str | None = None,
    hours: float | None = None,
) -> tuple[Plan, dict[str, str]]:
    """Propose how to train on a data set.

    Args:
        fingerprint: of ``dataset``.
        dataset: what it declares wins over what the fingerprint suggests.
        modality: wins over both and over what the files say.
        memory: default: what is found.
        network: by name; default: what suits the data.
        weights: ``"imagenet"``, ``"none"`` or a file; default: ImageNet's where the network takes them.
        hours: that training is to take on this machine; default: as long as the data ask for.

    Returns:
        The Plan, and for its keys (dotted) why they have their values.

    Raises:
        PlanError: no such modality, or no such time.
    """
    if hours is not None and not 0 < hours < 24 * 366:
        raise PlanError(f"{hours:g} hours is no time to train in", where="--hours", fix="give hours above 0, such as 8")
    if modality is not None and modality not in get_args(Modality):
        raise PlanError(
            f"unknown modality {modality!r}", where="--modality", fix=f"one of {', '.join(get_args(Modality))}"
        )
    first = fingerprint.channels[0]
    kind, why = guess(
        fingerprint.look,
        volumes=fingerprint.volumes,
        low=first.low,
        high=first.high,
        body=first.typical,
        thin=any(c.tubular for c in fingerprint.classes),
    )
    if modality is not None:
        kind, why = modality, "as asked for"  # type: ignore[assignment]  # validated with the plan
    elif dataset.modality is not None:
        kind, why = dataset.modality, "declared by the data set"
    elif fingerprint.modality is not None:
        kind, why = fingerprint.modality, "as the DICOM headers say"
    else:
        why += (
            "; if you know what they are, plan again with --modality"
            if kind == "other"
            else "; if wrong, plan again with --modality"
        )
    memory = memory or Memory.found()
    fine = bool(_fine(fingerprint))
    many_small_steps = fine and memory.device == "cpu" and not fingerprint.volumes
    draft = Draft(fingerprint, memory, kind, many_small_steps)
    draft.data = {
        "name": dataset.name,
        "modality": kind,
        "source": "volumes" if fingerprint.volumes else "images",
        "labels": _labels(draft, declared=dataset.labels is not None),
    }
    draft.because("modality", why)
    scratch = weights in (None, "none")
    propose_grid(
        draft,
        entire=network in (None, VOLUME_NETWORK) and scratch,
        deep=scratch or (network is not None and weights != "imagenet"),  # those are for 2-D
    )
    volume = draft.data["spatial"]["mode"] == "3d"
    proposed = VOLUME_NETWORK if volume else FINE_NETWORK if fine or _shrunk(draft) else NETWORK
    draft.network = network or proposed
    draft.many_small_steps |= _entire(draft)
    _network(draft, weights)
    propose_patch(draft)
    draft.data["channels"] = [_channel(draft, i, channel) for i, channel in enumerate(fingerprint.channels)]
    _training(draft, hours)
    _inference(draft)
    _folds(draft)
    return validate(Plan, draft.data, where="the proposed plan"), draft.reasons


def _fine(fingerprint: Fingerprint) -> list[ClassFingerprint]:
    """Classes of few pixels across."""
    return [c for c in fingerprint.classes if 0 < c.radius < FINE]


def _thin(fingerprint: Fingerprint) -> list[ClassFingerprint]:
    """Those that are long as well, such as vessels."""
    return [c for c in _fine(fingerprint) if c.tubular]


def _shrunk(draft: Draft) -> bool:
    """Are images made smaller for the sake of learning on a CPU?"""
    return draft.memory.device == "cpu" and draft.data["spatial"].get("size") is not None


def _entire(draft: Draft) -> bool:
    """Do volumes enter the network whole on a CPU?"""
    return draft.memory.device == "cpu" and draft.data["spatial"]["mode"] == "3d"


def _in_colour(fingerprint: Fingerprint) -> bool:
    return not fingerprint.volumes and len(fingerprint.channels) == 3 and fingerprint.look.colour > COLOUR


def _labels(draft: Draft, *, declared: bool) -> dict[str, Any]:
    fingerprint = draft.fingerprint
    labels = fingerprint.labels.model_dump(mode="json")
    figures = []
    for entry, found in zip(labels["classes"], fingerprint.classes, strict=True):
        if not declared:
            entry["tubular"] = found.tubular
        if fingerprint.modality is not None:
            entry |= {key: entry[key] or code for key, code in _codes(found.name).items()}
        figures.append(
            f"{found.name}: in {found.cases:.0%} of the labels, {found.frequency:.2%} of the pixels, median radius "
            f"{found.radius:.1f} pixels{', thin and long' if found.tubular else ''}"
        )
    readers = f"\nup to {fingerprint.readers} readers a case: each patch takes one at random" * (
        fingerprint.readers > 1
    )
    draft.because("labels", f"{fingerprint.labels_reason}\n" + "\n".join(figures) + readers)
    return labels


def _codes(name: str) -> dict[str, dict[str, Any]]:
    """What DICOM calls such a structure, for those who correct the plan."""
    from cpfnet.formats.dicom.codes import code_for

    category, type_ = code_for(name)
    return {"category": category.model_dump(), "type": type_.model_dump()}


def _network(draft: Draft, weights: str | None) -> None:
    suitable = draft.network in PRETRAINED and draft.data["spatial"]["mode"] != "3d"
    draft.data["network"] = {"name": draft.network, "weights": weights or ("imagenet" if suitable else "none")}
    if weights is not None:
        draft.because("network.weights", "as asked for")
    elif suitable:
        draft.because(
            "network.weights", "an encoder that has seen a million photographs needs fewer scans; none: from scratch"
        )
    else:
        draft.because("network.weights", "there are no ImageNet weights for this network")
    if draft.network in NARROWED and draft.data["network"]["weights"] == "none" and draft.memory.device == "cpu":
        fine_images = bool(_fine(draft.fingerprint)) and not draft.fingerprint.volumes
        width = NARROW_FINE if fine_images else NARROW
        draft.data["network"]["options"] = {"width": width}
        draft.because(
            "network.options",
            f"from random weights on a CPU, {width} channels at the first level take several times the steps of the "
            "paper's 64 in the same time"
            f"{f' (fine structures need more than {NARROW})' if fine_images else ''}; with hours to train in, try 64",
        )
    fine = _thin(draft.fingerprint) or _fine(draft.fingerprint)
    if _entire(draft):
        draft.because(
            "network.name",
            "small volumes enter nnU-Net's network whole: it learns more of them in the same time on a CPU",
        )
    elif draft.network == FINE_NETWORK and fine:
        first, look = fine[0], "thin" if fine[0].tubular else "small"
        draft.because(
            "network.name",
            f"{first.name} is {look} (median radius {first.radius:.1f} pixels): every pixel has logits of its own, "
            "where cpfnet interpolates",
        )
    elif draft.network == FINE_NETWORK and _shrunk(draft):
        draft.because(
            "network.name", "images are shrunk: every pixel has logits of its own, so that boundaries come back sharp"
        )


def _channel(draft: Draft, index: int, channel: ChannelFingerprint) -> dict[str, Any]:
    fingerprint = draft.fingerprint
    middle = f"{channel.low:g} … {channel.high:g}, half below {channel.body[2]:g} in the body"
    if draft.modality == "ct":
        intensity, why = _ct(channel)
    elif draft.modality in ("mr", "pet"):
        intensity = {"kind": "zscore"}
        why = f"{draft.modality.upper()} has no fixed scale: mean 0 and SD 1 inside the body"
    elif not fingerprint.volumes and _thin(fingerprint):
        intensity = {"kind": "local"}
        why = "thin structures: contrast against their own surroundings, whatever the light and the camera"
    elif _in_colour(fingerprint):
        pretrained = draft.data["network"]["weights"] != "none"
        full = 255.0 if channel.high <= 255 else 65535.0
        mean, std = (IMAGENET_MEAN[index], IMAGENET_STD[index]) if pretrained else (0.5, 0.25)
        intensity = {"kind": "scale", "full": full, "mean": mean, "std": std}
        why = "colour: 0…1, then " + (
            "the statistics of the images that the encoder has seen" if pretrained else "about mean 0 and SD 1"
        )
    elif draft.modality in ("oct", "ultrasound", "xray") or not fingerprint.volumes:
        intensity = {"kind": "percentiles"}
        why = (
            "0…1 between two percentiles of each image: exposure differs, and single bright pixels or a constant "
            "border must not set the scale"
        )
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
                f"99 % of the labelled pixels lie in {low:.0f} … {high:.0f} HU: a window around them; -1000 … 2000 is "
                "for all tissues",
            )
    return {"kind": "window", "low": -1000.0, "high": 2000.0}, "all tissues, air to bone, in HU"


def _training(draft: Draft, hours: float | None) -> None:
    spatial, fingerprint = draft.data["spatial"], draft.fingerprint
    pixels = 1
    for side in spatial["patch"]:
        pixels *= side
    shrunk = _shrunk(draft)
    most = SHRUNK_BATCH if shrunk else 32
    least = 1 if _entire(draft) else 2  # instance normalisation needs no second sample
    needed = draft.patch_bytes(spatial["patch"], spatial.get("spacing"))
    fits = max(1, int(room(draft.memory.bytes) / needed))
    if draft.memory.device == "cuda":
        voxels = math.prod(draft.median) * _training_cases(fingerprint)
        wanted = gpu_patch.batch(draft, spatial["patch"], voxels, spatial.get("spacing") or (1.0, 1.0, 1.0))
    else:
        wanted = min(most, max(least, round((BRISK_PIXELS if draft.many_small_steps else BATCH_PIXELS) / pixels)))
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
    _tile(draft)
    schedule = propose_schedule(
        draft,
        group=batch * accumulate,
        steps=steps,
        training=_training_cases(fingerprint),
        held_out=_validation_cases(fingerprint),
        hours=hours,
    )
    epochs, steps = schedule.epochs, schedule.steps
    _because_of_schedule(draft, schedule, batch * accumulate)
    rate, why = _learning_rate(draft)
    draft.because("training.learning_rate", why)
    augmentation = _augmentation(draft)
    rare = min((c.frequency for c in fingerprint.classes if c.frequency), default=0.0)
    thin = bool(_thin(fingerprint))
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


def _augmentation(draft: Draft) -> dict[str, Any]:
    flips, why = _flips(draft)
    draft.because("training.augmentation.flips", why)
    augmentation: dict[str, Any] = {"flips": flips}
    if draft.memory.device == "cuda" and draft.data["spatial"]["mode"] == "3d":
        augmentation |= LIKE_NNUNET
        draft.because("training.augmentation", "as nnU-Net augments volumes; it needs no elastic deformation")
    if {"height", "width"} <= set(flips):
        augmentation |= {"quarter_turns": True, "rotation_degrees": 180.0}
        draft.because("training.augmentation.quarter_turns", "no direction is up in such images")
    if _in_colour(draft.fingerprint):
        augmentation["colour"] = 0.3
        draft.because(
            "training.augmentation.colour",
            "cameras, stains and skin differ in colour",
        )
        if draft.modality == "fundus" and _thin(draft.fingerprint):
            red, _, blue = (channel.name for channel in draft.fingerprint.channels)
            augmentation["channel_dropout"] = {red: 0.5, blue: 0.5}
            draft.because(
                "training.augmentation.channel_dropout",
                "blood absorbs green, in every camera; who leans on red and blue knows one camera alone",
            )
    return augmentation


def _seen(draft: Draft, patches: int) -> str:
    """How often the network meets the same data: an image, a slice of a volume, or in 3-D a volume."""
    spatial, fingerprint = draft.data["spatial"], draft.fingerprint
    count = _training_cases(fingerprint)
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


def _flips(draft: Draft) -> tuple[list[str], str]:
    sided = [c.name for c in draft.fingerprint.classes if _SIDED.search(c.name)]
    plane, dims = draft.data["spatial"].get("slices"), len(draft.data["spatial"]["patch"])
    if sided:
        return [], f"none: {', '.join(sided[:3])} would change its name in a mirror"
    if draft.modality in ("fundus", "dermoscopy", "endoscopy", "microscopy"):
        return ["height", "width"], "either side, either way up: all of them occur"
    if draft.modality in ("oct", "ultrasound"):
        return ["width"], "left and right occur both; depth has a direction"
    if draft.modality == "mr" and plane in ("axial", "coronal"):
        return ["width"], "left and right look alike in MR of most regions; empty it where organs have a side"
    if draft.modality == "mr" and plane == "sagittal" and dims == 3:
        return ["depth"], "left and right look alike in MR of most regions; empty it where organs have a side"
    return [], "none: organs have their side in the body; add axes where the anatomy allows it"


def _tile(draft: Draft) -> None:
    spatial = draft.data["spatial"]
    size = spatial.get("size") or draft.fingerprint.median_size[-2:]
    if len(spatial["patch"]) == 3:
        tile, why = spatial["patch"], "as large as the training patches"
    elif max(size) <= 1024:
        tile, why = None, f"whole {'slices' if draft.fingerprint.volumes else 'images'} fit"
    else:
        tile, why = [min(512, up(n)) for n in size], f"images of {brief(tuple(size))} are cut into tiles"
    draft.because("inference.tile", why)
    draft.data["inference"] = {"tile": tile}


def _inference(draft: Draft) -> None:
    spatial = draft.data["spatial"]
    size = spatial.get("size") or draft.fingerprint.median_size[-2:]
    augmentation = draft.data["training"]["augmentation"]
    mirror, (height, width) = augmentation["flips"], spatial["patch"][-2:]
    _, *pixel = spatial.get("spacing") or (1.0, 1.0, 1.0)
    turns = augmentation.get("quarter_turns", False) and height == width and pixel[0] == pixel[1]
    draft.because("inference.mirror", "as in training: the network has seen no other mirrored images")
    if turns:
        draft.because("inference.quarter_turns", "as in training")
    elif augmentation.get("quarter_turns"):
        draft.because("inference.quarter_turns", "of oblong patches or pixels training sees half turns alone")
    # The smaller a slice, the more of them it takes to keep the hardware busy.
    small = BATCH_PIXELS // (up(size[0]) * up(size[1]))
    batch = 1 if len(spatial["patch"]) == 3 else min(32, max(4, small))
    draft.data["inference"] |= {"mirror": mirror, "quarter_turns": turns, "batch": batch}


def _training_cases(fingerprint: Fingerprint) -> int:
    """How many cases train: all but those that validate, by the data set's own split, else one fold's share."""
    if fingerprint.validation:
        return max(1, fingerprint.cases - fingerprint.validation)
    if fingerprint.patients < 2:  # then it is validated on what trained
        return fingerprint.cases
    return max(1, round(fingerprint.cases * (1 - 1 / _fold_count(fingerprint))))


def _validation_cases(fingerprint: Fingerprint) -> int:
    return fingerprint.validation or max(1, fingerprint.cases - _training_cases(fingerprint))


def _fold_count(fingerprint: Fingerprint) -> int:
    return max(2, min(5, fingerprint.patients))


def _folds(draft: Draft) -> None:
    fingerprint = draft.fingerprint
    draft.data["folds"] = {"count": _fold_count(fingerprint)}
    why = f"{fingerprint.cases} cases of {fingerprint.patients} patients; a patient is never parted"
    if fingerprint.validation:
        why += "; for --fold: without it the data set's own split validates"
    draft.because("folds.count", why)

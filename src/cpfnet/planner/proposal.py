"""From the fingerprint of a data set to a Plan, with the reason beside each choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from cpfnet.data.case import Dataset
from cpfnet.errors import PlanError
from cpfnet.planner.costs import ENCODED, ENCODERS
from cpfnet.planner.draft import FINE_NETWORK, Draft
from cpfnet.planner.fingerprint import ChannelFingerprint, Fingerprint
from cpfnet.planner.first_stage import advise_first_stage, propose_first_stage
from cpfnet.planner.machine import Memory
from cpfnet.planner.modality import guess
from cpfnet.planner.spacing_and_patch import VOLUME_NETWORK, brief, propose_grid, propose_patch, up
from cpfnet.planner.training import BATCH_PIXELS, propose_training
from cpfnet.planning import Modality, Plan, VolumeMode
from cpfnet.settings import is_set, under, validate

NETWORK = "cpfnet"
"""What is proposed where no network is named, and neither `VOLUME_NETWORK` nor `FINE_NETWORK` applies."""

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


def propose(
    fingerprint: Fingerprint,
    dataset: Dataset,
    *,
    modality: str | None = None,
    memory: Memory | None = None,
    network: str | None = None,
    weights: str | None = None,
    options: Mapping[str, Any] | None = None,
    hours: float | None = None,
    first_stage: bool = False,
    mode: VolumeMode | None = None,
) -> tuple[Plan, dict[str, str]]:
    """Propose how to train on a data set.

    Args:
        fingerprint: of ``dataset``.
        dataset: what it declares wins over what the fingerprint suggests.
        modality: wins over both and over what the files say.
        memory: default: what is found.
        network: by name; default: what suits the data.
        weights: ``"imagenet"``, ``"none"`` or a file; default: ImageNet's where the network takes them.
        options: of the network, that will be set: they change what it takes, and which weights there are for it.
        hours: that training is to take on this machine; default: as long as the data ask for.
        first_stage: on a grid so coarse that a patch sees enough of a volume, for a second stage to learn from what it
            finds (`planner.first_stage`).
        mode: of volumes, ``"2d"`` (slice by slice) or ``"3d"``; default: what suits them and the machine.

    Returns:
        The Plan, and for its keys (dotted) why they have their values.

    Raises:
        PlanError: no such modality, mode or time; a first stage has no use; or 3-D cannot be, or not with ImageNet's
            weights.
    """
    if hours is not None and not 0 < hours < 24 * 366:
        raise PlanError(f"{hours:g} hours is no time to train in", where="--hours", fix="give hours above 0, such as 8")
    if modality is not None and modality not in get_args(Modality):
        raise PlanError(
            f"unknown modality {modality!r}", where="--modality", fix=f"one of {', '.join(get_args(Modality))}"
        )
    if mode not in (None, *get_args(VolumeMode)):
        raise PlanError(f"unknown mode {mode!r}", where="--mode", fix=f"one of {', '.join(get_args(VolumeMode))}")
    if mode == "3d" and weights == "imagenet":
        raise PlanError("there are no ImageNet weights in 3-D", where="--mode 3d", fix="leave out --weights imagenet")
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
    draft = Draft(fingerprint, memory, kind)
    draft.many_small_steps = bool(draft.fine) and memory.device == "cpu" and not fingerprint.volumes
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
        asked=mode,
    )
    volume = draft.data["spatial"]["mode"] == "3d"
    proposed = VOLUME_NETWORK if volume else FINE_NETWORK if draft.fine or draft.shrunk else NETWORK
    draft.network = network or proposed
    draft.many_small_steps |= draft.entire
    _network(draft, weights, options or {})
    propose_patch(draft)
    if first_stage:
        propose_first_stage(draft)
    else:
        advise_first_stage(draft)
    draft.data["channels"] = [_channel(draft, i, channel) for i, channel in enumerate(fingerprint.channels)]
    _tile(draft)
    propose_training(draft, hours)
    _inference(draft)
    _folds(draft)
    return validate(Plan, draft.data, where="the proposed plan"), draft.reasons


def network_options(settings: Mapping[str, Any] | Sequence[str]) -> dict[str, Any]:
    """What settings will change in the proposed network; nothing where they name another one."""
    return {} if is_set("network.name", settings) else under("network.options", settings)


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


def _network(draft: Draft, weights: str | None, options: Mapping[str, Any]) -> None:
    encoder = options.get("encoder") if draft.network in ENCODED else None
    known = encoder is None or (str(encoder), 2) in ENCODERS
    suitable = draft.network in PRETRAINED and known and draft.data["spatial"]["mode"] != "3d"
    draft.data["network"] = {"name": draft.network, "weights": weights or ("imagenet" if suitable else "none")}
    if weights is not None:
        draft.because("network.weights", "as asked for")
    elif suitable:
        draft.because(
            "network.weights", "an encoder that has seen a million photographs needs fewer scans; none: from scratch"
        )
    else:
        draft.because("network.weights", "there are no ImageNet weights for this network or encoder")
    if draft.network in NARROWED and draft.data["network"]["weights"] == "none" and draft.memory.device == "cpu":
        fine_images = bool(draft.fine) and not draft.fingerprint.volumes
        width = NARROW_FINE if fine_images else NARROW
        draft.data["network"]["options"] = {"width": width}
        draft.because(
            "network.options",
            f"from random weights on a CPU, {width} channels at the first level take several times the steps of the "
            "paper's 64 in the same time"
            f"{f' (fine structures need more than {NARROW})' if fine_images else ''}; with hours to train in, try 64",
        )
    if options:
        draft.data["network"]["options"] = draft.data["network"].get("options", {}) | dict(options)
    fine = draft.thin or draft.fine
    if draft.entire:
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
    elif draft.network == FINE_NETWORK and draft.shrunk:
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
    elif not fingerprint.volumes and draft.thin:
        intensity = {"kind": "local"}
        why = "thin structures: contrast against their own surroundings, whatever the light and the camera"
    elif draft.in_colour:
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


def _folds(draft: Draft) -> None:
    fingerprint = draft.fingerprint
    draft.data["folds"] = {"count": draft.fold_count}
    why = f"{fingerprint.cases} cases of {fingerprint.patients} patients; a patient is never parted"
    if fingerprint.validation:
        why += "; for --fold: without it the data set's own split validates"
    draft.because("folds.count", why)

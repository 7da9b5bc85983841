"""How samples are augmented: what may occur in such images, and changes no class into another."""

from __future__ import annotations

import re
from typing import Any

from cpfnet.planner.draft import Draft

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

_SIDED = re.compile(r"(^|[^a-z])(left|right|l|r|lt|rt)([^a-z]|$)|links|rechts|gauche|droit", re.IGNORECASE)


def propose_augmentation(draft: Draft) -> dict[str, Any]:
    """Random changes of the samples, as the modality, the classes and the device suggest."""
    flips, why = _flips(draft)
    draft.because("training.augmentation.flips", why)
    augmentation: dict[str, Any] = {"flips": flips}
    if draft.memory.device == "cuda" and draft.data["spatial"]["mode"] == "3d":
        augmentation |= LIKE_NNUNET
        draft.because("training.augmentation", "as nnU-Net augments volumes; it needs no elastic deformation")
    if {"height", "width"} <= set(flips):
        augmentation |= {"quarter_turns": True, "rotation_degrees": 180.0}
        draft.because("training.augmentation.quarter_turns", "no direction is up in such images")
    if draft.in_colour:
        augmentation["colour"] = 0.3
        draft.because(
            "training.augmentation.colour",
            "cameras, stains and skin differ in colour",
        )
        if draft.modality == "fundus" and draft.thin:
            red, _, blue = (channel.name for channel in draft.fingerprint.channels)
            augmentation["channel_dropout"] = {red: 0.5, blue: 0.5}
            draft.because(
                "training.augmentation.channel_dropout",
                "blood absorbs green, in every camera; who leans on red and blue knows one camera alone",
            )
    return augmentation


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

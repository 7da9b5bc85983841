"""A Model in the words of a MONAI bundle's ``metadata.json`` (MONAI Bundle Specification)."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

import cpfnet
from cpfnet.labels import codes_of, decode
from cpfnet.model import Model
from cpfnet.planning import Intensity, Plan, Scale
from cpfnet.sharing.model_card import validation_scores

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""MONAI's own; `metadata_schema.json` demands the same."""

PAPER = (
    "Feng et al., CPFNet: Context Pyramid Fusion Network for Medical Image Segmentation, "
    "IEEE Transactions on Medical Imaging 39(10), 2020, https://doi.org/10.1109/TMI.2020.2983721"
)

_PACKAGES = {"monai": "monai", "pytorch": "torch", "numpy": "numpy"}
_MODALITIES = {"ct": "CT", "mr": "MR", "pet": "PT", "ultrasound": "US", "other": "n/a"}


def describe(model: Model) -> dict[str, Any]:
    """The metadata; what cannot be known (authors, copyright) says so."""
    plan, fitted = model.plan, model.fitted
    classes = ", ".join(c.name for c in plan.labels.classes)
    what = f"{plan.modality} {plan.source}" if plan.modality != "other" else plan.source
    scores, protocol = validation_scores(model)
    found = {
        "schema": SCHEMA,
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by cpfnet {cpfnet.__version__}; plan {plan.hash[:16]}"},
        **{f"{name}_version": version(package).partition("+")[0] for name, package in _PACKAGES.items()},
        "required_packages_version": {"cpfnet": cpfnet.__version__},
        "name": plan.name,
        "task": f"Segmentation of {classes} in {what}",
        "description": f"Finds {classes} in {what} with network {plan.network.name!r} ({plan.spatial.mode}), trained "
        f"by cpfnet on {plan.name!r}: {fitted.cases} cases, {fitted.epochs} epochs. All between file and mask is in "
        "models/plan.yaml and models/fitted.yaml, and configs/inference.json runs it. Not a medical device.",
        "intended_use": f"Research on {what} like those it was trained on. Not a medical device: not for diagnosis or "
        "treatment. Other modalities, scanners or populations need an evaluation of their own.",
        "authors": "not stated",
        "copyright": "not stated",
        "data_source": f"{plan.name!r}, not part of the bundle",
        "data_type": "PNG, TIFF, JPEG, BMP, GIF or DICOM" if plan.source == "images" else "NIfTI or DICOM",
        "image_classes": "; ".join(f"{c.name}: {_told(c.intensity)}" for c in plan.channels),
        "label_classes": "; ".join(
            f"{c.name}: {', '.join(map(str, c.values))} in the files" for c in plan.labels.classes
        ),
        "pred_classes": "; ".join(f"{c.name}: written as {c.written}" for c in plan.labels.classes),
        "eval_metrics": scores,
        "eval_protocol": protocol,
        "references": [PAPER] if plan.network.name in ("cpfnet", "cpfnet-hr", "cpfnet-guide") else [],
        "network_data_format": _exchange(plan),
    }
    return {key: _inert(value) for key, value in found.items()}


def _inert(value: Any) -> Any:
    """The same as text for MONAI's parser, which runs what begins with ``$``, and follows ``@`` and ``%``.

    It would do so in names from a plan, too.
    """
    if isinstance(value, dict):
        return {key: _inert(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_inert(inner) for inner in value]
    return f" {value}" if isinstance(value, str) and value.startswith(("$", "@", "%")) else value


def _told(intensity: Intensity) -> str:
    values = intensity.model_dump()
    kind = values.pop("kind")
    return ", ".join([kind, *(f"{key} {value:g}" for key, value in values.items())])


def _exchange(plan: Plan) -> dict[str, Any]:
    """What goes in, comes out, and is written."""
    labels, spatial = plan.labels, plan.spatial
    offsets = range(-spatial.neighbours, spatial.neighbours + 1)
    inputs = [f"slice {n:+d}: {c.name}" if spatial.neighbours else c.name for n in offsets for c in plan.channels]
    names = [c.name for c in labels.classes]
    outputs = ["background", *names] if labels.exclusive else names
    common = {
        "type": "image",
        "spatial_shape": ["31+n"] * spatial.dims,  # any size from 32
        "dtype": "float32",
        "is_patch_data": plan.inference.tile is not None,
    }
    return {
        "inputs": {
            "image": {
                **common,
                "format": "magnitude",
                "modality": _MODALITIES.get(plan.modality, plan.modality),
                "num_channels": plan.in_channels,
                "value_range": _range(plan),
                "channel_def": _numbered(inputs),
            }
        },
        "outputs": {
            "pred": {
                **common,
                "format": "labels" if labels.exclusive else "classes",
                "num_channels": labels.outputs,
                "value_range": [],  # logits
                "channel_def": _numbered(outputs),
            }
        },
        "post_processed_outputs": {"mask": _mask(plan)},
    }


def _mask(plan: Plan) -> dict[str, Any]:
    """The label map on the file's own grid."""
    labels = plan.labels
    mask = {
        "type": "image",
        "format": "segmentation",
        "spatial_shape": ["*"] * (2 if plan.source == "images" else 3),
        "is_patch_data": False,
    }
    if any(isinstance(value, str) for c in labels.classes for value in (c.written, *c.values)):
        colours = _numbered(["red", "green", "blue"])
        return mask | {"num_channels": 3, "dtype": "uint8", "value_range": [0, 255], "channel_def": colours}
    nothing = np.zeros(0, np.uint8) if labels.exclusive else np.zeros((len(labels.classes), 0), np.bool_)
    meaning = {str(value): "background" for value in labels.background[:1] or (0,)}
    meaning |= {str(c.written): c.name for c in labels.classes}
    for values, group in () if labels.exclusive else codes_of(labels):
        if labels.classes[max(group)].written not in values:  # regions that overlap without one inside the other
            meaning[str(values[0])] = " and ".join(labels.classes[k].name for k in sorted(group))
    numbers = [int(value) for value in meaning]
    return mask | {
        "num_channels": 1,
        "dtype": str(decode(nothing, labels).dtype),
        "value_range": [min(numbers), max(numbers)],
        "channel_def": meaning,
    }


def _range(plan: Plan) -> list[float]:
    """Lowest and highest value that preprocessing gives the network; [] where there is no limit."""
    limits: list[float] = []
    for channel in plan.channels:
        match channel.intensity:
            case Scale(mean=mean, std=std):
                limits += [(0 - mean) / std, (1 - mean) / std]
            case intensity if intensity.kind in ("window", "percentiles", "minmax"):
                limits += [0.0, 1.0]
            case _:
                return []
    return [min(limits), max(limits)]


def _numbered(names: list[str]) -> dict[str, str]:
    return {str(index): name for index, name in enumerate(names)}

"""Whether an image is one of those that a Model was fitted for: modality, values, spacing. What is not is refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cpfnet.errors import InputRefused
from cpfnet.image import Image
from cpfnet.model import Model
from cpfnet.planning import Scale, Window
from cpfnet.preprocessing import Trace
from cpfnet.preprocessing.intensity import extent
from cpfnet.rounding import above, below

RANGE_MARGIN = 0.25
"""How far an input's values may leave those of the training images, as a share of the training images' range."""

SIGN_MARGIN = 0.02
"""How far below 0 an input's values may go, as a share of their own range, where the training images never did."""

FLATTEST = 1 / 8
"""An input's values must spread over at least this share of the training images' range."""

SPACING_FACTOR = 1.5
"""How much coarser or finer than any training image an input may be."""


def refusal(reasons: Sequence[str], where: Path | None) -> InputRefused:
    """The error for an image that lies outside what a Model was fitted for."""
    return InputRefused(
        "; ".join(dict.fromkeys(reasons)),
        where=where,
        fix="check that this is the kind of image the model was trained on; --force goes on all the same",
    )


def modality_mismatch(modality: str | None, wanted: str) -> str | None:
    """How an image's modality is not the one that a Model is for; None where it may be, or is unknown.

    What DICOM calls anything else (nuclear medicine, a photograph) is neither CT nor MR; it may be a scanned film or a
    microscope's picture.
    """
    if modality is None or modality == wanted or ("other" in (modality, wanted) and wanted not in ("ct", "mr")):
        return None
    return f"modality {modality}, and the model was fitted for {wanted}"


def out_of_range(image: Image, trace: Trace, model: Model) -> list[str]:
    """How an image lies outside what a Model was fitted for; empty where it does not.

    Modality, where the format knows it. Values: an image that is constant; and where the Plan's intensity is in
    absolute units (`Window`, `Scale`), values beyond both that intensity's own range and the training images'
    (`RANGE_MARGIN`), or spread over much less (`FLATTEST`); elsewhere, where the intensity adapts to each image,
    negative values where the training images had none (`SIGN_MARGIN`); values that have nothing in common with the
    training images'. Spacing: coarser or finer than the training images (`SPACING_FACTOR`).

    Args:
        image: as read.
        trace: from `preprocessing.trace_of`.
        model: plan and fitted.

    Returns:
        Sentences with both figures.
    """
    plan, fitted = model.plan, model.fitted
    mismatch = modality_mismatch(image.modality, plan.modality)
    found = [] if mismatch is None else [mismatch]
    for stored, channel, seen in zip(image.array, plan.channels, fitted.channels, strict=True):
        low, high = extent(stored)
        span = seen.high - seen.low
        least, most = seen.low - RANGE_MARGIN * span, seen.high + RANGE_MARGIN * span
        flattest = 0.0
        match channel.intensity:
            case Window(low=first, high=last):
                least, most, flattest = min(least, first), max(most, last), FLATTEST * span
            case Scale(full=full):
                least, most, flattest = min(least, 0), max(most, full), FLATTEST * span
            case _:  # adapts to each image: its scale may differ, but a CT is no MR image
                least, most = (-SIGN_MARGIN * (high - low) if seen.low >= 0 else -np.inf), np.inf
        disjoint = below(high, seen.low) or above(low, seen.high)
        constant = span > 0 and stored.min() == stored.max()
        if constant or disjoint or below(low, least) or above(high, most) or below(high - low, flattest):
            found.append(
                f"channel {channel.name!r}: values {low:g} … {high:g} (0.5 % and 99.5 % quantiles), "
                f"and the model was fitted for {seen.low:g} … {seen.high:g}"
            )
    if fitted.spacing_low is not None and fitted.spacing_high is not None:
        lowest, highest = (
            " × ".join(f"{s:.3g}" for s in limits) for limits in (fitted.spacing_low, fitted.spacing_high)
        )
        limits = f"the model was fitted for {lowest} … {highest} mm (depth × height × width)"
        if trace.spacing is None:
            found.append(f"no spacing in mm, and {limits}")
        elif any(
            below(s, low / SPACING_FACTOR) or above(s, high * SPACING_FACTOR)
            for s, low, high in zip(trace.spacing, fitted.spacing_low, fitted.spacing_high, strict=True)
        ):
            found.append(f"spacing {' × '.join(f'{s:.3g}' for s in trace.spacing)} mm, and {limits}")
    return found

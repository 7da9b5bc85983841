"""Images darker or brighter than those that a Model was trained on: it may be wrong, and as sure as ever. NumPy only.

What a Model remembers of its training images is the range of three figures (`preprocessing.intensity.levels`): the
median says how bright an image is, the two outer quantiles how dark its darkest and how bright its brightest parts are.
The median alone misses most changes of exposure where skin or tissue themselves differ much (benchmarks/trust.md).
"""

from __future__ import annotations

from collections.abc import Sequence

from cpfnet.image import Image
from cpfnet.model import Model, Range
from cpfnet.preprocessing.intensity import levels

GAPS = 4
"""How far an image may leave the range of n training images, as a multiple of range / n.

That is the mean gap between neighbours among them. Few images show less of what is usual, so they leave more room.
"""

LEAST = 0.02
"""An image may leave the range at least by this share of what lies between the darkest and brightest parts of training.

Values clipped to black or white have no range at all.
"""

FEWEST = 10
"""Training images that it takes: of fewer, the range says too little of what is usual."""

QUANTILES = ("0.5 % quantile", "median", "99.5 % quantile")
_PARTS = ("darkest parts ", "", "brightest parts ")


def departure(value: float, seen: Range, count: int, spread: float) -> float:
    """How far a figure lies outside what training saw and its margin, in multiples of that margin; 0 within.

    Args:
        value: of an image.
        seen: lowest and highest of the training images.
        count: how many those are.
        spread: from their darkest to their brightest parts; where it is 0, nothing is unusual.
    """
    low, high = seen
    beyond = max(low - value, value - high)
    margin = max(GAPS * (high - low) / count, LEAST * spread)
    return beyond / margin if beyond > margin > 0 else 0.0


def unusual(image: Image, models: Sequence[Model]) -> str:
    """Why a person should look at an image for its brightness; empty where nothing stands out.

    Of all channels and Models it is what stands out most.

    Args:
        image: as read.
        models: one of which the levels are not known (`FittedChannel.levels`), or with fewer than `FEWEST` training
            images, is not asked.
    """
    most, why = 0.0, ""
    for model in (model for model in models if model.fitted.cases >= FEWEST):
        for stored, channel, fitted in zip(image.array, model.plan.channels, model.fitted.channels, strict=True):
            if fitted.levels is None or (found := levels(stored, channel.intensity)) is None:
                continue
            spread = fitted.levels[-1][1] - fitted.levels[0][0]
            for value, seen, part, name in zip(found, fitted.levels, _PARTS, QUANTILES, strict=True):
                far = departure(value, seen, model.fitted.cases, spread)
                if far > most:
                    most = far
                    where = f"channel {channel.name!r}: " if len(model.plan.channels) > 1 else ""
                    side, inside = "darker" if value < seen[0] else "brighter", "in " if part else ""
                    why = (
                        f"{where}{part}{side} than {inside}any training image: "
                        f"{name} {value:.4g}, training {seen[0]:.4g} … {seen[1]:.4g}"
                    )
    return why

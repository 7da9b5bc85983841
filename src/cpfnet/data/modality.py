"""What kind of images these are, guessed from what they look like; a declaration always wins."""

from __future__ import annotations

import numpy as np

from cpfnet.planning import Modality, Strict

HOUNSFIELD_AIR = -500.0
"""Values below this, in a volume, are air in Hounsfield units: nothing else is stored with such negative numbers."""


class Look(Strict):
    """Measures of one picture (or medians over several), all in 0…1 of its own range.

    Attributes:
        colour: mean saturation: (max − min) / max over red, green, blue; 0 for grey.
        red: share of red in the sum of the colours (1/3 for grey).
        corners: brightest of the four corners' medians.
        centre: median of the middle ninth.
        black: share of pixels below 2 % of the range.
        layers: how much more rows differ than columns do (log of the ratio of the profiles' SD).
        aspect: width / height.
        longest: the longest side, pixels.
    """

    colour: float
    red: float
    corners: float
    centre: float
    black: float
    layers: float
    aspect: float
    longest: float

    @classmethod
    def median(cls, looks: list[Look]) -> Look:
        return cls(**{name: float(np.median([getattr(one, name) for one in looks])) for name in cls.model_fields})


def look_at(picture: np.ndarray) -> Look:
    """Measure one picture, ``(channels, height, width)``."""
    step = max(1, max(picture.shape[1:]) // 256)
    height, width = picture.shape[1:]
    small = picture[:, ::step, ::step].astype(np.float64)
    small -= small.min()
    small /= max(float(np.percentile(small, 99.5)), 1e-9)
    small = small.clip(0, 1)
    grey = small.mean(axis=0)
    rows, columns = grey.shape
    r, c = max(1, rows // 16), max(1, columns // 16)
    corners = (grey[:r, :c], grey[:r, -c:], grey[-r:, :c], grey[-r:, -c:])
    if len(small) == 3:
        brightest = small.max(axis=0)
        bright = brightest > 0.1
        saturation = ((brightest - small.min(axis=0)) / np.maximum(brightest, 1e-9))[bright]
        colour = float(saturation.mean()) if saturation.size else 0.0
        red = float(small[0].mean() / max(small.sum(axis=0).mean(), 1e-9))
    else:
        colour, red = 0.0, 1 / 3
    profiles = np.std(grey.mean(axis=1)) + 1e-6, np.std(grey.mean(axis=0)) + 1e-6
    return Look(
        colour=colour,
        red=red,
        corners=float(max(np.median(corner) for corner in corners)),
        centre=float(np.median(grey[rows // 3 : rows - rows // 3, columns // 3 : columns - columns // 3])),
        black=float(np.mean(grey < 0.02)),
        layers=float(np.log(profiles[0] / profiles[1])),
        aspect=width / height,
        longest=float(max(height, width)),
    )


def guess(look: Look, *, volumes: bool, low: float, high: float) -> tuple[Modality, str]:
    """The modality and why.

    Args:
        look: of the pictures.
        volumes: they have depth.
        low, high: smallest and largest value in the files.
    """
    figures = f"values {low:g} … {high:g}"
    if volumes:
        if low < HOUNSFIELD_AIR:
            return "ct", f"guessed: volumes with {figures}, as Hounsfield units have them (air is -1000)"
        if low >= 0 and high > 255:
            return "mr", f"guessed: volumes with {figures}, without negative numbers and without a fixed scale"
        return "other", f"not recognised: volumes with {figures}"
    if look.colour > 0.1:
        colours = f"colour (saturation {look.colour:.2f}), red is {look.red:.0%} of the light"
        if look.corners < 0.15 and look.centre > 2 * look.corners and look.red > 0.42:
            return "fundus", f"guessed: {colours}, dark corners around a bright field of view"
        if look.corners >= 0.15 and look.red > 0.34:
            return "dermoscopy", f"guessed: {colours}, bright to the corners, as skin is"
        return "other", f"not recognised: {colours}"
    if look.black > 0.3 and look.corners < 0.1:
        return "ultrasound", f"guessed: grey, {look.black:.0%} of the pixels are black, as around an ultrasound sector"
    if look.layers > 0.8 and look.aspect > 1:
        return "oct", "guessed: grey, wide, with horizontal layers"
    if look.longest >= 256:
        return "xray", f"guessed: grey, {look.longest:.0f} pixels, without layers or a black surround"
    return "other", f"not recognised: grey, {look.longest:.0f} pixels"

"""What kind of images these are, guessed from what they look like; a declaration always wins.

A guess is made only where little else looks so: a plan and a Model's card repeat it as what the images are.
"""

from __future__ import annotations

import numpy as np

from cpfnet.planning import Modality, Strict

HOUNSFIELD_AIR = -500.0
"""Values below this, in a volume, are air in Hounsfield units …"""

PHASE = -4096.0
"""… but from here on phases of MR, which scanners store as -4096 … 4094."""


class Look(Strict):
    """Measures of one picture (or medians over several), all in 0…1 of its own range.

    Attributes:
        colour: mean saturation: (max − min) / max over red, green, blue; 0 for grey.
        red, green: share in the sum of the colours (1/3 for grey).
        warm: share of pixels that are red before green, and green before blue, as skin is.
        highlights: share of pixels that are nearly white; wet surfaces shine.
        disc: 1 where the picture is a bright disc with a sharp edge on black, as an eyepiece shows it, else 0.
        rim: median of the outer tenth.
        centre: median of the middle ninth.
        black: share of pixels below 2 % of the range.
        fan: 1 where all that is not black is a fan that opens downwards, else 0.
        layers: how much more rows differ than columns do (log of the ratio of the profiles' SD).
        top: brightness of the upper tenth, as a share of the brightest row's.
        mirror: correlation of the picture with its mirror image, left and right.
        spine: how much brighter the middle fifth is than what lies left and right of it.
        aspect: width / height.
    """

    colour: float
    red: float
    green: float
    warm: float
    highlights: float
    disc: float
    rim: float
    centre: float
    black: float
    fan: float
    layers: float
    top: float
    mirror: float
    spine: float
    aspect: float

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
    brightest = small.max(axis=0)
    colour, red, green, warm = 0.0, 1 / 3, 1 / 3, 0.0
    if len(small) == 3:
        bright = brightest > 0.1
        saturation = ((brightest - small.min(axis=0)) / np.maximum(brightest, 1e-9))[bright]
        colour = float(saturation.mean()) if saturation.size else 0.0
        red, green = (float(c.mean() / max(small.sum(axis=0).mean(), 1e-9)) for c in small[:2])
        warm = float(np.mean((small[0] > 1.02 * small[1]) & (small[1] > 0.97 * small[2])))
    inner = np.zeros(grey.shape, bool)
    inner[rows // 10 : rows - rows // 10, columns // 10 : columns - columns // 10] = True
    by_row, by_column = grey.mean(axis=1), grey.mean(axis=0)
    fifth = max(1, columns // 5)
    middle, beside = (
        by_column[2 * fifth : 3 * fifth].mean(),
        np.r_[by_column[fifth : 2 * fifth], by_column[-2 * fifth : -fifth]],
    )
    coarse = grey[:: max(1, rows // 32), :: max(1, columns // 32)]
    return Look(
        colour=colour,
        red=red,
        green=green,
        warm=warm,
        highlights=float(np.mean(small.min(axis=0) > 0.85)),
        disc=float(_is_disc(brightest)),
        rim=float(np.median(grey[~inner])) if not inner.all() else 0.0,
        centre=float(np.median(grey[rows // 3 : rows - rows // 3, columns // 3 : columns - columns // 3])),
        black=float(np.mean(grey < 0.02)),
        fan=float(_is_fan(grey > 0.02)),
        layers=float(np.log((by_row.std() + 1e-6) / (by_column.std() + 1e-6))),
        top=float(by_row[: max(1, rows // 10)].mean() / max(by_row.max(), 1e-9)),
        mirror=_correlation(coarse, coarse[:, ::-1]),
        spine=float(middle / max(beside.mean(), 1e-9)) if beside.size else 1.0,
        aspect=width / height,
    )


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).sum() / max(float(np.sqrt((a**2).sum() * (b**2).sum())), 1e-9))


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest piece, without its holes."""
    from scipy import ndimage

    pieces, count = ndimage.label(ndimage.binary_opening(np.pad(mask, 1), iterations=2))
    if not count:
        return np.zeros(mask.shape, bool)
    return ndimage.binary_fill_holes(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)[1:-1, 1:-1]


def _is_disc(brightness: np.ndarray) -> bool:
    """Is it the inside of a circle with a sharp edge on darkness, which may be cut off above and below?

    The edge is followed at the left and at the right. Where it is as straight as it is round, it is that of a frame
    with cut corners.
    """
    rows, columns = brightness.shape
    r, c = max(1, rows // 16), max(1, columns // 16)
    corners = (brightness[:r, :c], brightness[:r, -c:], brightness[-r:, :c], brightness[-r:, -c:])
    dark, bright = max(float(np.median(corner)) for corner in corners), float(np.median(brightness))
    if bright < 2.5 * dark or bright < 0.15:
        return False
    wide, narrow = (_largest(brightness > dark + share * (bright - dark)) for share in (0.15, 0.4))
    if not 0.4 < wide.mean() < 0.95 or narrow.sum() < 0.85 * wide.sum():
        return False
    edge = np.array(
        [
            (row, place)
            for row, line in enumerate(wide)
            if line.any()
            for place in (int(line.argmax()), columns - 1 - int(line[::-1].argmax()))
            if 0 < place < columns - 1
        ],
        float,
    ).reshape(-1, 2)
    if len(edge) < rows:
        return False
    kept = np.ones(len(edge), bool)
    for _ in range(4):  # without the few that belong to something else, such as a mark at the edge
        error, away = _from_circle(edge, kept)
        kept = error <= np.quantile(error, 0.85)
    if error[kept].max() > max(1.2, 0.015 * float(np.hypot(*away[kept].T).mean())):
        return False
    bent = 0
    for below in (False, True):
        for right in (False, True):
            own = kept & ((away[:, 0] > 0) == below) & ((away[:, 1] > 0) == right)
            if own.sum() >= rows // 8:
                piece = edge[own] - edge[own].mean(axis=0)
                straight = float(np.linalg.svd(piece, full_matrices=False)[1][1]) / own.sum() ** 0.5
                bent += straight > max(1.5, 3 * float(error[own].mean()))
    return bent >= 3


def _from_circle(edge: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far all points lie from the circle through those kept (least squares), and where they lie from its centre."""
    rows = edge[kept]
    # x² + y² = 2ax + 2by + c
    (a, b, c), *_ = np.linalg.lstsq(np.c_[2 * rows, np.ones(len(rows))], (rows**2).sum(axis=1), rcond=None)
    away = edge - (a, b)
    return np.abs(np.hypot(*away.T) - float(np.sqrt(max(c + a**2 + b**2, 0.0)))), away


def _is_fan(mask: np.ndarray) -> bool:
    """Does it widen evenly from a narrow top to below its middle?"""
    field = _largest(mask)
    found = np.flatnonzero(field.any(axis=1))
    if not 0.1 < field.mean() < 0.75 or len(found) < 32:
        return False
    widths = field[found[0] : found[-1] + 1].sum(axis=1).astype(float)
    widest = int(widths.argmax())
    if widest < 0.55 * len(widths) or widths[len(widths) // 10] > 0.5 * widths[widest]:
        return False
    place = np.arange(widest + 1)
    line = np.polyval(np.polyfit(place, widths[: widest + 1], 1), place)
    return bool(np.abs(line - widths[: widest + 1]).mean() < 0.05 * widths[widest])


def guess(
    look: Look,
    *,
    volumes: bool,
    low: float,
    high: float,
    body: tuple[float, ...] = (),
    thin: bool = False,
) -> tuple[Modality, str]:
    """The modality and why; "other" where it could well be another one.

    Endoscopy, microscopy and PET are never guessed: too much else looks like them.

    Args:
        look: of the pictures.
        volumes: they have depth.
        low, high: smallest and largest value in the files.
        body: of volumes, the percentiles 0.5, 5, 50, 95 and 99.5 inside the body of a typical one, where known.
        thin: a class is thin and long.
    """
    figures = f"values {low:g} … {high:g}"
    if volumes:
        return _guess_volumes(figures, low, high, body)
    if look.colour > 0.1:
        blue = 1 - look.red - look.green
        colours = f"colour (saturation {look.colour:.2f}), red is {look.red:.0%} of the light"
        if look.disc > 0.5:
            warm = look.red > 0.44 and look.red > 1.3 * look.green and look.green > blue and look.highlights < 1e-3
            if warm and thin:
                return (
                    "fundus",
                    f"guessed: {colours}, a round field of view, and thin structures like the vessels of a retina",
                )
            return (
                "other",
                f"not recognised: {colours}, in a round field of view: a fundus, an endoscope, a microscope …",
            )
        skin = 0.36 < look.red < 0.5 and look.green > 0.295 and look.green >= blue > 0.19 and look.warm > 0.75
        if skin and look.rim > 0.15 and look.centre < 0.85 * look.rim:
            return "dermoscopy", f"guessed: {colours}, of the colour of skin to the rim, and darker in the middle"
        return "other", f"not recognised: {colours}"
    if look.black > 0.25 and look.fan > 0.5:
        return "ultrasound", f"guessed: grey, {look.black:.0%} of the pixels are black around a fan"
    if look.layers > 0.8 and look.aspect > 1 and look.top < 0.4:
        return "oct", "guessed: grey, wide, with horizontal layers below darkness"
    if look.black < 0.15 and look.mirror > 0.6 and look.spine > 1.1:
        return (
            "xray",
            "guessed: grey, its sides mirror each other, darker than the middle, as in a radiograph of the chest",
        )
    return "other", "not recognised: grey"


def _guess_volumes(figures: str, low: float, high: float, body: tuple[float, ...]) -> tuple[Modality, str]:
    if PHASE < low < HOUNSFIELD_AIR:
        return "ct", f"guessed: volumes with {figures}, as Hounsfield units have them (air is -1000)"
    if low >= 0 and high > 255:
        if body and body[2] < 0.2 * body[4]:
            return (
                "other",
                f"not recognised: volumes with {figures}, few of them far brighter than the rest: PET, angiography …",
            )
        if body and body[3] < 1.25 * body[2]:
            return (
                "other",
                f"not recognised: volumes with {figures}, most of them nearly alike: CT from 0 instead of -1000 …",
            )
        return "mr", f"guessed: volumes with {figures}, without negative numbers and without a fixed scale"
    return "other", f"not recognised: volumes with {figures}"

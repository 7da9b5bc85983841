"""Label values that differ from what was meant: integers off by rounding, nearly black and white, soft edges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from cpfnet.image import Image
from cpfnet.labels import number_of, pack, round_to_integers, value_of
from cpfnet.planning import COLOURS, Labels

MOST_VALUES = 64
"""More different values than these are no classes, unless declared: they are an image, or a mask with soft edges."""

DARK = 32
"""Of 255: how far each channel of a nearly black or white pixel is from black or white, or of similar colours apart."""

_MAIN = 0.01
"""A main colour has at least this share of the pixels."""

_MOST_MAIN = 8
"""More main colours than these are an image."""

_BETWEEN, _ASTRAY = 0.25, 0.02
"""Shares of the pixels: the most that all other colours have, and those off the lines between main ones (JPEG
blurs)."""

_FEWEST_BETWEEN = 8
"""Fewer different values than these between the main ones are classes, not edges."""


def correct_values(label: Image, labels: Labels | None = None) -> Image:
    """The same label with the values that were meant, and a message on what was changed.

    Values within a thousandth of whole numbers become these. Where `labels` name 0 and 255, and not the two colours (or
    greys) of the file, nearly black becomes 0 and nearly white 255.
    """
    warnings = []
    array = label.array
    if array.dtype.kind == "f" and (whole := round_to_integers(array)) is not None:
        numbers, off = whole
        if off:
            warnings.append(f"values off whole numbers by up to {off:.1g}, as rounding leaves them: taken as integers")
            array = numbers
    elif labels is not None and (two := black_and_white(array)):
        black, white, bright = two
        named = {
            number_of(v) for v in (*labels.background, *labels.ignore, *(v for c in labels.classes for v in c.values))
        }
        changes = []
        for value, meant, where in ((black, 0, ~bright), (white, 255, bright)):
            if value is not None and value != meant and value not in named and meant in named:
                array = np.where(where, np.uint8(meant), array)
                changes.append(f"nearly {'white' if meant else 'black'} ({value_of(value)}) taken as {meant}")
        warnings += [" and ".join(changes)] * bool(changes)
    if not warnings:
        return label
    source = (
        None
        if label.source is None
        else dataclasses.replace(label.source, warnings=(*label.source.warnings, *warnings))
    )
    return dataclasses.replace(label, array=array, source=source)


def black_and_white(array: np.ndarray) -> tuple[int | None, int | None, np.ndarray] | None:
    """The two values of a mask that are nearly black and nearly white, packed, and where it is white; else None.

    One of the two may be missing if the other is a colour: a single grey may be the number of a class.

    Args:
        array: ``(1 or 3, …)`` uint8.
    """
    if array.dtype != np.uint8 or len(array) not in (1, 3) or not array.size:
        return None
    bright = np.asarray(array.min(axis=0) >= 255 - DARK)
    dark = np.asarray(array.max(axis=0) <= DARK)
    if not (bright | dark).all():
        return None
    values = []
    for where in (dark, bright):
        pixels = array[:, where]
        if pixels.size and (pixels != pixels[:, :1]).any():
            return None
        values.append(int(pack(pixels[:, :1])[0]) if pixels.size else None)
    black, white = values
    if None in values and all(value is None or value < COLOURS for value in values):
        return None
    return black, white, bright


def is_black_and_white(values: Iterable[float]) -> bool:
    """Are the packed values of one mask nearly black and nearly white (`black_and_white`), or exactly 0 and 255?"""
    numbers = list(values)
    shades = {shade(number) for number in numbers}
    alone = len(numbers) == 1 and (numbers[0] in (0, 255) or numbers[0] >= COLOURS)
    return None not in shades and len(numbers) == len(shades) and (len(numbers) == 2 or alone)


def shade(value: float) -> int | None:
    """0 for a (packed) value that is nearly black, 255 for a nearly white one, else None."""
    number = int(value)
    parts = [number >> shift & 255 for shift in (16, 8, 0)] if number >= COLOURS else [number]
    if not float(value).is_integer():
        return None
    return (
        0 if min(parts) >= 0 and max(parts) <= DARK else 255 if min(parts) >= 255 - DARK and max(parts) <= 255 else None
    )


def region_mask(region: Image) -> np.ndarray:
    """Where a region of interest is: where it is not 0; with two colours, nearly black and white, where it is white.

    Args:
        region: as `formats.read_label` gives it.

    Returns:
        bool, without the channels.
    """
    two = black_and_white(region.array)
    return two[2] if two else np.asarray(region.array.any(axis=0))


def count_values(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values and their counts; where labels are small numbers, counting is far faster than sorting."""
    if packed.dtype.kind in "iu" and packed.min() >= 0 and (high := int(packed.max())) < 2**16:
        flat = packed.ravel()
        counts = np.zeros(high + 1, dtype=np.int64)
        for start in range(0, flat.size, 2**20):  # bincount makes 8 bytes of every pixel
            counts += np.bincount(flat[start : start + 2**20], minlength=high + 1)
        numbers = np.flatnonzero(counts)
        return numbers, counts[numbers]
    return np.unique(packed, return_counts=True)


def main_values(numbers: np.ndarray, counts: np.ndarray) -> tuple[int, ...]:
    """The few colours (or greys) of a mask with soft edges: all others lie between them, and are few. Else empty.

    Args:
        numbers: distinct packed values.
        counts: pixels of each.
    """
    if numbers.dtype.kind not in "iu" or len(numbers) < _FEWEST_BETWEEN or numbers[0] < 0:
        return ()
    colours = _colours(numbers)
    share = counts / counts.sum()
    main: list[int] = []
    for index in np.argsort(-counts, kind="stable").tolist():
        if share[index] < _MAIN or len(main) > _MOST_MAIN:
            break
        if all(np.abs(colours[index] - colours[other]).max() > DARK for other in main):
            main.append(index)
    if not 2 <= len(main) <= _MOST_MAIN:
        return ()
    others = np.setdiff1d(np.arange(len(numbers)), main)
    away = np.full(len(others), np.inf)
    for place, first in enumerate(main):
        for second in main[place + 1 :]:
            start, line = colours[first], colours[second] - colours[first]
            along = np.clip((colours[others] - start) @ line / (line @ line), 0, 1)
            away = np.minimum(away, np.linalg.norm(colours[others] - start - along[:, None] * line, axis=1))
    if (
        len(others) < _FEWEST_BETWEEN
        or share[others].sum() > _BETWEEN
        or share[others][away > 2 * DARK].sum() > _ASTRAY
    ):
        return ()
    return tuple(int(numbers[index]) for index in sorted(main))


def colours_of_blurred(packed: np.ndarray, numbers: np.ndarray, counts: np.ndarray) -> tuple[int, ...]:
    """The main colours of a smoothed mask: its other values lie between these and along the edges. Else empty."""
    main = main_values(numbers, counts)
    if not main:
        return ()
    between = ~np.isin(packed, main)
    flat = between[..., 1:] & (packed[..., 1:] == packed[..., :-1])
    return main if np.count_nonzero(flat) < np.count_nonzero(between) / 2 else ()


def is_soft(packed: np.ndarray, numbers: np.ndarray, counts: np.ndarray) -> bool:
    """Has a mask two poles, with values between them along the edges? JPEG and interpolation do this.

    The values of classes, too, may lie between other values, but in patches: there neighbours are equal. And an image
    mistaken for a label has no two poles. Fractions from 0 to 1 are soft wherever they lie.
    """
    if len(numbers) < 4 or numbers[-1] >= COLOURS:
        return False
    low, high = float(numbers[0]), float(numbers[-1])
    if packed.dtype.kind == "f" and low >= 0 and high <= 1:
        return True  # probabilities, or shares of a voxel
    edge = (high - low) / 10
    at_low, at_high = counts[numbers <= low + edge].sum(), counts[numbers >= high - edge].sum()
    between = packed.size - at_low - at_high
    if at_low + at_high < 0.75 * packed.size or at_high < 0.25 * (at_high + between):
        return False
    if between == 0:
        return len(numbers) > 8 or _is_noise(packed, numbers, counts, (low + high) / 2)
    middle = (packed > low + edge) & (packed < high - edge)
    patches = _in_patches(packed, 5, edge) | _in_patches(packed, 3, edge / 4)
    if np.count_nonzero(middle & patches) > between / 8:  # classes that noise or JPEG has changed a little
        return False
    flat = middle[..., 1:] & (packed[..., 1:] == packed[..., :-1])
    return bool(np.count_nonzero(flat) < between / 2)


def _colours(numbers: np.ndarray) -> np.ndarray:
    """``(n, 3)`` red, green and blue; greys of more than 8 bits shrunk to 0 … 255."""
    coloured = numbers >= COLOURS
    greys = numbers[~coloured]
    shrink = 255 / greys.max() if greys.size and greys.max() > 255 else 1.0
    parts = np.stack([numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255], axis=1)
    return np.where(coloured[:, None], parts, numbers[:, None] * shrink).astype(float)


def _is_noise(packed: np.ndarray, numbers: np.ndarray, counts: np.ndarray, half: float) -> bool:
    """Are all values scattered, except the commonest dark and the commonest bright one?

    The best JPEG leaves such a 1 and 254; classes lie in patches.
    """
    dark, bright = (int(numbers[side][counts[side].argmax()]) for side in (numbers < half, numbers >= half))
    others = (packed != dark) & (packed != bright)
    flat = others[..., 1:] & (packed[..., 1:] == packed[..., :-1])
    return bool(
        np.count_nonzero(flat) < np.count_nonzero(others) / 4 and not (others & _in_patches(packed, 5, 0)).any()
    )


def _in_patches(packed: np.ndarray, side: int, step: float) -> np.ndarray:
    """Where the pixels of a square in the plane around it differ by ``step`` at most."""
    from scipy.ndimage import maximum_filter, minimum_filter

    size = (*(1,) * (packed.ndim - 2), side, side)
    return np.asarray(maximum_filter(packed, size) - minimum_filter(packed, size) <= step)

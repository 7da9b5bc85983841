"""Made-up masks of structures, ``(height, width)`` bool, that differ by a seed in size, place and edge."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

SIDE = 384
_ROWS, _COLUMNS = np.indices((SIDE, SIDE))


def _polar(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Distance and angle from a place near the middle, and somewhat wobbly."""
    r, c = SIDE * rng.uniform(0.4, 0.6, 2)
    wobble = 1 + 0.06 * (ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 4) * 10)
    return np.hypot(_ROWS - r, _COLUMNS - c) * wobble, np.arctan2(_ROWS - r, _COLUMNS - c)


def blob(rng: np.random.Generator) -> np.ndarray:
    return _polar(rng)[0] < rng.uniform(3, 80)


def spiculated(rng: np.random.Generator) -> np.ndarray:
    """A core with many thin, long spikes."""
    away, angle = _polar(rng)
    core = rng.uniform(6, 25)
    spikes = int(rng.integers(8, 16))
    phase = (angle + np.pi) / (2 * np.pi) * spikes % 1
    narrow = np.abs(phase - 0.5) * 2 * np.pi / spikes * np.maximum(away, 1) < rng.uniform(1, 2)
    return (away < core) | (narrow & (away < core * rng.uniform(2, 4)))


def rough(rng: np.random.Generator) -> np.ndarray:
    """An edge like that of a threshold in noise."""
    away = _polar(rng)[0]
    return away + ndimage.gaussian_filter(rng.normal(size=away.shape), 1) * 12 < rng.uniform(8, 60)


def crescent(rng: np.random.Generator) -> np.ndarray:
    away, angle = _polar(rng)
    radius = rng.uniform(20, 70)
    return (np.abs(away - radius) < radius * rng.uniform(0.1, 0.25) * np.clip(np.cos(angle / 1.2), 0, 1)) & (
        np.abs(angle) < 1.7
    )


def ring(rng: np.random.Generator) -> np.ndarray:
    away = _polar(rng)[0]
    radius = rng.uniform(15, 90)
    return np.abs(away - radius) < rng.uniform(1.5, 5)


def ellipse(rng: np.random.Generator) -> np.ndarray:
    ratio, size = rng.uniform(1, 6), rng.uniform(6, 20)
    return ((_ROWS - SIDE / 2) / size) ** 2 + ((_COLUMNS - SIDE / 2) / (ratio * size)) ** 2 < 1


def many_spots(rng: np.random.Generator) -> np.ndarray:
    """Cells or exudates: hundreds of small blobs."""
    noise = ndimage.gaussian_filter(rng.random((SIDE, SIDE)), rng.uniform(2, 5))
    return noise > np.quantile(noise, 0.93)


def _tree(rng: np.random.Generator, width: float, branches: int) -> np.ndarray:
    """Winding lines that branch from others."""
    mask = np.zeros((SIDE, SIDE), bool)
    starts = [np.array([SIDE * rng.uniform(0.3, 0.7), 0.0])]
    for index in range(branches):
        place = starts[rng.integers(len(starts))].copy()
        angle = rng.uniform(-0.6, 0.6) + (0 if index == 0 else rng.choice([-0.9, 0.9]))
        radius = width / 2 * (1 if index == 0 else rng.uniform(0.5, 1))
        for step in range(400 if index == 0 else int(rng.integers(60, 200))):
            angle += rng.normal(0, 0.06) - 0.01 * angle
            place = place + np.array([np.sin(angle), np.cos(angle)])
            if place.min() < 0 or place.max() >= SIDE:
                break
            reach = int(radius) + 1
            r, c = place.round().astype(int)
            rows, columns = slice(max(r - reach, 0), r + reach + 1), slice(max(c - reach, 0), c + reach + 1)
            mask[rows, columns] |= np.hypot(_ROWS[rows, columns] - r, _COLUMNS[rows, columns] - c) <= radius
            if step % 40 == 20:
                starts.append(place.copy())
    return mask


def vessels(rng: np.random.Generator) -> np.ndarray:
    return _tree(rng, rng.uniform(2, 9), 25)


def nerve(rng: np.random.Generator) -> np.ndarray:
    return _tree(rng, rng.uniform(1, 4), 1)


def road(rng: np.random.Generator) -> np.ndarray:
    return _tree(rng, rng.uniform(6, 18), 3)


LONG: dict[str, Callable[[np.random.Generator], np.ndarray]] = {m.__name__: m for m in (vessels, nerve, road)}
COMPACT: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    m.__name__: m for m in (blob, spiculated, rough, crescent, ring, ellipse, many_spots)
}

"""Made-up pictures of kinds, ``(channels, height, width)``, which a seed varies in size, colour, texture, place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage


def _texture(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> np.ndarray:
    """0…1."""
    made = ndimage.gaussian_filter(rng.random(shape), scale)
    return (made - made.min()) / (made.max() - made.min())


def _blob(rng: np.random.Generator, shape: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    r, c = (n * rng.uniform(0.4, 0.6) for n in shape)
    wave = 1 + 0.15 * np.sin(rng.integers(2, 6) * np.arctan2(rows - r, columns - c) + rng.uniform(0, 6))
    return np.hypot((rows - r) * rng.uniform(0.8, 1.2), columns - c) < radius * wave


def _disc(shape: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) < radius


def _paint(colour: tuple[float, ...], light: np.ndarray) -> np.ndarray:
    return np.stack([c * light for c in colour])


def _size(rng: np.random.Generator) -> tuple[int, int]:
    return int(rng.integers(220, 420)), int(rng.integers(280, 520))


def _mucosa(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    red = rng.uniform(150, 220)
    colour = (red, red * rng.uniform(0.42, 0.62), red * rng.uniform(0.25, 0.5))
    light = (
        0.65 + 0.35 * _texture(rng, shape, 8) + 0.1 * ndimage.gaussian_filter(_blob(rng, shape, 45).astype(float), 4)
    )
    made = _paint(colour, light)
    if rng.random() < 0.6:  # wet: highlights
        made[:, _texture(rng, shape, 2) > 0.9] = 250
    return made


def polyp(rng: np.random.Generator) -> np.ndarray:
    return _mucosa(rng, _size(rng))


def polyp_dark_corners(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    away = np.hypot(*((np.indices(shape).T - np.array(shape) / 2) / np.array(shape)).T)
    return _mucosa(rng, shape) * np.clip(rng.uniform(2.5, 4) * (0.68 - away), 0, 1)


def polyp_cut_corners(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    rows, columns = np.indices(shape)
    cut = rng.uniform(0.2, 0.45) * min(shape)
    inside = np.minimum(rows, shape[0] - 1 - rows) + np.minimum(columns, shape[1] - 1 - columns) > cut
    return _mucosa(rng, shape) * inside


def polyp_round(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    return _mucosa(rng, shape) * _disc(shape, min(shape) * rng.uniform(0.42, 0.56))


def stained(rng: np.random.Generator) -> np.ndarray:
    """Haematoxylin and eosin: pink with violet nuclei."""
    shape = _size(rng)
    pink = np.array([rng.uniform(215, 240), rng.uniform(150, 190), rng.uniform(195, 220)])
    violet = np.array([rng.uniform(80, 120), rng.uniform(50, 80), rng.uniform(130, 160)])
    nuclei = ndimage.gaussian_filter((_texture(rng, shape, 3) > 0.66).astype(float), 1)
    return (pink[:, None, None] * (1 - nuclei) + violet[:, None, None] * nuclei) * (0.9 + 0.1 * _texture(rng, shape, 6))


def brown_stained(rng: np.random.Generator) -> np.ndarray:
    """DAB: brown on pale blue."""
    shape = _size(rng)
    brown = ndimage.gaussian_filter((_texture(rng, shape, 5) > 0.55).astype(float), 1)
    return np.array([215, 220, 235])[:, None, None] * (1 - brown) + np.array([140, 95, 60])[:, None, None] * brown


def fluorescence(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    cells = ndimage.gaussian_filter((_texture(rng, shape, 4) > 0.68).astype(float), 1.5)
    colour = [(0, 30, 230), (10, 220, 40), (200, 20, 20), (20, 200, 220)][rng.integers(4)]
    return _paint(colour, cells) + 6 * rng.random((3, *shape))


def skin(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    red = rng.uniform(150, 235)
    colour = (red, red * rng.uniform(0.7, 0.8), red * rng.uniform(0.55, 0.68))
    lesion = ndimage.gaussian_filter(_blob(rng, shape, rng.uniform(0.3, 0.4) * min(shape)).astype(float), 2)
    return _paint(colour, (0.85 + 0.15 * _texture(rng, shape, 4)) * (1 - rng.uniform(0.4, 0.6) * lesion))


def fundus(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    red = rng.uniform(170, 230)
    colour = (red, red * rng.uniform(0.45, 0.6), red * rng.uniform(0.15, 0.4))
    return _paint(colour, 0.7 + 0.3 * _texture(rng, shape, 8)) * _disc(shape, min(shape) * rng.uniform(0.44, 0.54))


def aerial(rng: np.random.Generator) -> np.ndarray:
    """Soil and grey roads."""
    shape = _size(rng)
    rows, columns = np.indices(shape)
    soil = _paint((170, 140, 110), 0.6 + 0.4 * _texture(rng, shape, 10))
    road = np.abs(rows - rng.uniform(0.2, 0.8) * shape[0] - 0.3 * columns * rng.uniform(-1, 1)) < 6
    return np.where(road, np.array([130, 130, 130])[:, None, None], soil)


def ultrasound(rng: np.random.Generator) -> np.ndarray:
    shape = _size(rng)
    rows, columns = np.indices(shape)
    middle, reach = shape[1] / 2, rng.uniform(0.9, 0.97) * shape[0]
    slope = rng.uniform(0.4, 0.7)
    sector = (np.abs(columns - middle) < slope * rows) & (np.hypot(rows, columns - middle) < reach)
    return (200 * (0.15 + 0.85 * _texture(rng, shape, 3)) * sector)[None]


def ultrasound_linear(rng: np.random.Generator) -> np.ndarray:
    """A nerve: bright layers all over the picture."""
    shape = _size(rng)
    return (220 * (0.5 * _texture(rng, shape, 3) + 0.5 * _texture(rng, (shape[0], 1), 6)))[None]


def oct(rng: np.random.Generator) -> np.ndarray:
    height, width = int(rng.integers(200, 300)), int(rng.integers(400, 600))
    rows, columns = np.indices((height, width))
    line = height * (0.5 + 0.05 * np.sin(columns / width * 3 + rng.uniform(0, 6)))
    band = np.exp(-(((rows - line) / rng.uniform(20, 30)) ** 2)) * (0.7 + 0.3 * np.sin(rows / 4) ** 2)
    return (25 + 30 * _texture(rng, (height, width), 1) + 170 * band)[None]


def chest(rng: np.random.Generator) -> np.ndarray:
    """A radiograph: two dark lungs."""
    side = int(rng.integers(256, 500))
    rows, columns = np.indices((side, side)) / side
    lungs = sum(((rows - 0.45) / 0.3) ** 2 + ((columns - c) / 0.15) ** 2 < 1 for c in (0.28, 0.72))
    return (190 - 110 * ndimage.gaussian_filter(lungs.astype(float), side / 40) + 20 * rng.random((side, side)))[None]


def body_slice(rng: np.random.Generator) -> np.ndarray:
    """CT or MR, saved as a picture: an oval on black, with organs."""
    shape = _size(rng)
    rows, columns = np.indices(shape)
    oval = ((rows / shape[0] - 0.5) / 0.4) ** 2 + ((columns / shape[1] - 0.5) / 0.42) ** 2 < 1
    return (oval * (70 + 120 * _texture(rng, shape, 9)))[None]


def electron(rng: np.random.Generator) -> np.ndarray:
    shape = (int(rng.integers(260, 520)),) * 2
    return (60 + 160 * _texture(rng, shape, 4))[None]


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    maker.__name__: maker
    for maker in (
        polyp,
        polyp_dark_corners,
        polyp_cut_corners,
        polyp_round,
        stained,
        brown_stained,
        fluorescence,
        skin,
        fundus,
        aerial,
        ultrasound,
        ultrasound_linear,
        oct,
        chest,
        body_slice,
        electron,
    )
}

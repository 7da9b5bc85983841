"""Random changes that keep a sample plausible: shape first, in one resampling, then intensity.

Every draw comes from the generator that is passed in, so a sample is a function of (seed, sample number) whatever the
number of workers. Shape changes (rotation, scale, elastic deformation) are composed into one map, so that pixels are
interpolated once and image and mask move together. The map looks beyond the patch's border, so a larger piece is cut,
by just as much as this sample needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from monai.transforms import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensityFixedMean,
    RandStdShiftIntensity,
)
from monai.transforms.utils import create_grid, create_rotate
from torch.nn.functional import grid_sample, interpolate

from cpfnet.planning import Augmentation, Channel, Intensity, Local, Plan, Scale, ZScore
from cpfnet.rounding import above

Cut = Callable[[tuple[int, ...]], tuple[np.ndarray, np.ndarray]]
"""Pixels to go beyond the patch on both sides of each axis → that piece of image ``(channels, …)`` and code map(s)."""

FULL_SIZE = 256.0
"""Longest side (pixels; mm where spacing is known) from which the elastic field has its full size.

Smaller patches shrink it.
"""

IN_PLANE = 3.0
"""Ratio of slice distance to pixel size above which volumes turn within their slices only."""

COARSEST = 0.5
"""Lowest resolution that is simulated, as a share of the image's own."""

ILLUMINATION = 0.2
"""RMS of the logarithm of uneven light: mostly 0.67 … 1.5 times the light; it varies over half the patch."""

COLOUR = 0.2
"""Largest shift of a channel, in its standard deviations, and largest logarithm of its contrast."""


def elastic_rms(alpha: float, sigma: float) -> float:
    """RMS displacement, pixels, of the field that the guide makes.

    That is uniform noise in -1…1, Gaussian-filtered in 2-D, times alpha.

    The noise has variance 1/3 and the filter passes 1/(4πσ²) of it: alpha / (σ·√(12π)); 5.4 for alpha 1000, sigma 30.
    """
    return alpha / (sigma * math.sqrt(12 * math.pi))


def smooth_noise(count: int, shape: tuple[int, ...], sigma: tuple[float, ...], rng: np.random.Generator) -> np.ndarray:
    """White noise through a Gaussian filter, with mean 0 and variance 1.

    Noise stands on a lattice one sigma wide and is spread by Gaussian kernels, axis by axis. Up to a ripple of
    2·exp(-π²) this is the filter at full resolution (MONAI's `Rand3DElastic` computes that), at a thousandth of its
    cost.

    Args:
        count: independent fields.
        shape: ``([depth,] height, width)``.
        sigma: of the filter, in pixels along each axis.
        rng: all randomness.

    Returns:
        float32 ``(count, [depth,] height, width)``.
    """
    kernels = []
    for size, width in zip(shape, sigma, strict=True):
        lattice = np.arange(-4, size / width + 4) * width  # kernels end within 4 sigma
        kernel = np.exp(-0.5 * ((np.arange(size)[:, None] - lattice) / width) ** 2)
        kernels.append((kernel / math.pi**0.25).astype(np.float32))  # sum of squares over the lattice: √π
    field = rng.standard_normal((count, *[k.shape[1] for k in kernels]), dtype=np.float32)
    for kernel in kernels:  # an axis of the lattice goes, the result's comes last: all in order, rows unbroken
        field = np.tensordot(field, kernel, axes=(1, 1))
    return field


def elastic_field(
    shape: tuple[int, ...], sigma: tuple[float, ...], rms: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    """A smooth random displacement field: float32 ``(axes, [depth,] height, width)``, along each axis in pixels.

    Args:
        shape: ``([depth,] height, width)``.
        sigma: of the filter that makes it smooth, in pixels along each axis.
        rms: of the displacement, in pixels along each axis.
        rng: all randomness.
    """
    return smooth_noise(len(shape), shape, sigma, rng) * np.reshape(
        np.asarray(rms, np.float32), (-1, *[1] * len(shape))
    )


def resampled(image: np.ndarray, codes: np.ndarray, grid: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Image and codes at other places, linearly and by the nearest neighbour; beyond the border its pixels go on.

    Args:
        image: float32 ``(channels, [depth,] height, width)``.
        codes: uint8 ``([maps,] [depth,] height, width)``.
        grid: where each pixel of the result comes from, in pixels from the centre, float32 ``(axes, *patch)``.

    Returns:
        Both, as large as ``grid``.
    """
    # torch's function itself: MONAI's Resample around it takes several times as long.
    shape = image.shape[1:]
    places = torch.stack([2 / size * along for along, size in zip(grid, shape, strict=True)][::-1], dim=-1)[None]

    def at(planes: np.ndarray, mode: str) -> np.ndarray:
        given = torch.from_numpy(np.ascontiguousarray(planes, dtype=np.float32))[None]
        return grid_sample(given, places, mode=mode, padding_mode="border", align_corners=False)[0].numpy()

    moved = at(codes.reshape(-1, *shape), "nearest").astype(np.uint8)
    return at(image, "bilinear"), moved.reshape(*codes.shape[: codes.ndim - len(shape)], *grid.shape[1:])


def _black(intensity: Intensity) -> float | None:
    """What the normalisation makes of no light; None where it does not say."""
    if isinstance(intensity, Scale):
        return -intensity.mean / intensity.std
    return None if isinstance(intensity, ZScore | Local) else 0.0


class SampleAugmenter:
    """Apply an augmentation to samples of one size.

    Args:
        settings: probability and strength of each change.
        patch: ``([depth,] height, width)``, pixels.
        spacing: mm along each axis of the patch, in which rotation and elastic deformation act; None: pixels.
        channels: name and normalisation of each.
    """

    def __init__(
        self,
        settings: Augmentation,
        patch: tuple[int, ...],
        *,
        spacing: Sequence[float] | np.ndarray | None,
        channels: Sequence[Channel],
    ):
        self.settings = augmentation = settings
        self.dims = len(patch)
        self.patch = patch
        self.axes = ("depth", "height", "width")[-self.dims :]
        self.spacing = np.ones(self.dims) if spacing is None else np.array(spacing, dtype=float)
        extent = float(np.max(self.spacing * patch))
        shrink = min(1.0, extent / FULL_SIZE)
        self.sigma = tuple(augmentation.elastic_sigma * shrink / self.spacing)
        rms = elastic_rms(augmentation.elastic_alpha, augmentation.elastic_sigma)
        self.rms = tuple(rms * shrink / self.spacing)
        self.light = tuple(extent / 2 / self.spacing)
        self.black = tuple(_black(channel.intensity) for channel in channels)
        self.dropout = np.array([augmentation.channel_dropout.get(channel.name, 0.0) for channel in channels])
        quarters = self.patch[-2] == self.patch[-1] and self.spacing[-2] == self.spacing[-1]
        self.turns = (0, 1, 2, 3) if quarters else (0, 2)  # else the patch would change its shape
        # Noise is relative to what the normalisation makes of an image: unit variance, or the range 0…1.
        unit = any(
            isinstance(c.intensity, ZScore | Local) or (isinstance(c.intensity, Scale) and c.intensity.std < 0.5)
            for c in channels
        )
        self.thick = above(self.spacing, IN_PLANE * self.spacing.min())
        inverted = augmentation.inverted_gamma
        self.intensity = (
            RandGaussianSmooth((0.25, 1.5), (0.25, 1.5), (0.25, 1.5), prob=augmentation.blur),
            RandStdShiftIntensity(0.3, prob=augmentation.brightness),
            RandScaleIntensityFixedMean(prob=augmentation.contrast, factors=(-0.25, 0.3), preserve_range=True),
            # What is off draws nothing here: samples of plans from before there was such a thing stay as they were.
            *([RandAdjustContrast(prob=inverted, gamma=(0.7, 1.5), invert_image=True)] if inverted else []),
            RandAdjustContrast(prob=augmentation.gamma, gamma=(0.7, 1.5)),  # over the sample's own range
            RandGaussianNoise(prob=augmentation.noise, std=0.2 if unit else 0.05),
        )

    def __call__(self, cut: Cut, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw what happens to one sample, cut as much of the image as that needs, and change it.

        Args:
            cut: gives the patch, or more: image float32 ``(channels, [depth,] height, width)``, normalised, and uint8
                code map ``([depth,] height, width)``, or several of them. They stay as they are.
            rng: all randomness.

        Returns:
            Both, changed, as large as the patch. All channels move alike; codes move by nearest neighbour, so no new
            code appears.
        """
        flips = [axis for axis, name in enumerate(self.axes) if name in self.settings.flips and rng.random() < 0.5]
        turns = int(rng.choice(self.turns)) if self.settings.quarter_turns else 0
        grid = self._grid(rng)
        image, codes = cut((0,) * self.dims if grid is None else self._margin(grid))
        if grid is not None:
            image, codes = resampled(image, codes, grid)
        image, codes = np.rot90(image, turns, (-2, -1)), np.rot90(codes, turns, (-2, -1))
        mirrored = tuple(axis - self.dims for axis in flips)
        image, codes = np.flip(image, mirrored), np.flip(codes, mirrored)
        image = self._lit(np.array(image, dtype=np.float32, order="C"), rng)
        if self.settings.low_resolution:
            image = self._coarsened(image, rng)
        changed = torch.from_numpy(image)
        for transform in self.intensity:
            changed = transform.set_random_state(seed=int(rng.integers(2**32)))(changed)
        return np.ascontiguousarray(changed.numpy(), dtype=np.float32), np.array(codes, order="C")

    def _grid(self, rng: np.random.Generator) -> torch.Tensor | None:
        """Where each pixel of the patch comes from, in pixels from the centre, ``(axes, *patch)``; None: no move."""
        settings = self.settings
        turn, zoom, bend = rng.random(3) < (settings.rotation, settings.scale, settings.elastic)
        if not (turn or zoom or bend):
            return None
        matrix = np.eye(self.dims)
        if turn:
            matrix = matrix @ self._rotation(rng)
        if zoom:
            matrix = matrix / self._size(rng)
        matrix = matrix * self.spacing / self.spacing[:, None]  # pixels → mm → pixels
        here = create_grid(self.patch, homogeneous=False, backend="numpy")
        grid = np.tensordot(matrix, here, axes=1).astype(np.float32)
        if bend:
            grid += elastic_field(self.patch, self.sigma, self.rms, rng)
        return torch.from_numpy(grid)

    def _size(self, rng: np.random.Generator) -> float:
        if self.settings.scale_factors is None:
            return rng.uniform(1 - self.settings.scale_range, 1 + self.settings.scale_range)
        return math.exp(rng.uniform(*np.log(self.settings.scale_factors)))

    def _margin(self, grid: torch.Tensor) -> tuple[int, ...]:
        """How far ``grid`` leads out of the patch, whole pixels along each axis; a thousandth is rounding."""
        reach = grid.abs().flatten(1).amax(1).tolist()
        return tuple(max(0, math.ceil(r - (n - 1) / 2 - 1e-3)) for r, n in zip(reach, self.patch, strict=True))

    def _rotation(self, rng: np.random.Generator) -> np.ndarray:
        angles = np.radians(rng.uniform(-1, 1, 3) * self.settings.rotation_degrees)
        if self.dims == 2:
            return create_rotate(2, angles[0])[:2, :2]
        if self.thick.any():
            angles[np.arange(3) != np.argmax(self.spacing)] = 0
        return create_rotate(3, angles)[:3, :3]

    def _lit(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Uneven light, black + field · (x − black), then each channel's shift, and contrast or the mean alone.

        Where the normalisation does not say what black is, it is the lowest value. The slices of a 2.5-D stack change
        alike.
        """
        lit, coloured = rng.random(2) < (self.settings.illumination, self.settings.colour)
        dropped = rng.random(len(self.black)) < self.dropout
        stack = image.reshape(-1, len(self.black), *self.patch)
        inside, each = (0, *range(2, stack.ndim)), (-1, *[1] * self.dims)
        if lit:
            field = np.exp(ILLUMINATION * smooth_noise(1, self.patch, self.light, rng))
            lowest = stack.min(axis=inside)
            known = [low if black is None else black for low, black in zip(lowest, self.black, strict=True)]
            black = np.reshape(np.asarray(known, np.float32), each)
            stack = black + field * (stack - black)
        if coloured:
            shift, contrast = rng.uniform(-COLOUR, COLOUR, (2, len(self.black))).astype(np.float32)
            mean, deviation = stack.mean(axis=inside, keepdims=True), stack.std(axis=inside, keepdims=True)
            stack = mean + np.exp(contrast).reshape(each) * (stack - mean) + shift.reshape(each) * deviation
        if dropped.any() and not dropped.all():
            stack = np.where(dropped.reshape(each), stack.mean(axis=inside, keepdims=True), stack)
        return stack.reshape(image.shape)

    def _coarsened(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """As if some channels had been taken at a lower resolution: every n-th pixel, and linearly back (nnU-Net).

        Thick slices are coarse enough, and stay whole. The slices of a 2.5-D stack change alike.
        """
        chosen = rng.random(len(self.black)) < self.settings.low_resolution
        shares = rng.uniform(COARSEST, 1, len(self.black))
        stack = torch.from_numpy(image).unflatten(0, (-1, len(self.black)))
        for channel in np.flatnonzero(chosen):
            share = np.where(self.thick, 1.0, shares[channel])
            size = [max(1, round(n * s)) for n, s in zip(self.patch, share, strict=True)]
            coarse = interpolate(stack[:, [channel]], size, mode="nearest-exact")
            linear = "bilinear" if self.dims == 2 else "trilinear"
            stack[:, [channel]] = interpolate(coarse, self.patch, mode=linear, align_corners=False)
        return image


class Augmenter(SampleAugmenter):
    """Apply the Plan's augmentation to one sample.

    Args:
        plan: `Plan.training.augmentation`, the patch, the channels, and the spacing (rotation and elastic deformation
            act in mm where it is known).
    """

    def __init__(self, plan: Plan):
        spatial = plan.spatial
        # In 2-D a slice's own two axes, whatever the distance of slices.
        spacing = None if spatial.spacing is None else np.array(spatial.spacing[-spatial.dims :], dtype=float)
        super().__init__(plan.training.augmentation, spatial.patch, spacing=spacing, channels=plan.channels)

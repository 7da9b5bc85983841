"""Random changes that keep a sample plausible: shape first, in one resampling, then intensity.

Every draw comes from the generator that is passed in, so a sample is a function of (seed, sample number) whatever the number of
workers. Shape changes (rotation, scale, elastic deformation) are composed into one map, so that pixels are interpolated once and
image and mask move together; beyond the border both are mirrored.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.transforms import (
    RandAdjustContrast,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandScaleIntensityFixedMean,
    RandStdShiftIntensity,
    Resample,
)
from monai.transforms.utils import create_grid, create_rotate

from cpfnet.planning import Plan, Scale, ZScore

FULL_SIZE = 256.0
"""Longest side (pixels; mm where spacing is known) from which the elastic field has its full size; smaller patches shrink it."""

IN_PLANE = 3.0
"""Ratio of slice distance to pixel size above which volumes turn within their slices only."""


def elastic_rms(alpha: float, sigma: float) -> float:
    """RMS displacement, pixels, of the field that the guide makes: uniform noise in -1…1, Gaussian-filtered in 2-D, times alpha.

    The noise has variance 1/3 and the filter passes 1/(4πσ²) of it: alpha / (σ·√(12π)); 5.4 for alpha 1000, sigma 30.
    """
    return alpha / (sigma * math.sqrt(12 * math.pi))


def elastic_field(
    shape: tuple[int, ...], sigma: tuple[float, ...], rms: tuple[float, ...], rng: np.random.Generator
) -> np.ndarray:
    """A smooth random displacement field: white noise through a Gaussian filter.

    Noise stands on a lattice one sigma wide and is spread by Gaussian kernels, axis by axis. Up to a ripple of 2·exp(-π²)
    this is the filter at full resolution (MONAI's `Rand3DElastic` computes that), at a thousandth of its cost.

    Args:
        shape: ``([depth,] height, width)``.
        sigma: of the filter, in pixels along each axis.
        rms: of the displacement, in pixels along each axis.
        rng: all randomness.

    Returns:
        float32 ``(axes, [depth,] height, width)``, displacement along each axis in pixels.
    """
    kernels = []
    for size, width in zip(shape, sigma, strict=True):
        lattice = np.arange(-4, size / width + 4) * width  # kernels end within 4 sigma
        kernel = np.exp(-0.5 * ((np.arange(size)[:, None] - lattice) / width) ** 2)
        kernels.append(kernel / math.pi**0.25)  # sum of squares over the lattice: √π
    field = rng.standard_normal((len(shape), *[k.shape[1] for k in kernels]))
    for axis, kernel in enumerate(kernels, start=1):
        field = np.moveaxis(np.tensordot(kernel, field, axes=(1, axis)), 0, axis)
    field *= np.reshape(rms, (-1, *[1] * len(shape)))
    return field.astype(np.float32)


class Augmenter:
    """Apply the Plan's augmentation to one sample.

    Args:
        plan: `Plan.training.augmentation`, the patch, and the spacing (rotation and elastic deformation act in mm where it is known).
    """

    def __init__(self, plan: Plan):
        self.settings = augmentation = plan.training.augmentation
        self.dims = plan.spatial.dims
        self.axes = ("depth", "height", "width")[-self.dims :]
        spacing = np.array(plan.spatial.spacing or (1.0, 1.0, 1.0))[-self.dims :]
        self.spacing = spacing if plan.spatial.spacing is not None else np.ones(self.dims)
        extent = float(np.max(self.spacing * plan.spatial.patch))
        shrink = min(1.0, extent / FULL_SIZE)
        self.sigma = tuple(augmentation.elastic_sigma * shrink / self.spacing)
        rms = elastic_rms(augmentation.elastic_alpha, augmentation.elastic_sigma)
        self.rms = tuple(rms * shrink / self.spacing)
        # Noise is relative to what the normalisation makes of an image: unit variance, or the range 0…1.
        unit = any(
            isinstance(c.intensity, ZScore) or (isinstance(c.intensity, Scale) and c.intensity.std < 0.5)
            for c in plan.channels
        )
        self.intensity = (
            RandGaussianSmooth((0.25, 1.5), (0.25, 1.5), (0.25, 1.5), prob=augmentation.blur),
            RandStdShiftIntensity(0.3, prob=augmentation.brightness),
            RandScaleIntensityFixedMean(prob=augmentation.contrast, factors=(-0.25, 0.3), preserve_range=True),
            RandAdjustContrast(prob=augmentation.gamma, gamma=(0.7, 1.5)),  # over the sample's own range
            RandGaussianNoise(prob=augmentation.noise, std=0.2 if unit else 0.05),
        )
        self.bilinear = Resample(mode="bilinear", padding_mode="reflection", align_corners=False)
        self.nearest = Resample(mode="nearest", padding_mode="reflection", align_corners=False)

    def __call__(
        self, sample: np.ndarray, codes: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Change one sample; the inputs stay as they are.

        Args:
            sample: float32 ``(channels, [depth,] height, width)``, normalised. All channels move alike.
            codes: uint8 code map ``([depth,] height, width)``; moved by nearest neighbour, so no new code appears.
            rng: all randomness.

        Returns:
            Both, changed.
        """
        flips = [axis for axis, name in enumerate(self.axes) if name in self.settings.flips and rng.random() < 0.5]
        if flips:
            sample = np.flip(sample, tuple(axis + 1 for axis in flips))
            codes = np.flip(codes, tuple(flips))
        image = torch.from_numpy(np.array(sample, dtype=np.float32, order="C"))  # a copy: the cache is read-only
        mask = np.array(codes, order="C")
        grid = self._grid(codes.shape, rng)
        if grid is not None:
            image = self.bilinear(image, grid)
            mask = self.nearest(torch.from_numpy(mask[None].astype(np.float32)), grid).numpy()[0].astype(np.uint8)
        for transform in self.intensity:
            image = transform.set_random_state(seed=int(rng.integers(2**32)))(image)
        changed = np.ascontiguousarray(image.numpy(), dtype=np.float32)
        return changed, mask

    def _grid(self, shape: tuple[int, ...], rng: np.random.Generator) -> torch.Tensor | None:
        """Where each pixel comes from, in pixels from the centre, ``(axes, *shape)``; None where nothing moves."""
        settings = self.settings
        turn, zoom, bend = rng.random(3) < (settings.rotation, settings.scale, settings.elastic)
        if not (turn or zoom or bend):
            return None
        matrix = np.eye(self.dims)
        if turn:
            matrix = matrix @ self._rotation(rng)
        if zoom:
            matrix = matrix / rng.uniform(1 - settings.scale_range, 1 + settings.scale_range)
        matrix = matrix * self.spacing / self.spacing[:, None]  # pixels → mm → pixels
        grid = np.tensordot(matrix, create_grid(shape, homogeneous=False, backend="numpy"), axes=1).astype(np.float32)
        if bend:
            grid += elastic_field(shape, self.sigma, self.rms, rng)
        return torch.from_numpy(grid)

    def _rotation(self, rng: np.random.Generator) -> np.ndarray:
        angles = np.radians(rng.uniform(-1, 1, 3) * self.settings.rotation_degrees)
        if self.dims == 2:
            return create_rotate(2, angles[0])[:2, :2]
        if self.spacing.max() > IN_PLANE * self.spacing.min():
            angles[np.arange(3) != np.argmax(self.spacing)] = 0
        return create_rotate(3, angles)[:3, :3]

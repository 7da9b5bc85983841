"""Small cases and data sets for the tests, made on the spot and learnable in a few steps.

Files are written with Pillow and nibabel directly, never through `cpfnet.formats`, so that tests judge it from outside. Arrays
stand in cpfnet's order, ``([depth,] height, width)``; only `write_nifti` turns them to NIfTI's (x, y, z).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image as Pillow
from scipy import ndimage

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """Path of real data beside the checkout; the test is skipped, saying so, where they are absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"real data {name} not present in ../shared/data")
    return path


def blobs(rng: np.random.Generator, shape: tuple[int, ...], classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image and its mask: one or two ellipsoids a class, each class brighter than the one before.

    Args:
        rng: all randomness.
        shape: ``([depth,] height, width)``.
        classes: structures beside the background.

    Returns:
        float32 image, about 0…1, and uint8 mask with 0 … classes; every class is present (shapes of at least 8).
    """
    size = np.array(shape, dtype=float)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    mask = np.zeros(shape, dtype=np.uint8)
    for number in range(classes, 0, -1):  # the first class is drawn last, so none is wholly covered by a larger one
        for _ in range(int(rng.integers(1, 3))):
            centre = size * rng.uniform(0.25, 0.75, len(shape))
            radius = np.maximum(size * rng.uniform(0.12, 0.2, len(shape)), 1.0)
            mask[(((grid - centre) / radius) ** 2).sum(axis=-1) <= 1] = number
    for number in range(1, classes + 1):
        if not (mask == number).any():
            mask[(slice(0, 2),) * (len(shape) - 1) + (slice(2 * number, 2 * number + 2),)] = number
    image = 0.2 + 0.6 * mask.astype(np.float32) / max(classes, 1)
    image += rng.normal(0, 0.06, shape).astype(np.float32)
    return np.clip(ndimage.gaussian_filter(image, 0.5), 0, 1).astype(np.float32), mask


def phantom(shape: tuple[int, ...] = (14, 18, 23)) -> tuple[np.ndarray, np.ndarray]:
    """An asymmetric image with landmarks: no flip or swap of axes maps it, or its mask, onto itself.

    Args:
        shape: ``([depth,] height, width)``, each at least 8.

    Returns:
        float32 image (a ramp of its own slope along each axis, plus 1,000 in the landmarks' centres) and uint8 mask: 1 an
        arm along each axis from one corner (of other lengths), 2 a box near the opposite corner, 3 one voxel off the centre.
    """
    ndim = len(shape)
    axes = np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij")
    image = sum(slope * axis for slope, axis in zip((11.0, 3.0, 1.0)[-ndim:], axes, strict=True))
    image = np.asarray(image, dtype=np.float32)
    mask = np.zeros(shape, dtype=np.uint8)
    for axis, share in zip(range(ndim), (0.4, 0.55, 0.75)[-ndim:], strict=True):
        arm: list[slice] = [slice(1, 3)] * ndim
        arm[axis] = slice(1, max(3, round(share * shape[axis])))
        mask[tuple(arm)] = 1
    mask[tuple(slice(n - 4 - i, n - 2 + i % 2) for i, n in enumerate(shape))] = 2
    spot = tuple(n // 2 + 1 + i for i, n in enumerate(shape))
    mask[spot] = 3
    image[spot] += 1000
    image[(2,) * ndim] += 500
    return image, mask


def affine(
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    *,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0),
    axes: tuple[int, int, int] = (0, 1, 2),
    signs: tuple[int, int, int] = (1, 1, 1),
) -> np.ndarray:
    """A NIfTI affine, (x, y, z) voxel indices → RAS mm.

    Args:
        spacing: mm along the stored axes x, y, z.
        origin: RAS mm of voxel (0, 0, 0).
        degrees: rotations about R, A, S, applied in this order (an oblique scan).
        axes, signs: stored axis n runs along world axis ``axes[n]`` in direction ``signs[n]``.
    """
    matrix = np.zeros((3, 3))
    for stored, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        matrix[world, stored] = sign * spacing[stored]
    for about, angle in enumerate(np.radians(degrees)):
        turn, (first, second) = np.eye(3), ((about + 1) % 3, (about + 2) % 3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = matrix, origin
    return out


def orientations() -> Iterator[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """All 48 (axes, signs) for `affine`."""
    for axes in itertools.permutations((0, 1, 2)):
        for signs in itertools.product((1, -1), repeat=3):
            yield axes, signs  # type: ignore[misc]


def write_raster(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write ``(height, width)`` or ``(height, width, 3|4)`` uint8 (grey: uint16 too) by the suffix of ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(array).save(path, **options)
    return path


def write_nifti(
    path: Path, array: np.ndarray, affine_ras: np.ndarray | None = None, *, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Path:
    """Write ``([channels,] depth, height, width)`` as NIfTI (x, y, z[, channel]).

    Args:
        path: ends in .nii or .nii.gz.
        array: three axes, or four with channels first.
        affine_ras: (x, y, z) → RAS mm; default: ``spacing`` (mm along x, y, z) on the diagonal.
        spacing: see ``affine_ras``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    matrix = affine(tuple(spacing)) if affine_ras is None else affine_ras  # type: ignore[arg-type]
    stored = np.moveaxis(array, 0, -1).swapaxes(0, 2) if array.ndim == 4 else array.transpose(2, 1, 0)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(stored), matrix), path)
    return path


def make_images_dataset(
    root: Path,
    cases: int = 6,
    size: tuple[int, int] = (64, 64),
    *,
    channels: int = 3,
    classes: int = 1,
    suffix: str = ".png",
    mask_suffix: str = ".png",
    roi: bool = False,
    seed: int = 0,
) -> Path:
    """``images/ masks/ [roi/]`` with files ``case_00``, ``case_01`` …

    Args:
        root: the data set's folder, made if need be.
        cases: how many.
        size: (height, width).
        channels: 1 (grey) or 3 (RGB, each channel another mixture of the same structures).
        classes: masks hold 0/255 for one class, else 0, 1, 2 …
        suffix, mask_suffix: formats.
        roi: add a disc, 0/255, as region of interest.
        seed: of all randomness.

    Returns:
        ``root``.
    """
    for number in range(cases):
        rng = np.random.default_rng((seed, number))
        image, mask = blobs(rng, size, classes)
        if channels == 3:
            image = np.stack([image, 0.9 * image + 0.05, 1 - 0.7 * image], axis=-1)
        name = f"case_{number:02d}"
        write_raster(root / "images" / f"{name}{suffix}", np.uint8(np.rint(255 * image)))
        write_raster(root / "masks" / f"{name}{mask_suffix}", np.uint8(255 * mask) if classes == 1 else mask)
        if roi:
            rows, columns = np.ogrid[: size[0], : size[1]]
            disc = ((rows - size[0] / 2) / size[0]) ** 2 + ((columns - size[1] / 2) / size[1]) ** 2 <= 0.23
            write_raster(root / "roi" / f"{name}{mask_suffix}", np.uint8(255 * disc))
    return root


def make_volumes_dataset(
    root: Path,
    cases: int = 4,
    shape: tuple[int, int, int] = (40, 36, 12),
    spacing: tuple[float, float, float] = (1.0, 1.0, 2.0),
    classes: int = 2,
    *,
    channels: int = 1,
    full: float = 400.0,
    affine_ras: np.ndarray | None = None,
    seed: int = 0,
) -> Path:
    """NIfTI ``images/ labels/`` with files ``case_00.nii.gz`` …, int16 images of about 0…``full``, labels 0 … classes.

    Args:
        root: the data set's folder, made if need be.
        cases: how many.
        shape: NIfTI's (x, y, z).
        spacing: mm along x, y, z.
        classes: structures beside the background.
        channels: more than 1: a fourth NIfTI axis.
        full: intensity of the brightest structure.
        affine_ras: geometry in place of ``spacing``.
        seed: of all randomness.

    Returns:
        ``root``.
    """
    for number in range(cases):
        rng = np.random.default_rng((seed, number))
        image, mask = blobs(rng, shape[::-1], classes)
        image = np.int16(np.rint(full * image))
        if channels > 1:
            image = np.stack([image // (c + 1) for c in range(channels)])
        name = f"case_{number:02d}.nii.gz"
        write_nifti(root / "images" / name, image, affine_ras, spacing=spacing)
        write_nifti(root / "labels" / name, mask, affine_ras, spacing=spacing)
    return root

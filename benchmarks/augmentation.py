"""Elastic deformation of an image and its mask, by the practical guide's code and by `cpfnet train`.

Run it: python -m benchmarks augmentation

Alpha 1000, sigma 30. Both fields have the same statistics (tests/training/samples/test_augment.py), and image and mask
are interpolated alike, linearly and by the nearest neighbour.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from monai.transforms.utils import create_grid
from scipy.ndimage import gaussian_filter, map_coordinates
from threadpoolctl import threadpool_limits

from benchmarks.measure import interleaved, save
from cpfnet.training.samples.augment import elastic_field, elastic_rms, resampled

ALPHA, SIGMA = 1000.0, 30.0
SIDES = 256, 512


def guides(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`elastic_transform` of the guide; ``image`` ``(channels, height, width)``."""
    noise = (rng.random(mask.shape) * 2 - 1 for _ in range(2))
    right, down = (gaussian_filter(field, SIGMA, mode="constant") * ALPHA for field in noise)
    x, y = np.meshgrid(np.arange(mask.shape[1]), np.arange(mask.shape[0]))
    places = np.reshape(y + down, (-1, 1)), np.reshape(x + right, (-1, 1))
    bent = [map_coordinates(channel, places, order=1).reshape(mask.shape) for channel in image]
    return np.stack(bent), map_coordinates(mask, places, order=0).reshape(mask.shape)


def ours(side: int) -> Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]:
    """The same, by the parts of `Augmenter`."""
    here = create_grid((side, side), homogeneous=False, backend="numpy").astype(np.float32)
    rms = elastic_rms(ALPHA, SIGMA)

    def bend(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        grid = elastic_field((side, side), (SIGMA, SIGMA), (rms, rms), rng)
        grid += here
        return resampled(image, mask, torch.from_numpy(grid))

    return bend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    tables = {}
    torch.set_num_threads(1)  # as in a worker of the loader
    for side in SIDES:
        rng = np.random.default_rng(0)
        image, mask = rng.random((1, side, side), np.float32), rng.integers(0, 2, (side, side), np.uint8)
        ways = {"as in the guide": guides, "cpfnet": ours(side)}
        # The lambdas use this turn's arrays (B023): they run before the next turn.
        runs = {name: (lambda bend=bend: bend(image, mask, rng)) for name, bend in ways.items()}  # noqa: B023
        with threadpool_limits(1):
            tables[f"elastic deformation of {side}×{side}, one thread"] = interleaved(runs, rounds=options.rounds)
    save("augmentation", tables)


if __name__ == "__main__":
    main()

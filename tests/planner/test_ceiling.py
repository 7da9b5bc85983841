"""What a perfect network reaches through a proposed plan: labels to the network's grid and back."""

from __future__ import annotations

import numpy as np
import pytest

from cpfnet import preprocessing
from cpfnet.image import Image
from cpfnet.planner.costs import GIB
from cpfnet.planner.machine import Memory
from cpfnet.planning import Plan
from tests.planner.test_proposal import found, plan

CPU, GPU = Memory(16 * GIB, "cpu"), Memory(24 * GIB, "cuda")
NAMES = ("liver", "vessel", "gland")


def organs(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """A large organ, a vessel that winds through the slices, and a gland of a few millimetres; drawn in mm."""
    places = np.indices(shape, dtype=np.float32)
    z, y, x = ((index + 0.5) * step for index, step in zip(places, spacing, strict=True))
    depth, height, width = (n * step for n, step in zip(shape, spacing, strict=True))
    codes = np.zeros(shape, np.uint8)
    codes[((z / depth - 0.5) / 0.4) ** 2 + ((y / height - 0.4) / 0.25) ** 2 + ((x / width - 0.4) / 0.3) ** 2 < 1] = 1
    angle = 2 * np.pi * z / 60
    codes[(y - 0.7 * height - 8 * np.sin(angle)) ** 2 + (x - 0.6 * width - 8 * np.cos(angle)) ** 2 < 4.5**2] = 2
    codes[(z - 0.5 * depth) ** 2 + (y - 0.75 * height) ** 2 + (x - 0.25 * width) ** 2 < 9**2] = 3
    return codes


def reached(made: Plan, spacing: tuple[float, float, float]) -> list[float]:
    """Dice of each class."""
    shape = tuple(round(n / step) for n, step in zip((120.0, 96.0, 96.0), spacing, strict=True))
    codes = organs(shape, spacing)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = spacing  # slices run from the feet to the head
    affine[3, 3] = 1
    image = Image(np.zeros((1, *shape), np.float32), affine, channels=("CT",))
    trace = preprocessing.trace_of(image, made)
    if made.spatial.mode == "2d":
        assert trace.grid[0] == trace.oriented[0]
    grid = preprocessing.apply_codes(codes, trace)
    planes = np.stack([grid == k for k in range(len(NAMES) + 1)]).astype(np.float32)
    back = preprocessing.restore(planes, trace, made).array
    return [2 * np.sum((back == k) & (codes == k)) / (np.sum(back == k) + np.sum(codes == k)) for k in (1, 2, 3)]


@pytest.mark.parametrize("memory", [CPU, GPU])
@pytest.mark.parametrize("finer", [1.0, 1.5, 2.0, 4.0])
def test_2d_plans_leave_slices_where_they_are(memory: Memory, finer: float) -> None:
    made = plan(
        found(((14, 512, 512),) * 20, spacing=(5, 0.8, 0.8), low=-1000, high=1000, names=NAMES), memory, modality="ct"
    )
    assert (made.spatial.mode, made.spatial.slices) == ("2d", "axial")
    assert min(reached(made, (5 / finer, 0.8, 0.8))) >= 0.99


@pytest.mark.parametrize("finer", [1.5, 2.0])
def test_25d_plans_of_mixed_spacings_do_so_too(finer: float) -> None:
    spacings = ((2.0, 0.8, 0.8),) * 11 + ((1.0, 0.8, 0.8),) * 9
    data = found(((60, 512, 512),) * 20, low=-1000, high=1000, names=NAMES, spacings=spacings)
    made = plan(data, CPU, modality="ct")
    assert made.spatial.mode == "2.5d"
    assert min(reached(made, (2 / finer, 0.8, 0.8))) >= 0.99
    alike = plan(found(((60, 512, 512),) * 20, spacing=(2, 0.8, 0.8), low=-1000, high=1000), CPU, modality="ct")
    assert alike.spatial.spacing == (2, 0.8, 0.8)  # what lies beside a slice is then always as far away


def test_what_looks_at_millimetres_does_without_the_distance_of_slices() -> None:
    from cpfnet.training.samples.augment import Augmenter

    made = plan(found(((14, 512, 512),), spacing=(5, 0.8, 0.7), low=-1000, high=1000), CPU, modality="ct")
    assert made.spatial.spacing == (None, 0.8, 0.7)
    assert Augmenter(made).spacing.tolist() == [0.8, 0.7]

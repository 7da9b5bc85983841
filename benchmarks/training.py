"""Optimiser steps of `cpfnet train` beside a plain script: python -m benchmarks training

8 crops of 256² a step from photographs of 512². The plain script is how the authors train: PyTorch in float32 as
published, SGD, and a loader whose workers read, crop, flip, turn and bend each sample with SciPy (the elastic
deformation of the practical guide, `benchmarks/augmentation.py`). `cpfnet train` trains the same network under the plan
that `cpfnet plan` proposes, but for batch and patch. Each step is timed after warming up, without validation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.accuracy.budget import pace
from benchmarks.augmentation import guides
from benchmarks.measure import compared, save

BATCH, PATCH, WARMING = 8, 256, 2


def make(folder: Path, count: int) -> Path:
    """Photographs with one disc each."""
    from benchmarks.check import make as write

    write(folder, count, 512)
    return folder


def plain(folder: Path, steps: int) -> list[float]:
    """Seconds of each step of the plain script."""
    import torch
    from PIL import Image
    from scipy.ndimage import rotate
    from torch.utils.data import DataLoader, Dataset

    from benchmarks.published import published

    files = sorted((folder / "images").glob("*.png"))

    class Samples(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return BATCH * steps

        def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
            rng, file = np.random.default_rng(number), files[number % len(files)]
            image = np.asarray(Image.open(file), np.float32).transpose(2, 0, 1) / 255
            mask = np.asarray(Image.open(folder / "masks" / file.name)) > 0
            top, left = rng.integers(0, 512 - PATCH, 2)
            image, mask = image[:, top : top + PATCH, left : left + PATCH], mask[top : top + PATCH, left : left + PATCH]
            if rng.random() < 0.5:
                image, mask = image[..., ::-1], mask[..., ::-1]
            angle = rng.uniform(-15, 15)
            image = rotate(image, angle, axes=(1, 2), reshape=False, order=1, mode="reflect")
            mask = rotate(mask.astype(np.uint8), angle, reshape=False, order=0, mode="reflect")
            image, mask = guides(np.ascontiguousarray(image), mask, rng)
            return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(mask.astype(np.int64))

    torch.manual_seed(0)
    network = published(3, 2).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    seconds, start = [], time.perf_counter()
    for image, mask in DataLoader(Samples(), BATCH, num_workers=2):
        logits = network(image)
        foreground = logits.softmax(1)[:, 1]
        overlap = 2 * (foreground * mask).sum() / (foreground.sum() + mask.sum() + 1e-6)
        loss = torch.nn.functional.cross_entropy(logits, mask) + 1 - overlap
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        loss.item()
        seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
    return seconds[WARMING:]


def ours(folder: Path, scratch: Path) -> float:
    """Seconds of a step of `cpfnet train`."""
    import cpfnet

    plan = cpfnet.plan(folder, network="cpfnet", weights="none")
    crops = [
        f"training.batch={BATCH}",
        "training.accumulate=1",
        "spatial.size=null",
        f"spatial.patch=[{PATCH}, {PATCH}]",
        "network.options={}",  # the paper's width, as in the plain script
    ]
    plan = plan.with_settings(crops)
    return pace(folder, plan, device="cpu", scratch=scratch).step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of the plain script in each round, after warming up")
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        print(json.dumps(plain(options.plain, WARMING + options.steps)))
        return
    names = "plain script", "cpfnet train"
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        data = make(Path(folder) / "data", 40)
        command = [sys.executable, "-m", "benchmarks.training", "--plain", str(data), "--steps", str(options.steps)]
        for _ in range(options.rounds):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[names[0]].append(float(np.median(json.loads(done.stdout.splitlines()[-1]))))
            seconds[names[1]].append(ours(data, Path(folder)))
    save("training", {f"a step of {BATCH} × {PATCH}²": compared(seconds)})


if __name__ == "__main__":
    main()

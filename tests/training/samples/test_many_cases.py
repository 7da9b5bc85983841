"""Memory does not grow with the data set: 5,000 images train where the decoded ones would not fit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import synthetic

_TRAIN = """
import resource, sys
from pathlib import Path
from cpfnet.data.dataset import load
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from tests.training.conftest import images_plan

def run(name):
    plan = images_plan(epochs=1, samples=int(name), batch=8, accumulate=1).with_settings(["folds.count=20"])
    train(load(root / name), plan, root / f"{name}-out", TrainOptions(device="cpu"))

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) // 1024

root = Path(sys.argv[1])
run("8")  # all libraries are loaded now
resource.setrlimit(resource.RLIMIT_AS, ((status("VmSize") + int(sys.argv[2])) * 2**20,) * 2)
run("500")
few = status("VmHWM")
run("5000")
print(status("VmHWM") - few)
"""

SIDE = 80
ROOM = 96
"""MiB of address space beyond what Python and its libraries take; 5,000 images of 80² are 366 MiB in float32."""


def dataset(root: Path, count: int) -> Path:
    """A few images under many names: made in no time, and yet each is decoded and kept as a case of its own."""
    made = synthetic.make_images_dataset(root / "few", 8, (SIDE, SIDE))
    for folder in ("images", "masks"):
        (root / str(count) / folder).mkdir(parents=True)
        files = sorted((made / folder).iterdir())
        for number in range(count):
            (root / str(count) / folder / f"{number:05d}.png").hardlink_to(files[number % len(files)])
    return root


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    for count in (8, 500, 5000):
        dataset(tmp_path, count)
    plain = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # no space set aside for threads
    command = [sys.executable, "-c", _TRAIN, str(tmp_path), str(ROOM)]
    done = subprocess.run(command, env=plain, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 60  # some 7 KiB a case: its paths, scores and digest

"""Memory that does not suffice, for real: a limit on the address space of a process that trains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests import synthetic

_TRAIN = """
import hashlib, json, logging, resource, sys
from contextlib import contextmanager, nullcontext
from pathlib import Path
from torch import nn
from cpfnet.data.dataset import load
from cpfnet.errors import CpfnetError
from cpfnet.network import zoo
from cpfnet.training import checkpoint, run as training
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from tests.training.conftest import images_plan

class Wide(nn.Module):  # what a batch holds shows in its statistics
    def __init__(self, in_channels, classes, *, spatial_dims):
        super().__init__()
        convolution = nn.Conv2d(in_channels, 16, 3, padding=1)
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(16), nn.Dropout(0.1), nn.ReLU())
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, x):
        return self.head(self.body(x))

def weights(state):
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in state.values())).hexdigest()

@contextmanager
def room(mib):  # beyond what the process has
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * 2**20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)

zoo.register("wide", Wide)
kept_memory, training.kept_memory = training.kept_memory, nullcontext  # what it keeps depends on the runs before
root, found = Path(sys.argv[1]), {}
TILES = ["inference.tile=[256, 256]", "inference.overlap=0.9", "inference.batch=16"]

class Heard(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())

said = []
logging.getLogger("cpfnet").addHandler(Heard())
logging.getLogger("cpfnet").setLevel(logging.INFO)

def run(name, out, folder="data", resume=False, settings=(), **training):
    plan = images_plan(**{"epochs": 1, "samples": 20, "batch": 16, "accumulate": 1, "optimiser": "sgd", **training})
    plan = plan.with_settings(["network.name=wide", "network.options={}", "spatial.patch=[256, "
    "256]", *TILES, *settings])
    said.clear()
    try:
        train(load(root / folder), plan, root / out, TrainOptions(device="cpu", resume=resume))
    except CpfnetError as error:
        said.append(str(error))
    path = root / out / ".work" / "last.ckpt"
    state = checkpoint.load(path) if path.exists() else None
    found[name] = [*said], state and state["share"], state and weights(state["task"]["network"])

run("first", "first", samples=1, batch=1)  # all libraries are loaded now
with room(140):
    run("found", "found")
    run("resumed", "found", resume=True, epochs=2)
share = found["found"][1]
for name, more in (("given", {}), ("given, resumed", {"resume": True, "epochs": 2})):
    run(name, "given", batch=share, accumulate=16 // share, **more)
with room(40):
    run("too little", "little", settings=["spatial.patch=[512, 512]"], samples=2, batch=2)
with room(60):
    run("slices", "slices", folder="large", settings=["spatial.patch=[64, 64]", "inference.tile=null"], batch=1)
    tiled = ["spatial.patch=[64, 64]", "inference.tile=[64, 64]"]
    run("tiles", "slices", folder="large", settings=tiled, batch=1, resume=True)
training.kept_memory = kept_memory
with room(200):  # what is kept lies in pieces: with 140 it is a matter of luck whether 2 patches fit, or none
    run("kept", "kept")
print(json.dumps(found))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each of the runs said, how many patches it had at once in the end, and the digest of its last weights."""
    folder = tmp_path_factory.mktemp("memory")
    synthetic.make_images_dataset(folder / "data", 3, (320, 320))
    synthetic.make_images_dataset(folder / "large", 2, (768, 768))
    plain = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(2**20)}  # nothing is kept
    command = [sys.executable, "-c", _TRAIN, str(folder)]
    done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def lacks(said: list[str]) -> list[tuple[int, int]]:
    """Patches at once before and after each lack of memory in training."""
    hits = (
        re.search(r"out of memory with (\d+) patches at once: going on with (\d+), (\d+) times a step", line)
        for line in said
    )
    return [(int(hit[1]), int(hit[2])) for hit in hits if hit]


def test_training_goes_on_with_smaller_batches_to_the_weights_of_a_run_that_began_with_them(
    found: dict[str, Any],
) -> None:
    said, share, weights = found["found"]
    assert lacks(said)[0] == (16, 8)
    assert lacks(said)[-1][1] == share < 16
    assert not lacks(found["given"][0])
    assert found["given"][1:] == [share, weights]


def test_memory_that_is_kept_serves_smaller_batches(found: dict[str, Any]) -> None:
    said, share, _ = found["kept"]
    assert lacks(said)[0] == (16, 8)
    assert lacks(said)[-1][1] == share < 16
    assert said[-1].startswith("Done")


def test_resumed_it_begins_with_what_fitted(found: dict[str, Any]) -> None:
    said, share, weights = found["resumed"]
    assert not lacks(said)
    assert share == found["found"][1]
    assert weights == found["given, resumed"][2] != found["found"][2]


def test_validation_goes_on_with_fewer_tiles_at_once(found: dict[str, Any]) -> None:
    assert any(re.fullmatch(r"cpu is out of memory: going on with batches of \d", line) for line in found["found"][0])


def test_a_patch_that_does_not_fit_is_an_error_with_a_fix(found: dict[str, Any]) -> None:
    said, share, _ = found["too little"]
    assert [before for before, _ in lacks(said)] == [2]
    assert "the memory of cpu does not hold one patch of 512×512 for wide" in said[-1]
    assert "smaller spatial.patch" in said[-1]
    assert share is None


def test_a_slice_that_cannot_be_validated_can_be_in_tiles_after_resuming(found: dict[str, Any]) -> None:
    said = found["slices"][0][-1]
    assert "a single piece of 768×768 does not fit into the memory of cpu" in said
    assert "--resume" in said
    assert "--set inference.tile=[64, 64]" in said
    assert "Going on after step 20 of 20." in found["tiles"][0]
    assert found["tiles"][0][-1].startswith("Done")
    assert found["tiles"][2] == found["slices"][2]

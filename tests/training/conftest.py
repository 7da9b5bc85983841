"""Small data sets and plans that train in a second."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.planning import Plan
from tests import synthetic

TINY = {"name": "unet", "options": {"widths": [4, 4, 8, 8, 8]}, "weights": "none"}


def images_plan(**training: Any) -> Plan:
    """For `data.make_images_dataset`."""
    return Plan.model_validate(
        {
            "name": "blobs",
            "source": "images",
            "channels": [{"name": c, "intensity": {"kind": "scale"}} for c in ("red", "green", "blue")],
            "labels": {"classes": [{"name": "blob", "values": [255]}]},
            "spatial": {"mode": "2d", "patch": [32, 32]},
            "network": TINY,
            "folds": {"count": 3},
            "training": {
                "epochs": 2,
                "samples": 7,
                "batch": 2,
                "accumulate": 2,
                "learning_rate": 0.01,
                "workers": 0,
                "precision": "fp32",
                **training,
            },
        }
    )


def volumes_plan(mode: str = "2d", **training: Any) -> Plan:
    """For `data.make_volumes_dataset`."""
    plan = images_plan(**training).model_dump(mode="json")
    plan |= {
        "source": "volumes",
        "channels": [{"name": "mr", "intensity": {"kind": "zscore"}}],
        "labels": {"classes": [{"name": "a", "values": [1]}, {"name": "b", "values": [2]}]},
        "spatial": {
            "2d": {"mode": "2d", "patch": [32, 32]},
            "2.5d": {"mode": "2.5d", "neighbours": 1, "patch": [32, 32]},
            "3d": {"mode": "3d", "patch": [32, 32, 32]},
        }[mode],
    }
    return Plan.model_validate(plan)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(synthetic.make_images_dataset(tmp_path_factory.mktemp("images"), roi=True))


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load(synthetic.make_volumes_dataset(tmp_path_factory.mktemp("volumes")))


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a full disk does to a write, without filling one."""
    limits, heard = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"

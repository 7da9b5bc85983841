"""The authors' class as numbers: rebuilt from its key list where the reference folder lies beside the checkout."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"


def official_tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """One weight of the reference recipe: a function of its name and shape only."""
    r = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("num_batches_tracked"):
        value = np.zeros(shape)
    elif key.endswith("running_mean"):
        value = 0.1 * r
    elif key.endswith("running_var"):
        value = 1 + 0.1 * np.abs(r)
    elif key.endswith("gamma"):
        value = np.full(shape, 0.3)
    elif len(shape) == 4:
        value = r * np.sqrt(0.8 / np.prod(shape[1:]))
    elif len(shape) == 2:
        value = 0.01 * r
    elif key.endswith("bias"):
        value = 0.1 * r
    else:
        value = 1 + 0.1 * r
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


@pytest.fixture(scope="session")
def official_state() -> dict[str, torch.Tensor]:
    """The state dict of the authors' class with 4 planes, with the reference's weights."""
    path = REFERENCE / "official_state_dict.json"
    if not path.exists():
        pytest.skip("the authors' key list (../shared/reference/official_state_dict.json) is not here")
    shapes = json.loads(path.read_text())["state_dict"]
    return {key: official_tensor(key, tuple(shape)) for key, shape in shapes.items()}

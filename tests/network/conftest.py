"""What several tests of the networks share."""

from __future__ import annotations

import json

import pytest
import torch

from tests.network.official import REFERENCE, official_tensor


@pytest.fixture(scope="session")
def official_state() -> dict[str, torch.Tensor]:
    """The state dict of the authors' class with 4 planes, with the reference's weights."""
    path = REFERENCE / "official_state_dict.json"
    if not path.exists():
        pytest.skip("the authors' key list (../shared/reference/official_state_dict.json) is not here")
    shapes = json.loads(path.read_text())["state_dict"]
    return {key: official_tensor(key, tuple(shape)) for key, shape in shapes.items()}

"""What only building a network shows is found before data are read."""

from __future__ import annotations

import pytest
import torch

from cpfnet.errors import NetworkError, PlanError, WeightsError
from cpfnet.network import zoo
from cpfnet.training.initial_weights import check_buildable
from tests.training.conftest import volumes_plan


@pytest.mark.parametrize("name", zoo.names())
def test_every_network_passes(name):
    drawn = torch.random.get_rng_state()
    check_buildable(volumes_plan().with_settings([f"network.name={name}", "network.weights=none"]))
    assert torch.equal(torch.random.get_rng_state(), drawn)  # the weights of the network to come are not other ones


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ("network.name=cpfnett", NetworkError, "did you mean 'cpfnet'"),
        ("network.options={widht: 16}", NetworkError, "no option 'widht'"),
        ("network.options={width: 17}", NetworkError, "width"),
        ("network.options={width: 16}", WeightsError, "ImageNet weights have 64 channels"),
        ("training.loss.options={smoth: 1}", PlanError, "no option 'smoth'"),
    ],
)
def test_what_cannot_be_built_is_refused(setting, error, said):
    plan = volumes_plan().with_settings(["network.name=cpfnet", "network.weights=imagenet", setting])
    with pytest.raises(error) as caught:
        check_buildable(plan)
    assert said in str(caught.value)

"""What only building a network shows is found before data are read."""

from __future__ import annotations

import pytest
import torch

from cpfnet.errors import NetworkError, PlanError, WeightsError
from cpfnet.network import zoo
from cpfnet.training.initial_weights import check_buildable, first_network
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


@pytest.mark.parametrize("setting", ["training.encoder_rate=0.1", "training.frozen_statistics=true"])
def test_what_is_for_pretrained_encoders_is_refused_without_one(setting: str) -> None:
    other = volumes_plan().with_settings(["network.name=unet", "network.weights=imagenet", setting])
    for check in (check_buildable, lambda plan: first_network(plan, init=None, random=True, progress=False)):
        with pytest.raises(PlanError, match=r"for pretrained ResNet encoders, and unet, 2-D.* has none") as caught:
            check(other)
    assert caught.value.where == setting.partition("=")[0]
    scratch = volumes_plan().with_settings(["network.name=cpfnet", "network.weights=none", setting])
    check_buildable(scratch)  # a Model to start from may come
    with pytest.raises(PlanError, match="begins with random weights"):
        first_network(scratch, init=None, random=False, progress=False)
    assert first_network(scratch, init=None, random=True, progress=False) is not None  # a checkpoint will come

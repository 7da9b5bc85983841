"""On a GPU: what is recorded and replayed is what is computed step by step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cpfnet.data.case import Dataset
from cpfnet.errors import TrainingError
from cpfnet.network import zoo
from cpfnet.training.hardware.cuda_graphs import CudaGraphRunner, check_device
from cpfnet.training.hardware.precision import fabric_for
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.patches import Patches, batches
from cpfnet.training.train_step import Task
from tests.training.conftest import images_plan

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def learn(data: Dataset, folder: Path, network: str, *, recorded: bool, **training: object) -> tuple[Task, list[float]]:
    settings = [f"network.name={network}", "spatial.patch=[64, 64]"]
    plan = images_plan(precision="fp32", learning_rate=1e-4, **training).with_settings(settings)
    torch.manual_seed(0)
    task = Task(zoo.build(network, 3, 2), plan, fabric_for(torch.device("cuda", 0), "fp32"))
    if recorded:
        task.record(plan.training.batch)
        assert task.forget() is (plan.training.accumulate == 1)
        task.record(plan.training.batch)
    patches = Patches(cache.build(data.cases, plan, folder), plan, Augmenter(plan))
    stream, number, losses = iter(batches(patches, 0, pin_memory=True)), 0, []
    while number < task.schedule.samples:
        size = task.schedule.group_size(number)
        losses.append(task.step([next(stream) for _ in range(-(-size // plan.training.batch))], number, patches))
        number += size
    return task, losses


@on_a_gpu
@pytest.mark.parametrize("network", ["cpfnet", "unet"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_replayed_steps_are_the_steps(images: Dataset, tmp_path: Path, network: str, accumulate: int) -> None:
    # 10 samples: the last step of an epoch has another size, which nothing was recorded for.
    common = {"samples": 10, "epochs": 2, "batch": 4, "accumulate": accumulate}
    (eager, losses), (task, replayed) = (
        learn(images, tmp_path / str(mode), network, recorded=mode, **common) for mode in (False, True)
    )
    assert replayed == pytest.approx(losses, rel=1e-2)  # TF32
    for (name, a), (_, b) in zip(eager.network.named_buffers(), task.network.named_buffers(), strict=True):
        torch.testing.assert_close(b.double(), a.double(), rtol=0.05, atol=0.02, msg=name)
    image = np.asarray(cache.build(images.cases[:1], eager.plan, tmp_path / "one")[0].image())
    assert task.segment(image).shape[0] == 2


@on_a_gpu
def test_what_memory_does_not_hold_is_not_recorded() -> None:
    network = zoo.build("unet", 3, 2).cuda()
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        recorded = CudaGraphRunner(network, fabric_for(torch.device("cuda", 0), "fp32"), (32, 3, 2048, 2048))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert not recorded.held
    assert network(torch.zeros(1, 3, 64, 64, device="cuda")).shape == (1, 2, 64, 64)


def test_what_lies_elsewhere_is_not_recorded() -> None:
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    check_device({second}, second)
    check_device([], first)
    for devices in ({first}, {first, second}):
        with pytest.raises(TrainingError, match="the network lies on cuda:0, and its work would be recorded on cuda:1"):
            check_device(devices, second)
    with pytest.raises(TrainingError, match=r"cuda:0, cuda:1, and .* on cpu"):
        check_device({second, first}, torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs here")
def test_the_second_gpu_is_recorded_where_the_first_is_the_current_one() -> None:
    network, shape = zoo.build("unet", 3, 2).cuda(1), (2, 3, 64, 64)
    runner = CudaGraphRunner(network, fabric_for(torch.device("cuda", 1), "fp32"), shape)
    image = torch.randn(shape, device="cuda:1")
    written = network(image)
    runner.choose(image, single=True)
    torch.testing.assert_close(network(image), written, rtol=1e-2, atol=1e-2)  # TF32

"""One optimiser step: accumulation equals the large batch, divergence is refused, all that counts is saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from cpfnet.data.case import Dataset
from cpfnet.errors import PlanError, TrainingError
from cpfnet.network import zoo
from cpfnet.training import schedule
from cpfnet.training.hardware.precision import choose_precision, fabric_for
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.patches import Patches, batches
from cpfnet.training.train_step import Task
from tests.training.conftest import images_plan


@pytest.fixture(scope="module")
def cached(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[cache.Cached]:
    return cache.build(images.cases, images_plan(), tmp_path_factory.mktemp("cache"))


def make(cached: list[cache.Cached], network: nn.Module | None = None, **training: Any) -> tuple[Task, Patches]:
    plan = images_plan(**training)
    if network is None:
        torch.manual_seed(0)
        network = zoo.build("unet", 3, 2, widths=[4, 4, 8, 8, 8])  # instance norm: no statistics over the batch
    fabric = fabric_for(torch.device("cpu"), choose_precision(plan.training, torch.device("cpu")))
    return Task(network, plan, fabric), Patches(cached, plan, Augmenter(plan))


def learn(task: Task, patches: Patches, start: int = 0, stop: int | None = None) -> list[float]:
    stream, number, losses = iter(batches(patches, start)), start, []
    while number < (task.schedule.samples if stop is None else stop):
        size = task.schedule.group_size(number)
        group = [next(stream) for _ in range(-(-size // patches.training.batch))]
        losses.append(task.step(group, number, patches))
        number += size
    return losses


def supervised() -> nn.Module:
    torch.manual_seed(0)
    return zoo.build("dynunet", 3, 2, patch=[32, 32], widths=[4, 4, 8, 8], deep_supervision=True)


@pytest.mark.parametrize(
    ("loss", "network"), [("dice+ce", lambda: None), ("focal", lambda: None), ("dice+ce", supervised)]
)
def test_accumulation_equals_the_large_batch(
    cached: list[cache.Cached], loss: str, network: Callable[[], nn.Module | None]
) -> None:
    # 7 samples: a group of 6 (2 × 3 or 6 × 1), then a partial group of 1; twice.
    common = {"samples": 7, "epochs": 2, "optimiser": "sgd", "loss": {"name": loss}, "clip": 0.5}
    parts = make(cached, network(), batch=2, accumulate=3, **common)
    whole = make(cached, network(), batch=6, accumulate=1, **common)
    assert parts[0].schedule.steps == whole[0].schedule.steps == 4
    first = {k: v.clone() for k, v in parts[0].network.state_dict().items()}
    assert learn(*parts) == pytest.approx(learn(*whole), rel=1e-5)
    for key, value in whole[0].network.state_dict().items():
        torch.testing.assert_close(parts[0].network.state_dict()[key], value, rtol=1e-4, atol=1e-6)
    assert any((first[key] - value).abs().max() > 1e-3 for key, value in whole[0].network.state_dict().items())


def test_a_partial_group_is_a_mean_over_its_own_samples(cached: list[cache.Cached]) -> None:
    task, patches = make(cached, samples=7, batch=2, accumulate=3, optimiser="sgd", clip=None, weight_decay=0.0)
    last = [b for b in batches(patches, 0) if b["number"].tolist() == [6]]
    before = {k: v.clone() for k, v in task.network.state_dict().items()}
    task.network.train()
    loss = task.loss(task.network(last[0]["image"]), last[0]["codes"])
    gradients = torch.autograd.grad(loss[0], list(task.network.parameters()))
    value = task.step(last, 6, patches)
    assert value == pytest.approx(loss.item(), rel=1e-5)
    rate = schedule.learning_rate(1, task.schedule.steps, patches.training)
    for (key, parameter), gradient in zip(task.network.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), before[key] - rate * gradient, rtol=1e-4, atol=1e-6)


def tuned(cached: list[cache.Cached], **training: Any) -> tuple[Task, dict[str, torch.Tensor]]:
    """After two steps of plain SGD; and how far each weight went in the first."""
    torch.manual_seed(0)
    network = zoo.build("cpfnet", 3, 2, width=4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 0.5)  # the last one of a residual block starts from zero
    settings = {"optimiser": "sgd", "momentum": 0.0, "clip": None, "weight_decay": 0.0, "samples": 4, "batch": 4}
    task, patches = make(cached, network, accumulate=1, epochs=2, **settings, **training)
    before = {name: p.detach().clone() for name, p in task.network.named_parameters()}
    learn(task, patches, stop=4)
    moved = {name: p.detach() - before[name] for name, p in task.network.named_parameters()}
    learn(task, patches, start=4)
    return task, moved


def test_a_pretrained_encoder_learns_more_slowly(cached: list[cache.Cached]) -> None:
    (task, alike), (slow, apart) = tuned(cached), tuned(cached, encoder_rate=0.25)
    for name, step in alike.items():
        share = 0.25 if name.startswith("encoder.") else 1.0
        torch.testing.assert_close(apart[name], share * step, rtol=1e-3, atol=1e-7)
    assert any(step.abs().max() > 1e-4 for name, step in alike.items() if name.startswith("encoder."))
    rates = [group["lr"] for group in slow.optimiser.param_groups]
    assert rates == [rates[0], rates[0], 0.25 * rates[0], 0.25 * rates[0]]
    assert rates[0] == task.optimiser.param_groups[0]["lr"]
    again, _ = tuned(cached, encoder_rate=0.25)
    again.load_state_dict(slow.state_dict())
    assert [group["share"] for group in again.optimiser.param_groups] == [1.0, 1.0, 0.25, 0.25]


def test_frozen_statistics_stay_and_all_weights_learn(cached: list[cache.Cached]) -> None:
    frozen, moved = tuned(cached, frozen_statistics=True, ema=0.5)
    for name, value in frozen.network.named_buffers():
        kept = name.startswith("encoder.")
        start = 1.0 if name.endswith("running_var") else 0.0
        assert bool((value == start).all()) == kept, name
    assert all(step.any() for name, step in moved.items() if name.startswith("encoder.") and ".bn" in name)
    assert frozen.network.training
    learned, _ = tuned(cached)
    assert all(value.any() for name, value in learned.network.named_buffers() if name.endswith("running_mean"))


class _Dropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return _Dropout()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_saved_task_goes_on_as_if_nothing_had_happened(
    cached: list[cache.Cached], optimiser: str, precision: str
) -> None:
    settings = {"samples": 6, "epochs": 2, "ema": 0.9, "optimiser": optimiser, "precision": precision}
    whole, patches = make(cached, _network(), **settings)
    learn(whole, patches)
    first, _ = make(cached, _network(), **settings)
    learn(first, patches, stop=6)
    torch.manual_seed(12345)
    second, _ = make(cached, _network(seed=9), **settings)
    second.load_state_dict(first.state_dict())
    learn(second, patches, start=6)
    for a, b in ((whole.network, second.network), (whole.mean, second.mean)):
        assert a is not None
        assert b is not None
        for key, value in a.state_dict().items():
            assert torch.equal(b.state_dict()[key], value), key
    assert not torch.equal(whole.network.state_dict()["body.0.weight"], whole.mean.state_dict()["body.0.weight"])


def test_learning_lowers_the_loss_and_the_mean_is_what_is_kept(cached: list[cache.Cached]) -> None:
    task, patches = make(cached, epochs=8, samples=8, batch=4, accumulate=1, ema=0.5)
    losses = learn(task, patches)
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[:2])
    assert task.best is task.mean
    probabilities = task.segment(np.asarray(cached[0].image()))
    assert probabilities.shape == (2, 64, 64)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_divergence_stops_before_anything_is_changed(cached: list[cache.Cached]) -> None:
    task, patches = make(cached)
    group = [next(iter(batches(patches, 0)))]
    group[0]["image"][0, 0, 3, 3] = float("nan")
    before = {k: v.clone() for k, v in task.network.state_dict().items()}
    with pytest.raises(TrainingError, match="the loss is nan at step 0 of 4") as caught:
        task.step(group, 0, patches)
    assert all(torch.equal(v, before[k]) for k, v in task.network.state_dict().items())
    names = {patches.case_of(0).id, patches.case_of(1).id}
    assert all(name in str(caught.value) for name in names)
    assert "training.learning_rate (now 0.01)" in str(caught.value)


def test_divergence_in_the_last_step_shows_in_validation(cached: list[cache.Cached]) -> None:
    task, _ = make(cached)
    with torch.no_grad():
        next(task.network.parameters()).fill_(float("inf"))
    with pytest.raises(TrainingError, match="gives NaN or infinite values") as caught:
        task.segment(np.asarray(cached[0].image()))
    assert "training.learning_rate (now 0.01)" in str(caught.value)


class _Overflowing(_Dropout):
    """Gives what fp16 has no number for in its first passes, and spoils the statistics of its normalisation by it."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes = passes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes -= self.training
        return self.body(x * 1e30 * 1e30 if self.training and self.passes >= 0 else x)


def half_precision(cached: list[cache.Cached], network: nn.Module) -> tuple[Task, Patches]:
    """fp16 with its scaler, on a CPU."""
    plan = images_plan(batch=2, accumulate=1, samples=40, epochs=2, ema=0.9)
    precision = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    return Task(network, plan, Fabric(accelerator="cpu", plugins=precision)), Patches(cached, plan, Augmenter(plan))


def test_fp16_leaves_a_step_out_whose_loss_is_not_finite(
    cached: list[cache.Cached], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    task, patches = half_precision(cached, _Overflowing(3))
    before = {key: value.clone() for key, value in task.network.state_dict().items()}
    scale = task.state_dict()["scaler"]["scale"]
    assert learn(task, patches, stop=6) == [0.0] * 3
    assert all(torch.equal(value, before[key]) for key, value in task.network.state_dict().items())
    assert task.state_dict()["scaler"]["scale"] == scale / 8
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 3
    assert "the loss is nan at step 0 of 40; the step's cases: " in warnings[0]
    losses = learn(task, patches, start=6)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(value.isfinite().all() for value in task.network.state_dict().values())


@pytest.mark.parametrize("gradient", [False, True])
def test_fp16_gives_up_after_so_many_steps_in_a_row(cached: list[cache.Cached], gradient: bool) -> None:
    task, patches = half_precision(cached, _Broken() if gradient else _Overflowing(1000))
    before = {key: value.clone() for key, value in task.network.named_parameters()}
    said = "the gradient is not finite at step 19" if gradient else "the loss is nan at step 19 of 40"
    with pytest.raises(TrainingError, match=f"fp16 has left out 20 steps in a row; of the last one {said}") as caught:
        learn(task, patches)
    assert "set training.precision to fp32" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in task.network.named_parameters())


class _Steep(torch.autograd.Function):
    """Harmless forwards, infinite backwards: what a wrong kernel does."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")


class _Broken(_Dropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Steep.apply(self.body(x))


def test_an_infinite_gradient_stops(cached: list[cache.Cached]) -> None:
    task, patches = make(cached, _Broken())
    with pytest.raises(TrainingError, match=r"the gradient's norm is (nan|inf) at step 0"):
        learn(task, patches)


class _Supervised(_Dropout):
    """Logits at two sizes in training, one tensor otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        deep = self.body[:3](x)
        fine = self.body[3](deep)
        return (fine, self.coarse(nn.functional.avg_pool2d(deep, 2))) if self.training else fine


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_deep_supervision_reaches_every_head(cached: list[cache.Cached], precision: str) -> None:
    torch.manual_seed(0)
    task, patches = make(cached, _Supervised(), precision=precision, ema=0.9, epochs=6, samples=8)
    before = {key: p.detach().clone() for key, p in task.network.named_parameters()}
    losses = learn(task, patches)
    assert np.mean(losses[-4:]) < np.mean(losses[:2])
    assert not any(torch.equal(p, before[key]) for key, p in task.network.named_parameters() if "weight" in key)
    assert task.segment(np.asarray(cached[0].image())).shape == (2, 64, 64)


def test_precision_follows_the_hardware_and_the_plan() -> None:
    cpu = torch.device("cpu")
    assert choose_precision(images_plan(precision="auto").training, cpu) in ("bf16", "fp32")
    assert choose_precision(images_plan(precision="bf16").training, cpu) == "bf16"
    with pytest.raises(PlanError, match="fp16 needs a CUDA device"):
        choose_precision(images_plan(precision="fp16").training, cpu)


def test_weights_stay_float32_under_bf16(cached: list[cache.Cached]) -> None:
    task, patches = make(cached, precision="bf16", epochs=1)
    seen: list[torch.dtype] = []
    task.network.network.conv_0.conv_1.conv.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    learn(task, patches)
    assert set(seen) == {torch.bfloat16}
    assert all(v.dtype == torch.float32 for v in task.network.state_dict().values())

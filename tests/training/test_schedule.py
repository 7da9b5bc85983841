"""Learning rate, optimisers and the moving average, as functions of the step."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cpfnet.errors import CpfnetError
from cpfnet.planning import TrainingPlan
from cpfnet.schedules import PolyLR
from cpfnet.training import schedule


def training(**changes: object) -> TrainingPlan:
    return TrainingPlan.model_validate({"samples": 8, "learning_rate": 0.01, **changes})


def test_poly_schedule_of_the_paper() -> None:
    rates = [schedule.learning_rate(step, 1000, training()) for step in (0, 500, 999, 1000)]
    assert rates == pytest.approx([0.01, 0.01 * 0.5**0.9, 0.01 * 0.001**0.9, 0.0])


def test_warm_up_is_linear() -> None:
    plan = training(warmup=4, power=1.0)
    rates = [schedule.learning_rate(step, 10**9, plan) for step in range(6)]
    assert rates == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01, 0.01])


def test_warm_up_takes_a_tenth_of_a_short_run_at_most() -> None:
    plan = training(warmup=100, power=1.0)
    assert schedule.learning_rate(0, 1, plan) == pytest.approx(0.01)
    assert [schedule.learning_rate(step, 20, plan) for step in range(3)] == pytest.approx(
        [0.01 / 3, 0.01 * 2 / 3 * 0.95, 0.01 * 0.9]
    )
    assert schedule.learning_rate(99, 1000, plan) == pytest.approx(0.01 * 100 / 101 * 0.901)
    assert schedule.learning_rate(100, 1000, plan) == pytest.approx(0.01 * 0.9)


def test_cosine_by_hand() -> None:
    plan = training(schedule="cosine")
    rates = [schedule.learning_rate(step, 1000, plan) for step in (0, 250, 500, 750, 999, 1000)]
    expected = [0.01, 0.01 * (0.5 + 0.5**1.5), 0.005, 0.01 * (0.5 - 0.5**1.5), 0.01 * 2.467e-6, 0.0]
    assert rates == pytest.approx(expected, rel=1e-3)


def test_cosine_begins_after_the_warm_up() -> None:
    plan = training(schedule="cosine", warmup=4)
    rates = [schedule.learning_rate(step, 44, plan) for step in (0, 1, 2, 3, 4, 14, 24, 34, 43)]
    rising, half = [0.002, 0.004, 0.006, 0.008, 0.01], 0.5**1.5
    falling = [0.01 * (0.5 + half), 0.005, 0.01 * (0.5 - half), 0.01 * (1 - math.cos(math.pi / 40)) / 2]
    assert rates == pytest.approx(rising + falling)


@given(
    step=st.integers(0, 5000),
    steps=st.integers(1, 1000),
    warmup=st.integers(0, 100),
    power=st.floats(0.1, 3),
    shape=st.sampled_from(["poly", "cosine"]),
)
def test_it_is_a_real_number_between_0_and_the_full_rate_even_past_the_end(
    step: int, steps: int, warmup: int, power: float, shape: str
) -> None:
    rate = schedule.learning_rate(step, steps, training(warmup=warmup, power=power, schedule=shape))
    assert isinstance(rate, float)
    assert 0 <= rate <= 0.01
    if step >= steps:
        assert rate == 0


class _Mixed(nn.Module):
    """Every kind of parameter: kernels, biases, scales of a normalisation, a factor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)
        self.gamma = nn.Parameter(torch.ones(()))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_spares_biases_norms_and_factors(name: str) -> None:
    """Without any gradient but zero, a step is the decay alone."""
    network = _Mixed()
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    built = schedule.optimiser(network, training(optimiser=name, weight_decay=0.1, momentum=0.8))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.step()
    for key, parameter in network.named_parameters():
        kept = 1 - 0.01 * 0.1 if key in ("conv.weight", "head.weight") else 1
        torch.testing.assert_close(parameter.detach(), kept * before[key])


def test_optimisers_take_the_plans_settings() -> None:
    sgd = schedule.optimiser(_Mixed(), training(optimiser="sgd", momentum=0.8))
    assert isinstance(sgd, torch.optim.SGD)
    assert all((group["lr"], group["momentum"]) == (0.01, 0.8) for group in sgd.param_groups)
    adamw = schedule.optimiser(_Mixed(), training(optimiser="adamw"))
    assert isinstance(adamw, torch.optim.AdamW)
    assert sum(len(group["params"]) for group in adamw.param_groups) == len(list(_Mixed().parameters()))


def test_average_follows_weights_and_batch_norm_statistics() -> None:
    mean, network = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    with torch.no_grad():
        network.weight.fill_(3.0)
        network.running_mean.fill_(5.0)
        network.num_batches_tracked.fill_(7)
    schedule.average(mean, network, step=10**6, decay=0.9)
    assert mean.weight.item() == pytest.approx(0.9 * 1 + 0.1 * 3)
    assert mean.running_mean.item() == pytest.approx(0.1 * 5)
    assert mean.num_batches_tracked.item() == 7


def test_average_forgets_the_first_weights_soon() -> None:
    torch.manual_seed(0)  # a sum near zero would have no relative precision
    mean, network = nn.Linear(1, 1), nn.Linear(1, 1)
    before, target = mean.weight.item(), network.weight.item()
    schedule.average(mean, network, step=0, decay=0.999)
    assert mean.weight.item() == pytest.approx(0.1 * before + 0.9 * target)


@pytest.mark.parametrize("gradients_alike", [True, False])
@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_adamw_learns_as_torch_does_whatever_the_layout(
    dims: int, layout: torch.memory_format, gradients_alike: bool
) -> None:
    settings = training(optimiser="adamw", weight_decay=0.05)
    kernel = nn.Conv2d if dims == 2 else nn.Conv3d
    torch.manual_seed(0)
    ours = nn.Sequential(kernel(3, 4, 3), kernel(4, 2, 1), nn.Flatten(), nn.Linear(2 * 4**dims, 3))
    plain = copy.deepcopy(ours)
    ours.to(memory_format=layout)
    for dense in (ours[1].weight, ours[3].weight):  # a network of one's own may lie as it likes
        assert isinstance(dense, torch.Tensor)
        dense.data = dense.data.transpose(0, 1).contiguous().transpose(0, 1)
    made = schedule.optimiser(ours, settings)
    other = torch.optim.AdamW(
        [
            {"params": [p for p in plain.parameters() if (p.ndim > 1) == decayed], "weight_decay": 0.05 * decayed}
            for decayed in (True, False)
        ],
        lr=settings.learning_rate,
        fused=True,
    )
    x = torch.randn(2, 3, *[6] * dims)
    for _ in range(3):
        for network, step in ((ours, made), (plain, other)):
            step.zero_grad()
            network(x).square().sum().backward()
            for parameter in network.parameters() if not gradients_alike else ():
                assert parameter.grad is not None
                parameter.grad = parameter.grad.contiguous()
            step.step()
    for one, same in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, same, rtol=1e-5, atol=1e-6)
        for moment in ("exp_avg", "exp_avg_sq"):
            assert made.state[one][moment].shape == one.shape
            torch.testing.assert_close(made.state[one][moment], other.state[same][moment], rtol=1e-4, atol=1e-5)


def _loop(steps: int, groups: int = 2) -> tuple[torch.optim.Optimizer, PolyLR]:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(groups)]
    made = torch.optim.SGD([{"params": [p], "lr": 0.01 * (k + 1)} for k, p in enumerate(parameters)])
    return made, PolyLR(made, steps, power=0.8, warmup=7)


@given(steps=st.integers(1, 40), warmup=st.integers(0, 20), power=st.floats(0.1, 3))
def test_poly_lr_is_what_training_uses_and_stays_0_past_the_end(steps: int, warmup: int, power: float) -> None:
    weight = nn.Parameter(torch.ones(1))
    made = torch.optim.SGD([weight], lr=0.01)
    rates = PolyLR(made, steps, warmup=warmup, power=power)
    plan = training(warmup=warmup, power=power)
    for step in range(steps + 5):
        assert made.param_groups[0]["lr"] == rates.get_last_lr()[0] == schedule.learning_rate(step, steps, plan)
        made.step()
        rates.step()
    assert made.param_groups[0]["lr"] == 0


def test_poly_lr_scales_the_rate_of_each_group() -> None:
    made, rates = _loop(20)
    made.step()
    rates.step()
    slow, fast = (group["lr"] for group in made.param_groups)
    assert fast == pytest.approx(2 * slow)


@pytest.mark.parametrize("optimiser_first", [True, False])
def test_poly_lr_goes_on_from_its_state(optimiser_first: bool) -> None:
    made, rates = _loop(20)
    seen = []
    for step in range(25):
        if step == 9:
            saved = copy.deepcopy((made.state_dict(), rates.state_dict()))
        seen.append([group["lr"] for group in made.param_groups])
        made.step()
        rates.step()
    other, resumed = _loop(300)
    if optimiser_first:
        other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    if not optimiser_first:
        other.load_state_dict(saved[0])
    for step in range(9, 25):
        assert [group["lr"] for group in other.param_groups] == seen[step]
        assert resumed.get_last_lr() == seen[step]
        other.step()
        resumed.step()


@pytest.mark.parametrize("options", [{"steps": 0}, {"power": 0.0}, {"power": math.nan}, {"warmup": -1}])
def test_poly_lr_refuses_what_cannot_be(options: dict) -> None:
    made = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.01)
    with pytest.raises(CpfnetError, match=next(iter(options))):
        PolyLR(made, **{"steps": 10, **options})

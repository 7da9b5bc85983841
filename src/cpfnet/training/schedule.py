"""The optimiser, its learning rate at every step, and the moving average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from cpfnet.planning import TrainingPlan


def learning_rate(step: int, steps: int, training: TrainingPlan) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``steps``: linear warm-up times (1 − step/steps)^power.

    Warm-up takes a tenth of the steps at most: a short run would end before it had begun to learn. A pure function, so a resumed run needs no scheduler state. Past the last step it is 0 (a negative base would give a
    complex number in Python).
    """
    warm = min(1.0, (step + 1) / (min(training.warmup, steps // 10) + 1))
    return training.learning_rate * warm * max(0.0, 1.0 - step / steps) ** training.power


def optimiser(network: nn.Module, training: TrainingPlan) -> torch.optim.Optimizer:
    """SGD with momentum (the paper: 0.01, 0.9, 1e-4) or AdamW, over all weights."""
    if training.optimiser == "sgd":
        return torch.optim.SGD(
            network.parameters(),
            lr=training.learning_rate,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
    return torch.optim.AdamW(network.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)


@torch.no_grad()
def average(mean: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move ``mean`` towards ``network`` after optimiser step ``step`` (from 0); batch-norm statistics too.

    The decay grows to its full value, min(decay, (1 + step)/(10 + step)), so that the mean soon forgets the first weights.
    """
    share = 1 - min(decay, (1 + step) / (10 + step))
    for slow, fast in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, share)
        else:
            slow.copy_(fast)

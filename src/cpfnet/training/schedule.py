"""The optimiser, its learning rate at every step, and the moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import get_ema_multi_avg_fn

from cpfnet.errors import CpfnetError
from cpfnet.network.encoder import find_encoder
from cpfnet.planning import TrainingPlan


def learning_rate(step: int, steps: int, training: TrainingPlan) -> float:
    """Learning rate of optimiser step ``step`` (from 0) of ``steps``; 0 past the last step.

    A pure function, so a resumed run needs no scheduler state. With w steps of linear warm-up, a tenth of all at most
    (a short run would end before it had begun to learn), and r(step) = min(1, (step + 1)/(w + 1)):

    - poly (the paper): lr · r · (1 − step/steps)^power
    - cosine (Loshchilov and Hutter 2017, without restarts): lr · r · (1 + cos πt)/2 with t = max(0, step − w)/(steps −
      w)
    """
    if training.schedule == "poly":
        return poly(training.learning_rate, step, steps, power=training.power, warmup=training.warmup)
    if step >= steps:
        return 0.0
    warmup = min(training.warmup, steps // 10)
    highest = training.learning_rate * min(1.0, (step + 1) / (warmup + 1))
    return highest * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup))) / 2


def poly(rate: float, step: int, steps: int, *, power: float, warmup: int) -> float:
    """The paper's learning rate of optimiser step ``step`` (from 0), as `learning_rate` has it; 0 past the end."""
    if step >= steps:  # a negative base would give a complex number
        return 0.0
    highest = rate * min(1.0, (step + 1) / (min(warmup, steps // 10) + 1))
    return highest * (1 - step / steps) ** power


class PolyLR(LRScheduler):
    """The poly learning rate of the paper, for a loop of your own: ``step()`` once after each optimiser step.

    With w = min(warmup, steps // 10) steps of linear warm-up, optimiser step t (from 0) has the rate
    lr · min(1, (t + 1)/(w + 1)) · (1 − t/steps)^power, for each parameter group with its own lr; from step ``steps``
    on it is 0, where the bare formula becomes a complex number. Training uses the same function.

    ``state_dict`` holds all that resuming takes. `load_state_dict` sets the optimiser's rates, too, whichever of the
    two is loaded first.

    Args:
        optimizer: whose rates to set; their values now are the highest ones.
        steps: optimiser steps in all: epochs × batches an epoch, divided by the batches of one step.
        power: 0.9 in the paper.
        warmup: steps of linear warm-up; a tenth of all at most.
        last_epoch: steps that were made (PyTorch's name for it); −1 begins.

    Raises:
        CpfnetError: ``steps`` below 1, ``power`` not above 0, or ``warmup`` below 0.

    Source:
        Feng et al., CPFNet, IEEE TMI 2020, section III-B; the poly policy is from Liu et al., ParseNet, 2015.

    Example:
        >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
        >>> schedule = cpfnet.schedules.PolyLR(optimiser, steps=1000)
        >>> optimiser.step()
        >>> schedule.step()
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        steps: int,
        *,
        power: float = 0.9,
        warmup: int = 0,
        last_epoch: int = -1,
    ) -> None:
        given = {"steps": (steps, steps >= 1), "power": (power, power > 0), "warmup": (warmup, warmup >= 0)}
        for name, (value, fits) in given.items():
            if not fits:
                least = {"steps": "1 or more", "power": "a number above 0", "warmup": "0 or more"}[name]
                raise CpfnetError(f"{name} = {value!r}", fix=f"give {least}")
        self.steps, self.power, self.warmup = steps, power, warmup
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each parameter group for the next optimiser step."""
        step = self.last_epoch
        return [poly(float(rate), step, self.steps, power=self.power, warmup=self.warmup) for rate in self.base_lrs]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        super().load_state_dict(state_dict)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


def optimiser(network: nn.Module, training: TrainingPlan, *, fused: bool = True) -> torch.optim.Optimizer:
    """SGD with momentum (the paper: 0.01, 0.9, 1e-4) or AdamW; fused: one pass over the weights instead of a dozen.

    Weight decay acts on kernels and matrices alone: a bias, a normalisation's scale or a mixing factor such as SAPF's γ
    pulled towards zero makes nothing simpler (He et al. 2019, section 3.1).
    """
    encoder = find_encoder(network) if training.encoder_rate < 1 else None
    slow = set() if encoder is None else set(encoder.parameters())
    groups: list[dict[str, Any]] = []
    for share in (1.0, training.encoder_rate) if slow else (1.0,):
        weights = [p for p in network.parameters() if (p in slow) == (share < 1)]
        kernels, others = [p for p in weights if p.ndim > 1], [p for p in weights if p.ndim <= 1]
        groups += [
            {"params": kernels, "weight_decay": training.weight_decay, "share": share},
            {"params": others, "weight_decay": 0.0, "share": share},
        ]
    if training.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum, fused=fused or None)
    return _AdamW(groups, lr=training.learning_rate, fused=fused or None)


class _AdamW(torch.optim.AdamW):
    """AdamW that takes kernels in the order in which they lie in memory.

    PyTorch's fused step works on contiguous tensors and copies all others there and back: weights, gradients and both
    moments of every channels-last kernel, as much work as the step itself. Each value is updated by itself, so a view
    that is contiguous does as well.
    """

    def _init_group(
        self, group: dict[str, Any], params_with_grad: list[torch.Tensor], grads: list[torch.Tensor], *others: Any
    ) -> bool:
        complex_too = super()._init_group(group, params_with_grad, grads, *others)
        moments = [tensors for tensors in others if isinstance(tensors, list)]
        for i, parameter in enumerate(params_with_grad):
            if grads[i].stride() != parameter.stride():  # seen in PyTorch 2.13: such a gradient is misread
                grads[i] = torch.empty_like(parameter).copy_(grads[i])
            if parameter.ndim > 2 and parameter.movedim(1, -1).is_contiguous():
                for tensors in (params_with_grad, grads, *moments):
                    # Some moments are not kept; counts of steps have no axes.
                    if tensors and tensors[i].ndim == parameter.ndim:
                        tensors[i] = tensors[i].movedim(1, -1)
        return complex_too


@torch.no_grad()
def average(mean: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Move ``mean`` towards ``network`` after optimiser step ``step`` (from 0); batch-norm statistics too.

    The decay grows to its full value, min(decay, (1 + step)/(10 + step)), so that the mean soon forgets the first
    weights.
    """
    decay = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(mean.state_dict().values(), network.state_dict().values(), strict=True))
    floating = [pair for pair in pairs if pair[0].is_floating_point()]
    counts = [pair for pair in pairs if not pair[0].is_floating_point()]
    # All at once: on a GPU each launch costs more than its work.
    get_ema_multi_avg_fn(decay)([slow for slow, _ in floating], [fast for _, fast in floating], None)
    if counts:
        torch._foreach_copy_([slow for slow, _ in counts], [fast for _, fast in counts])

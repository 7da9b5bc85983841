"""The optimiser, its learning rate at every step, and the moving average of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

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
    if step >= steps:  # a negative base would give a complex number
        return 0.0
    warmup = min(training.warmup, steps // 10)
    highest = training.learning_rate * min(1.0, (step + 1) / (warmup + 1))
    if training.schedule == "cosine":
        return highest * (1 + math.cos(math.pi * max(0, step - warmup) / (steps - warmup))) / 2
    return highest * (1 - step / steps) ** training.power


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

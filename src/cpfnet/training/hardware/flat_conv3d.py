"""3-D convolutions whose kernel is deeper than the map: PyTorch gets their gradients wrong in bfloat16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class FlatMaps(TorchFunctionMode):
    """Within it, under autocast on a CPU, these convolutions compute in float32, whichever network calls them.

    PyTorch 2.13 returns weight gradients that are off by 80 % and more, infinite or no numbers, and at times writes
    beyond its memory: for 3×3×3 over maps of two planes, which the deepest level of CPFNet is for patches of 33 … 64.
    Outputs and the gradients of inputs are right. What checkpointing computes again in the backward pass is not seen
    here.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is not F.conv3d or not torch.is_autocast_enabled("cpu"):
            return func(*args, **given)
        return _convolved(*args, **given)


def _convolved(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **given: Any) -> Tensor:
    if input.device.type != "cpu" or input.shape[-3] >= _reach(weight, *args, **given):
        return F.conv3d(input, weight, bias, *args, **given)
    with torch.autocast("cpu", enabled=False):
        y = F.conv3d(input.to(weight.dtype), weight, bias, *args, **given)
    return y.to(torch.get_autocast_dtype("cpu"))  # as other convolutions give


def _reach(
    weight: Tensor, stride: Any = 1, padding: Any = 0, dilation: int | Sequence[int] = 1, groups: int = 1
) -> int:
    """Planes that a kernel reaches over."""
    step = dilation if isinstance(dilation, int) else dilation[0]
    return 1 + step * (weight.shape[2] - 1)

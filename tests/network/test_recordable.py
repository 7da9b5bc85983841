"""What a network that is recorded and replayed (CUDA graphs) may do: compute only from its input, on one device.

It may not depend on values.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cpfnet.network import zoo


class _Watched(TorchDispatchMode):
    """Refuses work on another device than ``meta``, which has no values: they cannot be asked for there."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)}
        assert devices <= {"meta"}, f"{function} on {devices}"
        return out


def _refused(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("a tensor made from values")


SHIPPED = [(n, d, {}) for n in sorted(zoo.SHIPPED) for d in (2, 3) if (n, d) != ("cpfnet-guide", 3)]


@pytest.mark.parametrize(("name", "dims", "options"), [*SHIPPED, ("cpfnet", 2, {"encoder": "resnet50"})])
def test_shipped_networks_ask_for_no_value(
    name: str, dims: int, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert zoo.is_shipped(name, options)
    with torch.device("meta"):
        network = zoo.build(name, 3, 2, spatial_dims=dims, **options).train()
    image = torch.zeros(2, 3, *[64] * dims, device="meta")
    for place, function in ((torch, "tensor"), (torch, "as_tensor"), (torch.Tensor, "new_tensor")):
        monkeypatch.setattr(place, function, _refused)  # values from Python would be copied to a GPU
    with _Watched():
        out = network(image)
        sum(o.sum() for o in tree_leaves(out)).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_a_network_that_asks_for_a_value_is_noticed() -> None:
    class Asking(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (1 if x.mean().item() > 0 else 2)

    with _Watched(), pytest.raises(RuntimeError, match="meta"):
        Asking()(torch.zeros(1, 1, 8, 8, device="meta"))


def test_a_network_that_looks_at_another_device_is_noticed() -> None:
    with _Watched(), pytest.raises(AssertionError, match="cpu"):
        torch.zeros(1, device="meta") * torch.tensor(2.0)

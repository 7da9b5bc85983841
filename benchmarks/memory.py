"""What a training step keeps for its gradients, and how much it computes, for every network: python -m benchmarks
memory

Prints the rows of `cpfnet.planner.costs.COSTS` and `ENCODERS`. Nothing is computed: networks and images are PyTorch's
fake tensors, which have shapes and types and no values, so an image of any size costs no memory. What the passes
forward save for their gradients is counted by autograd's own hook.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from cpfnet.network import zoo
from cpfnet.network.encoder_zoo import RESNETS
from cpfnet.planning import LabelClass, Labels
from cpfnet.training import loss

PATCHES = {2: (512, 512), 3: (128, 128, 128)}
"""Large enough that what weights take in half precision does not count."""


def measure(
    name: str,
    patch: Sequence[int],
    *,
    half: bool = False,
    channels: int = 1,
    outputs: int = 2,
    spacing: Sequence[float] | None = None,
    **options: Any,
) -> tuple[float, float]:
    """One pass forward of two patches.

    Args:
        name: of the network.
        patch: its size, 2 or 3 axes.
        half: compute in bfloat16 where autocast does.
        channels: of the input.
        outputs: planes of the output.
        spacing: of the patch; default: the same on all axes.
        options: of the network.

    Returns:
        Bytes kept for the gradients, weights left out, and floating-point operations, both for one pixel or voxel of
        the input.
    """
    dims = len(patch)
    hints = {"patch": patch, "spacing": spacing or [1.0] * dims}
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = zoo.build(name, channels, outputs, spatial_dims=dims, hints=hints, **options).train()
        own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
        image = torch.zeros(2, channels, *patch)

        with (
            _saved(own) as kept,
            torch.autocast("cpu", torch.bfloat16, enabled=half),
            FlopCounterMode(display=False) as flops,
        ):
            network(image)
    pixels = image[:, 0].numel()
    return sum(storage.nbytes() for storage in kept.values()) / pixels, flops.get_total_flops() / pixels


def measure_loss(outputs: int) -> float:
    """Bytes that Dice and cross-entropy keep for one pixel and plane (real tensors: MONAI's Dice asks for values)."""
    labels = Labels(classes=tuple(LabelClass(name=f"class {k}", values=(k,)) for k in range(1, outputs)))
    logits = torch.zeros(2, outputs, 64, 64, requires_grad=True)
    with _saved(set()) as kept:
        loss.Loss(labels, [loss.dice, loss.cross_entropy])(logits, torch.zeros(2, 64, 64, dtype=torch.uint8))
    return sum(storage.nbytes() for storage in kept.values()) / logits.numel()


@contextmanager
def _saved(own: set[int]) -> Iterator[dict[int, Any]]:
    """The storages that autograd saves meanwhile, each once, but for ``own``."""
    kept: dict[int, Any] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that no other one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def main() -> None:
    for dims, patch in PATCHES.items():
        for name in zoo.names():
            (full, flops), (half, _) = measure(name, patch), measure(name, patch, half=True)
            print(f'    ("{name}", {dims}): Cost({full:.0f}, {half:.0f}, {flops / 1e3:.0f}_000),')
        own = measure("cpfnet", patch), measure("cpfnet", patch, half=True)
        for encoder in RESNETS:
            pairs = measure("cpfnet", patch, encoder=encoder), measure("cpfnet", patch, half=True, encoder=encoder)
            (full, flops), (half, _) = [np.subtract(a, b) for a, b in zip(pairs, own, strict=True)]
            print(f'    ("{encoder}", {dims}): Cost({full:.0f}, {half:.0f}, {flops / 1e3:.0f}_000),')
    print(f"CLASS_BYTES = {measure_loss(20):.0f}")


if __name__ == "__main__":
    main()

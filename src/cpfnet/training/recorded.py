"""A network's training passes as CUDA graphs: on a GPU, small steps wait for Python, which launches some thousand brief kernels each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cpfnet.inference.memory import exhausted, release

# PyTorch says so of whatever was recorded beside the stream of its replay; the engine waits where it must.
warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")


class Recorded:
    """Lets a network replay its passes forward and backward over batches of one shape, which are recorded here.

    It replays the same kernels on the same places in memory, so there may be no other batch in a step, whose gradients would be lost, and
    nothing in the network may depend on values (a failed recording cannot be undone in the process: PyTorch's random numbers stay in it).
    Where memory does not hold what is recorded, nothing is.

    Args:
        network: on a CUDA device, and alone there; its forward is replaced by `choose`, its weights stay where they are.
        fabric: precision.
        shape: of the batches, ``(N, channels, *spatial)``.
    """

    def __init__(self, network: nn.Module, fabric: Fabric, shape: Sequence[int]):
        self.network = network
        self._eager = network.forward
        self._shape = tuple(shape)
        self._replay: Any = None
        try:
            self._record(fabric)
        except RuntimeError as error:
            if not exhausted(error):
                raise
        finally:
            self.network.forward = self._eager
        if self._replay is None:
            release(fabric.device)

    def choose(self, image: torch.Tensor, *, single: bool) -> None:
        """Make the network ready for a batch in training mode: to replay where it may and can, else to compute as written.

        Args:
            image: the batch.
            single: it is the only one of its step.
        """
        able = single and self._replay is not None and tuple(image.shape) == self._shape
        self.network.forward = self._replay if able else self._eager

    def forget(self) -> None:
        """Give back the memory that the recorded passes hold."""
        self._replay, self.network.forward = None, self._eager

    def _record(self, fabric: Fabric) -> None:
        before = [(buffer, buffer.clone()) for buffer in self.network.buffers()]
        layout = torch.channels_last if len(self._shape) == 4 else torch.channels_last_3d
        image = torch.randn(self._shape, device=fabric.device).contiguous(memory_format=layout)
        self.network.train()
        try:
            with (
                fabric.autocast(),
                # What autocast has cast before, and kept, would be missing in the record.
                torch.autocast(
                    "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
                ),
                torch.backends.cudnn.flags(enabled=True, benchmark=True),
            ):
                torch.cuda.make_graphed_callables(self.network, (image,), allow_unused_input=True)
            self._replay = self.network.forward
        finally:
            with torch.no_grad():  # warming up moved the statistics
                for buffer, value in before:
                    buffer.copy_(value)

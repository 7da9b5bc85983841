"""A network's training passes as CUDA graphs.

On a GPU, small steps wait for Python, which launches some thousand brief kernels each.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cpfnet.errors import TrainingError
from cpfnet.inference.backends.out_of_memory import cause, exhausted, release
from cpfnet.network.layout import memory_layout

# PyTorch says so of whatever was recorded beside the stream of its replay; the engine waits where it must.
warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match")


def check_device(devices: Iterable[torch.device], wanted: torch.device) -> None:
    """Refuse to record on one GPU what another one computes: nothing would be recorded, and replayed, without an error.

    Args:
        devices: of weights and buffers.
        wanted: where it will be recorded.

    Raises:
        TrainingError: some lie elsewhere.

    Source:
        github.com/pytorch/pytorch/issues/87894.
    """
    elsewhere = sorted({str(device) for device in devices if device != wanted})
    if elsewhere:
        raise TrainingError(
            f"the network lies on {', '.join(elsewhere)}, and its work would be recorded on {wanted}",
            fix="move the whole network to one device, and name the same one with --device",
        )


class CudaGraphRunner:
    """Lets a network replay its passes forward and backward over batches of one shape, which are recorded here.

    It replays the same kernels on the same places in memory: there may be no other batch in a step, whose gradients
    would be lost, and which kernels run may depend on no value. The memory is held until `forget`; what does not fit,
    or would leave less than it takes, is not kept.

    Args:
        network: on a CUDA device, and alone there; its forward is replaced by `choose`, its weights stay where they
            are.
        fabric: precision.
        shape: of the batches, ``(N, channels, *spatial)``.

    Raises:
        TrainingError: the network lies on another device; or PyTorch cannot record it, and its random numbers are not
            to be had in this process from then on.
    """

    def __init__(self, network: nn.Module, fabric: Fabric, shape: Sequence[int]):
        devices = {tensor.device for tensor in (*network.parameters(), *network.buffers())}
        check_device(devices, fabric.device)
        self.network = network
        self._shape = tuple(shape)
        self._replay: Any = None
        gc.collect()  # what an earlier training recorded goes now, not in the middle
        before = [(buffer, buffer.clone()) for buffer in network.buffers()]
        try:
            # What another device computes is not recorded, and no error says so.
            with torch.cuda.device(fabric.device):
                self._record(fabric)
        except RuntimeError as error:
            if not exhausted(error):
                raise TrainingError(
                    f"the GPU's work on one batch cannot be recorded: {cause(error)}",
                    fix="halve training.batch and double training.accumulate: such steps are computed one kernel at a "
                    "time; where training.loss.options.pooled is true, set it to false",
                ) from None
        finally:
            self._written()
            with torch.no_grad():  # warming up moved the statistics
                for buffer, value in before:
                    buffer.copy_(value)
        release(fabric.device)
        if torch.cuda.mem_get_info(fabric.device)[0] < torch.cuda.memory_reserved(fabric.device):
            self.forget()
            release(fabric.device)

    @property
    def held(self) -> bool:
        """Is there something to replay?"""
        return self._replay is not None

    def choose(self, image: torch.Tensor, *, single: bool) -> None:
        """Make the network ready for a batch in training: to replay where it may and can, else to compute as written.

        Args:
            image: the batch.
            single: it is the only one of its step.
        """
        self._written()
        if single and self.held and tuple(image.shape) == self._shape:
            self.network.forward = self._replay

    def forget(self) -> None:
        """Let go of what is recorded, and of its memory."""
        self._replay = None
        self._written()

    def _written(self) -> None:
        self.network.__dict__.pop("forward", None)

    def _record(self, fabric: Fabric) -> None:
        layout = memory_layout(self.network, len(self._shape) - 2, fabric.device)
        image = torch.randn(self._shape, device=fabric.device).contiguous(memory_format=layout)
        image = fabric.strategy.precision.convert_input(image)  # as the network is given it
        self.network.train()
        with (
            fabric.autocast(),
            # What autocast has cast before, and kept, would be missing in the record.
            torch.autocast(
                "cuda", torch.get_autocast_dtype("cuda"), torch.is_autocast_enabled("cuda"), cache_enabled=False
            ),
        ):
            torch.cuda.make_graphed_callables(self.network, (image,), allow_unused_input=True)
        self._replay = self.network.forward

"""The trained network in PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from cpfnet.errors import NetworkError
from cpfnet.inference.backends.out_of_memory import SMALLER, portioned
from cpfnet.inference.blending import Blend

if TYPE_CHECKING:
    import torch

    from cpfnet.model import Model


Precision = Literal["fp32", "bf16", "fp16"]


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        NetworkError: no such device here.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise NetworkError(f"unknown device {name!r}", fix="use auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NetworkError(
            f"no device {name!r}: {torch.cuda.device_count()} CUDA devices found", fix="use --device auto or cpu"
        )
    return device


def half_precision(device: str) -> Literal["bf16", "fp16"]:
    """What a GPU computes fastest in: bf16, and fp16 on those without its units (Turing and before)."""
    import torch

    return "bf16" if torch.cuda.get_device_capability(pick_device(device)) >= (8, 0) else "fp16"


class TorchBackend:
    """A network in PyTorch that takes and gives NumPy arrays, or leaves its logits where it computes.

    Args:
        forward: float32 ``(N, in_channels, *spatial)`` → float32 logits on ``place``.
        place: where it computes.
        fix: what to do where a single piece does not fit into its memory.
    """

    def __init__(self, forward: Callable[[np.ndarray], torch.Tensor], place: torch.device, *, fix: str):
        import torch

        self.place = place
        self.logits = portioned(forward, place, fix=fix, join=torch.cat)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        return self.logits(batch).cpu().numpy()

    @property
    def blend(self) -> Callable[[int, tuple[int, ...]], Blend] | None:
        """What sums up the probabilities on the device; None on a CPU, where NumPy does."""
        from cpfnet.inference.torch_backend.blending import DeviceBlend

        return None if self.place.type == "cpu" else partial(DeviceBlend, place=self.place)


def to_device(batch: np.ndarray, place: torch.device, layout: torch.memory_format) -> torch.Tensor:
    """A batch on a device; to a GPU it is copied while the next one is cut."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(batch))
    if place.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(place, memory_format=layout, non_blocking=True)


def torch_backend(
    model: Model, device: str = "auto", precision: Precision = "fp32", *, compile: bool = False
) -> TorchBackend:
    """The trained network, ready to be fed.

    Args:
        model: plan and weights.
        device: see `pick_device`.
        precision: ``fp32`` is exact on a CPU; on a GPU its convolutions may round what they multiply to TF32.
            ``bf16`` and ``fp16`` (on a GPU alone) are faster where the hardware has them, and approximate.
        compile: by `torch.compile` (`compilation`).

    Returns:
        float32 ``(N, in_channels, *spatial)`` → float32 logits ``(N, outputs, *spatial)``.

    Raises:
        WeightsError: see `Model.network`.
        NetworkError: no such device, or fp16 on a CPU; when called: not even one piece fits into memory,
            or the network cannot be compiled.
    """
    import torch

    from cpfnet.inference.torch_backend.compilation import compiled
    from cpfnet.network.fuse import fuse
    from cpfnet.network.layout import memory_layout

    place = pick_device(device)
    if precision == "fp16" and place.type == "cpu":
        raise NetworkError("fp16 needs a GPU", fix="choose --backend torch or torch-bf16")
    network = fuse(model.network())
    layout = memory_layout(network, model.plan.spatial.dims, place)
    network = network.to(place, memory_format=layout)  # type: ignore[call-overload]
    run = compiled(network) if compile else network

    def forward(batch: np.ndarray) -> torch.Tensor:
        tensor = to_device(batch, place, layout)
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=True),
            torch.autocast(
                place.type, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "fp32"
            ),
        ):
            return run(tensor).float().contiguous()

    fix = SMALLER if place.type == "cpu" else f"predict with --device cpu; or {SMALLER}"
    return TorchBackend(forward, place, fix=fix)

"""The trained network in PyTorch, on a CPU or a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from cpfnet.errors import NetworkError
from cpfnet.inference.backends.out_of_memory import SMALLER, portioned
from cpfnet.inference.tiling import Backend

if TYPE_CHECKING:
    import torch

    from cpfnet.model import Model


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


def torch_backend(model: Model, device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32") -> Backend:
    """The trained network, ready to be fed.

    Args:
        model: plan and weights.
        device: see `pick_device`.
        precision: ``fp32`` is exact (no TF32 either); ``bf16`` is faster where the hardware has it, and approximate.

    Returns:
        float32 ``(N, in_channels, *spatial)`` → float32 logits ``(N, outputs, *spatial)``.

    Raises:
        WeightsError: see `Model.network`.
        NetworkError: no such device; when called: not even one piece fits into memory.
    """
    import torch

    from cpfnet.network.fuse import fuse
    from cpfnet.network.layout import memory_layout

    place = pick_device(device)
    network = fuse(model.network())
    layout = memory_layout(network, model.plan.spatial.dims, place)
    network = network.to(place, memory_format=layout)  # type: ignore[call-overload]

    def forward(batch: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(np.ascontiguousarray(batch)).to(place, memory_format=layout)
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False),
            torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"),
        ):
            return network(tensor).float().cpu().contiguous().numpy()

    return portioned(
        forward,
        place,
        fix=SMALLER if place.type == "cpu" else f"predict with --device cpu; or {SMALLER}",
    )

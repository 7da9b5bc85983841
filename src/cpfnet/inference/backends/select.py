"""What runs the network: torch, or a runtime for its exported graph. A backend takes and gives NumPy arrays, so nothing else in inference knows which."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from cpfnet.errors import NetworkError, OutputError
from cpfnet.inference.backends import exported_files
from cpfnet.inference.backends.autotune import Choosing, candidates, known
from cpfnet.inference.backends.out_of_memory import portioned
from cpfnet.inference.backends.runtimes import computes_bf16, onnx_backend, openvino_backend
from cpfnet.inference.tiling import Backend
from cpfnet.inference.torch_backend.onnx_graph import prepared

if TYPE_CHECKING:
    import torch

    from cpfnet.model import Model


Name = Literal["auto", "torch", "torch-bf16", "onnx", "openvino", "openvino-bf16", "openvino-int8"]
"""float32, where nothing else is said."""

SMALL = 4 * 2**20
"""Bytes of weights below which another runtime gains nothing that would make up for preparing it."""


_SMALLER = "predict with a smaller --tile; or close other programs"


def backend_of(
    model: Model, name: str = "auto", *, device: str = "auto", say: Callable[[str], None] = print
) -> Backend:
    """The Model's network, ready to be fed.

    Args:
        model: plan and weights.
        name: one of `Name`. ``"auto"``: on a GPU torch; on a CPU the fastest runtime that decides as float32 does, found on the first
            images of a Model and kept beside it (`choice`); torch for small networks, and where no runtime is installed.
        device: see `pick_device`; runtimes other than torch have the CPU alone.
        say: told what the user should know.

    Raises:
        NetworkError: no such backend or device, what it takes is not installed, or the network cannot be exported.
        WeightsError, OutputError: the weights are damaged; the exported graph cannot be written.
    """
    if name in ("torch", "torch-bf16"):
        return torch_backend(model, device, "bf16" if name == "torch-bf16" else "fp32", say=say)
    on_cpu = device == "cpu" or (device == "auto" and not _may_have_cuda()) or pick_device(device).type == "cpu"
    if name == "auto":
        return _automatic(model, say) if on_cpu else torch_backend(model, device, say=say)
    if not on_cpu and device != "auto":
        raise NetworkError(
            f"backend {name!r} runs on the CPU, not on {device}", mend="choose --backend torch or --device cpu"
        )
    match name:
        case "onnx":
            return portioned(onnx_backend(prepared(model, say=say)), None, say=say, mend=_SMALLER)
        case "openvino":
            return portioned(openvino_backend(prepared(model, say=say)), None, say=say, mend=_SMALLER)
        case "openvino-bf16":
            graph = prepared(model, say=say)
            if not computes_bf16():
                raise NetworkError("this CPU has no units for bf16", mend="choose --backend openvino")
            return portioned(openvino_backend(graph, "bf16"), None, say=say, mend=_SMALLER)
        case "openvino-int8":
            graph = prepared(model, say=say).with_name(exported_files.INT8)
            found = exported_files.record(model)
            if found is None or found.int8 is None:  # a graph that lies there may be of earlier weights
                damaged = " and ".join(exported_files.unlike(model))
                raise NetworkError(
                    f"{damaged} is not what was written: damaged, changed or missing"
                    if damaged
                    else "the network was not quantised",
                    where=exported_files.folder(model) if damaged else model.folder,
                    mend="cpfnet export MODEL --to openvino-int8 --data DATASET makes it, from training cases",
                )
            backend = openvino_backend(graph, "bf16" if computes_bf16() else "f32")
            return portioned(backend, None, say=say, mend=_SMALLER)
    raise NetworkError(f"unknown backend {name!r}", mend=f"choose one of {', '.join(get_args(Name))}")


def _automatic(model: Model, say: Callable[[str], None]) -> Backend:
    def make(name: str) -> Backend:
        return backend_of(model, name, device="cpu", say=say)

    if (name := known(model)) is not None:
        return make(name)
    has_torch = find_spec("torch") is not None
    if has_torch and (model.folder is None or not candidates(model) or _small(model)):
        return make("torch")
    if not candidates(model):
        raise NetworkError(
            "neither OpenVINO nor ONNX Runtime nor PyTorch is installed", mend='pip install "cpfnet[runtime]"'
        )
    damaged = exported_files.unlike(model)
    if exported_files.GRAPH not in damaged and exported_files.record(model) is None:
        say(f"Preparing {model.folder} for this machine, once …")
    try:
        prepared(model, say=say)
        if others := [name for name in damaged if name != exported_files.GRAPH]:
            say(f"int8 is left out: {' and '.join(others)} in {exported_files.folder(model)} is not what was written")
        if (name := known(model)) is not None:  # made again, the graph decides as it did
            return make(name)
    except (NetworkError, OutputError) as error:
        if not has_torch:
            raise
        say(f"Predicting with torch, since the faster way cannot be prepared: {error.what}")
        return make("torch")
    return Choosing(model, make, say)


def _small(model: Model) -> bool:
    return model.weights.stat().st_size < SMALL


def _may_have_cuda() -> bool:
    """Without importing torch, which takes seconds."""
    try:
        build = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    return not build.endswith("+cpu") and (shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists())


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
        raise NetworkError(f"unknown device {name!r}", mend="use auto, cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise NetworkError(
            f"no device {name!r}: {torch.cuda.device_count()} CUDA devices found", mend="use --device auto or cpu"
        )
    return device


def torch_backend(
    model: Model,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    *,
    say: Callable[[str], None] = print,
) -> Backend:
    """The trained network, ready to be fed.

    Args:
        model: plan and weights.
        device: see `pick_device`.
        precision: ``fp32`` is exact (no TF32 either); ``bf16`` is faster where the hardware has it, and approximate.
        say: told when a batch does not fit into the GPU's memory and is halved.

    Returns:
        float32 ``(N, in_channels, *spatial)`` → float32 logits ``(N, outputs, *spatial)``.

    Raises:
        WeightsError: see `Model.network`.
        NetworkError: no such device; when called: not even one piece fits into memory.
    """
    import torch

    from cpfnet.network.fuse import fuse

    place = pick_device(device)
    layout = torch.channels_last if model.plan.spatial.dims == 2 else torch.channels_last_3d
    network = fuse(model.network()).to(place, memory_format=layout)  # type: ignore[call-overload]

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
        say=say,
        mend=_SMALLER if place.type == "cpu" else f"predict with --device cpu; or {_SMALLER}",
    )

"""What runs the network: torch, or a runtime for its exported graph. A backend takes and gives NumPy arrays, so nothing else in inference knows which."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from cpfnet.errors import NetworkError, OutputError
from cpfnet.inference.backends import exported_files
from cpfnet.inference.backends.autotune import AutoBackend, candidates, known
from cpfnet.inference.backends.exported_files import prepared
from cpfnet.inference.backends.out_of_memory import SMALLER, portioned
from cpfnet.inference.backends.runtimes import computes_bf16, onnx_backend, openvino_backend
from cpfnet.inference.tiling import Backend

if TYPE_CHECKING:
    from cpfnet.model import Model


Name = Literal["auto", "torch", "torch-bf16", "onnx", "openvino", "openvino-bf16", "openvino-int8"]
"""float32, where nothing else is said."""

SMALL = 4 * 2**20
"""Bytes of weights below which another runtime gains nothing that would make up for preparing it."""


def backend_of(
    model: Model, name: str = "auto", *, device: str = "auto", say: Callable[[str], None] = print
) -> Backend:
    """The Model's network, ready to be fed.

    Args:
        model: plan and weights.
        name: one of `Name`. ``"auto"``: on a GPU torch; on a CPU the fastest runtime that decides as float32 does, found on the first
            images of a Model and kept beside it (`autotune`); torch for small networks, and where no runtime is installed.
        device: see `torch_backend.network.pick_device`; runtimes other than torch have the CPU alone.
        say: told what the user should know.

    Raises:
        NetworkError: no such backend or device, what it takes is not installed, or the network cannot be exported.
        WeightsError, OutputError: the weights are damaged; the exported graph cannot be written.
    """
    if name in ("torch", "torch-bf16"):
        return _torch(model, device, "bf16" if name == "torch-bf16" else "fp32", say)
    on_cpu = device == "cpu" or (device == "auto" and not _may_have_cuda()) or _device_type(device) == "cpu"
    if name == "auto":
        return _automatic(model, say) if on_cpu else _torch(model, device, "fp32", say)
    if not on_cpu and device != "auto":
        raise NetworkError(
            f"backend {name!r} runs on the CPU, not on {device}", fix="choose --backend torch or --device cpu"
        )
    match name:
        case "onnx":
            return portioned(onnx_backend(prepared(model, say=say)), None, say=say, fix=SMALLER)
        case "openvino":
            return portioned(openvino_backend(prepared(model, say=say)), None, say=say, fix=SMALLER)
        case "openvino-bf16":
            graph = prepared(model, say=say)
            if not computes_bf16():
                raise NetworkError("this CPU has no units for bf16", fix="choose --backend openvino")
            return portioned(openvino_backend(graph, "bf16"), None, say=say, fix=SMALLER)
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
                    fix="cpfnet export MODEL --to openvino-int8 --data DATASET makes it, from training cases",
                )
            backend = openvino_backend(graph, "bf16" if computes_bf16() else "f32")
            return portioned(backend, None, say=say, fix=SMALLER)
    raise NetworkError(f"unknown backend {name!r}", fix=f"choose one of {', '.join(get_args(Name))}")


def _torch(model: Model, device: str, precision: Literal["fp32", "bf16"], say: Callable[[str], None]) -> Backend:
    from cpfnet.inference.torch_backend.network import torch_backend

    return torch_backend(model, device, precision, say=say)


def _device_type(device: str) -> str:
    from cpfnet.inference.torch_backend.network import pick_device

    return pick_device(device).type


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
            "neither OpenVINO nor ONNX Runtime nor PyTorch is installed", fix='pip install "cpfnet[runtime]"'
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
    return AutoBackend(model, make, say)


def _small(model: Model) -> bool:
    return model.weights.stat().st_size < SMALL


def _may_have_cuda() -> bool:
    """Without importing torch, which takes seconds."""
    try:
        build = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    return not build.endswith("+cpu") and (shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists())

"""What runs the network: torch, or a runtime for its exported graph.

A backend takes and gives NumPy arrays, so nothing else in inference knows which it is.
"""

from __future__ import annotations

import logging
import shutil
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cpfnet.errors import NetworkError, OutputError
from cpfnet.inference.backends import exported_files
from cpfnet.inference.backends.autotune import AutoBackend, candidates, known
from cpfnet.inference.backends.exported_files import prepared
from cpfnet.inference.backends.out_of_memory import SMALLER, portioned
from cpfnet.inference.backends.runtimes import computes_bf16, onnx_backend, openvino_backend
from cpfnet.inference.options import unknown_backend
from cpfnet.inference.tiling import Backend

if TYPE_CHECKING:
    from cpfnet.inference.torch_backend.network import Precision
    from cpfnet.model import Model

logger = logging.getLogger(__name__)

_TORCH: dict[str, Precision] = {
    "torch": "fp32",
    "torch-bf16": "bf16",
    "torch-fp16": "fp16",
    "torch-compile": "fp32",
}

SMALL = 4 * 2**20
"""Bytes of weights below which another runtime gains nothing that would make up for preparing it."""


def backend_of(model: Model, name: str = "auto", *, device: str = "auto") -> Backend:
    """The Model's network, ready to be fed.

    Args:
        model: plan and weights.
        name: one of `BACKENDS`. ``"auto"``: the fastest that decides as float32 does, found on the first images
            (`autotune`): on a GPU torch in float32 or half precision; on a CPU one of the runtimes, kept beside the
            Model, and torch for small networks and where no runtime is installed. ``"torch-compile"``: compiled, if
            that is faster and decides as torch does.
        device: see `torch_backend.network.pick_device`; runtimes other than torch have the CPU alone.

    Raises:
        NetworkError: no such backend or device, what it takes is not installed, or the network cannot be exported.
        WeightsError, OutputError: the weights are damaged; the exported graph cannot be written.
    """
    if name in _TORCH:
        return _torch(model, device, name)
    on_cpu = device == "cpu" or (device == "auto" and not _may_have_cuda()) or _device_type(device) == "cpu"
    if name == "auto":
        return _automatic(model) if on_cpu else _torch(model, device)
    if not on_cpu and device != "auto":
        raise NetworkError(
            f"backend {name!r} runs on the CPU, not on {device}", fix="choose --backend torch or --device cpu"
        )
    match name:
        case "onnx":
            return portioned(onnx_backend(prepared(model)), None, fix=SMALLER)
        case "openvino":
            return portioned(openvino_backend(prepared(model)), None, fix=SMALLER)
        case "openvino-bf16":
            graph = prepared(model)
            if not computes_bf16():
                raise NetworkError("this CPU has no units for bf16", fix="choose --backend openvino")
            return portioned(openvino_backend(graph, "bf16"), None, fix=SMALLER)
        case "openvino-int8":
            graph = prepared(model).with_name(exported_files.INT8)
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
            return portioned(backend, None, fix=SMALLER)
    raise unknown_backend(name)


def _torch(model: Model, device: str, name: str | None = None) -> Backend:
    """By its name; without one, the fastest on a GPU."""
    from cpfnet.inference.torch_backend.compilation import require_compiler
    from cpfnet.inference.torch_backend.network import half_precision, torch_backend

    def make(name: str) -> Backend:
        return torch_backend(model, device, _TORCH[name], compile=name == "torch-compile")

    if name is None:
        return AutoBackend(model, make, ["torch", f"torch-{half_precision(device)}"])
    if name == "torch-compile":
        require_compiler(device)
        return AutoBackend(model, make, ["torch", name])
    return make(name)


def _device_type(device: str) -> str:
    from cpfnet.inference.torch_backend.network import pick_device

    return pick_device(device).type


def _automatic(model: Model) -> Backend:
    def make(name: str) -> Backend:
        return backend_of(model, name, device="cpu")

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
        logger.info("Preparing %s for this machine, once …", model.folder)
    try:
        prepared(model)
        if others := [name for name in damaged if name != exported_files.GRAPH]:
            folder = exported_files.folder(model)
            logger.warning("int8 is left out: %s in %s is not what was written", " and ".join(others), folder)
        if (name := known(model)) is not None:  # made again, the graph decides as it did
            return make(name)
    except (NetworkError, OutputError) as error:
        if not has_torch:
            raise
        logger.warning("Predicting with torch, since the faster way cannot be prepared: %s", error.what)
        return make("torch")
    return AutoBackend(model, make)


def _small(model: Model) -> bool:
    return model.weights.stat().st_size < SMALL


def _may_have_cuda() -> bool:
    """Without importing torch, which takes seconds."""
    try:
        build = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return False
    return not build.endswith("+cpu") and (shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists())

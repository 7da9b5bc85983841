"""Runtimes for exported graphs on a CPU: ONNX Runtime and OpenVINO. No torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cpfnet.errors import NetworkError
from cpfnet.inference.tiling import Backend

Runtime = Literal["onnx", "openvino"]
MODULES: dict[Runtime, str] = {"onnx": "onnxruntime", "openvino": "openvino"}


def installed(runtime: Runtime) -> bool:
    """Without importing it."""
    return find_spec(MODULES[runtime]) is not None


def onnx_backend(graph: Path) -> Backend:
    """ONNX Runtime in float32.

    Args:
        graph: from `convert.write_onnx`.

    Returns:
        float32 ``(N, in_channels, *spatial)`` → float32 logits ``(N, outputs, *spatial)``.

    Raises:
        NetworkError: it is not installed, or the file is damaged.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise _missing("ONNX Runtime", "onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and told by whoever asked
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common class
        raise _damaged(graph, error) from None
    return lambda batch: session.run(None, {"image": np.ascontiguousarray(batch)})[0]


def openvino_backend(graph: Path, precision: Literal["f32", "bf16"] = "f32") -> Backend:
    """OpenVINO on the CPU; of a quantised graph ``precision`` is that of what is not quantised.

    Args, Returns, Raises: as `onnx_backend`; ``precision`` is asked for by name, since OpenVINO takes bf16 by itself
    where the CPU has it.
    """
    try:
        import openvino
    except ModuleNotFoundError:
        raise _missing("OpenVINO", "runtime") from None
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    try:
        network = _core().compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise _damaged(graph, error) from None
    # One request, whose output is copied: the next call would write over it.
    request = network.create_infer_request()
    return lambda batch: request.infer({0: openvino.Tensor(np.ascontiguousarray(batch))}, share_outputs=True)[0].copy()


def computes_bf16() -> bool:
    """Has this CPU units for bf16, as OpenVINO sees it?"""
    return installed("openvino") and "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _missing(name: str, extra: str) -> NetworkError:
    return NetworkError(f"{name} is not installed", fix=f'pip install "cpfnet[{extra}]"')


def _damaged(graph: Path, error: Exception) -> NetworkError:
    return NetworkError(f"cannot be run: {error}", where=graph, fix="make it again: cpfnet export MODEL --to onnx")

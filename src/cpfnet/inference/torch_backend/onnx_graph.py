"""The trained network as an ONNX graph, which OpenVINO reads as well, and as OpenVINO's own files."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import cpfnet
from cpfnet.errors import NetworkError, redacted_message
from cpfnet.files import replacing
from cpfnet.inference.backends.exported_files import prepared
from cpfnet.inference.backends.runtimes import installed, onnx_backend, openvino_backend

if TYPE_CHECKING:
    import torch

    from cpfnet.model import Model

LEAST = 33
"""Smallest size that the graph is traced for: at 32 the single pixel of the deepest map would become a constant."""

TOLERANCE = 1e-4
"""How far a graph's logits may lie from torch's, as a share of their range."""


def write_onnx(model: Model, path: Path, *, overwrite: bool = False) -> float:
    """Write the network, rewritten for inference (`network.fuse`), and compare what a runtime makes of it with torch.

    The input ``image`` is float32 ``(N, in_channels, *spatial)``, preprocessed as the Plan says, of any N and size; the
    output ``logits`` ``(N, outputs, *spatial)``. The metadata hold ``labels``, ``intensity``, ``plan`` and ``fitted``
    as JSON.

    Args:
        model: plan and weights.
        path: the file to make.
        overwrite: replace an existing one.

    Returns:
        The largest difference from torch, as a share of the logits' range.

    Raises:
        OutputError: the file exists, or cannot be written.
        NetworkError: the network cannot be written so, the graph gives something else, or no runtime is installed to
            try it.
    """
    import torch

    from cpfnet.network.fuse import fuse

    network = fuse(model.network())
    plan, dims = model.plan, model.plan.spatial.dims
    names = ("depth", "height", "width")[-dims:]
    free = {0: torch.export.Dim("batch", min=1, max=2**12)}
    free |= {2 + axis: torch.export.Dim(name, min=LEAST, max=2**14) for axis, name in enumerate(names)}
    image = torch.zeros(2, plan.in_channels, *(64 + 32 * axis for axis in range(dims)))
    with replacing(path, overwrite=overwrite) as temporary:
        try:
            with _quietly():
                program = torch.onnx.export(
                    network,
                    (image,),
                    dynamo=True,
                    input_names=["image"],
                    output_names=["logits"],
                    dynamic_shapes=(free,),
                    verbose=False,
                )
        except Exception as error:  # the exporter raises anything
            raise NetworkError(
                f"network {plan.network.name!r} cannot be written as ONNX for any size: {redacted_message(error)}",
                fix="predict with --backend torch",
            ) from None
        assert program is not None
        program.model.metadata_props.update(described(model))
        program.save(temporary, external_data=False)
        return _difference(network, temporary, plan.in_channels, dims)


def write_openvino(model: Model, path: Path, *, overwrite: bool = False) -> Path:
    """OpenVINO's own files, ``path`` (.xml) and the .bin beside it, in float32.

    The metadata are those of `write_onnx`, under ``cpfnet``.

    Raises:
        OutputError: a file exists, or cannot be written.
        NetworkError: as `write_onnx`; OpenVINO is not installed.
    """
    import openvino

    graph = openvino.Core().read_model(prepared(model))
    for key, value in described(model).items():
        graph.set_rt_info(value, ["cpfnet", key])
    return save_openvino(graph, path, overwrite=overwrite)


def save_openvino(graph: object, path: Path, *, overwrite: bool = False) -> Path:
    """Write an OpenVINO graph with its weights as they are; the .bin comes first: an .xml is never without it."""
    import openvino

    with (
        replacing(path, overwrite=overwrite) as xml,
        replacing(path.with_suffix(".bin"), overwrite=overwrite) as weights,
    ):
        openvino.save_model(graph, xml, compress_to_fp16=False)
        xml.with_suffix(".bin").replace(weights)
    return path


def described(model: Model) -> dict[str, str]:
    """What whoever finds a graph without its Model needs to know: each a JSON text."""
    plan = model.plan.model_dump(mode="json")
    found = {
        "labels": plan["labels"],
        "intensity": {channel["name"]: channel["intensity"] for channel in plan["channels"]},
        "plan": plan,
        "fitted": model.fitted.model_dump(mode="json"),
        "cpfnet": cpfnet.__version__,
    }
    return {key: json.dumps(value, ensure_ascii=False) for key, value in found.items()}


def _difference(network: torch.nn.Module, graph: Path, in_channels: int, dims: int) -> float:
    """Of a graph's logits from torch's, the largest of several batches and sizes, none of them the traced one.

    Raises:
        NetworkError: it is above `TOLERANCE`.
    """
    import torch

    runtime = onnx_backend if installed("onnx") else openvino_backend if installed("openvino") else None
    if runtime is None:
        raise NetworkError(
            "no runtime is installed to try the exported graph with",
            fix='pip install "cpfnet[train]" or "cpfnet[runtime]"',
        )
    backend, random, largest = runtime(graph), np.random.default_rng(0), 0.0
    for size in ((1, *(96, 64, 32)[:dims]), (3, *(35, 47, 65)[:dims])):
        image = random.normal(size=(size[0], in_channels, *size[1:])).astype(np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(image)).numpy()
        found = backend(image)
        far = float(np.abs(found - expected).max() / max(float(np.ptp(expected)), 1e-6))
        if not far <= TOLERANCE:
            raise NetworkError(
                f"the exported graph gives something else than torch: {far:.2g} of the logits' range at "
                f"{'×'.join(map(str, size))}, and {TOLERANCE:g} is allowed",
                fix="predict with --backend torch",
            )
        largest = max(largest, far)
    return largest


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporter tells of optional packages and of its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

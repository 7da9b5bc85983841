"""A Model's network for other runtimes: which graph, where to, and what that takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cpfnet.errors import CpfnetError, NetworkError, OutputError
from cpfnet.inference.backends import exported_files
from cpfnet.inference.torch_backend.onnx_graph import write_onnx, write_openvino

if TYPE_CHECKING:
    from cpfnet.model import Model

Target = Literal["onnx", "openvino", "openvino-int8", "bundle"]
"""What a Model is exported to; a bundle is written by `cpfnet.monai_bundle`."""

_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}


def check_request(model: Model, to: Target, out: Path | None, data: Path | None) -> None:
    """Refuse arguments that do not belong together.

    Raises:
        NetworkError: the Model has a first stage, which what is asked for cannot hold.
        CpfnetError: a dataset is missing, or has no use; int8 is given a place.
        OutputError: the file has another suffix than its kind.
    """
    if (data is not None) != (to == "openvino-int8"):
        raise CpfnetError(
            f"a dataset is {'needed' if data is None else 'not needed'} to export to {to}",
            where="--data",
            fix="give the dataset that the Model was trained on" if data is None else "leave it out",
        )
    if model.plan.first_stage and to in ("bundle", "openvino-int8"):
        raise NetworkError(
            f"the Model's network sees what its first stage finds, and export to {to} knows one network alone",
            where=model.folder,
            fix="predict with the whole Model; export to onnx or openvino, whose graphs it uses",
        )
    if to == "openvino-int8" and out is not None:
        raise CpfnetError(
            "the int8 graph is kept beside its Model", where="--out", fix="leave it out, and copy the Model folder"
        )
    suffix = _SUFFIXES.get(to)
    if out is not None and suffix is not None and out.suffix != suffix:
        raise OutputError(f"the file must end in {suffix}", where=out, fix=f"write to {out}{suffix}")


def export_graph(
    model: Model, to: Target, *, out: Path | None, data: Path | None, overwrite: bool, progress: bool
) -> Path:
    """Write the network as a graph; see `cpfnet.export`.

    Returns:
        What was written.
    """
    if to == "onnx":
        if out is None:
            return exported_files.prepared(model)
        write_onnx(model, out, overwrite=overwrite)
        return out
    if to == "openvino":
        place = out or exported_files.folder(model) / "network.xml"
        return write_openvino(model, place, overwrite=overwrite)
    from cpfnet.data.dataset import load
    from cpfnet.inference.torch_backend.quantise_int8 import quantise

    assert data is not None  # `check_request` saw to it
    return quantise(model, load(data), progress=progress)

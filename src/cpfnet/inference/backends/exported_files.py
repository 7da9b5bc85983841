"""What is kept beside a Model so that it predicts without torch, and fast.

    MODEL/exports/network.onnx       the fused network in float32, for any batch and size (`torch_backend.onnx_graph`)
    MODEL/exports/network-int8.xml   and .bin: the same in int8, for OpenVINO (`torch_backend.quantise_int8`)
    MODEL/exports/record.yaml        of which weights these are, their hashes, and the fastest backend of each machine

All of it can be made again from the weights: it may be deleted, and is ignored once the weights are others. A graph
that is not, byte for byte, what was written is never run.
"""

from __future__ import annotations

import contextlib
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field

from cpfnet.errors import CpfnetError, NetworkError
from cpfnet.files import sha256
from cpfnet.model import Model
from cpfnet.planning import Fraction, Strict
from cpfnet.settings import read_yaml, write_yaml

logger = logging.getLogger(__name__)

FOLDER = "exports"
GRAPH = "network.onnx"
INT8 = "network-int8.xml"
INT8_WEIGHTS = "network-int8.bin"
RECORD = "record.yaml"


class Judged(Strict):
    """One backend beside torch in float32, or beside the graph in float32 where there is no torch."""

    backend: str
    seconds: float = Field(ge=0, description="for what was compared; median of repetitions")
    agreement: Fraction = Field(description="share of pixels decided alike")
    dice: Fraction = Field(description="Dice with what float32 finds, all classes together")
    gain: float | None = Field(None, description="change of the mean Dice against the truth; null: no truth was given")
    passed: bool


class Choice(Strict):
    """The fastest of the backends that decide as float32 does, on one machine with its runtimes."""

    setting: str = Field(description="processor and runtimes")
    backend: str
    on: str = Field(description="what was compared")
    judged: tuple[Judged, ...]


class Record(Strict):
    weights: str = Field(description="SHA-256 of the weights.safetensors behind the graphs")
    graphs: dict[Literal["network.onnx", "network-int8.xml", "network-int8.bin"], str] = Field(
        description="file → SHA-256 of it"
    )
    difference: float = Field(
        ge=0, description="largest difference of the graph's logits from torch's, as a share of their range"
    )
    int8: Judged | None = Field(
        None, description="the quantised graph on validation cases; null: not made, or not good enough"
    )
    choices: tuple[Choice, ...] = ()


def folder(model: Model) -> Path:
    """Where the Model's exports lie.

    Raises:
        CpfnetError: the Model itself lies nowhere.
    """
    if model.folder is None:
        raise CpfnetError("this Model lies in no folder", fix="save it first: model.save(folder)")
    return model.folder / FOLDER


def record(model: Model) -> Record | None:
    """What is known of the graphs beside the Model that can be run.

    Returns:
        None without a graph of its present weights; ``int8`` is None without one in int8.
    """
    found, damaged = written(model), unlike(model)
    if found is None or GRAPH in damaged:
        return None
    whole = {INT8, INT8_WEIGHTS} <= found.graphs.keys() - set(damaged)
    return found if whole else found.model_copy(update={"int8": None})


def unlike(model: Model) -> list[str]:
    """Files of the Model's present weights that are not what was written: damaged, changed or missing."""
    found = written(model)
    return (
        []
        if found is None
        else [name for name, digest in found.graphs.items() if _hash(folder(model) / name) != digest]
    )


def written(model: Model) -> Record | None:
    """The record as it stands; None where it is damaged, or of other weights."""
    if model.folder is None or not (folder(model) / RECORD).is_file():
        return None
    with contextlib.suppress(CpfnetError):  # damaged, or of another version: it is made again
        found = read_yaml(Record, folder(model) / RECORD)
        if found.weights == model.weights_hash and GRAPH in found.graphs:
            return found
    return None


def hashes(model: Model, *names: str) -> dict[str, str]:
    """SHA-256 of files among the Model's exports, for the record.

    Raises:
        OSError: they cannot be read.
    """
    return {name: sha256(folder(model) / name) for name in names}


def _hash(file: Path) -> str | None:
    """None where it is no file that can be read."""
    with contextlib.suppress(OSError):
        return sha256(file) if file.is_file() else None
    return None


def keep(model: Model, found: Record) -> None:
    """Write what is known.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_yaml(found, folder(model) / RECORD)


def prepared(model: Model) -> Path:
    """The Model's graph, made beside it unless it is there and what was written.

    Args:
        model: in a folder.

    Raises:
        CpfnetError: the Model lies in no folder.
        OutputError: its folder cannot be written.
        NetworkError: as `torch_backend.onnx_graph.write_onnx`; it would have to be made, and PyTorch is not installed.
    """
    graph = folder(model) / GRAPH
    if record(model) is None:
        damaged = GRAPH in unlike(model)
        what = "is not the graph that was written beside its Model: damaged, changed or missing"
        if find_spec("torch") is None:
            raise NetworkError(
                f"{what if damaged else 'its network was not exported yet'}; and PyTorch, which making it takes, "
                "is not installed",
                where=graph if damaged else model.folder,
                fix="run  cpfnet export MODEL --to onnx  where it is, and copy the Model folder again",
            )
        if damaged:
            logger.warning("%s %s; it is made again from the weights", graph, what)
        from cpfnet.inference.torch_backend.onnx_graph import write_onnx

        difference = write_onnx(model, graph, overwrite=True)
        digest = hashes(model, GRAPH)
        found = written(model)
        if found is None:
            found = Record(weights=model.weights_hash, graphs=digest, difference=difference)
        keep(model, found.model_copy(update={"graphs": found.graphs | digest, "difference": difference}))
    return graph

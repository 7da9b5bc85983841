"""What inference may be asked: how Models predict, and what is written.

Both objects are made once, where a command or a function begins, and passed on whole. Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, get_args

from cpfnet.errors import CpfnetError, NetworkError, OutputError
from cpfnet.formats import OutputFormat
from cpfnet.registry import module_names

if TYPE_CHECKING:
    from cpfnet.inference.tiling import Backend
    from cpfnet.model import Model

BACKENDS = (
    "auto",
    "torch",
    "torch-bf16",
    "torch-fp16",
    "torch-compile",
    "onnx",
    "openvino",
    "openvino-bf16",
    "openvino-int8",
)
"""float32, where nothing else is named."""


MOST_OVERLAP = 0.95
"""Of tiles: there are 20 times as many along each axis as without."""


@dataclass(frozen=True)
class PredictorOptions:
    """How Models predict.

    Attributes:
        device: ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        backend: what runs the network: ``"auto"`` (the fastest that decides as float32 does, found on first use; on a
            CPU it is kept beside the Model), ``"torch"``, ``"torch-bf16"``, ``"torch-fp16"``, ``"torch-compile"``,
            ``"onnx"``, ``"openvino"``, ``"openvino-bf16"`` or ``"openvino-int8"``; or a function that makes a backend
            of a Model.
        tta: average over mirrored and turned copies, too (``inference.mirror`` and ``quarter_turns`` of the plan).
        overlap: of tiles, 0 … 0.95; default: the plan's.
        tile: largest piece given to the network at once, in pixels, one size an axis or one for all; default: the
            plan's.
        batch: tiles or slices given to the network at once; default: the plan's, of pieces larger than it was planned
            for fewer.
        force: go on where an image lies outside what the Model was fitted for.
        allow_import: modules that may be imported for a network or an encoder that a Model names as ``module:name``.
            Name those alone that you know: their code runs.

    Raises:
        CpfnetError: a value that cannot be, with what can.

    Example:
        >>> PredictorOptions(tta=True, overlap=0.5)
    """

    device: str = "auto"
    backend: str | Callable[[Model], Backend] = "auto"
    tta: bool = False
    overlap: float | None = None
    tile: int | Sequence[int] | None = None
    batch: int | None = None
    force: bool = False
    allow_import: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "allow_import", module_names(self.allow_import))
        if isinstance(self.backend, str) and self.backend not in BACKENDS:
            raise unknown_backend(self.backend)
        if self.overlap is not None and not (isinstance(self.overlap, Real) and 0 <= self.overlap <= MOST_OVERLAP):
            raise CpfnetError(f"the overlap {self.overlap!r} is not possible", fix=f"choose 0 … {MOST_OVERLAP}")
        if self.batch is not None and not (isinstance(self.batch, Integral) and int(self.batch) >= 1):
            raise CpfnetError(f"the batch {self.batch!r} is not possible", fix="choose a whole number from 1")
        if self.tile is not None:
            given: Any = self.tile
            sizes = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
            if not sizes or not all(isinstance(size, Integral) and int(size) >= 1 for size in sizes):
                raise CpfnetError(f"the tile {given!r} is not possible", fix="give whole numbers of pixels, from 1")
            whole = tuple(int(size) for size in sizes)
            object.__setattr__(self, "tile", whole if isinstance(given, Iterable) else whole[0])


@dataclass(frozen=True)
class OutputOptions:
    """What is written for each input.

    Attributes:
        format: of the label maps: ``"same"`` as the input (PNG for a JPEG, ``"dicom-seg"`` for DICOM), ``"nifti"``,
            ``"nrrd"``, ``"seg-nrrd"``, ``"mha"``, ``"png"``, ``"tiff"``, ``"dicom-seg"``, ``"dicom-labelmap"`` or
            ``"rtstruct"``.
        probabilities: write them to ``OUT/probabilities``, too.
        uncertainty: write maps of it to ``OUT/uncertainty``, too.
        overlays: write pictures with the outlines to ``OUT/overlays``, too.
        overwrite: replace existing results; inputs are never replaced.
        resume: go on with an interrupted run into the same folder: what was made from the same content with the same
            Models and options, and is still as it was made, is left alone; what differs or is damaged is made again,
            and logged; what somebody else made or changed is refused, unless ``overwrite``.

    Raises:
        OutputError: no such format.

    Example:
        >>> OutputOptions(format="nifti", overlays=True)
    """

    format: OutputFormat = "same"
    probabilities: bool = False
    uncertainty: bool = False
    overlays: bool = False
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.format not in get_args(OutputFormat):
            raise OutputError(f"unknown format {self.format!r}", fix=f"choose {', '.join(get_args(OutputFormat))}")


def unknown_backend(name: str) -> NetworkError:
    """The error for a name that no backend has."""
    return NetworkError(f"unknown backend {name!r}", fix=f"choose one of {', '.join(BACKENDS)}")


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def names_options(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Have the error for a keyword that belongs into an options object name it, as for ``predict(…, tta=True)``.

    Args:
        function: takes `PredictorOptions` as ``options``, and may take `OutputOptions` as ``output``.
    """
    own = signature(function).parameters
    homes = {
        field.name: (argument, kind.__name__)
        for argument, kind in (("output", OutputOptions), ("options", PredictorOptions))
        if argument in own
        for field in fields(kind)
    }

    @wraps(function)
    def call(*args: Arguments.args, **keywords: Arguments.kwargs) -> Result:
        for name, value in keywords.items():
            if name in homes and name not in own:
                argument, kind = homes[name]
                example = f"{argument}=cpfnet.{kind}({name}={value!r})"
                raise TypeError(f"{function.__name__}() takes {name!r} in its {argument}: {example}")
        return function(*args, **keywords)

    return call

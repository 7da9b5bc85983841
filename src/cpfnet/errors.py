"""The errors that cpfnet raises: each says what was found, where, and how to fix it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

from cpfnet.text import printable

_TRAINING = 'pip install "cpfnet[train]"'
_SERVING = 'pip install "cpfnet[serve]"'
_LIBRARIES = {
    "torch": ("PyTorch", _TRAINING),
    "monai": ("MONAI", _TRAINING),
    "lightning_fabric": ("Lightning Fabric", _TRAINING),
    "safetensors": ("safetensors", _TRAINING),
    "tensorboardX": ("tensorboardX", _TRAINING),
    "matplotlib": ("Matplotlib", _TRAINING),
    "jinja2": ("Jinja", _TRAINING),
    "onnx": ("ONNX", _TRAINING),
    "onnxscript": ("ONNX Script", _TRAINING),
    "openvino": ("OpenVINO", 'pip install "cpfnet[runtime]"'),
    "onnxruntime": ("ONNX Runtime", 'pip install "cpfnet[onnxruntime]"'),
    "nncf": ("NNCF", 'pip install "cpfnet[int8]"'),
    "ray": ("Ray", 'pip install "cpfnet[cluster]"'),
    "huggingface_hub": ("huggingface_hub", 'pip install "cpfnet[hub]"'),
    "httpx2": ("huggingface_hub", 'pip install "cpfnet[hub]"'),
    "fastapi": ("FastAPI", _SERVING),
    "prometheus_client": ("the Prometheus client", _SERVING),
    "python_multipart": ("python-multipart", _SERVING),
    "sqlalchemy": ("SQLAlchemy", _SERVING),
    "uvicorn": ("uvicorn", _SERVING),
    "psycopg": ("psycopg", 'pip install "cpfnet[postgresql]"'),
}
"""Modules that the extras of the package bring → what they are called, and how to get them."""


class CpfnetError(Exception):
    """Something is wrong with what the user gave; the command line prints it without a traceback.

    Args:
        what: what was found, with the values (both, where two things disagree).
        where: the file, case or field it was found in.
        fix: what to do about it, in words that can be followed literally.
    """

    def __init__(self, what: str, *, where: str | PathLike[str] | None = None, fix: str | None = None):
        self.what = what
        self.where = None if where is None else str(where)
        self.fix = fix
        super().__init__(what)  # only one positional argument: this is what survives pickling between processes

    def __str__(self) -> str:
        place = "this folder" if self.where == "." else printable(self.where or "")
        text = f"{place}: {self.what}" if place else self.what
        return f"{text}\n  → {self.fix}" if self.fix else text


class FormatError(CpfnetError):
    """A file cannot be read, or does not hold what its name promises."""


class DatasetError(CpfnetError):
    """A DATASET cannot be understood, or its parts do not fit together."""


class PlanError(CpfnetError):
    """A plan, dataset.yaml or setting has an unknown key or an impossible value."""


class NetworkError(CpfnetError):
    """A network was asked for, or fed, something that it cannot do."""


class CodeError(CpfnetError):
    """Code of the user's own that a plan names may not be imported, is not here, or fails."""


class WeightsError(CpfnetError):
    """A weight file is missing, damaged, or belongs to something else."""


class InputRefused(CpfnetError):
    """An input lies outside what the Model was fitted for; `force` predicts it anyway."""


class TrainingError(CpfnetError):
    """Training cannot start, go on or be resumed."""


class OutputError(CpfnetError):
    """Something cannot be written, or would overwrite what the user made."""


@contextmanager
def require_extras() -> Iterator[None]:
    """Say which library is not installed, and which extra of the package brings it; also a decorator.

    Raises:
        CpfnetError: in place of the import's own error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = _LIBRARIES.get((error.name or "").partition(".")[0])
        if library is None:
            raise
        name, fix = library
        raise CpfnetError(f"this takes {name}, which is not installed", fix=fix) from None


_MEMORY = re.compile(
    r"can't alloc|[Cc]annot allocate memory|not enough memory|std::bad_alloc|MemoryError|bad allocation"
    r"|[Ff]ailed to allocate|could not (create|execute) a primitive(?! desc)|could not create a memory"
    r"|(CUDA|HIP) (error: )?out of memory|_STATUS_ALLOC_FAILED|was unable to find an engine|failed to map segment"
    r"|can't start new thread"
)
"""Words of errors about memory: those of PyTorch's allocators on Linux and on Windows, of C++, of an error that came
from another process, of oneDNN, CUDA, cuBLAS and cuDNN, of ONNX Runtime and OpenVINO, and of the loader of
libraries."""


def is_out_of_memory(error: BaseException) -> bool:
    """Does an error say that the machine's memory, or the share that a process may take, is not enough?"""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    if isinstance(error, SystemError) and ("_find_and_load" in str(error) or "exception" in str(error)):
        return True  # Python loses the MemoryError where it runs out in the midst of an import, or of an error
    # The errors of ONNX Runtime have no class in common.
    possible = isinstance(error, (RuntimeError, ImportError)) or type(error).__module__.startswith("onnxruntime")
    return possible and _MEMORY.search(str(error)) is not None


def redacted_message(error: Exception) -> str:
    """The message of a library's error, on one line, without the values that it quotes: these may be a patient's."""
    words = " ".join(re.sub(r"'[^']*'|\"[^\"]*\"", "…", str(error)).split())[:300]
    return words if words.strip("… ") else type(error).__name__

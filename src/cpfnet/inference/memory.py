"""Going on with less at once where memory does not suffice."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from cpfnet.errors import NetworkError
from cpfnet.inference.tiling import Backend

if TYPE_CHECKING:
    import torch

_SAID = re.compile(
    r"can't allocate memory|not enough memory|std::bad_alloc|MemoryError|could not (create|execute) a primitive(?! desc)"
    r"|CUDA error: out of memory|_STATUS_ALLOC_FAILED|was unable to find an engine"
)
"""Words of PyTorch's allocators on Linux, on Windows, of C++, of an error that came from another process, of oneDNN, and of CUDA, cuBLAS and cuDNN."""


def exhausted(error: BaseException) -> bool:
    """Whether it says that memory, of the device or of the machine, does not suffice."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _SAID.search(str(error)) is not None


def cause(error: BaseException) -> str:
    """Its first line, without the place in PyTorch's source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[enforce fail[^]]*\]\s*(err == 0\.\s*)?", "", lines[0])


def release(place: torch.device) -> None:
    """Give back what a failed attempt held; call it outside the handler of its error, which holds on to everything."""
    import torch

    gc.collect()
    if place.type == "cuda":
        torch.cuda.empty_cache()
        return
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "malloc_trim"):  # what glibc keeps for blocks like those before is in the way of smaller ones
        library.malloc_trim(0)


def portioned(forward: Backend, place: torch.device, *, say: Callable[[str], None], mend: str) -> Backend:
    """``forward`` with smaller batches from then on where one does not fit.

    Args:
        forward: the network on ``place``.
        place: where its memory is.
        say: told when a batch is halved.
        mend: what to do where a single piece does not fit.

    Raises:
        NetworkError: when called: not even one piece fits.
    """
    fits: int | None = None  # the batch that memory was found to hold

    def backend(batch: np.ndarray) -> np.ndarray:
        nonlocal fits
        size = len(batch) if fits is None else min(fits, len(batch))
        done: list[np.ndarray] = []
        count = 0
        while count < len(batch):
            try:
                done.append(forward(batch[count : count + size]))
                count += size
                continue
            except (RuntimeError, MemoryError) as error:
                if not exhausted(error):
                    raise
            release(place)
            if size == 1:
                shape = "×".join(map(str, batch.shape[2:]))
                raise NetworkError(f"a single piece of {shape} does not fit into the memory of {place}", mend=mend)
            fits = size = size // 2
            say(f"{place} is out of memory: going on with batches of {size}")
        return done[0] if len(done) == 1 else np.concatenate(done)

    return backend

"""Going on with less at once where memory does not suffice."""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cpfnet.errors import NetworkError, is_out_of_memory

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

Array = TypeVar("Array", bound=Any)

SMALLER = "predict with a smaller --tile; or close other programs"
"""What to do where a single piece does not fit."""


def exhausted(error: BaseException) -> bool:
    """Whether it says that memory, of the device or of the machine, does not suffice."""
    torch = sys.modules.get("torch")  # what was not loaded has raised nothing
    return is_out_of_memory(error) or (torch is not None and isinstance(error, torch.OutOfMemoryError))


def cause(error: BaseException) -> str:
    """Its first line, without the place in PyTorch's source."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return re.sub(r"^\[enforce fail[^]]*\]\s*(err == 0\.\s*)?", "", lines[0])


def release(place: torch.device | None) -> None:
    """Give back what a failed attempt held; call it outside the handler of its error, which holds on to everything."""
    gc.collect()
    if place is not None and place.type == "cuda":
        sys.modules["torch"].cuda.empty_cache()
        return
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "malloc_trim"):  # what glibc keeps for blocks like those before is in the way of smaller ones
        library.malloc_trim(0)


def portioned(
    forward: Callable[[np.ndarray], Array],
    place: torch.device | None,
    *,
    fix: str,
    join: Callable[[list[Any]], Any] = np.concatenate,
) -> Callable[[np.ndarray], Array]:
    """``forward`` with smaller batches from then on where one does not fit.

    Args:
        forward: the network on ``place``.
        place: where its memory is; None: this machine's.
        fix: what to do where a single piece does not fit.
        join: of what ``forward`` gives, along the first axis.

    Raises:
        NetworkError: when called: not even one piece fits.
    """
    name = place or "cpu"
    fits: int | None = None  # the batch that memory was found to hold

    def backend(batch: np.ndarray) -> Array:
        nonlocal fits
        size = len(batch) if fits is None else min(fits, len(batch))
        done: list[Array] = []
        count = 0
        while count < len(batch):
            try:
                part = forward(batch[count : count + size])
                if len(part):
                    done.append(part)
                    count += size
                    continue
                # OpenVINO gives back nothing, without an error, where memory did not suffice.
            except Exception as error:
                if not exhausted(error):
                    raise
            release(place)
            if size == 1:
                shape = "×".join(map(str, batch.shape[2:]))
                raise NetworkError(f"a single piece of {shape} does not fit into the memory of {name}", fix=fix)
            fits = size = size // 2
            logger.warning("%s is out of memory: going on with batches of %d", name, size)
        return done[0] if len(done) == 1 else join(done)

    return backend

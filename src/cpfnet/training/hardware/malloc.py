"""Memory that a step gave back serves the next one, without a way through the kernel."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of mallopt(3): how much may lie unused at the heap's end, and how many blocks may lie outside the heap."""

_NEVER = 2**31 - 1
_GLIBCS = {_TRIM_THRESHOLD: 64 * 2**20, _MMAP_MAX: 65536}
"""What glibc itself comes to where large blocks come and go."""


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the C library keep what is freed, until the end, when it is given back.

    PyTorch has no cache for a CPU's memory: a step takes and frees its maps as blocks of many MiB, which glibc asks the
    kernel for and gives back each time, and the kernel clears every page at its first touch. Other C libraries are left
    as they are. A thread whose allocation failed gets its later blocks outside the heap, as it did without this: after
    such a step training is no faster for it.
    """
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_TRIM_THRESHOLD, _NEVER)
    library.mallopt(_MMAP_MAX, 0)
    try:
        yield
    finally:
        for parameter, value in _GLIBCS.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)

"""How much of the processor this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Number of cores that the process may run on.

    A scheduler or a container's cpuset may have given it fewer than the machine has; a quota of time does not count.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cores_in_words() -> str:
    """The same as text, such as ``2 cores``."""
    count = cores()
    return f"{count} core{'s' * (count > 1)}"

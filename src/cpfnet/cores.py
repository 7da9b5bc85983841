"""How much of the processor this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that the process may run on: a scheduler or a container's cpuset (not its quota of time) may have given it fewer than the machine has."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def counted() -> str:
    """The same in words."""
    count = cores()
    return f"{count} core{'s' * (count > 1)}"

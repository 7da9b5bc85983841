"""A Plan while it grows, with its reasons; and the memory that it may count on."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import psutil

from cpfnet.planner.costs import GIB
from cpfnet.planner.fingerprint import Fingerprint
from cpfnet.planning import Modality


@dataclass(frozen=True)
class Memory:
    """Where training will run, as far as one can see now.

    Attributes:
        bytes: free memory for it.
        device: ``"cuda"`` or ``"cpu"``.
    """

    bytes: int
    device: str

    @classmethod
    def found(cls) -> Memory:
        """The largest CUDA device, asked of the driver without loading torch; else main memory."""
        gpu = _cuda_bytes()
        return cls(gpu, "cuda") if gpu else cls(int(psutil.virtual_memory().available), "cpu")

    def __str__(self) -> str:
        return (
            f"{self.bytes / GIB:.0f} GiB free on {'the GPU' if self.device == 'cuda' else 'this machine, no GPU found'}"
        )


def _cuda_bytes() -> int:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1")
    if hidden or _built_for_cpu() or not shutil.which("nvidia-smi"):
        return 0
    command = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        return max(int(line) for line in answer.split()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0


def _built_for_cpu() -> bool:
    """Is torch here, without CUDA? Where it is not installed at all, another installation will train on this machine."""
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


@dataclass
class Draft:
    """The Plan as plain data while it grows, and why.

    Attributes:
        fingerprint, memory, network, modality: what it is made for.
        brisk: many small optimiser steps rather than few large ones.
        data: the Plan so far.
        reasons: for its keys (dotted), why they have their values.
    """

    fingerprint: Fingerprint
    memory: Memory
    modality: Modality
    many_small_steps: bool = False
    network: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def because(self, key: str, reason: str) -> None:
        self.reasons[key] = reason

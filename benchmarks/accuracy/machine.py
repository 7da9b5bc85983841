"""Where and with what a run was made."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

from cpfnet.inference.backends.autotune import processor


def hardware(device: str) -> str:
    """The device that computes, in words: a GPU's name, or the CPU's with the threads that it computes with."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{processor()}, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Python, the libraries that matter, and the commit of this checkout (``-dirty``: with changes)."""
    found = {name: metadata.version(name) for name in ("cpfnet", "torch", "monai", "numpy")}
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    commit = described.stdout.strip() if described.returncode == 0 else "unknown"
    return {"python": platform.python_version(), **found, "commit": commit}

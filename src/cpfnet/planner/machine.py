"""The machine that will train: which device, and how much memory it has; asked without PyTorch, which takes seconds
to load."""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from cpfnet.errors import PlanError
from cpfnet.planner.costs import GIB

logger = logging.getLogger(__name__)

Build = Literal["cuda", "rocm", "cpu"]

WHEELS = "https://download.pytorch.org/whl/"
"""Where builds of PyTorch lie."""

OLD, NEW = "cu126", "cu130"
"""Builds for CUDA 12.6 have kernels from Maxwell to Hopper; those after it know Blackwell, and Maxwell, Pascal and
Volta no more."""

BLACKWELL = 10.0
"""Compute capability."""

_UNITS = {"": GIB, "g": GIB, "gib": GIB, "gb": 10**9, "m": 2**20, "mib": 2**20, "mb": 10**6, "t": 2**40, "tib": 2**40}


@dataclass(frozen=True)
class Memory:
    """What training will run on, as far as one can see or is told.

    Attributes:
        bytes: free memory for it.
        device: ``"cuda"`` (AMD's GPUs, too, as PyTorch calls them) or ``"cpu"``.
        name: of the GPU, where it is known.
        origin: ``"found"`` here, or ``"given"``: another machine is planned for.
    """

    bytes: int
    device: str
    name: str = ""
    origin: Literal["found", "given"] = "found"

    @classmethod
    def found(cls, device: str = "auto") -> Memory:
        """Look at this machine: the one device that `train` would take, asked of the driver.

        What keeps PyTorch from using a GPU that is here is told as a warning, with the command that helps.

        Args:
            device: as for `train`: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``, counted as CUDA_VISIBLE_DEVICES
                has them.

        Raises:
            PlanError: no such device here.
        """
        number = _number(device)
        if number is None:
            return cls(_main_memory(), "cpu")
        folder = torch_folder()
        build = build_of(folder) if folder else None
        gpus = _visible_gpus(build)
        if number < len(gpus):
            gpu = gpus[number]
            if build is not None and build != gpu.build:
                logger.warning("%s", _wrong_build(gpu, build))
            if build in (None, gpu.build) or device != "auto":
                free = _main_memory() if gpu.free is None else gpu.free
                return cls(free, "cuda", gpu.name)
        elif device != "auto":
            raise PlanError(
                f"no device {device!r} here: {len(gpus)} GPU{'s' * (len(gpus) != 1)} found",
                where="--device",
                fix="for a GPU that is elsewhere, plan with its memory (cpfnet plan --memory 24GiB); here use "
                "--device cpu",
            )
        return cls(_main_memory(), "cpu")

    @classmethod
    def given(cls, amount: str, device: str = "auto") -> Memory:
        """Another machine.

        Args:
            amount: memory of its GPU, or main memory with ``device="cpu"``: ``"24GiB"``, ``"24"``, ``"512MiB"``,
                ``"16 GB"``.
            device: ``"auto"`` and ``"cuda"`` stand for a GPU.

        Raises:
            PlanError: no amount of memory, or no device.
        """
        return cls(bytes_of(amount), "cpu" if _number(device) is None else "cuda", origin="given")

    def __str__(self) -> str:
        return f"{self.bytes / GIB:.0f} GiB free on {self.place}"

    @property
    def place(self) -> str:
        """The device, in words."""
        if self.origin == "given":
            gpu = self.device == "cuda"
            return "the GPU that is planned for" if gpu else "the machine that is planned for, by its CPU"
        return (self.name or "the GPU") if self.device == "cuda" else "this machine, no GPU found"


def bytes_of(amount: str) -> int:
    """``"24GiB"`` → bytes.

    Raises:
        PlanError: it is no amount of memory.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", amount.lower())
    size = float(found[1]) * _UNITS.get(found[2], 0) if found else 0.0
    if not 0 < size < math.inf:
        raise PlanError(f"{amount!r} is no amount of memory", where="--memory", fix="write it as 24GiB, or 24")
    return int(size)


def _number(device: str) -> int | None:
    """Which GPU; None: the CPU."""
    found = re.fullmatch(r"cpu|auto|cuda(?::(\d{1,3}))?", device)
    if found is None:
        raise PlanError(f"unknown device {device!r}", where="--device", fix="use auto, cpu, cuda or cuda:0")
    return None if device == "cpu" else int(found[1] or 0)


def _main_memory() -> int:
    return int(psutil.virtual_memory().available)


@dataclass(frozen=True)
class Gpu:
    """One that the driver knows.

    Attributes:
        name, uuid: the driver's.
        free: bytes; None: it has the machine's main memory.
        build: of PyTorch that it needs.
        capability: CUDA's; 0 where unknown.
        total: bytes; 0 where unknown.
    """

    name: str
    uuid: str
    free: int | None
    build: Build
    capability: float = 0.0
    total: int = 0


def _visible_gpus(build: Build | None) -> list[Gpu]:
    """In PyTorch's order; those that the environment hides are left out. What PyTorch was built for is asked first."""
    makers: list[tuple[Callable[[], list[Gpu]], tuple[str, ...]]] = [
        (_nvidia, ("CUDA_VISIBLE_DEVICES",)),
        (_amd, ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")),
    ]
    for find, variables in reversed(makers) if build == "rocm" else makers:
        gpus = find()
        for variable in variables:
            if variable in os.environ:
                gpus = _chosen(gpus, os.environ[variable])
        if gpus:
            return gpus
    return []


def _chosen(gpus: list[Gpu], wanted: str) -> list[Gpu]:
    """As CUDA reads it: numbers or beginnings of UUIDs, up to the first that is none."""
    chosen = []
    for entry in wanted.split(","):
        entry = entry.strip()
        if entry.isdigit():
            if int(entry) >= len(gpus):
                break
            chosen.append(gpus[int(entry)])
        else:
            named = [gpu for gpu in gpus if entry and gpu.uuid.startswith(entry)] or _mig(entry)
            if not named:
                break
            chosen.append(named[0])
    return chosen


def _nvidia() -> list[Gpu]:
    fields = "name,uuid,memory.free,memory.total,compute_cap"
    rows = [row.rsplit(", ", 4) for row in _ask("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits")]
    gpus = []
    for name, uuid, free, total, capability in (row for row in rows if len(row) == 5):
        own = _mib(free) or _mib(total)
        parts = _mig("") if own is None else []  # of a divided GPU a process gets one part
        if parts:
            gpus.append(parts[0])
        else:
            gpus.append(
                Gpu(name, uuid, own, "cuda", float(capability) if _is_float(capability) else 0.0, _mib(total) or 0)
            )
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":  # CUDA counts from the fastest one
        gpus.sort(key=lambda gpu: (-gpu.capability, -gpu.total))
    return gpus


def _mib(value: str) -> int | None:
    """None where the driver says ``[N/A]`` or that it must not tell."""
    return int(float(value)) * 2**20 if _is_float(value) else None


def _is_float(value: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", value.strip()) is not None


def _mig(uuid: str) -> list[Gpu]:
    """Parts of divided GPUs whose UUID begins so; a part's name says its memory: ``MIG 1g.10gb``."""
    parts = []
    for row in _ask("nvidia-smi", "-L"):
        found = re.search(r"(MIG \S*?\.(\d+)gb\S*).*UUID: (MIG-[^)]+)", row)
        if found and found[3].startswith(uuid):
            parts.append(Gpu(found[1], found[3], int(found[2]) * 10**9, "cuda"))
    return parts


def _amd() -> list[Gpu]:
    answer = _ask("rocm-smi", "--showmeminfo", "vram", "--showproductname", "--json")
    try:
        cards = json.loads("\n".join(answer)) if answer else {}
    except json.JSONDecodeError:
        return []
    gpus = []
    for card in cards.values() if isinstance(cards, dict) else ():
        if isinstance(card, dict):
            total, used = (str(card.get(f"VRAM Total {what}Memory (B)", "")) for what in ("", "Used "))
            free = int(total) - int(used) if total.isdigit() and used.isdigit() else None
            name = str(card.get("Card Series") or card.get("Card series") or card.get("Card model") or "AMD GPU")
            gpus.append(
                Gpu(name, str(card.get("Unique ID", "")), free, "rocm", total=int(total) if total.isdigit() else 0)
            )
    return gpus


def _ask(*command: str) -> list[str]:
    """Lines of the answer; none where the tool is missing or fails."""
    tool = shutil.which(command[0])
    if tool is None:
        return []
    try:
        answer = subprocess.run([tool, *command[1:]], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]


def torch_folder() -> Path | None:
    """Where PyTorch is installed, without loading it."""
    try:
        spec = importlib.util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def build_of(folder: Path) -> Build | None:
    """What a PyTorch was built for, as its ``version.py`` says; None where that cannot be told."""
    try:
        text = (folder / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    for build, key in (("cuda", "cuda"), ("rocm", "hip")):
        if re.search(rf"^{key}\b[^=\n]*=\s*['\"]", text, re.MULTILINE):
            return build  # type: ignore[return-value]
    return "cpu" if re.search(r"^cuda\b[^=\n]*=\s*None", text, re.MULTILINE) else None


def _wrong_build(gpu: Gpu, build: Build) -> str:
    here = f"{gpu.name} is here" + (f" ({gpu.free / GIB:.0f} GiB free)" if gpu.free is not None else "")
    built = {"cpu": "a CPU alone", "cuda": "NVIDIA's GPUs", "rocm": "AMD's GPUs"}[build]
    return f"{here}, but PyTorch was built for {built} and will not use it. Fix: {install_command(gpu)}"


def install_command(gpu: Gpu) -> str:
    """What installs the PyTorch that a GPU needs."""
    if gpu.build == "rocm":
        return "install the build for ROCm: https://pytorch.org/get-started/locally"
    wheel = NEW if gpu.capability >= BLACKWELL else OLD
    return f"{_quoted([sys.executable])} -m pip install --force-reinstall torch --index-url {WHEELS}{wheel}"


def _quoted(words: Sequence[str]) -> str:
    return " ".join(f'"{word}"' if " " in word else word for word in words)

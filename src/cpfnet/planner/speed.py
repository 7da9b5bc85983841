"""How long training takes, reckoned before it begins; the run itself measures and corrects it.

Good to a factor of two: what a network computes is counted (`costs`), what a device computes in a second is its
maker's figure times what such networks reach of it.
"""

from __future__ import annotations

import re

from cpfnet.cores import cores
from cpfnet.planner.costs import GIB
from cpfnet.planner.machine import Memory

EFFICIENCY = 0.12
"""Share of a GPU's peak that U-Nets of 32 channels reach: an A100 takes about 0.16 s for nnU-Net's step of 2 × 128³, so
that 37 of its 312 TFLOPS are of use."""

PEAKS = {
    r"\bB[23]00\b": 2250,
    r"\bH[12]00\b|\bGH200\b|\bH800\b": 990,
    r"\bMI3\d\d": 1300,
    r"\bMI2\d\d": 380,
    r"\bA100\b|\bA800\b": 312,
    r"\bA30\b": 165,
    r"\bL40": 360,
    r"\bRTX (PRO )?6000\b.*(Blackwell)": 500,
    r"\bRTX 6000 Ada": 360,
    r"\bRTX A6000\b|\bA40\b": 155,
    r"\bA10\b|\bA5[05]00\b": 125,
    r"\bL4\b": 121,
    r"\bV100\b": 125,
    r"\bT4\b": 65,
    r"\bRTX 5090\b": 419,
    r"\bRTX 5080\b": 225,
    r"\bRTX 5070\b": 140,
    r"\bRTX 4090\b": 330,
    r"\bRTX 4080\b": 195,
    r"\bRTX 4070\b": 120,
    r"\bRTX 4060\b": 60,
    r"\bRTX 3090\b": 142,
    r"\bRTX 3080\b": 119,
    r"\bRTX 3070\b": 81,
    r"\bRTX 3060\b": 51,
    r"\bRTX 20[78]0\b|\bTITAN RTX\b": 100,
    r"\bGB10\b": 125,
}
"""TFLOPS in half precision, dense, of cards by what the driver calls them (their data sheets, rounded)."""

BY_MEMORY = ((10, 45), (20, 70), (32, 140), (60, 155))
"""Where the name is not known: TFLOPS of usual cards below so many GiB; above, `LARGE`."""

LARGE = 312

STEP_SECONDS, PIECE_SECONDS, PIXEL_SECONDS = 0.03, 0.002, 1e-8
"""Beside computing, on a GPU: of a step (launches, samples, optimiser), and of a tile that is predicted and each of its
pixels (copies, and blending on the CPU: 20 ms for 128³)."""

CORE_FLOPS, MOST_CORES = 60e9, 16
"""What a core of a CPU reaches in a second, and how many are of use."""

BACKWARD = 3
"""A step takes about three times the operations of a pass forward."""


def flops_per_second(memory: Memory) -> float:
    """What the device reaches with such networks."""
    if memory.device == "cpu":
        return CORE_FLOPS * min(cores(), MOST_CORES)
    peak = next((peak for name, peak in PEAKS.items() if re.search(name, memory.name)), None)
    if peak is None:
        peak = next((peak for gib, peak in BY_MEMORY if memory.bytes < gib * GIB), LARGE)
    return EFFICIENCY * peak * 1e12


def step_seconds(memory: Memory, flops: float) -> float:
    """Of one optimiser step; ``flops``: of a pass forward of all its patches."""
    return BACKWARD * flops / flops_per_second(memory) + (STEP_SECONDS if memory.device == "cuda" else 0.0)


def piece_seconds(memory: Memory, flops: float, pixels: int) -> float:
    """Of predicting one tile, slice or image; ``flops``: of a pass forward of it."""
    beside = PIECE_SECONDS + PIXEL_SECONDS * pixels if memory.device == "cuda" else 0.0
    return flops / flops_per_second(memory) + beside


def duration(seconds: float) -> str:
    """``"20 minutes"``, ``"3.5 hours"``, ``"2 days"``."""
    for unit, length in (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0)):
        if seconds >= 1.5 * length:
            count = round(seconds / length, 1) if seconds < 9.5 * length and length > 60 else round(seconds / length)
            return f"{count:g} {unit}s"
    return "a minute"

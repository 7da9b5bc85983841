"""A Plan while it grows, with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cpfnet.planner.costs import patch_bytes
from cpfnet.planner.fingerprint import Fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planning import Modality


@dataclass
class Draft:
    """The Plan as plain data while it grows, and why.

    Attributes:
        fingerprint, memory, network, modality: what it is made for.
        many_small_steps: many small optimiser steps rather than few large ones.
        median: size of the median image on the network's grid.
        data: the Plan so far.
        reasons: for its keys (dotted), why they have their values.
    """

    fingerprint: Fingerprint
    memory: Memory
    modality: Modality
    many_small_steps: bool = False
    network: str = ""
    median: tuple[int, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def because(self, key: str, reason: str) -> None:
        self.reasons[key] = reason

    def patch_bytes(self, patch: Sequence[int], spacing: Sequence[float | None] | None = None) -> float:
        """Memory that learning from one patch takes; ``spacing`` matters in 3-D."""
        labels = self.data["labels"]
        return patch_bytes(
            self.network,
            patch,
            len(labels["classes"]) + bool(labels["exclusive"]),
            half=self.memory.device == "cuda",
            spacing=spacing,
            options=self.data.get("network", {}).get("options"),
        )

"""A Plan while it grows, with its reasons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cpfnet.planner.fingerprint import Fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planning import Modality


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

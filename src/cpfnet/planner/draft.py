"""A Plan while it grows, with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cpfnet.planner.costs import patch_bytes
from cpfnet.planner.fingerprint import ClassFingerprint, Fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planning import Modality

FINE_NETWORK = "cpfnet-hr"
"""What is proposed where structures are fine, or images are shrunk to be learned from on a CPU: their boundaries
must come back."""

FINE = 4.0
"""Classes of a smaller median radius, pixels, are fine: half of their width is lost at half resolution. Tubular ones
are thin, too."""

COLOUR = 0.02
"""Mean saturation from which a photograph is in colour."""


@dataclass
class Draft:
    """The Plan as plain data while it grows, and why.

    Attributes:
        fingerprint, memory, network, modality: what it is made for.
        many_small_steps: many small optimiser steps rather than few large ones.
        entire: volumes enter the network whole on a CPU.
        median: size of the median image on the network's grid.
        data: the Plan so far.
        reasons: for its keys (dotted), why they have their values.
    """

    fingerprint: Fingerprint
    memory: Memory
    modality: Modality
    many_small_steps: bool = False
    entire: bool = False
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

    @property
    def fine(self) -> list[ClassFingerprint]:
        """Classes of few pixels across."""
        return [c for c in self.fingerprint.classes if 0 < c.radius < FINE]

    @property
    def thin(self) -> list[ClassFingerprint]:
        """Those that are long as well, such as vessels."""
        return [c for c in self.fine if c.tubular]

    @property
    def in_colour(self) -> bool:
        """Are the images photographs in colour?"""
        data = self.fingerprint
        return not data.volumes and len(data.channels) == 3 and data.look.colour > COLOUR

    @property
    def shrunk(self) -> bool:
        """Are images made smaller for the sake of learning on a CPU?"""
        return self.memory.device == "cpu" and self.data["spatial"].get("size") is not None

    @property
    def training_cases(self) -> int:
        """How many cases train: all but those that validate, by the data set's own split, else one fold's share."""
        data = self.fingerprint
        if data.validation:
            return max(1, data.cases - data.validation)
        if data.patients < 2:  # then it is validated on what trained
            return data.cases
        return max(1, round(data.cases * (1 - 1 / self.fold_count)))

    @property
    def validation_cases(self) -> int:
        """How many cases validate."""
        return self.fingerprint.validation or max(1, self.fingerprint.cases - self.training_cases)

    @property
    def fold_count(self) -> int:
        """Parts of a cross-validation."""
        return max(2, min(5, self.fingerprint.patients))

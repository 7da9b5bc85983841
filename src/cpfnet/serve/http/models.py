"""The Models of a server, as its API calls and describes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cpfnet.model import Model


@dataclass(frozen=True)
class Served:
    """A Model, what the API calls it, and its digest."""

    id: str
    model: Model
    digest: str

    def as_json(self) -> dict[str, Any]:
        plan, fitted = self.model.plan, self.model.fitted
        return {
            "id": self.id,
            "name": plan.name,
            "digest": self.digest,
            "modality": plan.modality,
            "source": plan.source,
            "channels": [channel.name for channel in plan.channels],
            "labels": [{"name": one.name, "value": one.written, "colour": one.colour} for one in plan.labels.classes],
            "accepts": {
                "values": {channel.name: [channel.low, channel.high] for channel in fitted.channels},
                "spacing_mm": None if fitted.spacing_low is None else [fitted.spacing_low, fitted.spacing_high],
            },
            "validation_dice": fitted.validation_dice,
            "card": self.model.card(),
        }


def served(models: Sequence[Model]) -> list[Served]:
    """The Models by their plans' names; of the same name, with the beginning of their digest. Each one once."""
    each = {model.digest: model for model in models}
    names = {digest: re.sub(r"[^\w.-]+", "-", model.plan.name).strip("-.") or "model" for digest, model in each.items()}
    often = Counter(names.values())
    return [
        Served(f"{name}-{digest[:8]}" if often[name] > 1 else name, each[digest], digest)
        for digest, name in names.items()
    ]

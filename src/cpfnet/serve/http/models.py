"""The Models of a server, as its API calls and describes them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpfnet.inference.model_arguments import ModelArgument, folder_of_models, open_models
from cpfnet.model import Model
from cpfnet.serve.worker import digest_of


@dataclass(frozen=True)
class Served:
    """What is served as one: a Model, or the Models of an ensemble.

    Attributes:
        id: what the API calls it.
        folder: from which all of it is opened again.
        models: that average their probabilities.
        digest: of them together.
    """

    id: str
    folder: Path
    models: tuple[Model, ...]
    digest: str

    @property
    def model(self) -> Model:
        """The first, whose plan is that of all."""
        return self.models[0]

    def as_json(self) -> dict[str, Any]:
        plan, fitted, count = self.model.plan, self.model.fitted, len(self.models)
        one_of = "" if count == 1 else f"The average of {count} Models. The first of them:\n\n"
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
            "models": count,
            "validation_dice": fitted.validation_dice if count == 1 else None,
            "card": one_of + self.model.card(),
        }


def served(arguments: Sequence[ModelArgument]) -> list[Served]:
    """What is served of what a user names, each one once (`named`).

    Raises:
        CpfnetError: one is no Model, a damaged one, or lies nowhere.
    """
    return named([(folder_of_models(argument), open_models(argument)) for argument in arguments])


def named(opened: Sequence[tuple[Path, Sequence[Model]]]) -> list[Served]:
    """Folders and what they hold by the plans' names; of the same name, with the beginning of their digest."""
    each = {digest_of(models): (folder, tuple(models)) for folder, models in opened}
    names = {
        digest: re.sub(r"[^\w.-]+", "-", models[0].plan.name).strip("-.") or "model"
        for digest, (_, models) in each.items()
    }
    often = Counter(names.values())
    return [
        Served(f"{name}-{digest[:8]}" if often[name] > 1 else name, *each[digest], digest)
        for digest, name in names.items()
    ]

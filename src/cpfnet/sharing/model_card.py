"""What a hub shows of a Model: ``README.md``, from the Model's own card, and ``config.json``."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.model import CARD, Model
from cpfnet.text import markdown, printable, to_json

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


def validation_scores(model: Model) -> tuple[dict[str, Any], str]:
    """The Model's validation scores, and how they came about.

    Returns:
        ``mean_dice`` and, where classes have their own, ``dice_per_class`` in their order; empty where nothing was
        measured. And the protocol in words.
    """
    dice = model.fitted.validation_dice
    if dice is None:
        return {}, "not measured"
    validation, cases = model.metrics.get("validation", {}), model.metrics.get("cases", {})
    count = len(validation.get("cases", ())) or (cases.get("withheld") or {}).get("validation", 0)
    scores: dict[str, Any] = {"mean_dice": dice}
    by_class = [validation.get("classes", {}).get(c.name) for c in model.plan.labels.classes]
    if any(value is not None for value in by_class):
        scores["dice_per_class"] = by_class
    seen = set(cases.get("train", ())) & set(cases.get("validation", ()))
    return scores, (
        f"Dice, mean over classes of the means over {f'{count} ' if count else ''}validation cases, on the network's "
        "grid, at threshold 0.5, before temperature, threshold and smallest component were fitted on the same cases. "
        + (f"{len(seen)} of them were trained on, too. " if seen else "")
        + "It chose the epoch, so it is optimistic; cases that training never saw tell more."
    )


def check_licence(licence: str | None) -> None:
    """Refuse what no hub takes as the name of a licence.

    Raises:
        CpfnetError: so it is.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise CpfnetError(
            f"{licence!r} is no licence's short name",
            where="--license",
            fix="write it as apache-2.0, cc-by-4.0, other …",
        )


def readme(folder: Path, models: list[Model], repository: str, licence: str | None) -> str:
    """``README.md``: YAML for the hub, the Model's card for people, and how to use it.

    Args:
        folder: of the Model.
        models: it, or those of its folds.
        repository: ``OWNER/NAME``.
        licence: its short name; None: none is stated.
    """
    model = models[0]
    path = folder / CARD
    card = path.read_text(encoding="utf-8") if path.is_file() else model.card()
    scores, protocol = validation_scores(model)
    if len(models) > 1:
        card = (
            f"An ensemble of {len(models)} Models, of the folds of a cross-validation. The card of the first:\n\n{card}"
        )
    measured = f"\n## How the scores were measured\n\n{protocol}\n" if scores and len(models) == 1 else ""
    began = (
        " Training began from ImageNet weights, which have terms of their own."
        if model.plan.network.weights == "imagenet"
        else ""
    )
    terms = f"{licence}." if licence else "None is stated: ask the owner before you use or pass on the weights."
    return f"""---
{_front_matter(models, licence)}---

{card.rstrip()}
{measured}
## Use

```bash
pip install "cpfnet[train,hub]"
cpfnet predict hf://{repository} scan.nii.gz -o masks
cpfnet pull {repository}
```

Loading it runs no code. It holds neither images nor the names of cases.

## Licence of the weights

{terms}{began}
"""


def _front_matter(models: list[Model], licence: str | None) -> str:
    plan = models[0].plan
    tags = ["cpfnet", "medical-imaging", "image-segmentation", plan.network.name, plan.spatial.mode]
    data: dict[str, Any] = {} if licence is None else {"license": licence}
    data |= {
        "library_name": "cpfnet",
        "pipeline_tag": "image-segmentation",
        "tags": [printable(tag) for tag in (*tags, *([] if plan.modality == "other" else [plan.modality]))],
    }
    if len(models) == 1 and (metrics := _metrics(models[0])):
        name = printable(plan.name)
        dataset = {"name": name, "type": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "dataset"}
        task = {"type": "image-segmentation", "name": "Image segmentation"}
        data["metrics"] = ["dice"]
        data["model-index"] = [
            {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]},
        ]
    stream = StringIO()
    yaml = YAML(typ="rt")
    yaml.width = 2**20  # sentences stay on one line
    yaml.dump(data, stream)
    return stream.getvalue()


def _metrics(model: Model) -> list[dict[str, Any]]:
    """The scores as the hub's model index has them: each with its protocol."""
    scores, protocol = validation_scores(model)
    if not scores:
        return []
    found = [{"type": "dice", "name": f"Validation: {protocol}", "value": scores["mean_dice"], "verified": False}]
    for label, value in zip(model.plan.labels.classes, scores.get("dice_per_class", ()), strict=False):
        if value is not None:
            about = f"{printable(label.name)}, validation: mean over its cases, otherwise as above"
            found.append({"type": "dice", "name": about, "value": value, "verified": False})
    return found


def config(models: list[Model]) -> str:
    """``config.json``: which Model this is; the hub counts who fetches this file."""
    plan = models[0].plan
    return (
        to_json(
            {
                "library_name": "cpfnet",
                "cpfnet_version": cpfnet.__version__,
                "network": plan.network.name,
                "spatial_dims": plan.spatial.dims,
                "channels": [c.name for c in plan.channels],
                "classes": [c.name for c in plan.labels.classes],
                "models": [{"plan_hash": m.plan.hash, "weights_sha256": m.fitted.weights_hash} for m in models],
            }
        )
        + "\n"
    )


def title(model: Model) -> str:
    """The Model in a few words, for the hub's list of commits."""
    return markdown(model.plan.in_short)

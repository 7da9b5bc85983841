"""The Model: a folder that holds the plan as approved, the weights, and what training found.

    plan.yaml            as approved before training
    weights.safetensors  no code runs when it loads
    fitted.yaml          what training found: the data it was fitted for, temperature, threshold …
    metrics.json         validation scores
    card.md              the same for people

A Model is self-contained: it moves between machines without its training data.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from cpfnet.errors import CpfnetError, WeightsError, telling_what_lacks
from cpfnet.files import replacing, sha256
from cpfnet.planning import Count, Fraction, NotNegative, Plan, Positive, Strict, content_hash, one_or_several
from cpfnet.settings import load_yaml, plain, read_yaml, write_yaml

if TYPE_CHECKING:
    import torch


Range = tuple[float, float]
"""Lowest and highest."""


class FittedChannel(Strict):
    """What one channel of the training images held, in file units (HU for CT)."""

    name: str
    low: float = Field(description="lowest 0.5 % quantile of a training image")
    high: float = Field(description="highest 99.5 % quantile of a training image")
    levels: tuple[Range, Range, Range] | None = Field(
        None,
        description="lowest and highest 0.5 % quantile, median and 99.5 % quantile of a training image's body; null: not known",
    )


class Quality(Strict):
    """What the validation cases told of how good predictions are (`inference.quality`)."""

    cases: Count = Field(description="validation cases behind this")
    lowest: Fraction = Field(
        description="mean probability inside the structures found, below which a case is one to look at first"
    )
    found: tuple[str, ...] = Field(description="classes that were found in every validation case")
    factor: Positive | None = Field(
        None,
        description="estimated Dice is 1 - factor × (1 - that probability); null: too few cases, or no better than their mean",
    )
    error: Fraction | None = Field(None, description="mean absolute error of the estimate, each case left out in turn")


class Fitted(Strict):
    """What training found; `predict` refuses inputs outside it."""

    plan_hash: str = Field(description="of the plan.yaml beside this file")
    cases: Count = Field(description="training cases")
    epochs: int = Field(ge=0, description="epochs behind these weights")
    channels: tuple[FittedChannel, ...]
    spacing_low: tuple[float, float, float] | None = Field(None, description="mm (depth, height, width)")
    spacing_high: tuple[float, float, float] | None = Field(None, description="mm (depth, height, width)")
    validation_dice: float | None = Field(None, description="mean over validation cases and classes, at threshold 0.5")
    temperature: Positive = Field(1.0, description="probabilities are those of the logits divided by this")
    threshold: tuple[Fraction, ...] = Field(
        (0.5,),
        min_length=1,
        description="probability above which the only class, or each region, is there; one for all, or one a region",
    )
    min_component_size: tuple[NotNegative, ...] = Field(
        (0.0,),
        min_length=1,
        description="connected components below this are dropped: mm³, or pixels of the network's grid where the training images had "
        "no mm; one for all classes, or one a class; 0 keeps all; not used where the plan says another",
    )
    quality: Quality | None = Field(None, description="what foretells how good a prediction is; null: not known")

    _one = field_validator("threshold", "min_component_size", mode="before")(one_or_several)


MM3, GRID_PIXELS = "mm³", "pixels of the network's grid"
"""Units of `Model.min_component_size`."""

PARTS = ("plan.yaml", "fitted.yaml", "weights.safetensors")


def untrained(plan: Plan) -> torch.nn.Module:
    """The network of a plan, with random weights.

    Raises:
        NetworkError: no such network or option.
    """
    from cpfnet.network import zoo

    spatial = plan.spatial
    hints: dict[str, Any] = {"patch": spatial.patch}
    if spatial.spacing is not None:
        hints["spacing"] = spatial.spacing[-spatial.dims :]
    network, outputs = plan.network, plan.labels.outputs
    return zoo.build(network.name, plan.in_channels, outputs, spatial_dims=spatial.dims, hints=hints, **network.options)


def is_model(folder: Path) -> bool:
    """Does this look like a Model folder, whole or not? `Model.load` says what is missing."""
    return any((folder / name).is_file() for name in PARTS[1:])


@dataclass
class Model:
    """Plan, weights and what was fitted.

    Attributes:
        plan: as approved.
        fitted: what training found.
        state: the network's state dict; None until `network` reads it from ``folder``.
        metrics: validation scores, any JSON.
        folder: where it was loaded from or saved to.
    """

    plan: Plan
    fitted: Fitted
    state: dict[str, torch.Tensor] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def load(cls, folder: Path | str) -> Model:
        """Read a Model folder; the weights are read when `network` is called.

        Raises:
            CpfnetError: not a Model folder, or its plan was edited after training.
        """
        folder = Path(folder)
        missing = [name for name in PARTS if not (folder / name).is_file()]
        if missing:
            raise CpfnetError(
                f"is not a Model folder: {', '.join(missing)} missing" if folder.is_dir() else "no such folder",
                where=folder,
                mend="give the folder that `cpfnet train … -o MODEL` wrote",
            )
        where = folder / "plan.yaml"
        plan, fitted = Plan.load(where), read_yaml(Fitted, folder / "fitted.yaml")
        # Of what the file says, not of the Plan: a later version may know more keys, with defaults.
        if content_hash(plain(load_yaml(where), where)) != fitted.plan_hash:
            raise CpfnetError(
                "the plan was changed after training, so it no longer describes these weights",
                where=where,
                mend="restore the file; to change settings, train again with --plan or --set",
            )
        for name in ("threshold", "min_component_size"):
            given, classes = len(getattr(fitted, name)), len(plan.labels.classes)
            if given not in (1, classes):
                raise CpfnetError(
                    f"{given} values for {name}, and the plan has {classes} class{'es' * (classes != 1)}: one for all, or one each",
                    where=folder / "fitted.yaml",
                    mend="restore the file",
                )
        metrics = folder / "metrics.json"
        try:
            scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
        except (ValueError, RecursionError) as error:
            raise CpfnetError(
                f"is not valid JSON: {error}", where=metrics, mend="restore the file, or delete it"
            ) from None
        return cls(plan, fitted, metrics=scores, folder=folder)

    @telling_what_lacks()
    def network(self) -> torch.nn.Module:
        """The trained network on the CPU, in evaluation mode: (N, in_channels, …) → logits (N, outputs, …).

        Raises:
            WeightsError: the weights are damaged or belong to another network.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network = untrained(self.plan)
        where = None if self.folder is None else self.folder / "weights.safetensors"
        if self.state is None:
            if where is None:
                raise WeightsError("this Model has neither weights nor a folder to read them from")
            try:
                self.state = load_file(where)
            except (SafetensorError, OSError) as error:
                raise WeightsError(
                    f"cannot be read: {error}", where=where, mend="copy the Model folder again"
                ) from None
        own, given = network.state_dict(), self.state
        wrong = sorted(k for k in {*own, *given} if k not in own or k not in given or own[k].shape != given[k].shape)
        if wrong:
            shown = ", ".join(f"{key:.80}" for key in wrong[:3]) + (
                f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            )
            raise WeightsError(
                f"do not fit network {self.plan.network.name!r} of the plan beside them: missing, alien or of another "
                f"shape are {shown}",
                where=where,
                mend="copy the Model folder again, all files of one training",
            )
        network.load_state_dict(given)
        return network.eval()

    @telling_what_lacks()
    def save(self, folder: Path | str) -> Path:
        """Write the Model, each file whole or not at all; an earlier Model in ``folder`` is replaced.

        Raises:
            OutputError: the folder cannot be written.
        """
        folder = Path(folder)
        with replacing(folder / "weights.safetensors", overwrite=True) as temporary:
            temporary.write_bytes(self._serialized())
        write_yaml(self.plan, folder / "plan.yaml")
        self.fitted = self.fitted.model_copy(update={"plan_hash": self.plan.hash})
        write_yaml(self.fitted, folder / "fitted.yaml")
        metrics = json.dumps(self.metrics, indent=1, ensure_ascii=False) + "\n"
        for name, text in (("metrics.json", metrics), ("card.md", self.card())):
            with replacing(folder / name, overwrite=True) as temporary:
                temporary.write_text(text, encoding="utf-8")
        self.folder = folder
        return folder

    @property
    def min_component_size(self) -> tuple[float, ...]:
        """Of each class, what a connected component must have so as not to be dropped, in `component_unit`: as the Plan says, else as fitted."""
        sizes = self.plan.inference.min_component_size or self.fitted.min_component_size
        return sizes if len(sizes) > 1 else sizes * len(self.plan.labels.classes)

    @property
    def component_unit(self) -> str:
        """What `min_component_size` is counted in."""
        return GRID_PIXELS if self.fitted.spacing_low is None else MM3

    @property
    def digest(self) -> str:
        """SHA-256 over plan, weights and what was fitted: two Models with the same one give the same masks.

        Raises:
            WeightsError: the weights cannot be read.
        """
        parts = (self.plan.hash, self._weights_hash(), content_hash(self.fitted.model_dump(mode="json")))
        return content_hash(parts)

    def _weights_hash(self) -> str:
        """SHA-256 of ``weights.safetensors``, as it lies in the folder or would be written."""
        if self.state is None and self.folder is not None:
            return sha256(self.folder / "weights.safetensors")
        return hashlib.sha256(self._serialized()).hexdigest()

    def _serialized(self) -> bytes:
        from safetensors.torch import save as serialize

        if self.state is None:
            self.network()
        assert self.state is not None  # network() has read it, or raised
        state = {key: value.detach().cpu().contiguous().clone() for key, value in self.state.items()}
        return serialize(state, metadata={"plan": self.plan.hash})

    def card(self) -> str:
        """The Model in words: what it is for, what it was fitted on, how well it did, what it is not for."""
        plan, fitted = self.plan, self.fitted
        classes = ", ".join(f"{c.name} (written as {c.written})" for c in plan.labels.classes)
        ranges = "\n".join(f"- {c.name}: {c.low:g} … {c.high:g}" for c in fitted.channels)
        dice = "not measured" if fitted.validation_dice is None else f"{fitted.validation_dice:.4f}"
        spacing = ""
        if fitted.spacing_low and fitted.spacing_high:
            pairs = zip(fitted.spacing_low, fitted.spacing_high, strict=True)
            spacing = f"\nSpacing (depth, height, width), mm: {', '.join(f'{a:g} … {b:g}' for a, b in pairs)}\n"
        return f"""# {plan.name}

Segments {classes} in {plan.modality} {plan.source} with network `{plan.network.name}` ({plan.spatial.mode}).

## Fitted on

{fitted.cases} training cases, {fitted.epochs} epochs. Intensities seen, in file units:

{ranges}
{spacing}
## Validation

Dice, mean over validation cases and classes: {dice}, on the network's grid and before what follows was fitted (report.html:
after it, on the files' grid). It chose the epoch, so it is optimistic; run `cpfnet evaluate` on cases that training never saw.

Fitted on these cases, too, and applied to every prediction:

{self._decisions()}

## Not for

Images from other modalities, scanners or populations than those above without a new evaluation. Not a medical device.

Plan: `{plan.hash[:16]}`
"""

    def _decisions(self) -> str:
        """How probabilities become masks, a line each."""
        fitted, labels = self.fitted, self.plan.labels
        names = [c.name for c in labels.classes]

        def each(values: tuple[float, ...]) -> str:
            several = values if len(values) > 1 else values * len(names)
            told = ", ".join(f"{name} {value:g}" for name, value in zip(names, several, strict=True))
            return told if len(set(several)) > 1 else f"{values[0]:g}"

        chosen = not labels.exclusive or len(names) == 1
        return "\n".join(
            (
                f"- temperature: {fitted.temperature:g}",
                f"- threshold: {each(fitted.threshold) if chosen else 'none, the most probable class is taken'}",
                f"- smallest connected component kept, {self.component_unit}: {each(self.min_component_size)}",
            )
        )

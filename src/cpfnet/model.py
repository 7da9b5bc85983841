"""The Model: a folder that holds the plan as approved, the weights, and what training found.

    plan.yaml            as approved before training
    weights.safetensors  no code runs when it loads
    fitted.yaml          what training found: data it was fitted for, temperature, threshold …; hashes of both others
    metrics.json         validation scores
    card.md              the same for people
    first_stage/         where the plan has one: the Models of its first stage, each whole, called by its digest
    .new/                only where saving was cut short: the whole new Model, of which some files were moved already

A Model is self-contained: it moves between machines without its training data. What belongs to another Model is
refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
import stat
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator

from cpfnet.errors import CodeError, CpfnetError, NetworkError, OutputError, WeightsError, require_extras
from cpfnet.files import replacing, sha256, sync
from cpfnet.planning import (
    Count,
    Fraction,
    NotNegative,
    Plan,
    Positive,
    Strict,
    content_hash,
    one_or_several,
)
from cpfnet.registry import module_names
from cpfnet.settings import load_yaml, plain, read_yaml, validate, write_yaml
from cpfnet.text import counted, markdown, printable, to_json

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
        description="lowest and highest 0.5 % quantile, median and 99.5 % quantile of a training image's body; null: "
        "not known",
    )


class Quality(Strict):
    """What the validation cases show of how good predictions are (`inference.quality`)."""

    cases: Count = Field(description="validation cases behind this")
    lowest: Fraction = Field(
        description="mean probability inside the structures found, below which a case is one to look at first"
    )
    found: tuple[str, ...] = Field(description="classes that were found in every validation case")
    factor: Positive | None = Field(
        None,
        description="estimated Dice is 1 - factor × (1 - that probability); null: too few cases, or no better than "
        "their mean",
    )
    error: Fraction | None = Field(None, description="mean absolute error of the estimate, each case left out in turn")


class Found(Strict):
    """What cases told, those trained on and those held out, whether for one Model or for the folds of several."""

    plan_hash: str = Field(description="of the plan.yaml beside this file")
    cases: Count = Field(description="training cases")
    channels: tuple[FittedChannel, ...]
    spacing_low: tuple[float, float, float] | None = Field(None, description="mm (depth, height, width)")
    spacing_high: tuple[float, float, float] | None = Field(None, description="mm (depth, height, width)")
    temperature: Positive = Field(1.0, description="probabilities are those of the logits divided by this")
    threshold: tuple[Fraction, ...] = Field(
        (0.5,),
        min_length=1,
        description="probability above which the only class, or each region, is there; one for all, or one a region",
    )
    min_component_size: tuple[NotNegative, ...] = Field(
        (0.0,),
        min_length=1,
        description="connected components below this are dropped: mm³, or pixels of the network's grid where the "
        "training images had "
        "no mm; one for all classes, or one a class; 0 keeps all; not used where the plan says another",
    )
    quality: Quality | None = Field(None, description="what foretells how good a prediction is; null: not known")

    _one = field_validator("threshold", "min_component_size", mode="before")(one_or_several)


class Fitted(Found):
    """What training found; `predict` refuses inputs outside it."""

    weights_hash: str = Field("", description="SHA-256 of the weights.safetensors beside this file")
    epochs: int = Field(ge=0, description="epochs behind these weights")
    validation_dice: Fraction | None = Field(
        None, description="mean over validation cases and classes, at threshold 0.5"
    )
    first_stage: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = Field(
        (), description="digests of the Models in first_stage/, whose masks the network sees, averaged"
    )

    @classmethod
    def combined(cls, models: Sequence[Model]) -> Fitted:
        """What was fitted for several Models that average their probabilities: how they decide together.

        Temperature and thresholds, one a class, are means, exactly: what all have in common, as the folds of a
        cross-validation do, stays what it is. Of the smallest components the smallest one counts. All else is the first
        Model's.

        Args:
            models: of the same classes, whose `component_unit` is the same.
        """
        fitted = [model.fitted for model in models]
        classes = len(models[0].plan.labels.classes)
        thresholds = [np.broadcast_to(one.threshold, classes).tolist() for one in fitted]
        sizes = np.min([model.min_component_size for model in models], axis=0)
        decisions = {
            "temperature": mean(one.temperature for one in fitted),
            "threshold": tuple(map(mean, zip(*thresholds, strict=True))),
            "min_component_size": tuple(sizes.tolist()),
        }
        return fitted[0].model_copy(update=decisions)


MM3, GRID_PIXELS = "mm³", "pixels of the network's grid"
"""Units of `Model.min_component_size`."""


class _Scored(BaseModel):
    """Of the best epoch."""

    model_config = ConfigDict(strict=True)

    dice: FiniteFloat | None = None
    classes: dict[str, FiniteFloat | None] = {}
    cases: dict[str, Any] = {}


class _Cases(BaseModel):
    """Their ids."""

    model_config = ConfigDict(strict=True)

    train: list[str] = []
    validation: list[str] = []


class _Metrics(BaseModel):
    """What ``metrics.json`` must be like where it is used; more may stand in it."""

    model_config = ConfigDict(strict=True)

    validation: _Scored = _Scored()
    cases: _Cases = _Cases()
    history: list[dict[str, float | None]] = []
    fitting: dict[str, str] = {}
    calibration: dict[str, Any] = {}
    parts: dict[str, str] = {}


PLAN, FITTED, WEIGHTS, METRICS, CARD = "plan.yaml", "fitted.yaml", "weights.safetensors", "metrics.json", "card.md"
FIRST_STAGE = "first_stage"
PARTS = (PLAN, FITTED, WEIGHTS)
_NEW = ".new"
_LARGEST = 2**26  # bytes of metrics.json: a hundred thousand cases and a thousand epochs take a third of it
_DEEPEST = 32  # lists and mappings within one another, in metrics.json
_AGAIN = "copy the Model folder again, all files of one training"


def _part(folder: Path, name: str) -> Path:
    """Where a part of the Model in a folder lies.

    What saving was about to move counts before what it was to replace.
    """
    new = folder / _NEW / name
    return new if new.is_file() else folder / name


def untrained(plan: Plan, allow_import: Sequence[str] = ()) -> torch.nn.Module:
    """The network of a plan, with random weights.

    Args:
        plan: names the network, and perhaps its encoder.
        allow_import: modules that may be imported for them.

    Raises:
        NetworkError: no such network or option.
        CodeError: code of the user's own that is not allowed or not here.
    """
    from cpfnet.network import zoo

    spatial = plan.spatial
    hints: dict[str, Any] = {"patch": spatial.patch}
    if spatial.spacing is not None:
        hints["spacing"] = spatial.spacing[-spatial.dims :]
    network, outputs = plan.network, plan.labels.outputs
    return zoo.build(
        network.name,
        plan.in_channels,
        outputs,
        spatial_dims=spatial.dims,
        hints=hints,
        allow_import=allow_import,
        **network.options,
    )


def is_model(folder: Path) -> bool:
    """Does this look like a Model folder, whole or not? `Model.load` says what is missing."""
    return any(_part(folder, name).is_file() for name in PARTS[1:])


@dataclass
class Model:
    """Plan, weights and what was fitted.

    Attributes:
        plan: as approved.
        fitted: what training found.
        state: the network's state dict; None: that in ``folder``.
        metrics: validation scores, any JSON.
        folder: where it was loaded from or saved to.
        first_stage: where the plan has one, its Models, whose digests ``fitted`` holds: what they find is shown to this
            one's network.
        allow_import: modules that may be imported for a network or an encoder named as ``module:name``. It is the
            caller's word and never saved: no file can allow it.
    """

    plan: Plan
    fitted: Fitted
    state: dict[str, torch.Tensor] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    first_stage: tuple[Model, ...] = ()
    allow_import: tuple[str, ...] = ()

    def __repr__(self) -> str:
        dice = self.fitted.validation_dice
        scored = "" if dice is None else f", validation Dice {dice:.3f}"
        place = "" if self.folder is None else f", in {printable(str(self.folder))}"
        return f"Model({self.plan.in_short}, {counted(self.fitted.cases, 'training case')}{scored}{place})"

    @classmethod
    def load(cls, folder: Path | str, *, allow_import: str | Sequence[str] = ()) -> Model:
        """Read a Model folder; the weights are compared with their hash, and read when `network` is called.

        Whatever the Model names, no code runs.

        Args:
            folder: that training wrote.
            allow_import: see `Model`.

        Raises:
            CpfnetError: not a Model folder; its plan was edited after training; a file is damaged or holds what cannot
                be.
            WeightsError: the weights are damaged, or those of another training.
        """
        folder = Path(folder)
        try:
            missing = [name for name in PARTS if not _part(folder, name).is_file()]
        except OSError as error:
            fix = "give the path of a Model folder that you may read"
            raise CpfnetError(f"cannot be read: {error.strerror}", where=folder, fix=fix) from None
        if missing:
            raise CpfnetError(
                f"is not a Model folder: {', '.join(missing)} missing" if folder.is_dir() else "no such folder",
                where=folder,
                fix="give the folder that `cpfnet train … -o MODEL` wrote",
            )
        where = _part(folder, PLAN)
        plan, fitted = Plan.load(where), read_yaml(Fitted, _part(folder, FITTED))
        # Of what the file says, too: a later version may know more keys, with defaults.
        if fitted.plan_hash not in (plan.hash, content_hash(plain(load_yaml(where), where))):
            raise CpfnetError(
                "the plan was changed after training, so it no longer describes these weights",
                where=where,
                fix="restore the file; to change settings, train again with --plan or --set",
            )
        check_fitted(fitted, plan, _part(folder, FITTED))
        first_stage = tuple(_load_first_stage(folder, digest) for digest in fitted.first_stage)
        model = cls(plan, fitted, metrics=read_metrics(_part(folder, METRICS)), folder=folder, first_stage=first_stage)
        model._check_weights()
        return model.allowing(module_names(allow_import))

    @require_extras()
    def network(self) -> torch.nn.Module:
        """The trained network on the CPU, in evaluation mode: (N, in_channels, …) → logits (N, outputs, …).

        Raises:
            WeightsError: the weights are damaged or belong to another network.
            NetworkError, CodeError: the network is code that is not allowed, not here, or cannot be built.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        network, given = self._untrained(), self.state
        if given is None:
            self._check_weights()  # another training may have ended in this folder since
            try:
                given = load_file(self.weights)
            except (SafetensorError, OSError) as error:
                raise WeightsError(f"cannot be read: {error}", where=self.weights, fix=_AGAIN) from None
        own = network.state_dict()
        wrong = sorted(k for k in {*own, *given} if k not in own or k not in given or own[k].shape != given[k].shape)
        if wrong:
            shown = ", ".join(f"{key:.80}" for key in wrong[:3]) + (
                f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            )
            raise WeightsError(
                f"do not fit network {self.plan.network.name!r} of the plan beside them: missing, unexpected "
                f"or of another shape are {shown}",
                where=self.weights if self.state is None else None,
                fix=_AGAIN,
            )
        network.load_state_dict(given)
        return network.eval()

    def _untrained(self) -> torch.nn.Module:
        try:
            return untrained(self.plan, self.allow_import)
        except (NetworkError, CodeError) as error:
            parts = self.metrics.get("parts") or {}
            made = "; ".join(f"{kind} {printable(parts[kind])}" for kind in parts if kind != "loss")
            fix = "; ".join(filter(None, (error.fix, f"it was trained with {made}" if made else "")))
            raise type(error)(error.what, where=self.folder or error.where, fix=fix or None) from None

    def allowing(self, modules: Sequence[str]) -> Model:
        """This Model, for which and for whose first stage these modules may be imported, too (see `allow_import`)."""
        if not modules:
            return self
        first_stage = tuple(one.allowing(modules) for one in self.first_stage)
        return replace(self, allow_import=(*self.allow_import, *modules), first_stage=first_stage)

    @require_extras()
    def save(self, folder: Path | str) -> Path:
        """Write the Model; an earlier one in ``folder`` is replaced.

        At whatever moment it is stopped, the folder holds the earlier Model or this one, whole.

        Raises:
            OutputError: the folder cannot be written; what was in it is still there.
        """
        folder = Path(folder)
        weights = self._serialized()
        hashes = {"plan_hash": self.plan.hash, "weights_hash": hashlib.sha256(weights).hexdigest()}
        fitted = self.fitted.model_copy(update=hashes)
        texts = {METRICS: to_json(self.metrics) + "\n", CARD: self.card()}
        saving = folder / f".saving-{uuid.uuid4().hex[:8]}"
        try:
            with replacing(saving / WEIGHTS) as temporary:
                temporary.write_bytes(weights)
            write_yaml(self.plan, saving / PLAN)
            write_yaml(fitted, saving / FITTED)
            for name, text in texts.items():
                with replacing(saving / name) as temporary:
                    temporary.write_text(text, encoding="utf-8")
            for one, digest in zip(self.first_stage, fitted.first_stage, strict=True):
                # Called by what it holds, it is in nobody's way: neither the earlier Model's nor this one's.
                if not is_model(place := _first_stage_folder(folder, digest)):
                    replace(one).save(place)
            _settle(folder)  # what an earlier saving, cut short, left
            saving.rename(folder / _NEW)  # from here on the folder holds this Model
            sync(folder)
            _settle(folder)
        except (OSError, OutputError) as error:
            what = error.what if isinstance(error, OutputError) else f"cannot be written: {error.strerror or error}"
            raise OutputError(what, where=folder, fix="choose a folder you may write to, with free space") from None
        finally:
            shutil.rmtree(saving, ignore_errors=True)
        self.fitted, self.folder = fitted, folder
        return folder

    @property
    def min_component_size(self) -> tuple[float, ...]:
        """Of each class, what a connected component must have so as not to be dropped, in `component_unit`.

        As the Plan says, else as fitted.
        """
        sizes = self.plan.inference.min_component_size or self.fitted.min_component_size
        return sizes if len(sizes) > 1 else sizes * len(self.plan.labels.classes)

    @property
    def component_unit(self) -> str:
        """What `min_component_size` is counted in."""
        return GRID_PIXELS if self.fitted.spacing_low is None else MM3

    @property
    def digest(self) -> str:
        """SHA-256 over plan, weights and what was fitted: two Models with the same one give the same masks.

        The same in memory and in whatever folder it is saved to.

        Raises:
            WeightsError: the weights cannot be read.
        """
        later = {"plan_hash", "weights_hash"}  # known once it is saved
        none = set() if self.fitted.first_stage else {"first_stage"}  # as it was before there was such a thing
        fitted = self.fitted.model_dump(mode="json", exclude=later | none)
        return content_hash((self.plan.hash, self.weights_hash, content_hash(fitted)))

    @property
    def weights_hash(self) -> str:
        """SHA-256 of ``weights.safetensors``, as it lies in the folder or would be written.

        Raises:
            WeightsError: the file cannot be read.
        """
        if self.state is not None:
            return hashlib.sha256(self._serialized()).hexdigest()
        try:
            return sha256(self.weights)
        except OSError as error:
            raise WeightsError(f"cannot be read: {error.strerror}", where=self.weights, fix=_AGAIN) from None

    @property
    def weights(self) -> Path:
        """The file with the weights.

        Raises:
            WeightsError: the Model lies in no folder.
        """
        if self.folder is None:
            raise WeightsError("this Model has neither weights nor a folder to read them from")
        return _part(self.folder, WEIGHTS)

    def _check_weights(self) -> None:
        """Make sure that the file holds the weights that all else was fitted with.

        Raises:
            WeightsError: it does not.
        """
        if self.weights_hash == self.fitted.weights_hash:
            return
        what = "are damaged, or those of another training: fitted.yaml beside them says that their SHA-256 begins with "
        what += f"{self.fitted.weights_hash[:8]}, and it is {self.weights_hash[:8]}"
        if not self.fitted.weights_hash:
            what = "may be of any training: fitted.yaml beside them has no weights_hash, as an earlier version wrote it"
        raise WeightsError(what, where=self.weights, fix=f"{_AGAIN}; or train again")

    def _serialized(self) -> bytes:
        """``weights.safetensors``, byte for byte the same however often it is read and written."""
        if self.state is None:
            self._check_weights()
            return self.weights.read_bytes()
        from safetensors.torch import save as serialize

        return serialize({key: value.detach().cpu().contiguous().clone() for key, value in self.state.items()})

    def card(self) -> str:
        """The Model in words: what it is for, what it was fitted on, how well it did, what it is not for."""
        plan, fitted = self.plan, self.fitted
        classes = ", ".join(f"{markdown(c.name)} (written as {markdown(str(c.written))})" for c in plan.labels.classes)
        ranges = "\n".join(f"- {markdown(c.name)}: {c.low:g} … {c.high:g}" for c in fitted.channels)
        kind = "" if plan.modality == "other" else f"{plan.modality} "
        spacing = ""
        if fitted.spacing_low and fitted.spacing_high:
            pairs = zip(fitted.spacing_low, fitted.spacing_high, strict=True)
            spacing = f"\nSpacing (depth, height, width), mm: {', '.join(f'{a:g} … {b:g}' for a, b in pairs)}\n"
        stages = len(fitted.first_stage)
        first = (
            f" It sees what {counted(stages, 'Model')} of a first stage found, in `{FIRST_STAGE}/`." if stages else ""
        )
        return f"""# {markdown(plan.name)}

Segments {classes} in {kind}{plan.source} with network {markdown(plan.network.name)} ({plan.spatial.mode}).{first}
{self._needs()}
## Fitted on

{fitted.cases} training cases, {fitted.epochs} epochs. Intensities seen, in file units:

{ranges}
{spacing}
## Validation

{self._judgement()}

{self._decisions()}

## Not for

Images from other modalities, scanners or populations than those above without a new evaluation. Not a medical device.

Plan: `{plan.hash[:16]}`
"""

    def _needs(self) -> str:
        """The code beside this package that it was trained with, as a paragraph."""
        parts = self.metrics.get("parts") or {}
        named = "; ".join(f"{kind} {markdown(name)}" for kind, name in parts.items())
        return f"\nTrained with code that does not come with cpfnet: {named}.\n" if named else ""

    def _judgement(self) -> str:
        """How well it did, and on what its decisions were fitted."""
        cases = self.metrics.get("cases", {})
        if cases.get("validation") == [] and "withheld" not in cases:
            return """No case was held out, so nothing was measured on this Model itself: the out-of-fold scores of its
cross-validation tell how well such Models do.

Fitted on the out-of-fold cases of that, and applied to every prediction:"""
        dice = "not measured" if self.fitted.validation_dice is None else f"{self.fitted.validation_dice:.4f}"
        return f"""Dice, mean over validation cases and classes: {dice}, on the network's grid and before what follows
was fitted (report.html: after it, on the files' grid). It chose the epoch, so it is optimistic; run `cpfnet evaluate`
on cases that training never saw.

Fitted on these cases, too, and applied to every prediction:"""

    def _decisions(self) -> str:
        """How probabilities become masks, a line each."""
        fitted, labels = self.fitted, self.plan.labels
        names = [markdown(c.name) for c in labels.classes]

        def each(values: tuple[float, ...]) -> str:
            several = values if len(values) > 1 else values * len(names)
            listed = ", ".join(f"{name} {value:g}" for name, value in zip(names, several, strict=True))
            return listed if len(set(several)) > 1 else f"{values[0]:g}"

        chosen = not labels.exclusive or len(names) == 1
        return "\n".join(
            (
                f"- temperature: {fitted.temperature:g}",
                f"- threshold: {each(fitted.threshold) if chosen else 'none, the most probable class is taken'}",
                f"- smallest connected component kept, {self.component_unit}: {each(self.min_component_size)}",
            )
        )


def check_fitted(fitted: Found, plan: Plan, where: Path) -> None:
    """Refuse what was fitted for another plan.

    Raises:
        CpfnetError: not as many values as the plan has classes, or other channels.
    """
    for name in ("threshold", "min_component_size"):
        given, classes = len(getattr(fitted, name)), len(plan.labels.classes)
        if given not in (1, classes):
            raise CpfnetError(
                f"{given} values for {name}, and the plan has {classes} class{'es' * (classes != 1)}: one for all, or "
                "one each",
                where=where,
                fix="restore the file",
            )
    names, planned = ([channel.name for channel in channels] for channels in (fitted.channels, plan.channels))
    if names != planned:
        raise CpfnetError(
            f"channels {', '.join(names) or 'none'}, and the plan has {', '.join(planned)}",
            where=where,
            fix="restore the file",
        )

    if isinstance(fitted, Fitted) and plan.first_stage != bool(fitted.first_stage):
        said, named = ("a", "none is") if plan.first_stage else ("no", "some are")
        raise CpfnetError(f"the plan has {said} first stage, and {named} named", where=where, fix="restore the file")


def _first_stage_folder(folder: Path, digest: str) -> Path:
    return folder / FIRST_STAGE / digest[:16]


def _load_first_stage(folder: Path, digest: str) -> Model:
    """One Model of the first stage.

    Raises:
        CpfnetError: it is missing, damaged, or another one.
    """
    place = _first_stage_folder(folder, digest)
    with suppress(OSError):  # `load` says what cannot be read
        # Before it is loaded: a link back to the whole would have no end.
        if _part(place, PLAN).is_file() and Plan.load(_part(place, PLAN)).first_stage:
            raise CpfnetError("a first stage cannot have one itself", where=place, fix=_AGAIN)
    model = Model.load(place)
    if model.digest != digest:
        what = f"is another Model than the one that this first stage was: its digest begins with {model.digest[:8]}"
        raise CpfnetError(f"{what}, not with {digest[:8]}", where=place, fix=_AGAIN)
    return model


def read_metrics(path: Path) -> dict[str, Any]:
    """``metrics.json``, empty where there is none.

    Raises:
        CpfnetError: not JSON, far too large, or what is used of it has other types.
    """
    fix = "restore the file from the training's folder; masks do not depend on it"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise CpfnetError("is no file", where=path, fix=fix)
        if status.st_size > _LARGEST:
            raise CpfnetError(f"holds {status.st_size} bytes; scores take up to {_LARGEST}", where=path, fix=fix)
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair could not be written again
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CpfnetError(f"cannot be read: {error.strerror}", where=path, fix=fix) from None
    except (ValueError, RecursionError) as error:
        raise CpfnetError(f"is not valid JSON: {error}", where=path, fix=fix) from None
    brackets = re.sub(r'"(?:[^"\\]|\\.)*"|[^][{}"]+', "", text)
    if max(itertools.accumulate(1 if one in "[{" else -1 for one in brackets), default=0) > _DEEPEST:
        raise CpfnetError(f"is nested more than {_DEEPEST} deep", where=path, fix=fix)
    validate(_Metrics, found, where=str(path))
    return found


def _settle(folder: Path) -> None:
    """Move the files of a Model that was saved into their places."""
    new = folder / _NEW
    if new.is_dir():
        for file in list(new.iterdir()):
            file.replace(folder / file.name)
        sync(folder)
        new.rmdir()

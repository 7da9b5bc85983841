"""The folds of a cross-validation as one thing: a folder that is an ensemble wherever a Model is asked for.

    plan.yaml     as approved, the same for all folds
    fold-0/ …     a Model each, which has not seen the cases of its own fold
    fitted.yaml   what all cases told, each predicted by the Model that has not seen it; hashes of plan and Models
    metrics.json  out-of-fold scores, fold by fold and pooled, and why what was fitted was chosen
    out-of-fold/  masks and probabilities of these cases
    scores.csv, scores.json, report.html
    all/          a Model trained on every case, where one was asked for; no part of the ensemble

Models of folds decide with what was fitted on the cases of all folds (`CrossValidation.ensemble`), and take what lies
within what any of them was trained on. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from cpfnet.errors import CpfnetError
from cpfnet.files import replacing
from cpfnet.model import (
    FITTED,
    METRICS,
    PLAN,
    Fitted,
    FittedChannel,
    Found,
    Model,
    check_fitted,
    is_model,
    read_metrics,
)
from cpfnet.planning import Plan
from cpfnet.settings import read_yaml, write_yaml
from cpfnet.text import to_json

if TYPE_CHECKING:
    from cpfnet.evaluation.scores import Scores

ALL: Literal["all"] = "all"
"""The folder of the Model that was trained on every case."""

_AGAIN = "go on with the `cpfnet train … --folds all` that began it, adding --resume; what is done is left as it is"


class FittedOnFolds(Found):
    """What the cases of all folds told; the Models of the folds decide with it."""

    models: tuple[str, ...] = Field(min_length=2, description="digests of the folds' Models, in their order")

    @classmethod
    def of(cls, models: Sequence[Model]) -> FittedOnFolds:
        """What the Models of the folds were trained on, taken together; nothing is fitted yet."""
        fitted = [model.fitted for model in models]
        spacings = [(one.spacing_low, one.spacing_high) for one in fitted if one.spacing_low and one.spacing_high]
        lows, highs = zip(*spacings, strict=True) if spacings else ((), ())
        return cls(
            plan_hash=models[0].plan.hash,
            models=tuple(model.digest for model in models),
            cases=len({case for model in models for part in model.metrics["cases"].values() for case in part}),
            channels=tuple(_union(one) for one in zip(*(one.channels for one in fitted), strict=True)),
            spacing_low=tuple(map(min, zip(*lows, strict=True))) or None,
            spacing_high=tuple(map(max, zip(*highs, strict=True))) or None,
        )


def _union(channels: Sequence[FittedChannel]) -> FittedChannel:
    """What one channel held in the training images of any fold."""
    levels = [one.levels for one in channels if one.levels is not None]
    ranges = [(min(low for low, _ in own), max(high for _, high in own)) for own in zip(*levels, strict=True)]
    return FittedChannel(
        name=channels[0].name,
        low=min(one.low for one in channels),
        high=max(one.high for one in channels),
        levels=(ranges[0], ranges[1], ranges[2]) if len(levels) == len(channels) else None,
    )


def fold_name(number: int) -> str:
    """What the folder of a fold's Model is called."""
    return f"fold-{number}"


def is_cross_validation(folder: str | PathLike[str]) -> bool:
    """Does this look like a cross-validation, ended or not? `CrossValidation.load` says what is missing."""
    first = Path(folder) / fold_name(0)
    begun = first.is_dir() and (Path(folder) / ".work").is_dir()
    return (Path(folder) / PLAN).is_file() and (begun or is_model(first))


@dataclass
class CrossValidation:
    """The Models of all folds of one plan, and what they told together.

    Attributes:
        folder: where it lies.
        plan: of all folds.
        fitted: on the cases of all folds.
        models: of the folds, each as it was trained.
        metrics: out-of-fold scores, any JSON.

    Example:
        >>> cpfnet.cross_validate("data", "cv").scores.of("dice")
    """

    folder: Path
    plan: Plan
    fitted: FittedOnFolds
    models: list[Model]
    metrics: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> CrossValidation:
        """Read the folder of a cross-validation.

        Raises:
            CpfnetError: it has not ended; a fold is no Model, or not the one that the others were fitted with.
        """
        folder = Path(folder)
        if not is_cross_validation(folder):
            what = "holds no cross-validation" if folder.is_dir() else "no such folder"
            raise CpfnetError(what, where=folder, fix="give the folder that `cpfnet train … --folds all -o CV` wrote")
        if not (folder / FITTED).is_file():
            raise CpfnetError(f"the cross-validation has not ended: {FITTED} is missing", where=folder, fix=_AGAIN)
        plan, fitted = Plan.load(folder / PLAN), read_yaml(FittedOnFolds, folder / FITTED)
        check_fitted(fitted, plan, folder / FITTED)
        models = [Model.load(folder / fold_name(number)) for number in range(len(fitted.models))]
        for model, digest in zip(models, fitted.models, strict=True):
            if not fitted.plan_hash == plan.hash == model.plan.hash:
                raise CpfnetError(
                    f"its plan is not the one that {FITTED} and {PLAN} of the cross-validation are of",
                    where=model.folder,
                    fix=f"restore the file; or {_AGAIN}",
                )
            if model.digest != digest:
                raise CpfnetError(
                    f"is another Model than the one that {FITTED} of the cross-validation was made with",
                    where=model.folder,
                    fix=f"restore the folder; or {_AGAIN}",
                )
        return cls(folder, plan, fitted, models, read_metrics(folder / METRICS))

    def save(self) -> None:
        """Write plan, metrics and what was fitted: that last, since with it the folder is an ensemble.

        Raises:
            OutputError: the folder cannot be written.
        """
        write_yaml(self.plan, self.folder / PLAN)
        self.save_metrics()
        write_yaml(self.fitted, self.folder / FITTED)

    def save_metrics(self) -> None:
        """Write ``metrics.json`` alone.

        Raises:
            OutputError: it cannot be written.
        """
        with replacing(self.folder / METRICS, overwrite=True) as temporary:
            temporary.write_text(to_json(self.metrics) + "\n", encoding="utf-8")

    def ensemble(self) -> list[Model]:
        """The Models of the folds, deciding with what was fitted on the cases of all."""
        shared = {name: getattr(self.fitted, name) for name in Found.model_fields if name in Fitted.model_fields}
        notes = {"fitting": self.metrics["fitting"]} if "fitting" in self.metrics else {}
        return [
            replace(model, fitted=model.fitted.model_copy(update=shared), metrics=model.metrics | notes)
            for model in self.models
        ]

    @property
    def folds(self) -> list[list[str]]:
        """Ids of the cases that each fold's Model has not seen; of one that does not know them, none."""
        return [model.metrics.get("cases", {}).get("validation", []) for model in self.models]

    @property
    def scores(self) -> Scores:
        """Out of fold: of every case, by the Model that has not seen it.

        Raises:
            FormatError: there are none yet, or they are damaged.
        """
        from cpfnet.evaluation.scores import Scores

        return Scores.load(self.folder)

"""Volumes learned in 2-D and in 3-D, each cross-validated: a folder that stands for the better one, or for both.

    plan-2d.yaml, plan-3d.yaml   as they were begun with
    2d/, 3d/                     a cross-validation each, of the same cases in the same folds
    both/                        scores of their average, out of fold, and the predictions behind them
    configurations.yaml          which is chosen, with the figures; digests of the Models

No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from cpfnet.errors import CpfnetError
from cpfnet.inference.cross_validation import CrossValidation
from cpfnet.model import Model
from cpfnet.planning import Strict, VolumeMode
from cpfnet.settings import read_yaml, write_yaml

MODES: tuple[VolumeMode, ...] = get_args(VolumeMode)

BOTH: Literal["both"] = "both"
"""The average of the two, and the folder of its scores."""

CHOICE = "configurations.yaml"

_AGAIN = (
    "go on with the `cpfnet train … --folds all --configurations all` that began it, adding --resume; what is done is "
    "left as it is"
)


class Advantage(Strict):
    """How far one is ahead of another in the same cases."""

    of: str
    over: str
    dice: float = Field(description="mean difference of the cases' Dice, out of fold")
    low: float | None = Field(description="95 % interval of it, bootstrap over patients")
    high: float | None
    p: float = Field(description="Wilcoxon's signed-rank test over patients, two-sided")
    patients: int

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" ({self.low:+.3f} … {self.high:+.3f})"
        return f"{self.of} over {self.over} {self.dice:+.3f}{interval}, p {self.p:.2g}, {self.patients} patients"


class Choice(Strict):
    """Which is chosen, and why."""

    chosen: VolumeMode | Literal["both"]
    dice: dict[str, float] = Field(description="mean over the cases, out of fold")
    advantages: tuple[Advantage, ...]
    models: dict[str, tuple[str, ...]] = Field(description="digests of the folds' Models")

    @property
    def modes(self) -> tuple[VolumeMode, ...]:
        """Whose Models predict."""
        return MODES if self.chosen == "both" else (self.chosen,)


def plan_name(mode: VolumeMode) -> str:
    """The file of a mode's plan."""
    return f"plan-{mode}.yaml"


def is_configurations(folder: str | PathLike[str]) -> bool:
    """Does this look like configurations, all trained or not? `Configurations.load` says what is missing."""
    return all((Path(folder) / plan_name(mode)).is_file() for mode in MODES)


@dataclass
class Configurations:
    """The cross-validations that a folder stands for.

    Attributes:
        folder: where they lie.
        choice: which, and the figures.
        chosen: the better one; or both, whose probabilities are averaged.

    Example:
        >>> found = cpfnet.compare_configurations("data", "out")
        >>> print(found.choice.chosen, found.choice.dice)
    """

    folder: Path
    choice: Choice
    chosen: list[CrossValidation]

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> Configurations:
        """Read the folder; what was not chosen may be missing from it.

        Raises:
            CpfnetError: nothing is chosen yet; or a cross-validation is damaged, or not the one that was chosen.
        """
        folder = Path(folder)
        if not (folder / CHOICE).is_file():
            raise CpfnetError(f"nothing is chosen yet: {CHOICE} is missing", where=folder, fix=_AGAIN)
        choice = read_yaml(Choice, folder / CHOICE)
        chosen = [CrossValidation.load(folder / mode) for mode in choice.modes]
        for mode, found in zip(choice.modes, chosen, strict=True):
            if found.fitted.models != choice.models.get(mode):
                raise CpfnetError(
                    f"holds other Models than those that {CHOICE} was written for",
                    where=found.folder,
                    fix=f"restore the folder; or {_AGAIN}",
                )
        return cls(folder, choice, chosen)

    def save(self) -> None:
        """Write which is chosen: with that the folder stands for it.

        Raises:
            OutputError: the folder cannot be written.
        """
        write_yaml(self.choice, self.folder / CHOICE)

    def ensemble(self) -> list[Model]:
        """The Models of the folds, as each cross-validation has them decide."""
        return [model for found in self.chosen for model in found.ensemble()]

    @property
    def folds(self) -> list[list[str]]:
        """Ids of the cases that the Models of each fold have not seen."""
        return self.chosen[0].folds

    def brief(self) -> str:
        """What it stands for, in one line."""
        dice = ", ".join(f"{name} {value:.3f}" for name, value in self.choice.dice.items())
        what = " and ".join(self.choice.modes)
        return f"{self.folder} stands for {what} in it; out-of-fold Dice: {dice}"

"""What a training may be asked: which plan it follows, and how the run is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cpfnet.errors import TrainingError
from cpfnet.planning import Plan
from cpfnet.registry import module_names
from cpfnet.settings import changes, check_keys

if TYPE_CHECKING:
    from cpfnet.training.calibrate.fit import Findings


@dataclass(frozen=True)
class PlanOptions:
    """Which plan a training follows, and what is changed in it.

    Attributes:
        plan: or its file; None: what a resumed run began with, else what `cpfnet.plan` proposes.
        settings: changes by key: ``{"training.epochs": 3}``, or ``["training.epochs=3"]`` as on the command line.
        epochs, network, weights: likewise, for short (``weights``: ``"imagenet"``, ``"none"`` or a file).

    Raises:
        PlanError: a key that no plan has.
    """

    plan: Plan | Path | None = None
    settings: Mapping[str, Any] | Sequence[str] = ()
    epochs: int | None = None
    network: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        check_keys(Plan, self.settings)

    def change(self, plan: Plan) -> Plan:
        """The plan with all that is asked for.

        Raises:
            PlanError: a value that cannot be.
        """
        named = {"training.epochs": self.epochs, "network.name": self.network, "network.weights": self.weights}
        asked = [(key, value) for key, value in named.items() if value is not None]
        return plan.with_settings([*changes(self.settings), *asked])


@dataclass(frozen=True)
class TrainOptions:
    """How a run is carried out; the plan says what is learned.

    Attributes:
        fold: validate on this fold (from 0) of the plan's cross-validation; ``"all"``: train on every case, and
            validate on none; None: the data set's own ``val`` split, else fold 0.
        findings: what the folds of a cross-validation told, for a Model that no case validates.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        devices: GPUs, or processes on a CPU, of each machine that share every batch. Under torchrun it is known.
        nodes: machines; torchrun or SLURM's srun starts the processes then.
        resume: go on with an interrupted run; on a CPU it ends with the same weights as one that was never interrupted.
        init: a Model folder whose weights to start from.
        first_stage: folders of the plan's first stage, of Models or of folds; of each case that is trained on or
            validates, one of them at least did not learn from it (`training.first_stage`).
        progress: show bars where there is a terminal.
        checkpoint_every: seconds between checkpoints within an epoch; after an epoch there is one where the last is 20
            seconds old.
        allow_import: modules that may be imported for a network, encoder or loss that is named as ``module:name``.

    Raises:
        TrainingError: not even one device or machine.
        CodeError: ``allow_import`` names no module.
    """

    fold: int | Literal["all"] | None = None
    findings: Findings | None = None
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    resume: bool = False
    init: Path | None = None
    first_stage: tuple[Path, ...] = ()
    progress: bool = False
    checkpoint_every: float = 300.0
    allow_import: str | Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "allow_import", module_names(self.allow_import))
        if self.devices < 1 or self.nodes < 1:
            raise TrainingError(f"{self.devices} devices on {self.nodes} machines cannot be", fix="give numbers from 1")

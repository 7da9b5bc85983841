"""A first stage in training: what its Models find in each case, asked only about cases they did not learn from.

Of its own training cases a Model finds far more than of others: a second stage that learned from such masks would trust
them blindly. So the first stage is trained on all folds, and its Models say which cases they had. Those that stay with
the second one have not even met its validation cases, which is why scores on these hold for the two together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import numpy as np

from cpfnet import formats
from cpfnet.data.case import Case
from cpfnet.errors import TrainingError
from cpfnet.files import replacing
from cpfnet.inference.model_arguments import open_models
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor, check_same
from cpfnet.model import Model
from cpfnet.planning import Plan, content_hash
from cpfnet.text import brief, counted
from cpfnet.training.samples import cache

logger = logging.getLogger(__name__)

ALL_FOLDS = "train the first stage on every fold of this dataset (--folds all), and give the folder of them all"


@dataclass(frozen=True)
class FirstStage:
    """The Models of a first stage, for one run of the second; none where its plan has no first stage.

    Attributes:
        kept: those that stay with the Model that is trained: they learned from no case that validates it.
        of_case: of each case (its id), those that are asked about it: they did not learn from it.
    """

    kept: tuple[Model, ...] = ()
    of_case: dict[str, tuple[Model, ...]] = field(default_factory=dict)


def open_first_stage(
    folders: Sequence[Path],
    plan: Plan,
    training: Sequence[Case],
    validation: Sequence[Case],
    allow_import: Sequence[str] = (),
) -> FirstStage:
    """Load a first stage, and find whom to ask about each case.

    Args:
        folders: of its Models; that of a cross-validation stands for those of its folds.
        plan: of the second stage.
        training, validation: its cases.
        allow_import: modules that may be imported for the Models' networks.

    Raises:
        TrainingError: the plan has no first stage and one is given, or the other way round; all Models learned from
            some case, or each from one that validates.
        CpfnetError: one is no Model, or one for another task.
    """
    if not plan.first_stage and folders:
        raise TrainingError(
            "Models of a first stage are given, and the plan has none",
            where="--first-stage",
            fix="plan for it (--set first_stage=true), or leave them out",
        )
    if not plan.first_stage:
        return FirstStage()
    if not folders:
        raise TrainingError(
            "the plan has a first stage, and its Models are not given",
            where="--first-stage",
            fix="give them (--first-stage CV, the folder of all folds; with --resume, too), or set first_stage=false",
        )
    models = [model.allowing(tuple(allow_import)) for model in open_models(folders)]
    learned = [_learned(model, plan) for model in models]
    cases = [case.id for case in (*training, *validation)]
    if strangers := sorted(frozenset().union(*learned).difference(cases)):
        logger.warning(
            "The first stage learned from %s (%s) that this run has not; if they are here under other names, what it "
            "finds in them is better than it will be in others",
            counted(len(strangers), "case"),
            brief(strangers),
        )
    of_case = {
        case: tuple(model for model, own in zip(models, learned, strict=True) if case not in own) for case in cases
    }
    if unfair := [case for case, fair in of_case.items() if not fair]:
        raise TrainingError(
            f"all Models of the first stage learned from {counted(len(unfair), 'case')} ({brief(unfair)}): what they "
            "find there is better than in others",
            where="--first-stage",
            fix=ALL_FOLDS,
        )
    held_out = [case.id for case in validation]
    kept = tuple(model for model, own in zip(models, learned, strict=True) if own.isdisjoint(held_out))
    if not kept:
        raise TrainingError(
            "each Model of the first stage learned from some case that validates this one",
            where="--first-stage",
            fix=f"{ALL_FOLDS}; then train this one with --fold, too, under the same folds.count and folds.seed",
        )
    # What validates is seen as any other image will be.
    return FirstStage(kept, of_case | dict.fromkeys(held_out, kept))


def _learned(model: Model, plan: Plan) -> frozenset[str]:
    """The cases that a Model of the first stage learned from.

    Raises:
        TrainingError: it does not say, or has a first stage itself.
        CpfnetError: it is for another task.
    """
    check_same(plan, model, fix="train both stages on one dataset, with the same labels and channels")
    if model.plan.first_stage:
        raise TrainingError("has a first stage itself", where=model.folder, fix="give Models of the first stage alone")
    learned = frozenset(model.metrics.get("cases", {}).get("train", ()))
    if not learned:
        raise TrainingError(
            "does not say which cases it learned from, and must not be asked about these",
            where=model.folder,
            fix="copy its metrics.json, too, or train it again",
        )
    return learned


def find(
    stage: FirstStage,
    cases: Sequence[Case],
    plan: Plan,
    folder: Path,
    *,
    device: str,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Path]:
    """What the first stage finds in each case, as files: uint8 codes on the image's grid (`Predictor.codes`).

    Args:
        stage: whom to ask.
        cases: of the run.
        plan: of the second stage.
        folder: where the files go, named after everything that shapes their content; what is there is not made again.
        device: to compute on.
        advance: called with the number of cases done and in all; may raise to stop.

    Returns:
        The file of each case (its id).

    Raises:
        CpfnetError: a case cannot be read, or is of another kind than the Models'.
        OutputError: a file cannot be written.
    """

    def asked(case: Case) -> tuple[str, ...]:
        return tuple(model.digest for model in stage.of_case[case.id])

    files = {case.id: folder / f"{cache.key(case, plan)}-{content_hash(asked(case))[:16]}.npy" for case in cases}
    missing = [case for case in cases if not files[case.id].is_file()]
    done = len(cases) - len(missing)
    for _, several in groupby(sorted(missing, key=asked), asked):
        first, *others = several
        predictor = Predictor(stage.of_case[first.id], PredictorOptions(device=device, backend="torch", force=True))
        for case in (first, *others):
            advance(done, len(cases))
            codes = predictor.codes(formats.read(case.images))
            with replacing(files[case.id]) as temporary, temporary.open("wb") as file:
                np.save(file, codes)
            done += 1
    advance(done, len(cases))
    return files

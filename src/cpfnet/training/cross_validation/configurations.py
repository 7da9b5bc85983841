"""Volumes learned in 2-D and in 3-D, each cross-validated on the same folds, and the better one chosen, or both.

The same command goes on after a kill at any moment, as each of the two cross-validations does.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.errors import OutputError, TrainingError
from cpfnet.evaluation.comparison.compare import compare
from cpfnet.evaluation.scores import Scores
from cpfnet.inference.configurations import (
    BOTH,
    MODES,
    Advantage,
    Choice,
    Configurations,
    is_configurations,
    plan_name,
)
from cpfnet.inference.cross_validation import CrossValidation
from cpfnet.inference.options import PredictorOptions
from cpfnet.planner.fingerprint import fingerprint
from cpfnet.planner.machine import Memory
from cpfnet.planner.proposal import network_options, propose
from cpfnet.planner.training import expected_time
from cpfnet.planning import Plan, VolumeMode
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.cross_validation.report import predict_and_score
from cpfnet.training.cross_validation.run import cross_validate
from cpfnet.training.options import PlanOptions, TrainOptions

logger = logging.getLogger(__name__)


def compare_configurations(
    dataset: Path, out: Path, wanted: PlanOptions, options: TrainOptions, *, jobs: int = 1
) -> Configurations:
    """Cross-validate a plan for 2-D and one for 3-D, and choose by their out-of-fold Dice.

    Args:
        dataset: of volumes: folder, dataset.yaml, CSV manifest or datalist JSON.
        out: the folder to write; must not exist, unless it is resumed.
        wanted: changes to both plans; not a plan, since each has its own.
        options: how each fold is trained.
        jobs: folds at once.

    Raises:
        CpfnetError: images, or volumes of too few slices; as `cross_validate`.
        KeyboardInterrupt: a signal came; the same with ``resume`` goes on.
    """
    _check_free(out, resume=options.resume)
    data = load(dataset)
    plans = _plans(data, out, wanted, options)
    for mode in MODES:
        plans[mode] = plan = wanted.change(plans[mode])
        if plan.spatial.mode != mode:
            raise TrainingError(
                f"the plan for {mode} is to be one for {plan.spatial.mode}",
                where="--set spatial.mode",
                fix="leave it out; or cross-validate that one alone, without --configurations",
            )
    if not is_configurations(out):  # before either is trained: with both the folder tells what it is
        for mode, plan in plans.items():
            plan.save(out / plan_name(mode))
    found = {}
    for mode in MODES:
        logger.info("Configuration %s:", mode)
        begun = RunFolder(out / mode).plan.is_file()  # then that is followed, which may be a lengthened one
        own = wanted if begun else replace(wanted, plan=out / plan_name(mode))
        found[mode] = cross_validate(dataset, out / mode, own, options, jobs=jobs)
    made = _choose(out, found, data, options)
    made.save()
    for advantage in made.choice.advantages:
        logger.info("%s", advantage)
    logger.info(made.brief())
    return made


def _check_free(out: Path, *, resume: bool) -> None:
    there = sorted(entry.name for entry in out.iterdir()) if out.is_dir() else ["a file"] if out.exists() else []
    mine = is_configurations(out) or {*there} <= {plan_name(mode) for mode in MODES}  # killed between the two
    if there and not (resume and mine):
        raise OutputError(
            f"exists already: {', '.join(there[:5])}{' …' * (len(there) > 5)}",
            where=out,
            fix="go on with it by --resume, or choose another folder" if mine else "choose another folder",
        )


def _plans(data: Dataset, out: Path, wanted: PlanOptions, options: TrainOptions) -> dict[VolumeMode, Plan]:
    """Those that were begun with; else those that are proposed."""
    if is_configurations(out):
        return {mode: Plan.load(out / plan_name(mode)) for mode in MODES}
    found = fingerprint(data, progress=options.progress)
    plans = {}
    for mode in MODES:
        plans[mode], reasons = propose(
            found,
            data,
            network=wanted.network,
            weights=wanted.weights,
            memory=Memory.found(options.device),
            options=network_options(wanted.settings),
            mode=mode,
        )
        logger.info("Expected of each fold in %s, for the plan as proposed: %s.", mode, expected_time(reasons))
    return plans


def _choose(
    out: Path, found: dict[VolumeMode, CrossValidation], data: Dataset, options: TrainOptions
) -> Configurations:
    """The one with the higher mean; their average where the interval of its advantage over that lies above 0, since it
    takes twice the time."""
    scores = {mode: found[mode].scores for mode in MODES}
    first = _advantage("3d", scores["3d"], "2d", scores["2d"], out)
    better: VolumeMode = "3d" if first.dice > 0 else "2d"
    models = [model for mode in MODES for model in found[mode].ensemble()]
    predicting = PredictorOptions(device=options.device, allow_import=options.allow_import)
    _, average = predict_and_score(data, models, predicting, out / BOTH, progress=options.progress)
    second = _advantage(BOTH, average, better, scores[better], out)
    chosen = BOTH if second.low is not None and second.low > 0 else better
    choice = Choice(
        chosen=chosen,
        dice={mode: _dice(scores[mode]) for mode in MODES} | {BOTH: _dice(average)},
        advantages=(first, second),
        models={mode: found[mode].fitted.models for mode in MODES},
    )
    return Configurations(out, choice, [found[mode] for mode in choice.modes])


def _advantage(name: str, scores: Scores, over: str, reference: Scores, out: Path) -> Advantage:
    """In the Dice of each case that has one in both.

    Raises:
        TrainingError: there is no such case.
    """
    found = compare({over: [reference], name: [scores]}).of("dice")
    if found is None or not found.cases:
        raise TrainingError(
            "no case has a Dice to choose by, since no class was there to be found",
            where=out,
            fix=f"use {out / '2d'} or {out / '3d'} as it is; each is a whole cross-validation",
        )
    bounds = [None if math.isnan(value) else value for value in (found.low, found.high)]
    return Advantage(
        of=name, over=over, dice=found.difference, low=bounds[0], high=bounds[1], p=found.p, patients=found.patients
    )


def _dice(scores: Scores) -> float:
    entry = scores.of("dice")
    assert entry is not None  # compared above
    return float(entry["mean"])

"""Cross-validation: every fold trained, every case predicted by the Model that has not seen it, and all of it scored.

The same command goes on after a kill at any moment: folds that have ended are left as they are, the others go on from
their last checkpoint, and so do the predictions.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path

import numpy as np

from cpfnet.data.splits import by_patient, folds, to_learn_from
from cpfnet.errors import CpfnetError, DatasetError, OutputError, TrainingError
from cpfnet.inference.cross_validation import CrossValidation, FittedOnFolds, fold_name, is_cross_validation
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.sliding_window import predict_array
from cpfnet.inference.tiling import Backend
from cpfnet.inference.torch_backend.network import pick_device, torch_backend
from cpfnet.model import PLAN, Model, is_model
from cpfnet.training import checkpoint
from cpfnet.training.calibrate.fit import fit
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.cross_validation.folds import FoldRuns, check_content, check_epochs, new_flag, train_folds
from cpfnet.training.cross_validation.report import score_out_of_fold
from cpfnet.training.distributed.process_group import SINGLE_PROCESS
from cpfnet.training.from_dataset import prepare
from cpfnet.training.initial_weights import weights_of
from cpfnet.training.options import PlanOptions, TrainOptions
from cpfnet.training.progress_display import CaseCounter
from cpfnet.training.samples import cache
from cpfnet.training.samples.cache import Cached
from cpfnet.training.signals import Interruption

logger = logging.getLogger(__name__)


def cross_validate(
    dataset: Path, out: Path, wanted: PlanOptions, options: TrainOptions, *, jobs: int = 1
) -> CrossValidation:
    """Train all folds of a plan, fit and score what they predict out of fold, and write it to ``out``.

    Args:
        dataset: folder, dataset.yaml, CSV manifest or datalist JSON.
        out: the folder to write; must not exist, unless it is resumed.
        wanted: the plan, the same for all folds.
        options: how each of them is trained.
        jobs: folds at once.

    Raises:
        CpfnetError: the data, plan, weights, device or ``out`` do not allow it; a fold failed.
        KeyboardInterrupt: a signal came; the same with ``resume`` goes on.
    """
    if jobs < 1:
        raise TrainingError(f"{jobs} folds at once cannot be", fix="give a number from 1 (--jobs)")
    folder = RunFolder(out)
    if (is_model(out) or folder.checkpoint.is_file()) and not is_cross_validation(out):
        raise OutputError("holds the run of one Model, not folds", where=out, fix="choose another folder")
    with ExitStack() as holding:
        data, plan = prepare(dataset, out, wanted, options, SINGLE_PROCESS, holding)
        if plan.first_stage or options.first_stage:
            raise TrainingError(
                "a plan with a first stage is not cross-validated in one command",
                where=out,
                fix="train its folds one by one (--fold 0 --first-stage MODEL …), or set first_stage=false",
            )
        cases = to_learn_from(data)
        parts = folds(cases, plan.folds.count, plan.folds.seed)
        if len(parts) < 2:
            raise DatasetError(
                f"no case can be held out: {len(cases)} labelled cases of {len(by_patient(cases))} patient",
                where=data.root,
                fix="add labelled cases of another patient; or train one Model without --folds",
            )
        if options.resume and folder.plan.is_file():
            checkpoint.check_same(folder.first_plan(), plan, out)
        runs = FoldRuns(dataset, out, plan, folder.plan, parts, options, min(jobs, len(parts)))
        check_epochs(runs)
        weights = _check_init(runs, folder)
        folder.make()
        plan.save(folder.plan)
        if weights is not None:
            folder.keep_init(weights)
        (out / fold_name(0)).mkdir(exist_ok=True)  # from here on no other run goes on in this folder
        plan.save(out / PLAN)
        flag = new_flag()
        try:
            with Interruption(flag) as interruption:
                train_folds(runs, interruption, flag)
                done = _as_it_is(out) or _fit(runs, folder, interruption)
            predicting = PredictorOptions(device=options.device, allow_import=options.allow_import)
            score_out_of_fold(done, data, predicting, progress=options.progress)
        except KeyboardInterrupt:
            logger.info("Cross-validation stopped. The same command with --resume goes on with it.")
            raise
        return done


def _check_init(runs: FoldRuns, folder: RunFolder) -> str | None:
    """Refuse to begin the folds that are left from other weights than those that were begun.

    Returns:
        SHA-256 of the weights that they begin from; None where all were begun.

    Raises:
        TrainingError: ``init`` is not what it was.
    """
    if all(RunFolder(runs.place(number)).checkpoint.is_file() for number in range(len(runs.parts))):
        return None
    weights = weights_of(runs.options.init)
    folder.check_init(weights)
    return weights


def _as_it_is(out: Path) -> CrossValidation | None:
    """What was fitted before on these very Models, if it was."""
    try:
        found = CrossValidation.load(out)
    except CpfnetError:
        return None
    return found if "fitting" in found.metrics else None


def _fit(runs: FoldRuns, folder: RunFolder, interruption: Interruption) -> CrossValidation:
    """Fit on the cases of all folds, each seen by the Model that was not trained on it."""
    allowed = runs.options.allow_import
    models = [Model.load(runs.place(number), allow_import=allowed) for number in range(len(runs.parts))]
    fold_of = {case.id: number for number, (_, held_out) in enumerate(runs.parts) for case in held_out}
    device = str(pick_device(runs.options.device))

    @lru_cache(maxsize=1)  # cases come fold by fold: one network is in memory at a time
    def backend(number: int) -> Backend:
        return torch_backend(models[number], device)

    def segment(case: Cached) -> np.ndarray:
        return predict_array(backend(fold_of[case.id]), np.asarray(case.image()), runs.plan)

    with CaseCounter("Preparing cases", runs.options.progress, interruption) as advance:
        cases = [case for _, held_out in runs.parts for case in held_out]
        cached = cache.build(cases, runs.plan, folder.cache, advance=advance)
    check_content(runs, cached)
    with CaseCounter("Fitting on all folds", runs.options.progress, interruption) as advance:
        found = fit(segment, cached, runs.plan, advance)
    fitted = FittedOnFolds.of(models).model_copy(update=found.values)
    metrics = {"fitting": found.notes, "calibration": found.calibration}
    made = CrossValidation(runs.out, runs.plan, fitted, models, metrics)
    made.save()
    shutil.rmtree(folder.cache, ignore_errors=True)
    logger.info("On the cases of all %d folds: %s", len(models), found.brief())
    return made

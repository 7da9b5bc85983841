"""One Model of every case, as long as the folds of a cross-validation learned best; nothing validates it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

from cpfnet.data.dataset import load
from cpfnet.data.splits import to_learn_from
from cpfnet.errors import TrainingError
from cpfnet.inference.configurations import is_configurations
from cpfnet.inference.cross_validation import ALL, CrossValidation, is_cross_validation
from cpfnet.model import Model
from cpfnet.text import brief, counted
from cpfnet.training.calibrate.fit import Findings
from cpfnet.training.from_dataset import train_on_dataset
from cpfnet.training.options import PlanOptions, TrainOptions

logger = logging.getLogger(__name__)


def train_on_all(dataset: Path, folds: Path, wanted: PlanOptions, options: TrainOptions) -> Model:
    """Train on every labelled case that is not kept apart for the test, under the plan of the folds.

    As many epochs as the best ones of the folds had, in the median, times the share by which there are more cases: each
    image is seen as often. Temperature, threshold, smallest component and what is known of the quality come from the
    out-of-fold cases.

    Args:
        dataset: folder, dataset.yaml, CSV manifest or datalist JSON.
        folds: the folder of a cross-validation that has ended; the Model goes to ``all`` in it.
        wanted: ``epochs`` may name another number of epochs; all else is the folds'.
        options: how it is trained.

    Raises:
        TrainingError: no folds were trained, or the plan is to be another one.
        CpfnetError: as `train_on_dataset`.
    """
    if not is_cross_validation(folds):
        raise TrainingError(
            "holds no folds, and a Model of all cases learns from them how long to train",
            where=folds,
            fix=f"give that of one configuration, such as {folds / '2d'}"
            if is_configurations(folds)
            else "train them first, or along with it: add --folds all",
        )
    if wanted.plan or wanted.settings or wanted.network or wanted.weights:
        raise TrainingError(
            "a Model of all cases follows the plan of its folds",
            where=folds,
            fix="leave out --plan, --set, --network and --weights",
        )
    found = CrossValidation.load(folds)
    notes, calibration = found.metrics.get("fitting", {}), found.metrics.get("calibration", {})
    values = {name: getattr(found.fitted, name) for name in Findings().values}
    cases = {case.id for case in to_learn_from(load(dataset))}
    if (known := {case for fold in found.folds for case in fold}) and (differing := sorted(known ^ cases)):
        logger.warning(
            "The folds had other cases (%s: %s): what was fitted on those may not suit these",
            counted(len(differing), "case"),
            brief(differing),
        )
    epochs = wanted.epochs or _epochs(found, len(cases))
    plan = found.plan.with_settings({"training.epochs": epochs})
    options = replace(options, fold=ALL, findings=Findings(values, notes, calibration))
    return train_on_dataset(dataset, folds / ALL, PlanOptions(plan), options)


def _epochs(found: CrossValidation, cases: int) -> int:
    best = [model.fitted.epochs for model in found.models]
    seen = mean(model.fitted.cases for model in found.models)
    epochs = max(1, round(median(best) * cases / seen))
    logger.info(
        f"The best epochs of the folds were {', '.join(map(str, best))}: {median(best):g} in the median, with "
        f"{seen:g} cases each. With {cases} cases {epochs} epochs show each image as often."
    )
    return epochs

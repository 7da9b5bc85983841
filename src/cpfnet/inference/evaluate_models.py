"""Masks, or Models that predict them, against a data set's labels: which cases, by whose labels, and the report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from cpfnet.data.case import Dataset, left_out
from cpfnet.data.task_mismatch import task_mismatch
from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.evaluate import check_labels, check_request
from cpfnet.evaluation.evaluate import evaluate as score
from cpfnet.evaluation.report import write_report
from cpfnet.evaluation.scores import Scores
from cpfnet.files import check_free, check_writable
from cpfnet.inference.dataset_predictions import Assignment, assign, choose, item_of, load_predictions, predict_cases
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.tune_threshold import as_fitted, choosing_cases, tune_threshold
from cpfnet.model import Model
from cpfnet.planning import Labels, Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored, and how.

    Attributes:
        split: as for `dataset_predictions.choose`.
        tolerance: of NSD, mm (pixels where there are no millimetres).
        guide_batch: cases pooled for the guide's own metric.
        allow_missing: a case without prediction counts as predicted empty instead of ending in an error.
    """

    split: str | None = None
    tolerance: float = 1.0
    guide_batch: int = 4
    allow_missing: bool = False


@dataclass
class Scored:
    """What is to be scored, and what the report says beside the figures.

    Attributes:
        items: cases and predictions.
        labels: by which they are scored.
        warnings: what a reader of the figures should know.
        protocol: how they came about.
    """

    items: list[Item]
    labels: Labels
    warnings: list[str] = field(default_factory=list)
    protocol: dict[str, str] = field(default_factory=dict)


def evaluate_masks(
    data: Dataset,
    folder: Path,
    scoring: ScoringOptions,
    *,
    out: Path | None,
    label_plan: Plan | None,
    overwrite: bool,
    progress: bool,
) -> Scores:
    """Score the label maps in a folder.

    Args:
        data: with labels.
        folder: of the label maps, each called as its case or image.
        scoring: which cases, and how.
        out: for scores and report.
        label_plan: whose labels to use; default: those that the data set declares, else those that the planner
            proposes.
        overwrite: replace what lies in ``out``.
        progress: show bars.

    Raises:
        CpfnetError: as `cpfnet.evaluate`.
    """
    cases, chosen = choose(data, scoring.split)
    _check_out(out, overwrite)
    labels = _labels_of(data, progress) if label_plan is None else label_plan.labels
    items, warnings = load_predictions(data, cases, folder)
    if not scoring.allow_missing and any(item.prediction is None for item in items):
        for warning in warnings:  # the scores, which would carry it, will not come about
            logger.warning("%s", warning)
    if out is not None:
        check_writable(out)
    scored = Scored(items, labels, [*left_out(data), *warnings], {"chosen": chosen})
    return _score(data, scored, scoring, out, overwrite=overwrite, progress=progress)


def evaluate_models(
    data: Dataset,
    models: Sequence[Model],
    scoring: ScoringOptions,
    options: PredictorOptions,
    *,
    out: Path | None,
    threshold_on: str | None,
    overwrite: bool,
    progress: bool,
) -> Scores:
    """Have Models predict cases, and score what they find.

    What an interrupted evaluation had predicted into ``out`` is not predicted again.

    Args:
        data: with labels.
        models: several average their probabilities; of the split ``"val"`` each case is predicted by the Models that it
            validated.
        scoring: which cases, and how.
        options: how they predict; ``"auto"`` is torch here, so that scores are the same on every machine.
        out: for scores, report and predictions.
        threshold_on: the split that chooses the threshold; default: as fitted.
        overwrite: replace what lies in ``out``.
        progress: show bars.

    Raises:
        CpfnetError: as `cpfnet.evaluate`.
    """
    _check_out(out, overwrite)
    with TemporaryDirectory(prefix="cpfnet-") as temporary:
        folder = Path(temporary if out is None else out) / "predictions"
        scored = predict_split(
            data, models, scoring, options, folder, threshold_on=threshold_on, overwrite=overwrite, progress=progress
        )
        return _score(data, scored, scoring, out, overwrite=overwrite, progress=progress)


def predict_split(
    data: Dataset,
    models: Sequence[Model],
    scoring: ScoringOptions,
    options: PredictorOptions,
    folder: Path,
    *,
    threshold_on: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Scored:
    """Have Models predict the cases that are to be scored; what cannot be scored is refused first.

    Args:
        data, models, scoring, options, threshold_on, overwrite, progress: as for `evaluate_models`.
        folder: for the predictions.

    Raises:
        CpfnetError: as `cpfnet.evaluate`.
    """
    if options.backend == "auto":
        options = replace(options, backend="torch")
    cases, chosen = choose(data, scoring.split, models)
    labels, out_of_fold = models[0].plan.labels, scoring.split == "val"
    choosing = [] if threshold_on is None else choosing_cases(data, threshold_on, cases, models)
    items = [item_of(case, None) for case in cases]
    check_request(items, labels, tolerance=scoring.tolerance, guide_batch=scoring.guide_batch)
    check_labels([*items, *(item_of(case, None) for case in choosing)], labels, progress=progress)
    warnings = left_out(data)
    warnings += task_mismatch(models[0].plan, data, "Model", "what is scored are the Model's, by their label values")
    check_writable(folder)
    assignments = assign(cases, models, out_of_fold=out_of_fold)
    decided = [as_fitted(one.models) for one in assignments]
    threshold = decided[0] if decided.count(decided[0]) == len(decided) else {"threshold": "each model's own"}
    if threshold_on is not None:
        models, threshold = tune_threshold(choosing, threshold_on, models, options, progress=progress)
        logger.info("Threshold chosen on %s: %s", threshold_on, threshold["fitted"])
    if len(assignments) > 1:  # images at the end of what there was are seen by all folds but their own
        options = replace(options, force=True)
    items = predict_cases(
        cases, models, folder, options, out_of_fold=out_of_fold, overwrite=overwrite, progress=progress
    )
    named = Counter(f"{m.plan.name} ({m.plan.network.name}, plan {m.plan.hash[:8]})" for m in models)
    names = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in named.items())
    scored = Scored(items, labels, warnings, {"chosen": chosen} | threshold | {"model": names})
    _add_seen_cases(scored, assignments)
    return scored


def _labels_of(data: Dataset, progress: bool) -> Labels:
    """What a data set declares, else what the planner proposes."""
    if data.labels is not None:
        return data.labels
    from cpfnet.planner.fingerprint import fingerprint
    from cpfnet.planner.proposal import propose

    return propose(fingerprint(data, progress=progress), data)[0].labels


def _check_out(out: Path | None, overwrite: bool) -> None:
    """Refuse what is in the way before the long work, not after it."""
    if out is not None:
        for name in ("scores.csv", "scores.json", "report.html"):
            check_free(out / name, overwrite=overwrite)


OUT_OF_FOLD = (
    "Each case was predicted by the one model that was not trained on it. It helped to choose that model's epoch and, "
    "with others, the temperature, threshold and smallest component kept: the scores are a little optimistic. They are "
    "those of single models; the ensemble is mostly better, and can be scored on other cases only."
)

OUT_OF_FOLDS = (
    "Each case was predicted by those models alone that were not trained on it. It helped to choose their epochs and, "
    "with others, temperatures, thresholds and smallest components kept: the scores are a little optimistic. All "
    "models together are mostly better, and can be scored on other cases only."
)
"""Of several cross-validations."""


def _add_seen_cases(scored: Scored, assignments: Sequence[Assignment]) -> None:
    """Warn where Models know cases by the names of those that they are scored on."""
    total = sum(len(one.cases) for one in assignments)
    out_of_fold = OUT_OF_FOLD if all(len(one.models) == 1 for one in assignments) else OUT_OF_FOLDS
    for part, line, warning in (
        ("train", "trained on", "{} carry the names of cases that the model was trained on: scores are optimistic"),
        (
            "validation",
            "validated on",
            "{} carry the names of cases that chose its epoch, and whatever else was fitted: scores are optimistic"
            if len(assignments) == 1
            else out_of_fold,
        ),
    ):
        count = 0
        for one in assignments:
            seen = {case for model in _with_first_stages(one) for case in model.metrics.get("cases", {}).get(part, [])}
            count += sum(case.id in seen for case in one.cases)
        if count:
            scored.warnings.append(warning.format(f"{count} of {total} cases"))
            scored.protocol[line] = f"{count} of these cases"
    if any("withheld" in model.metrics.get("cases", {}) for one in assignments for model in _with_first_stages(one)):
        scored.warnings.append(
            "a shared model does not name the cases it was trained on: make sure that none of them is among these"
        )


def _with_first_stages(one: Assignment) -> list[Model]:
    """All that have a part in a prediction: a first stage may have learned from cases that the second has not."""
    return [part for model in one.models for part in (model, *model.first_stage)]


def _score(
    data: Dataset, scored: Scored, scoring: ScoringOptions, out: Path | None, *, overwrite: bool, progress: bool
) -> Scores:
    scores = score(
        scored.items,
        scored.labels,
        tolerance=scoring.tolerance,
        guide_batch=scoring.guide_batch,
        allow_missing=scoring.allow_missing,
        protocol=scored.protocol,
        progress=progress,
    )
    scores.warnings[:0] = scored.warnings
    if out is not None:
        scores.save(out, overwrite=overwrite)
        write_report(
            scores,
            scored.items,
            scored.labels,
            out / "report.html",
            title=f"{data.name}: evaluation",
            subtitle=f"{len(scored.items)} cases, {scored.protocol['chosen']}",
            overwrite=overwrite,
        )
    return scores

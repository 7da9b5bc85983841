"""Out-of-fold scores: every case predicted by the Model that has not seen it, scored fold by fold and pooled."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpfnet.data.case import Dataset
from cpfnet.evaluation import report as reporting
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.evaluation.scores import MEAN, Scores, strict_json
from cpfnet.evaluation.tables import fold_table, number
from cpfnet.inference.cross_validation import CrossValidation
from cpfnet.inference.evaluate_models import Scored, ScoringOptions, predict_split
from cpfnet.inference.options import PredictorOptions
from cpfnet.model import Model
from cpfnet.report import page
from cpfnet.training.report import fitted_section, validation_calibration

logger = logging.getLogger(__name__)

MASKS = "out-of-fold"
"""The folder of the masks."""

_NOTE = "Mean over cases; of Dice with the 95 % interval. Pooled: the cases of all folds, each counting the same."


def score_out_of_fold(found: CrossValidation, data: Dataset, options: PredictorOptions, *, progress: bool) -> Scores:
    """Predict, score and report; masks that an interrupted run has made are left as they are.

    Args:
        found: what was trained and fitted; its metrics get the scores.
        data: with the cases of all folds.
        options: how they are predicted.
        progress: show bars.

    Raises:
        CpfnetError: a case cannot be read any more, or the folder cannot be written.
    """
    models = found.ensemble()
    scored, scores = predict_and_score(data, models, options, found.folder, progress=progress)
    found.metrics |= {
        "out_of_fold": _summary(scores),
        "folds": [
            {"cases": len(fold), "best_epoch": model.fitted.epochs} | _summary(scores.only(fold))
            for fold, model in zip(found.folds, found.models, strict=True)
        ],
    }
    found.save_metrics()
    columns, rows = fold_table(scores, found.folds)
    epochs = [f"{model.fitted.epochs} of {found.plan.training.epochs}" for model in found.models]
    facts = [
        ("Network", f"{found.plan.network.name}, {found.plan.spatial.mode}"),
        ("Cases", f"{len(scored.items)} in {len(models)} folds; a patient is in one fold only"),
        ("Best epochs", ", ".join(epochs)),
    ]
    sections = reporting.sections(scores, scored.items, scored.labels)
    calibration = validation_calibration(found.metrics["calibration"], "mm" if found.fitted.spacing_low else "pixels")
    shown = {section.title for section in calibration}  # before and after the temperature; `sections` have the latter
    written = page.render(
        found.folder / "report.html",
        title=f"{found.plan.name}: cross-validation",
        subtitle=f"{found.plan.network.name}, {len(scored.items)} cases, {len(models)} folds",
        sections=[
            sections[0],
            page.Section("Fold by fold", [page.Table(columns, rows, _NOTE), page.Pairs(facts)]),
            *(section for section in sections[1:] if section.title not in shown),
            fitted_section("Fitted on the out-of-fold cases", found.metrics["fitting"]),
            *calibration,
            page.Section("Plan", [page.Code((found.folder / "plan.yaml").read_text(encoding="utf-8"))]),
            page.Section("Versions", [page.Pairs(page.installed_versions("torch", "monai", "numpy"))]),
        ],
        overwrite=True,
    )
    logger.info("%s; report: %s", headline(scores), written)
    return scores


def predict_and_score(
    data: Dataset, models: Sequence[Model], options: PredictorOptions, folder: Path, *, progress: bool
) -> tuple[Scored, Scores]:
    """Predict each case by the Models that it validated, and write scores and predictions to ``folder``."""
    scored = predict_split(data, models, ScoringOptions("val"), options, folder / MASKS, progress=progress)
    scores = evaluate(scored.items, scored.labels, protocol=scored.protocol, progress=progress)
    scores.warnings[:0] = scored.warnings
    scores.save(folder, overwrite=True)
    return scored, scores


def headline(scores: Scores) -> str:
    """Dice with its interval and the number of cases, in one line."""
    dice = scores.of("dice")
    if dice is None or not dice["count"]:
        return "Out-of-fold Dice: none, since no class was there to be found"
    interval = f" ({number(dice['low'])} … {number(dice['high'])})" if dice["groups"] > 1 else ""
    return f"Out-of-fold Dice {number(dice['mean'])}{interval}, the mean of {dice['count']} cases"


def _summary(scores: Scores) -> dict[str, Any]:
    """Dice of each class and of their mean, with its interval."""
    names = dict.fromkeys(row["class"] for row in scores.rows if not row["class"].startswith("("))
    entries = {name: scores.of("dice", name) for name in (MEAN, *names)}
    kept = {
        name: {key: entry[key] for key in ("mean", "low", "high", "sd", "median", "count")}
        for name, entry in entries.items()
        if entry is not None
    }
    return strict_json({"dice": kept.pop(MEAN, None), "classes": kept})

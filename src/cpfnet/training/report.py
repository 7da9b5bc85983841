"""The report of a training run: its curves, and how the Model does on the validation cases, at full resolution."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cpfnet.data.case import Case, Dataset
from cpfnet.evaluation import report as reporting
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.evaluation.scores import Scores
from cpfnet.evaluation.tables import number
from cpfnet.inference.dataset_predictions import predict_cases
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.tune_threshold import as_fitted
from cpfnet.model import Model
from cpfnet.network.encoder import find_encoder
from cpfnet.report import page
from cpfnet.report.calibration import calibration_section
from cpfnet.report.training import training_sections

logger = logging.getLogger(__name__)

_FITTED = {
    "temperature": "Temperature",
    "threshold": "Threshold",
    "min_component_size": "Smallest connected component kept",
    "quality": "Quality of predictions",
}


_NOTHING_HELD_OUT = (
    "Every case was trained on, so no score of this Model can be given: the out-of-fold scores of its cross-validation "
    "(the report in the folder above) tell how well such Models do."
)


def write_report(
    model: Model,
    dataset: Dataset,
    *,
    device: str = "auto",
    progress: bool = False,
) -> Path:
    """Write ``report.html`` into the Model's folder, replacing that of an earlier run in it, and log its headline.

    Args:
        model: as `train` returned it.
        dataset: which it was trained on.
        device, progress: as for `train`.

    Raises:
        CpfnetError: a validation case cannot be read any more, or the report cannot be written.
    """
    assert model.folder is not None  # `train` has written it
    held_out = set(model.metrics["cases"]["validation"])
    scored_whole = model.metrics["validation"]["cases"]
    chosen = [case for case in dataset.cases if case.id in scored_whole]
    warnings = [
        "The validation cases chose the epoch, the temperature, the threshold and the smallest component kept: their "
        "scores are optimistic."
    ]
    if held_out <= set(model.metrics["cases"]["train"]):  # a single patient's
        warnings = ["The validation cases are the training cases: these scores say nothing about other images."]
    if (part := model.plan.training.validation) is not None:
        of = f"{len(chosen)} of {len(held_out)}" if len(chosen) < len(held_out) else "all"
        warnings.append(
            f"Curves show Dice on {min(part.cases, len(held_out))} cases, up to {part.pieces} pieces of each, the same "
            f"after each epoch, half of them on structures; the scores below are those of {of} validation cases, whole."
        )
    scored, headline = [page.Section("Summary", [page.Notice([_NOTHING_HELD_OUT])])], ""
    if held_out:
        scores, scored = _score(model, chosen, warnings, device=device, progress=progress)
        dice = scores.of("dice")
        if dice and dice["count"]:
            headline = f"; Dice {number(dice['mean'])}, the mean of {_cases(dice['count'])}, on the files' grid"
    fitted, plan = model.fitted, model.plan
    facts = [
        ("Network", f"{plan.network.name}, {plan.spatial.mode}, encoder from {_origin(model)}"),
        ("Cases", f"{fitted.cases} to train, {len(chosen)} to validate"),
        ("Epochs", f"{len(model.metrics['history'])}; the {'best' if held_out else 'last'}, {fitted.epochs}, is kept"),
        ("Time", _duration(sum(row["seconds"] for row in model.metrics["history"]))),
    ]
    run = training_sections(
        model.metrics["history"],
        facts=facts,
        versions=page.installed_versions("torch", "monai", "lightning-fabric", "numpy"),
        plan=(model.folder / "plan.yaml").read_text(encoding="utf-8"),
    )
    unit = "mm" if fitted.spacing_low else "pixels"
    calibration = validation_calibration(model.metrics["calibration"], unit)
    # Before and after the temperature; `evaluate` knows the latter only.
    shown = {section.title for section in calibration}
    where = "validation cases" if held_out else "out-of-fold cases of the cross-validation"
    trust = [fitted_section(f"Fitted on the {where}", model.metrics["fitting"]), *calibration]
    curves = [section for section in run if section.title in ("Training", "Curves")]
    rest = [section for section in run if section not in curves]
    written = page.render(
        model.folder / "report.html",
        title=f"{plan.name}: training",
        subtitle=f"{plan.network.name}, {fitted.cases} cases",
        sections=[*curves, *(section for section in scored if section.title not in shown), *trust, *rest],
        overwrite=True,
    )
    logger.info(f"Report: {written}{headline}")
    return written


def _score(
    model: Model, cases: Sequence[Case], warnings: Sequence[str], *, device: str, progress: bool
) -> tuple[Scores, list[page.Section]]:
    """Scores of the validation cases, and the sections that show them."""
    labels = model.plan.labels
    with TemporaryDirectory(prefix="cpfnet-") as temporary:
        options = PredictorOptions(device=device, backend="torch", force=True)
        items = predict_cases(cases, [model], Path(temporary), options, progress=progress)
        protocol = {"chosen": "validation cases"} | as_fitted([model])
        scores = evaluate(items, labels, protocol=protocol, progress=progress)
        scores.warnings[:0] = warnings
        return scores, reporting.sections(scores, items, labels)


def fitted_section(title: str, notes: Mapping[str, str]) -> page.Section:
    """What was chosen, and why, of ``metrics.json``'s ``fitting``."""
    return page.Section(title, [page.Pairs([(name, notes[key]) for key, name in _FITTED.items() if key in notes])])


def validation_calibration(found: Mapping[str, Any], unit: str) -> list[page.Section]:
    """Of ``metrics.json``'s ``calibration``."""
    moments = {when: found[when] for when in ("before", "after") if when in found}
    if not moments:
        return []
    note = "No temperature was fitted; the cases also chose the epoch: on other images this may be worse."
    if "after" in moments:
        note = (
            f"The temperature, {found['temperature']:g}, was fitted on these very cases; so that none judges what it "
            "helped to fit, each case stands after it at the temperature that the others gave. They also chose the "
            "epoch: on other images all of it may be worse."
        )
    cases = _cases(found["cases"])
    pixels = f"the pixels of {cases} together (the table of scores has means over cases), on the network's grid"
    return calibration_section(moments, unit=unit, pixels=pixels, note=note)


def _cases(count: int) -> str:
    return f"{count} validation case{'s' * (count != 1)}"


def _origin(model: Model) -> str:
    weights = model.plan.network.weights
    return "scratch" if weights == "none" or find_encoder(model.network()) is None else weights


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"

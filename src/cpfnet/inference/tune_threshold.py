"""Where Models draw the line between a class and the rest: as fitted, or as chosen on cases that are not scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cpfnet import formats, labels
from cpfnet.data.case import Case, Dataset
from cpfnet.errors import CpfnetError, DatasetError
from cpfnet.evaluation.case_masks import load_masks
from cpfnet.inference.dataset_predictions import item_of, of_split, validation_cases
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.inference.threshold_search import THRESHOLDS, best_threshold, dice_curve
from cpfnet.model import MM3, Fitted, Model
from cpfnet.planning import Labels
from cpfnet.progress import Bar

CHOOSING = ("train", "val")
"""Splits that may choose a threshold; what is called test may not."""


def as_fitted(models: Sequence[Model]) -> dict[str, str]:
    """How Models decide by themselves, for the protocol: the rule, and apart from it what these Models have."""
    plan = models[0].plan.labels
    if not _has_threshold(plan):
        return _lines("none, the most probable class", [], models)
    limits = Fitted.combined(models).threshold
    above = [f"{c.name} above {limit:g}" for c, limit in zip(plan.classes, limits, strict=True)]
    return _lines("the model's own", above, models)


def choosing_cases(dataset: Dataset, split: str, scored: Sequence[Case], models: Sequence[Model]) -> list[Case]:
    """The labelled cases of a split that may choose a threshold for others.

    Args:
        dataset: all cases.
        split: that chooses.
        scored: cases that the threshold is for.
        models: which the threshold is for; ``"val"`` means the cases that validated them (`of_split`).

    Raises:
        CpfnetError: the labels know no threshold, or the split cannot choose.
        DatasetError: it has no labelled case, or shares patients with ``scored``.
    """
    if split not in CHOOSING:
        raise CpfnetError(
            f"a threshold cannot be chosen on {split!r}: what is scored chooses nothing",
            fix=f"choose --threshold-on {' or '.join(CHOOSING)}",
        )
    if split == "val" and len({validation_cases(model) for model in models}) > 1:
        raise DatasetError(
            f"the {len(models)} models were validated on different cases, as folds are: "
            "what validated one has trained another",
            where="--threshold-on val",
            fix="leave it out: a cross-validation's threshold was chosen on the cases of all folds, out of fold",
        )
    definitions = models[0].plan.labels
    if not _has_threshold(definitions):
        raise CpfnetError(
            f"of {len(definitions.classes)} exclusive classes the most probable one is taken; "
            "there is no threshold to choose",
            fix="leave out --threshold-on",
        )
    try:
        cases, _ = of_split(dataset, split, models)
    except DatasetError as error:
        fix = "say in dataset.yaml which cases are which (`split`), or leave out --threshold-on"
        raise DatasetError(f"no threshold can be chosen on {split}: {error.what}", where=error.where, fix=fix) from None
    patients = {case.patient for case in cases}
    both = [case.id for case in scored if case.patient in patients]
    if both:
        raise DatasetError(
            f"{len(both)} of the {len(scored)} cases to score are of the {split} split or its patients "
            f"({', '.join(both[:5])}{' …' * (len(both) > 5)}): a threshold chosen on them would be tuned on the test",
            where=dataset.root,
            fix="score other cases (--split), or choose the threshold on another split",
        )
    return cases


def tune_threshold(
    cases: Sequence[Case],
    split: str,
    models: Sequence[Model],
    options: PredictorOptions,
    *,
    progress: bool,
) -> tuple[list[Model], dict[str, str]]:
    """Models with the threshold that gives the best mean Dice over cases, one a region; readers of a case are averaged.

    The cases are predicted one by one, and only their Dice at each of `THRESHOLDS` is kept. Components that the Models
    drop as too small are still there when the threshold is chosen.

    Args:
        cases: of `choosing_cases`, of this split.
        split: called so in the protocol.
        models: which the threshold is for.
        options: how they predict.
        progress: show a bar.

    Returns:
        The Models with the new threshold, and for the protocol how it came about and, apart from that, what it is.

    Raises:
        CpfnetError: a case cannot be read, or lies outside what the Models were fitted for.
    """
    plan = models[0].plan.labels
    predictor = Predictor(models, options)
    members = labels.membership(plan)
    curves = []
    with Bar(show=progress) as bar:
        for case in bar.track(cases, description=f"Choosing the threshold on {split}"):
            image = formats.read(list(case.images))
            segmentation = predictor.predict(image, keep_probabilities=True)
            masks = load_masks(item_of(case, segmentation), plan, image)
            assert masks.probability is not None  # asked for above
            readers = []
            for truth in masks.truth.values():
                valid = truth != labels.IGNORED if masks.roi is None else masks.roi & (truth != labels.IGNORED)
                planes = enumerate(masks.probability)
                readers.append([dice_curve(plane, members[truth, k], valid) for k, plane in planes])
            curves.append(np.mean(readers, axis=0))
    limits, dice = zip(*(best_threshold(of_class) for of_class in np.stack(curves, axis=1)), strict=True)
    trained = {name for model in models for name in model.metrics.get("cases", {}).get("train", [])}
    seen = f" ({sum(case.id in trained for case in cases)} of them trained the model)" if trained else ""
    tried = f"{THRESHOLDS[0]:g} to {THRESHOLDS[-1]:g}"
    rule = f"best mean Dice over the {len(cases)} cases of the {split} split{seen}, of {tried}"
    above = [
        f"{c.name} above {limit:g} (mean Dice {value:.4f})"
        for c, limit, value in zip(plan.classes, limits, dice, strict=True)
    ]
    chosen = [replace(m, fitted=m.fitted.model_copy(update={"threshold": limits})) for m in models]
    return chosen, _lines(rule, above, models)


def _has_threshold(definitions: Labels) -> bool:
    return not definitions.exclusive or len(definitions.classes) == 1


def _lines(rule: str, above: Sequence[str], models: Sequence[Model]) -> dict[str, str]:
    """The protocol's lines: ``threshold``, the rule; ``fitted``, what came of it.

    That is the thresholds, the temperature, and the components that are too small for the Models.
    """
    classes = models[0].plan.labels.classes
    decision, unit = Fitted.combined(models), models[0].component_unit
    sizes = zip(classes, decision.min_component_size, strict=True)
    small = ", ".join(f"{c.name} below {size:g} {unit}" for c, size in sizes if size)
    if small and unit != MM3 and len({model.plan.spatial for model in models}) > 1:
        small = "those that are too small for each of the models"  # whose grids, and so whose pixels, differ
    softened = "" if decision.temperature == 1 else f"temperature {decision.temperature:.4g}"
    fitted = [part for part in (", ".join(above), softened, small and f"components dropped: {small}") if part]
    return {"threshold": rule} | ({"fitted": "; ".join(fitted)} if fitted else {})

"""What validation cases tell once the weights are chosen: temperature, thresholds, component sizes, how far to trust.

The cases are segmented twice, as `predict` does it, and let go of one by one: memory holds the probabilities of one
case. The first time gives the loss at a grid of temperatures (`temperature`) and the counts of probabilities
(`choices.histogram`); the second time, calibrated and decided, the components and the calibration. Thresholds are those
of calibrated probabilities.

Nothing is kept that does not help on cases left out in turn, and no temperature that harms near boundaries, where it
matters: then the second time is done again without it. What chose the epoch chooses here, too: scores on the same cases
are optimistic, and only the calibration is given for each case at a temperature that the others gave.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cpfnet.evaluation.metrics import calibration
from cpfnet.evaluation.metrics.calibration import Tallies, Tally
from cpfnet.inference.quality import estimate as quality
from cpfnet.inference.threshold_search import NEUTRAL, THRESHOLDS
from cpfnet.labels import OUTSIDE, membership
from cpfnet.model import GRID_PIXELS, MM3
from cpfnet.planning import Plan
from cpfnet.preprocessing.postprocess import calibrate, decide
from cpfnet.rounding import below
from cpfnet.training.calibrate import temperature
from cpfnet.training.calibrate import thresholds as choices
from cpfnet.training.calibrate.thresholds import Components
from cpfnet.training.samples.cache import Cached
from cpfnet.training.validation import mean


@dataclass
class Findings:
    """What was fitted.

    Attributes:
        values: of `Fitted`, neutral where nothing better was shown.
        notes: of each value (its name) what was chosen and why.
        calibration: for ``metrics.json``; empty where no pixel counts.
    """

    values: dict[str, Any] = field(
        default_factory=lambda: {"temperature": 1.0, "threshold": (0.5,), "min_component_size": (0.0,), "quality": None}
    )
    notes: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)

    def brief(self) -> str:
        """What was chosen, in one line; the report has each reason."""
        if len(whys := set(self.notes.values())) == 1:
            return f"Fitted nothing: {whys.pop().removeprefix('none: ')}"
        chosen = (f"{name.replace('_', ' ')} {_shortened(note)}" for name, note in self.notes.items())
        return f"Fitted {'; '.join(chosen)} (why: report.html)"

    @classmethod
    def none(cls, why: str) -> Findings:
        """Neutral in all, for one reason."""
        return cls(notes=dict.fromkeys(("temperature", "threshold", "min_component_size", "quality"), f"none: {why}"))


def fit(
    segment: Callable[[Cached], np.ndarray],
    cases: Sequence[Cached],
    plan: Plan,
    advance: Callable[[int, int], None] = lambda done, total: None,
    training: Sequence[Cached] = (),
) -> Findings:
    """Fit all of it.

    Pixels ignored or outside the region of interest count nowhere; several readers of a case are averaged.

    Args:
        segment: gives the probabilities of a case, by a network that was not trained on it.
        cases: validation cases, or the out-of-fold cases of a cross-validation.
        plan: `labels`, `spatial` and `inference`.
        advance: called with the number of cases segmented and to be segmented; may raise to stop.
        training: cases that it was trained on: no size of components is fitted where some of all cases have millimetres
            and some have none.
    """
    found = Findings()
    decided = not plan.labels.exclusive or len(plan.labels.classes) == 1
    chosen, curves, counts = [], [], []
    for done, case in enumerate(cases):
        advance(done, 2 * len(cases))
        probabilities, codes = segment(case), case.codes()
        losses = temperature.curve(probabilities, codes, plan.labels)
        if losses is not None:
            chosen.append(case)
            curves.append(losses)
            counts.append(_histograms(probabilities, codes, plan) if decided else [])
        del probabilities  # before the next case's are made
    if not chosen:
        return Findings.none("no pixel of the validation cases counts")

    def look_again(value: float, left_out: Sequence[float], before: int) -> _Second:
        thresholds = _thresholds(counts, value, plan, found) if decided else [0.5]
        second = _Second(plan, value, thresholds)
        for done, (case, own) in enumerate(zip(chosen, left_out, strict=True), start=before):
            advance(done, before + len(chosen))
            second.add(segment(case), case, own)
        return second

    value, left_out = _temperature(np.array(curves), found)
    second = look_again(value, left_out, len(cases))
    if value != 1 and (harm := second.harm_near_boundaries()) is not None:
        found.values["temperature"] = 1.0
        found.notes["temperature"] = f"1, since near the boundary {harm} (else {found.notes['temperature']})"
        second = look_again(1.0, [1.0] * len(chosen), len(cases) + len(chosen))
    sizes = _min_component_sizes(second.components, [*cases, *training], plan, found)
    found.values["quality"], found.notes["quality"] = quality.fit(*second.as_written(sizes), plan.labels)
    found.calibration = second.calibration(len(chosen))
    return found


def _shortened(note: str) -> str:
    """The value alone, without the figures that speak for it."""
    value = re.split(r": |, since ", re.sub(r" \([^()]*\)", "", note), maxsplit=1)[0]
    return textwrap.shorten(value.replace(";", ","), 60, placeholder=" …")


def _planes(probabilities: np.ndarray, plan: Plan) -> np.ndarray:
    """One a class, without the background's."""
    return probabilities[1:] if plan.labels.exclusive else probabilities


def _bands(own: np.ndarray, case: Cached, plan: Plan) -> Iterator[np.ndarray]:
    """Of each class, where one reader of a case has pixels near its boundary (`calibration.near_boundary`)."""
    spacing = case.spacing
    if plan.spatial.spacing is not None and case.spacing is not None:  # what is not resampled keeps the file's
        depth, height, width = plan.spatial.spacing
        spacing = (case.spacing[0] if depth is None else depth, height, width)
    for members in membership(plan.labels).T:
        yield calibration.near_boundary(members[own], own < OUTSIDE, spacing)


def _temperature(curves: np.ndarray, found: Findings) -> tuple[float, list[float]]:
    """The temperature for all to come, and for each of these cases the one that the others gave."""
    count = len(curves)
    if count < 2:
        found.notes["temperature"] = "1: one validation case cannot show whether another fits better"
        return 1.0, [1.0]
    value = round(temperature.best(curves), 3)
    left_out = [temperature.best(np.delete(curves, index, axis=0)) for index in range(count)]
    before = np.array([temperature.loss(curve, 1.0) for curve in curves])
    after = np.array([temperature.loss(curve, own) for curve, own in zip(curves, left_out, strict=True)])
    gain, error = float((before - after).mean()), float((before - after).std(ddof=1)) / count**0.5
    figures = f"negative log-likelihood {before.mean():.4g} → {after.mean():.4g} on {count} cases left out in turn"
    if gain <= error:  # the cases disagree
        within = f", within the standard error of {error:.2g}" if gain > 0 else ""
        found.notes["temperature"] = f"1: {value:g} is not shown to be better ({figures}{within})"
        return 1.0, [1.0] * count
    found.values["temperature"] = value
    end = "" if temperature.inside(value) else "; the end of what is tried"
    found.notes["temperature"] = f"{value:g}: {figures}{end}"
    return value, left_out


def _histograms(probabilities: np.ndarray, codes: np.ndarray, plan: Plan) -> list[list[np.ndarray]]:
    """Of each class, of each reader who says something."""
    planes, table = _planes(probabilities, plan), membership(plan.labels)
    valid = [own < OUTSIDE for own in codes]
    return [
        [
            choices.histogram(plane[counted], table[own[counted], k])
            for own, counted in zip(codes, valid, strict=True)
            if counted.any()
        ]
        for k, plane in enumerate(planes)
    ]


def _thresholds(counts: list[list[list[np.ndarray]]], value: float, plan: Plan, found: Findings) -> list[float]:
    chosen, whys = [], []
    for k in range(len(plan.labels.classes)):
        rows = [np.mean([choices.dice_at_thresholds(reader, value) for reader in case[k]], axis=0) for case in counts]
        index, why = choices.choose(np.array(rows), NEUTRAL)
        chosen.append(THRESHOLDS[index])
        whys.append(why)
    found.values["threshold"] = tuple(chosen) if any(limit != THRESHOLDS[NEUTRAL] for limit in chosen) else (0.5,)
    found.notes["threshold"] = _reasons(chosen, THRESHOLDS[NEUTRAL], whys, plan)
    return chosen


def _min_component_sizes(
    components: list[list[list[Components]]], cases: Sequence[Cached], plan: Plan, found: Findings
) -> list[float]:
    """Of each class: as the Plan says, else what is best."""
    count, name = len(plan.labels.classes), "min_component_size"
    if plan.inference.min_component_size is not None:
        found.notes[name] = "not fitted: the plan says it (inference.min_component_size)"
        return np.broadcast_to(plan.inference.min_component_size, count).tolist()
    units = {GRID_PIXELS if case.pixel_volume is None else MM3 for case in cases}
    if len(units) > 1:
        found.notes[name] = "0: some cases have millimetres and some have none, so no size means the same in all"
        return [0.0] * count
    (unit,) = units
    chosen, whys = [], []
    for k in range(count):
        sizes, limit = choices.sizes_to_try([reader for case in components for reader in case[k]])
        rows = [np.mean([reader.dice_without(sizes) for reader in case[k]], axis=0) for case in components]
        index, why = choices.choose(np.array(rows), neutral=0)
        chosen.append(sizes[index])
        left = "" if limit is None else f"; at most {limit:.3g} {unit} were tried, a quarter of what one case has"
        whys.append(why + left)
    if any(chosen):
        found.values[name] = tuple(chosen)
    found.notes[name] = _reasons(chosen, 0, whys, plan, unit)
    return chosen


def _reasons(chosen: Sequence[float], neutral: float, whys: Sequence[str], plan: Plan, unit: str = "") -> str:
    """What was chosen for each class that has more than the neutral value, and why; of many that have it, the first."""

    def shown(value: float) -> str:
        return f"{value:g} {unit}" if unit and value else f"{value:g}"

    if len(chosen) == 1:
        return f"{shown(chosen[0])} ({whys[0]})"
    others = [
        f"{label.name} {shown(value)} ({why})"
        for label, value, why in zip(plan.labels.classes, chosen, whys, strict=True)
        if value != neutral
    ]
    rest = len(chosen) - len(others)
    if not others:
        why = whys[0] if len(set(whys)) == 1 else "no real gain in any"
        return f"{neutral:g} for all {rest} classes ({why})"
    return "; ".join([*others, *([f"{neutral:g} for the other {rest}"] if rest else [])])


class _Second:
    """What the second look at each case adds up.

    Attributes:
        components: of each case, of each class, of each reader.
        confidences: of each case, of each class (`quality.confidences`), small components included.
        before, after: of each case, as it is and at the temperature that the others gave.
    """

    def __init__(self, plan: Plan, value: float, thresholds: Sequence[float]):
        self.plan, self.value, self.thresholds = plan, value, thresholds
        self.components: list[list[list[Components]]] = []
        self.confidences: list[tuple[float | None, ...]] = []
        self.before: list[Tallies] = []
        self.after: list[Tallies] = []

    def add(self, probabilities: np.ndarray, case: Cached, left_out: float) -> None:
        """Judge one case.

        Args:
            probabilities: as the network gives them; changed in place.
            case: of this.
            left_out: the temperature that the other cases gave.
        """
        labels, table = self.plan.labels, membership(self.plan.labels)
        readers = [(own, own < OUTSIDE) for own in case.codes() if (own < OUTSIDE).any()]
        # As indices: masks of many classes need not fit into memory.
        bands = [[np.flatnonzero(band) for band in _bands(own, case, self.plan)] for own, _ in readers]
        self.before.append(self._tallies(probabilities, readers, bands))
        calibrate(probabilities, left_out, exclusive=labels.exclusive)
        self.after.append(self._tallies(probabilities, readers, bands))
        calibrate(probabilities, self.value / left_out, exclusive=labels.exclusive)
        classes = decide(probabilities, labels, self.thresholds)
        self.confidences.append(quality.confidences(probabilities, classes, labels))
        pixel = 1.0 if case.pixel_volume is None else case.pixel_volume
        self.components.append(
            [
                [
                    Components.of(classes == k + 1 if labels.exclusive else classes[k], members[own], counted, pixel)
                    for own, counted in readers
                ]
                for k, members in enumerate(table.T)
            ]
        )

    def as_written(self, sizes: Sequence[float]) -> tuple[list[tuple[float | None, ...]], list[float | None]]:
        """Confidences and mean Dice of each case without components below ``sizes``, one a class.

        As `predict` judges its masks.
        """
        confidences, means = [], []
        for sure, case in zip(self.confidences, self.components, strict=True):
            left = [not below(readers[0].size.max(initial=0), size) for readers, size in zip(case, sizes, strict=True)]
            confidences.append(tuple(value if there else None for value, there in zip(sure, left, strict=True)))
            means.append(mean([mean([r.known_dice(size) for r in rs]) for rs, size in zip(case, sizes, strict=True)]))
        return confidences, means

    def harm_near_boundaries(self) -> str | None:
        """How the temperature harms probabilities near the boundaries: surer background may be all that it gains."""
        before, after = (
            calibration.summed((pairs for case in cases for pairs in case.values()), 1).brier
            for cases in (self.before, self.after)
        )
        return f"the Brier score would go from {before:.4g} to {after:.4g}" if after > before else None

    def _tallies(
        self,
        probabilities: np.ndarray,
        readers: list[tuple[np.ndarray, np.ndarray]],
        bands: list[list[np.ndarray]],
    ) -> Tallies:
        out: Tallies = {}
        labels = self.plan.labels
        classes = zip(labels.classes, _planes(probabilities, self.plan), membership(labels).T, strict=True)
        for k, (label, plane, members) in enumerate(classes):
            flat = plane.ravel()
            for (own, counted), band in zip(readers, bands, strict=True):
                truth = members[own.ravel()]
                whole, near = (Tally.of(flat[index], truth[index]) for index in (np.flatnonzero(counted), band[k]))
                out.setdefault(label.name, []).append((whole, near))
        return out

    def calibration(self, count: int) -> dict[str, Any]:
        """Of each class before and after the temperature; without an after where the temperature is 1."""
        out: dict[str, Any] = {"cases": count, "temperature": self.value}
        out["before"] = calibration.of_cases(self.before)
        if self.value != 1:
            out["after"] = calibration.of_cases(self.after)
        return out

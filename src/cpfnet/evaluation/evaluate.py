"""evaluate: from predictions and readers' labels to Scores, several cases at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any, TypeVar

import numpy as np

from cpfnet import formats, labels
from cpfnet.cores import cores
from cpfnet.errors import CpfnetError, DatasetError
from cpfnet.evaluation.case_masks import CaseMasks, Item, check_on_grid, load_masks
from cpfnet.evaluation.metrics import binary as metrics
from cpfnet.evaluation.metrics import calibration
from cpfnet.evaluation.metrics.calibration import Tallies, Tally
from cpfnet.evaluation.metrics.confusion import boxes, confusion, counts_of, union
from cpfnet.evaluation.metrics.guide import guide_metrics, guide_sums
from cpfnet.evaluation.metrics.pooled import PooledRanks, pooled
from cpfnet.evaluation.metrics.vessels import cldice, thin_recall
from cpfnet.evaluation.protocol import first_few, has_prediction, protocol_of, warnings_of
from cpfnet.evaluation.scores import (
    ALL_READERS,
    BACKGROUND,
    MEAN,
    MEAN_WITH_BACKGROUND,
    PREDICTION,
    Scores,
    mean_rows,
)
from cpfnet.image import spacing_of
from cpfnet.messages import merge_messages
from cpfnet.planning import Labels
from cpfnet.progress import Bar

Result = TypeVar("Result")


def _members(definitions: Labels) -> list[np.ndarray]:
    """The codes (bool, 256) of the background and of each class."""
    return [np.arange(256) == 0, *labels.membership(definitions).T]


def _score_pair(
    prediction: np.ndarray,
    truth: np.ndarray,
    table: np.ndarray,
    valid: np.ndarray,
    definitions: Labels,
    *,
    spacing: tuple[float, ...] | None,
    tolerance: float,
    probability: np.ndarray | None,
) -> tuple[list[dict[str, Any]], dict[str, tuple[Tally, Tally]]]:
    """Score one prediction against one reader.

    Returns:
        Rows of the background, of every class, and of their means; and class → tallies of its probabilities, everywhere
        and near the boundary.
    """
    # From here on, what does not count is background in both.
    prediction, truth = prediction * valid, truth * valid
    places = boxes(prediction), boxes(truth)
    rows: list[dict[str, Any]] = []
    tallies = {}
    for index, member in enumerate(_members(definitions), start=-1):
        counts = counts_of(table, member)
        values = metrics.overlap(counts)
        if index >= 0:
            box = union(places, member, truth.ndim)
            a, b = member[prediction[box]], member[truth[box]]
            if probability is not None:
                plane, inside = probability[index], member[truth]
                values["auc"] = metrics.auc(plane, inside, valid)
                if (tally := calibration.tally(plane, inside, valid)) is not None:
                    values |= tally.scores
                    band = calibration.near_boundary(inside, valid, spacing)
                    tallies[definitions.classes[index].name] = tally, Tally.of(plane[band], inside[band])
            if definitions.classes[index].tubular:
                values |= {"cldice": cldice(a, b), "thin_recall": thin_recall(a, b)}
            values |= metrics.surface(a, b, spacing, tolerance=tolerance)
        present, predicted = counts.tp + counts.fn > 0, counts.tp + counts.fp > 0
        rows.append(
            {"class": BACKGROUND if index < 0 else definitions.classes[index].name}
            | {name: values[name] for name in metrics.METRICS if name in values}
            | {
                "present": int(present),
                "missed": int(present and not predicted),
                "spurious": int(predicted and not present),
            }
            | asdict(counts)
        )
    overlap = [{k: v for k, v in row.items() if k in rows[0]} for row in rows]
    rows.append({"class": MEAN} | mean_rows(rows[1:]))
    rows.append({"class": MEAN_WITH_BACKGROUND} | mean_rows(overlap))
    return rows, tallies


@dataclass(frozen=True)
class _Scored:
    """One scored case.

    Attributes:
        rows: of `Scores`.
        sums: (reader, region) → the sums of `guide_sums`.
        tallies: class → tallies, one pair for each reader.
        has_mm: the label has millimetres.
        warnings: messages from reading it.
    """

    rows: list[dict[str, Any]]
    sums: dict[tuple[str, str], np.ndarray]
    tallies: Tallies
    has_mm: bool
    warnings: tuple[str, ...]


def _pairs(item: Item, masks: CaseMasks) -> Iterator[tuple[str, str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """The prediction against each reader, and readers against each other.

    Yields:
        Both names, both code maps, which pixels are annotated, and which of them count.

    Raises:
        DatasetError: no pixel counts.
    """
    pairs = [(PREDICTION, reader, masks.prediction, codes) for reader, codes in masks.truth.items()]
    pairs += [
        (second, first, masks.truth[second], masks.truth[first]) for first, second in combinations(masks.truth, 2)
    ]
    for name, reader, codes, truth in pairs:
        annotated = truth != labels.IGNORED
        if name != PREDICTION:  # between readers, both must have annotated a pixel
            annotated &= codes != labels.IGNORED
        valid = annotated if masks.roi is None else annotated & masks.roi
        if not valid.any():
            raise DatasetError(
                "no pixel counts: all are ignored or outside the region of interest",
                where=f"{item.case}, reader {reader}",
                fix="correct the region or the label, or leave the case out",
            )
        yield name, reader, codes, truth, annotated, valid


def _score_case(item: Item, definitions: Labels, tolerance: float, several: bool, ranks: PooledRanks) -> _Scored:
    """Score one case, and add its probabilities to ``ranks``.

    With ``several`` (some case has more than one reader), every case gets rows of `ALL_READERS`, also a case with one
    reader: otherwise the headline would leave it out.
    """
    masks = load_masks(item, definitions)
    head = {"case": item.case, "patient": item.patient or item.case}
    spacing = None if masks.affine is None else spacing_of(masks.affine)
    rows: list[dict[str, Any]] = []
    sums: dict[tuple[str, str], np.ndarray] = {}
    tallies: Tallies = {}
    for name, reader, codes, truth, annotated, valid in _pairs(item, masks):
        table = confusion(codes, truth, valid)
        scored, pair_tallies = _score_pair(
            codes,
            truth,
            table,
            valid,
            definitions,
            spacing=spacing,
            tolerance=tolerance,
            probability=masks.probability if name == PREDICTION else None,
        )
        for label, pair in pair_tallies.items():
            tallies.setdefault(label, []).append(pair)
        rows += [head | {"prediction": name, "reader": reader} | row for row in scored]
        if name == PREDICTION:
            if masks.probability is not None:
                classes = zip(definitions.classes, _members(definitions)[1:], masks.probability, strict=True)
                for c, member, plane in classes:
                    ranks.add((name, reader, c.name), plane, member[truth], valid)
            whole = table if masks.roi is None else confusion(codes, truth, annotated)
            sums[reader, "whole image"] = guide_sums(whole, _members(definitions))
            if masks.roi is not None:
                sums[reader, "region of interest"] = guide_sums(table, _members(definitions))
    if several:
        own = [row for row in rows if row["prediction"] == PREDICTION]
        for label in dict.fromkeys(row["class"] for row in own):
            mean = mean_rows([row for row in own if row["class"] == label])
            rows.append(head | {"prediction": PREDICTION, "reader": ALL_READERS, "class": label} | mean)
    return _Scored(rows, sums, tallies, masks.affine is not None, masks.warnings)


def evaluate(
    items: Iterable[Item],
    definitions: Labels,
    *,
    tolerance: float = 1.0,
    guide_batch: int = 4,
    allow_missing: bool = False,
    protocol: dict[str, str] | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: bool = False,
) -> Scores:
    """Score predictions against every reader, and the readers against each other.

    Each case is scored alone, on the label's own grid; means are taken over cases. Pixels outside the region of
    interest or not annotated are in no metric.

    Args:
        items: the cases.
        definitions: the Plan's labels.
        tolerance: of NSD, in mm; in pixels where the labels have no millimetres.
        guide_batch: cases that are pooled, in their order, for the batch-pooled Dice (see
            `cpfnet.evaluation.metrics.guide`).
        allow_missing: a case without prediction counts as predicted empty (missed structures) instead of
            raising an error.
        protocol: further lines for the protocol (model, threshold …).
        seed: of the bootstrap.
        workers: threads; default: one a core.
        progress: show a bar.

    Raises:
        DatasetError: cases that cannot be scored, each with the reason; no case; cases with and without millimetres.
    """
    chosen = list(items)
    check_request(chosen, definitions, tolerance=tolerance, guide_batch=guide_batch)
    several = any(len(item.truth) > 1 for item in chosen)
    missing = [item.case for item in chosen if not has_prediction(item)]
    if missing and not allow_missing:
        raise DatasetError(
            f"{len(missing)} of {len(chosen)} cases have no prediction: {first_few(missing)}",
            fix="predict them, evaluate a split (--split), or have them count as predicted empty (--allow-missing)",
        )

    ranks = PooledRanks()
    done = _map_cases(lambda item: _score_case(item, definitions, tolerance, several, ranks), chosen, workers, progress)
    unit = _unit("mm" if scored.has_mm else "pixels" for scored in done)
    rows = [row for scored in done for row in scored.rows]
    warnings = merge_messages((item.case, scored.warnings) for item, scored in zip(chosen, done, strict=True))
    return Scores(
        rows=rows,
        guide=guide_metrics([scored.sums for scored in done], guide_batch),
        pooled=pooled(rows, (c.name for c in definitions.classes), ranks),
        calibration=calibration.of_cases([scored.tallies for scored in done]),
        protocol=protocol_of(chosen, definitions, tolerance, unit, guide_batch, allow_missing) | (protocol or {}),
        warnings=[*warnings_of(chosen, rows), *warnings],
        seed=seed,
    )


def check_request(items: Sequence[Item], definitions: Labels, *, tolerance: float, guide_batch: int) -> None:
    """Refuse what `evaluate` cannot do, as far as arguments and names show it.

    Raises:
        DatasetError: as `evaluate`.
    """
    if not items:
        raise DatasetError("there is nothing to evaluate", fix="give at least one case with a label and a prediction")
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise DatasetError(f"the tolerance is {tolerance}", fix="give a finite distance of 0 or more")
    if guide_batch < 1:
        raise DatasetError(f"the batch of pooled cases is {guide_batch}", fix="give a number of cases, at least 1")
    repeated = [case for case, number in Counter(item.case for item in items).items() if number > 1]
    if repeated:
        raise DatasetError(f"case ids repeat: {', '.join(repeated[:8])}", fix="give every case an id of its own")

    names = [*(c.name for c in definitions.classes), *(reader for item in items for reader in item.truth)]
    reserved = {BACKGROUND, MEAN, MEAN_WITH_BACKGROUND, PREDICTION, ALL_READERS}.intersection(names)
    if reserved:
        raise DatasetError(
            f"a class or reader is called {sorted(reserved)[0]!r}, as a row of the scores is",
            fix="give it another name",
        )


def check_labels(
    items: Sequence[Item], definitions: Labels, *, workers: int | None = None, progress: bool = False
) -> None:
    """Check that all labels and regions of interest can be scored, before minutes are spent on predictions.

    Args:
        items: the cases; their predictions are not used.
        definitions, workers, progress: as for `evaluate`.

    Raises:
        DatasetError: each label that cannot be read, holds unknown values, is not on its image's grid or has no pixel
            that counts; cases with and without millimetres.
    """

    def check(item: Item) -> str:
        header = formats.read_header(item.images) if item.images else None
        masks = load_masks(replace(item, prediction=None, probabilities=None), definitions, header)
        if header is not None:
            check_on_grid(masks, header, item)
        for _ in _pairs(item, masks):
            pass  # raises if no pixel counts
        return "pixels" if masks.affine is None else "mm"

    _unit(_map_cases(check, items, workers, progress, "Checking the labels"))


def _unit(units: Iterable[str]) -> str:
    """The unit of all cases' distances."""
    distinct = set(units)
    if len(distinct) > 1:
        raise DatasetError(
            "some labels have millimetres and some have none, so their distances cannot be averaged",
            fix="evaluate the two kinds apart",
        )
    return distinct.pop()


def _map_cases(
    run: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None,
    progress: bool,
    description: str = "Scoring",
) -> list[Result]:
    """The result for each case, several cases at a time.

    Raises:
        CpfnetError: all errors of the cases that failed.
    """

    def caught(item: Item) -> Result | CpfnetError:
        try:
            return run(item)
        except CpfnetError as error:
            return error

    with ThreadPoolExecutor(max(1, min(workers or cores(), len(items)))) as pool, Bar(show=progress) as bar:
        results = list(bar.track(pool.map(caught, items), len(items), description=description))
    errors = [result for result in results if isinstance(result, CpfnetError)]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        lines = "\n".join(f"  {error}" for error in errors[:10])
        more = f"\n  … and {len(errors) - 10} more" if len(errors) > 10 else ""
        raise DatasetError(f"{len(errors)} of {len(items)} cases cannot be scored:\n{lines}{more}")
    return [result for result in results if not isinstance(result, CpfnetError)]

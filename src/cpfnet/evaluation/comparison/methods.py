"""Which evaluations can be compared, and what each method scored in each case."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from cpfnet.errors import DatasetError
from cpfnet.evaluation.scores import BACKGROUND, MEAN_WITH_BACKGROUND, PREDICTION, Scores, mean_rows

_MEASURE = {
    "distance unit": "evaluate masks and labels of one kind of file, with millimetres or without",
    "surface": "evaluate again with one --tolerance",
    "ignored": "evaluate again with one meaning of the labels (--labels)",
}
"""Lines of the protocol that must be equal, each with the fix."""


@dataclass
class Method:
    """One method's runs (seeds, folds) as one: each case's scores are the mean over the runs that scored it.

    Attributes:
        name: as the user named it.
        runs: evaluations of the same cases (seeds), or of cases of which none is in two (folds), or of both.
        rows: class → case → a row of the headline reader (see `Scores`), background left out.
        seeds: how many runs scored each case.
    """

    name: str
    runs: Sequence[Scores]
    rows: dict[str, dict[str, dict[str, Any]]] = field(init=False)
    seeds: int = field(init=False)

    def __post_init__(self) -> None:
        names = [f"run {number} of {self.name}" for number in range(1, len(self.runs) + 1)]
        for name, run in zip(names[1:], self.runs[1:], strict=True):
            _same_measure(names[0], self.runs[0], name, run)
            _same_labels(names[0], self.runs[:1], name, [run])
        self._check_cases(names)
        by_class: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for run in self.runs:
            for row in _headline(run):
                by_class.setdefault(row["class"], {}).setdefault(row["case"], []).append(row)
        self.rows = {
            label: {case: {"patient": rows[0]["patient"]} | mean_rows(rows) for case, rows in cases.items()}
            for label, cases in by_class.items()
        }

    def _check_cases(self, names: Sequence[str]) -> None:
        sets = [{row["case"] for row in _headline(run)} for run in self.runs]
        for (one, a), (two, b) in combinations(zip(names, sets, strict=True), 2):
            if a & b and a != b:
                raise DatasetError(
                    f"{one} and {two} share {len(a & b)} cases, but {_list(a ^ b)} are in one only",
                    fix="give one NAME runs of the same cases (seeds) or runs without a common case (folds)",
                )
        often = Counter(case for cases in sets for case in cases)
        self.seeds = max(often.values())
        fewer = [case for case, number in often.items() if number < self.seeds]
        if fewer:
            raise DatasetError(
                f"{self.name}: {_list(fewer)} scored in fewer runs than the other cases ({self.seeds})",
                fix="give every case the same number of runs",
            )

    @property
    def cases(self) -> list[str]:
        """All cases, in the order of the files."""
        return list(next(iter(self.rows.values())))


def check_comparable(reference: Method, other: Method) -> None:
    """Refuse methods whose scores do not have the same meaning, or are of other cases.

    Raises:
        DatasetError: what differs (both values), and how to fix it.
    """
    _same_measure(reference.name, reference.runs[0], other.name, other.runs[0])
    only = [set(reference.cases) - set(other.cases), set(other.cases) - set(reference.cases)]
    if any(only):
        parts = [
            f"{len(cases)} only in {method.name} ({_list(cases)})"
            for method, cases in zip((reference, other), only, strict=True)
            if cases
        ]
        raise DatasetError(
            f"{reference.name} and {other.name} scored other cases: {'; '.join(parts)}",
            fix="evaluate the same --split of the same data with each",
        )
    _same_labels(reference.name, reference.runs, other.name, other.runs)


def _same_labels(one: str, a: Sequence[Scores], two: str, b: Sequence[Scores]) -> None:
    first, second = _labels(a), _labels(b)
    common = {case for case, *_ in first} & {case for case, *_ in second}
    for key in sorted(first.keys() | second.keys()):
        case, reader, label = key
        if case in common and first.get(key) != second.get(key):
            raise DatasetError(
                f"was not scored against the same label: for {one} {_describe(first.get(key))}; "
                f"for {two} {_describe(second.get(key))}",
                where=f"{case}, reader {reader}, class {label}",
                fix="evaluate both with the same labels, readers, patients, region of interest and ignored pixels",
            )


def _same_measure(one: str, a: Scores, two: str, b: Scores) -> None:
    for line, fix in _MEASURE.items():
        first, second = (scores.protocol.get(line, "not recorded") for scores in (a, b))
        if first != second:
            raise DatasetError(f"{line} of {one}: {first}; of {two}: {second}", fix=fix)
    classes = [list(dict.fromkeys(row["class"] for row in _headline(scores))) for scores in (a, b)]
    if set(classes[0]) != set(classes[1]):
        first, second = (", ".join(c for c in names if not c.startswith("(")) for names in classes)
        raise DatasetError(f"classes of {one}: {first}; of {two}: {second}", fix="evaluate both with the same --labels")
    if a.reader != b.reader:
        raise DatasetError(
            f"reader of {one}: {a.reader}; of {two}: {b.reader}", fix="evaluate both against the same readers"
        )


def _headline(scores: Scores) -> list[dict[str, Any]]:
    reader = scores.reader
    return [
        row
        for row in scores.rows
        if row["prediction"] == PREDICTION
        and row["reader"] == reader
        and row["class"] not in (BACKGROUND, MEAN_WITH_BACKGROUND)
    ]


def _labels(runs: Sequence[Scores]) -> dict[tuple[str, str, str], tuple[str, int, int]]:
    """The labels that were scored against: (case, reader, class) → patient, pixels that count, pixels of the class."""
    return {
        (row["case"], row["reader"], row["class"]): (
            row["patient"],
            row["tp"] + row["fp"] + row["fn"] + row["tn"],
            row["tp"] + row["fn"],
        )
        for run in runs
        for row in run.rows
        if row["prediction"] == PREDICTION and "tp" in row
    }


def _describe(label: tuple[str, int, int] | None) -> str:
    if label is None:
        return "it has none"
    patient, pixels, inside = label
    return f"it is of patient {patient} and holds {inside:,} of the {pixels:,} pixels that count"


def _list(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" … ({len(ordered)} in all)" if len(ordered) > 5 else "")

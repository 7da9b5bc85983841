"""compare: from evaluations of the same cases to their differences, with interval and test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cpfnet.errors import DatasetError
from cpfnet.evaluation.comparison.methods import Method, check_comparable
from cpfnet.evaluation.comparison.paired_tests import EXACT, Paired, case_differences, holm, paired
from cpfnet.evaluation.comparison.result import Comparison, Difference, Verdict
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import MEAN, Scores, mean_rows
from cpfnet.evaluation.statistics import RESAMPLES

COMPARED = ("dice", "auc", "cldice", "thin_recall", "nsd", "hd95")
"""The metrics compared; others repeat nearly the same, at the price of a stricter correction."""
LEVEL = 0.05
FEWEST = 6
"""From this number of patients, the test's smallest p, 2 / 2ⁿ, lies below `LEVEL`."""


def compare(evaluations: Mapping[str, Sequence[Scores]], *, against: str | None = None, seed: int = 0) -> Comparison:
    """Compare methods on the same cases, scored against the reader of the headline numbers.

    Args:
        evaluations: method → its evaluations: one, or several runs (seeds: of the same cases; folds: of cases of which
            none is in two). A case's score is the mean over the runs that scored it.
        against: the reference; default: the first.
        seed: of the bootstrap.

    Raises:
        DatasetError: fewer than two methods; no such reference; evaluations of other cases, labels or protocols (both
            values); no metric that all of them have.
    """
    if len(evaluations) < 2:
        raise DatasetError(
            f"only {', '.join(evaluations) or 'nothing'} to compare", fix="give at least two methods, of other names"
        )
    if against is not None and against not in evaluations:
        raise DatasetError(f"no evaluation is called {against!r}", fix=f"choose one of: {', '.join(evaluations)}")
    methods = [Method(name, runs) for name, runs in evaluations.items()]
    methods.sort(key=lambda method: against is not None and method.name != against)
    reference, *others = methods
    for method in others:
        check_comparable(reference, method)

    labels = list(reference.rows)
    classes = [label for label in labels if label != MEAN]
    labels = classes if len(classes) == 1 else [MEAN, *classes]
    results: list[tuple[tuple[str, str, str], Paired]] = []
    cases = {}
    for method in others:
        for label in labels:
            for metric in (m for m in METRICS if m in COMPARED):
                a, b = _values(reference, label, metric), _values(method, label, metric)
                if a is not None and b is not None:
                    key = method.name, label, metric
                    patients = [row["patient"] for _, row in sorted(reference.rows[label].items())]
                    results.append((key, paired(a.tolist(), b.tolist(), patients, seed=seed)))
                    cases[key] = case_differences(a, b)
    if not results:
        raise DatasetError(
            "no metric is in all evaluations", fix="evaluate all of them again, with one version of cpfnet"
        )
    corrected = holm([result.p for _, result in results])
    differences = [
        Difference(
            **vars(result), method=key[0], label=key[1], metric=key[2], p_holm=p, verdict=_verdict(key[2], result, p)
        )
        for (key, result), p in zip(results, corrected, strict=True)
    ]
    return Comparison(
        reference=reference.name,
        methods=[method.name for method in methods],
        differences=differences,
        runs=[entry for method in methods for entry in _runs(method, labels)],
        protocol=_protocol(methods, differences, seed),
        warnings=_warnings(methods, differences),
        cases=cases,
    )


def _values(method: Method, label: str, metric: str) -> np.ndarray | None:
    """One value a case, in the order of their names; None where no case has one."""
    rows = method.rows[label]
    if not any(metric in row for row in rows.values()):
        return None
    return np.array([rows[case].get(metric, math.nan) for case in sorted(rows)])


def _verdict(metric: str, result: Paired, p_holm: float) -> Verdict:
    up = result.low > 0 and result.rank_biserial > 0
    down = result.high < 0 and result.rank_biserial < 0
    if not p_holm < LEVEL or not (up or down):
        return "no difference shown"
    return "better" if up == METRICS[metric].higher_is_better else "worse"


def _runs(method: Method, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Means of each run and their SD, if every run scored every case."""
    if method.seeds < 2 or method.seeds != len(method.runs):
        return []
    out = []
    for label in labels:
        means = [mean_rows(list(run.rows[label].values())) for run in (Method(method.name, [r]) for r in method.runs)]
        for metric in COMPARED:
            values = [mean[metric] for mean in means if metric in mean]
            if values:
                sd = float(np.std(values, ddof=1)) if np.isfinite(values).all() else math.nan
                out.append({"method": method.name, "class": label, "metric": metric, "means": values, "sd": sd})
    return out


def _protocol(methods: Sequence[Method], differences: Sequence[Difference], seed: int) -> dict[str, str]:
    reference, first = methods[0], methods[0].runs[0]
    patients = len({row["patient"] for rows in reference.rows.values() for row in rows.values()})
    tests = sum(not math.isnan(d.p) for d in differences)
    classes = len({d.label for d in differences})
    family = [
        _count(len(methods) - 1, "method"),
        "1 class" if classes == 1 else f"{classes - 1} classes and their mean",
        ", ".join(METRICS[m].label for m in dict.fromkeys(d.metric for d in differences)),
    ]
    return {
        "reference": reference.name,
        "cases": f"{len(reference.cases)}, of {patients} patients",
        "runs": "; ".join(f"{method.name}: {_how_many(method)}" for method in methods),
        "reader": first.reader.strip("()"),
        "distance unit": first.protocol.get("distance unit", "not recorded"),
        "surface": first.protocol.get("surface", "not recorded"),
        "difference": "method − reference, case by case, then the mean over cases; where a distance is infinite on one "
        "side only: the median over patients, an infinite one being larger than any other",
        "interval": f"95 %; of the mean: percentile bootstrap over patients, {RESAMPLES} resamples, seed {seed}; of a "
        "median: exact, from order statistics",
        "test": "Wilcoxon's signed-rank test on each patient's mean difference, two-sided, without patients that do "
        f"not differ; exact up to {EXACT} patients",
        "correction": f"Holm, over all {tests} comparisons made here ({' × '.join(family)})",
        "verdict": f"better or worse: corrected p < {LEVEL}, the interval excludes 0, and both point the same way; "
        "anything else: no difference shown",
        "what it covers": "chance in the choice of patients"
        + (
            ""
            if all(m.seeds > 1 for m in methods)
            else "; not that a network trained again, from another seed, scores otherwise"
        ),
    }


def _how_many(method: Method) -> str:
    folds = len(method.runs) // method.seeds
    parts = [f"{method.seeds} runs, of which each case's score is the mean"] if method.seeds > 1 else []
    parts += [f"{folds} folds"] if folds > 1 else []
    return ", ".join(parts) or "1"


_EXPECTED = ("model", "cases", "fitted", "interval", "batch-pooled Dice", "readers", "pooling")
"""Lines of the protocol that may differ without a message."""


def _warnings(methods: Sequence[Method], differences: Sequence[Difference]) -> list[str]:
    out = []
    patients = max((d.patients for d in differences), default=0)
    tests = sum(not math.isnan(d.p) for d in differences)
    if patients < FEWEST:
        out.append(f"{_count(patients, 'patient')}: no test can show a difference with fewer than {FEWEST}")
    elif tests * 2 / 2**patients >= LEVEL:
        out.append(
            f"{patients} patients and {tests} comparisons: even a difference in all patients would have a corrected p "
            f"of {min(1, tests * 2 / 2**patients):.2g}, so none can be shown; "
            "score more patients, or compare fewer methods"
        )
    for line in dict.fromkeys(line for method in methods for run in method.runs for line in run.protocol):
        texts = [" / ".join(dict.fromkeys(run.protocol.get(line, "–") for run in method.runs)) for method in methods]
        if line not in _EXPECTED and len(set(texts)) > 1:
            both = "; ".join(f"{method.name}: {text}" for method, text in zip(methods, texts, strict=True))
            out.append(f"the protocols differ in {line!r}: {both}")
    for method in methods:
        seen = {run.protocol["trained on"] for run in method.runs if "trained on" in run.protocol}
        if seen:
            out.append(f"{method.name} was trained on {' / '.join(sorted(seen))}: its scores are optimistic")
        for run in method.runs:
            missing = run.protocol.get("cases", "").partition("; ")[2]  # how many of its cases were counted as empty
            if missing:
                out.append(f"{method.name}: {missing}")
    for metric in COMPARED:
        without = [m.name for m in methods if all(_values(m, label, metric) is None for label in m.rows)]
        if without and len(without) < len(methods):
            out.append(f"{METRICS[metric].label} is not compared where {', '.join(without)} was scored without it")
    for d in differences:
        for name, other, number in (
            (methods[0].name, d.method, d.undefined_reference),
            (d.method, methods[0].name, d.undefined_method),
        ):
            if number and d.metric == "dice" and d.label != MEAN:
                out.append(
                    f"{d.label}: in {_count(number, 'case')} without the structure {other} finds some where {name} "
                    f"rightly finds none; the Dice of {name} is not defined there, so these are in no test"
                )
    return out


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"

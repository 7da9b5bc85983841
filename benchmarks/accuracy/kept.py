"""Results small enough for the repository: one CSV of many runs, a row a case and class, and one JSON with the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.accuracy.protocol import PROTOCOLS
from benchmarks.accuracy.runs import Row, judged_scores, row_name, rows, scores_name, write_json
from cpfnet.errors import FormatError, OutputError
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import BACKGROUND, MEAN, MEAN_WITH_BACKGROUND, PREDICTION, Scores, mean_rows
from cpfnet.files import replacing

_USED = {metric for protocol in PROTOCOLS.values() for metric in protocol.metrics}
SCORES = tuple(metric for metric in METRICS if metric in _USED)
"""What tables and paired tests are made of."""
_COUNTS = ("present", "missed", "spurious")
_COLUMNS = ("run", "mirrored", "case", "patient", "reader", "class", *SCORES, *_COUNTS)


def pack(out: Path, to: Path) -> int:
    """Write ``to.csv`` and ``to.json`` from all runs below ``out``.

    Means and whatever else follows from the cases is left out. Of a run whose scores case by case are not there, the
    JSON keeps the means.

    Args:
        out: a folder of runs, as `Bench` lays them.
        to: the two files without their suffix; replaced.

    Returns:
        How many runs.

    Raises:
        FormatError: damaged scores.
        OutputError: they cannot be written.
    """
    runs, cases = [], []
    for row in rows(out):
        run = row["place"].relative_to(out).as_posix()
        scores = row["place"] / scores_name(row["mirrored"])
        means = row.pop("scores")
        kept = {"run": run, **{key: value for key, value in row.items() if key != "place"}}
        if (scores / "scores.json").is_file():
            cases += [_case(run, row["mirrored"], entry) for entry in _single(Scores.load(scores).rows)]
        else:
            names = ("prediction", "reader", "class", "metric", "finite_mean", "count", "infinite")
            kept["means"] = [{name: entry[name] for name in names} for entry in means if entry["metric"] in SCORES]
        runs.append(kept)
    with (
        replacing(to.with_suffix(".csv"), overwrite=True) as path,
        path.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(cases)
    lines = ",\n".join(json.dumps(run, ensure_ascii=False, separators=(",", ":"), allow_nan=False) for run in runs)
    with replacing(to.with_suffix(".json"), overwrite=True) as path:
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return len(runs)


def unpack(kept: Path, out: Path) -> int:
    """Write the runs that `pack` packed as folders again, for `table` and `cpfnet compare`.

    A folder holds ``row.json`` and, where there are cases, ``scores/``.

    Args:
        kept: the two files without their suffix, or one of them.
        out: a new or empty folder.

    Returns:
        How many runs.

    Raises:
        FormatError: the files are missing or damaged.
        OutputError: ``out`` is not empty, or cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise OutputError("is not empty", where=out, fix="choose a new folder")
    table, about = kept.with_suffix(".csv"), kept.with_suffix(".json")
    try:
        runs = json.loads(about.read_text(encoding="utf-8"))
        with table.open(encoding="utf-8", newline="") as file:
            cases: dict[tuple[str, str], list[dict[str, str]]] = {}
            for entry in csv.DictReader(file):
                cases.setdefault((entry["run"], entry["mirrored"]), []).append(entry)
        for row in runs:
            run, means = row.pop("run"), row.pop("means", None)
            place = out / run
            if means is None:
                found = _scores(row, cases[run, str(row["mirrored"])])
                found.save(place / scores_name(row["mirrored"]))
                means = judged_scores(found)
            write_json(place / row_name(row["mirrored"]), {**row, "scores": means})
    except OSError as error:
        raise FormatError(f"cannot be read: {error.strerror}", where=error.filename or kept) from None
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"not what `pack` writes: {error!r}", where=kept) from None
    return len(runs)


def _single(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    means = (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND)
    return [entry for entry in entries if entry["prediction"] == PREDICTION and entry["class"] not in means]


def _case(run: str, mirrored: bool, entry: dict[str, Any]) -> dict[str, Any]:
    """A line of the CSV: an empty field does not apply, ``nan`` is not defined."""
    return {name: entry.get(name, "") for name in _COLUMNS} | {"run": run, "mirrored": mirrored}


def _scores(row: Row, cases: list[dict[str, str]]) -> Scores:
    """A run's scores: those of its cases' classes, and their means."""
    by_case: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in cases:
        values = {name: float(entry[name]) for name in SCORES if entry[name]}
        values |= {name: int(entry[name]) for name in _COUNTS}
        who = (entry["case"], entry["patient"], entry["reader"])
        by_case.setdefault(who, []).append({"class": entry["class"]} | values)
    found = []
    for (case, patient, reader), classes in by_case.items():
        head = {"case": case, "patient": patient, "prediction": PREDICTION, "reader": reader}
        found += [head | values for values in (*classes, {"class": MEAN} | mean_rows(classes))]
    return Scores(found, guide=row["guide"], protocol=row["protocol"], warnings=row["warnings"])

"""Scores: one row a case, class and reader, their aggregates, and the protocol that explains them."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from cpfnet.errors import FormatError, redacted_message
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.statistics import RESAMPLES, summarise
from cpfnet.files import replacing
from cpfnet.text import brief, counted, to_csv_cell, to_json

BACKGROUND = "(background)"
"""The class of all pixels in none of the classes."""
MEAN = "(mean)"
"""The mean over a case's classes, background left out."""
MEAN_WITH_BACKGROUND = "(mean with background)"
"""The mean over a case's classes and background, as many papers report it; a large background increases it."""
PREDICTION = "prediction"
"""The name of what is scored, unless it is another reader."""
ALL_READERS = "(all readers)"
"""The mean over a case's readers."""

_KEY = ("case", "prediction", "reader", "class")
_COUNTS = ("present", "missed", "spurious")
_PIXELS = ("tp", "fp", "fn", "tn")


def mean_rows(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of each metric over ``rows``, and the sums of counts; NaN values do not count, infinite ones do."""
    out: dict[str, Any] = {}
    for name in METRICS:
        values = [row[name] for row in rows if name in row]
        defined = [value for value in values if not math.isnan(value)]
        if values:
            out[name] = sum(defined) / len(defined) if defined else math.nan
    return out | {name: sum(row[name] for row in rows) for name in _COUNTS}


def aggregate(rows: Iterable[dict[str, Any]], *, seed: int = 0) -> list[dict[str, Any]]:
    """Summaries over cases, for each pair of prediction and reader, each class and each metric.

    Args:
        rows: as in `Scores`.
        seed: of the bootstrap.

    Returns:
        Entries ``prediction, reader, class, metric`` + the fields of `Summary` + ``present, missed, spurious``:
        structures that the truth holds, those of them with an empty prediction, and predicted ones that the truth
        does not hold.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["prediction"], row["reader"], row["class"]), []).append(row)
    out = []
    for (prediction, reader, label), members in groups.items():
        totals = {name: sum(row[name] for row in members) for name in _COUNTS}
        for name in METRICS:
            applicable = [row for row in members if name in row]
            if applicable:
                summary = summarise(
                    [row[name] for row in applicable], [row["patient"] for row in applicable], seed=seed
                )
                key = {"prediction": prediction, "reader": reader, "class": label, "metric": name}
                out.append(key | asdict(summary) | totals)
    return out


def strict_json(value: Any) -> Any:
    """Data for strict JSON: NaN is null, infinity the string "inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(k): strict_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(v) for v in value]
    return value


def csv_cell(value: Any) -> Any:
    """A value for CSV: an empty field if it is not defined; text never becomes a spreadsheet's formula."""
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else to_csv_cell(value)


def _numbers(value: Any) -> Any:
    """The inverse of `strict_json`, except for names."""
    if isinstance(value, dict):
        return {k: v if k in ("patient", *_KEY) else _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return math.nan if value is None else float(value) if value in ("inf", "-inf") else value


def _problem(data: Any) -> str | None:
    """Why data from a file cannot be `Scores.as_dict`; None if they can."""
    rows = data.get("rows") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not isinstance(data.get("protocol"), dict):
        return "no rows and protocol"
    for number, row in enumerate(rows, start=1):
        for name in ("patient", *_KEY):
            if not isinstance(row, dict) or not isinstance(row.get(name), str):
                return f"row {number} has no {name}"
        for name in (*METRICS, *_COUNTS):
            value = row.get(name)
            if not isinstance(value, (int, float, type(None))) and value not in ("inf", "-inf"):
                return f"{name} of row {number} is no number"
        counts = (*_COUNTS, *(_PIXELS if "tp" in row else ()))
        if not all(isinstance(row.get(name), int) for name in counts):
            return f"row {number} does not have all of {', '.join(counts)}"
    keys = Counter(tuple(row[name] for name in _KEY) for row in rows)
    if len(keys) < len(rows):
        return f"two rows for {', '.join(keys.most_common(1)[0][0])}"
    return None if any(row["prediction"] == PREDICTION for row in rows) else "no row of a prediction"


@dataclass
class Scores:
    """What `evaluate` found.

    Attributes:
        rows: one a case, prediction, reader and class: ``case, patient, prediction, reader, class``, the keys of
            `METRICS` that apply (NaN: not defined), ``present, missed, spurious``; single classes also
            ``tp, fp, fn, tn``. ``class`` is a class's name, `BACKGROUND`, `MEAN` or `MEAN_WITH_BACKGROUND`;
            ``prediction`` is `PREDICTION` or a reader's name; ``reader`` a reader's name or, where there are several,
            `ALL_READERS`.
        guide: the batch-pooled metrics (see `cpfnet.evaluation.metrics.guide`), one entry a reader and region:
            ``reader, region, guide_dice, guide_iou, batch, batches, cases``.
        pooled: the pixels of all cases together, one entry a prediction, reader and class; see
            `cpfnet.evaluation.metrics.pooled.pooled`.
        calibration: of each class that has probabilities; see `cpfnet.evaluation.metrics.calibration.of_cases`.
        protocol: how all this was measured, in words.
        warnings: what a reader of the numbers should know.
        seed: of the bootstrap.
        aggregates: see `aggregate`; computed from ``rows``.
    """

    rows: list[dict[str, Any]]
    guide: list[dict[str, Any]] = field(default_factory=list)
    pooled: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, dict[str, Any]] = field(default_factory=dict)
    protocol: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seed: int = 0
    aggregates: list[dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.aggregates = aggregate(self.rows, seed=self.seed)
        self.protocol = self.protocol | {
            "interval": f"95 %, percentile bootstrap of the mean, {RESAMPLES} resamples of patients, seed {self.seed}",
        }

    def __repr__(self) -> str:
        own = [row for row in self.rows if row["prediction"] == PREDICTION]
        classes = dict.fromkeys(r["class"] for r in own if r["class"] not in (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND))
        cases = counted(len({row["case"] for row in own}), "case")
        dice = self.of("dice") if own else None
        mean = "" if dice is None else f", mean Dice {dice['mean']:.3f} ({dice['low']:.3f} … {dice['high']:.3f})"
        return f"Scores({cases}, {counted(len(classes), 'class', 'classes')} ({brief(classes)}){mean})"

    @classmethod
    def load(cls, path: Path | str) -> Scores:
        """Read what `save` wrote.

        Args:
            path: the folder, or the ``scores.json`` in it.

        Raises:
            FormatError: there is none, or it is damaged.
        """
        file = Path(path)
        if file.is_dir():
            file = file / "scores.json"
        fix = "give a folder that `cpfnet evaluate … -o FOLDER` wrote"
        if not file.exists():
            holds = "holds no scores.json" if Path(path).is_dir() else "no such folder or file"
            raise FormatError(holds, where=path, fix=fix)
        fix += "; if this one did, evaluate again"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise FormatError(f"cannot be read: {error.strerror}", where=file, fix="check its permissions") from None
        except (ValueError, RecursionError) as error:
            raise FormatError(f"is not JSON: {redacted_message(error)}", where=file, fix=fix) from None
        problem = _problem(data)
        if problem:
            raise FormatError(f"does not hold scores: {problem}", where=file, fix=fix)
        known = {f.name: data[f.name] for f in fields(cls) if f.init and f.name in data}
        return cls(**{name: value if name == "calibration" else _numbers(value) for name, value in known.items()})

    @property
    def reader(self) -> str:
        """The reader of the headline numbers: the only one, or `ALL_READERS`."""
        readers = list(dict.fromkeys(row["reader"] for row in self.rows if row["prediction"] == PREDICTION))
        return ALL_READERS if ALL_READERS in readers else readers[0]

    def of(self, metric: str, label: str = MEAN, *, reader: str | None = None) -> dict[str, Any] | None:
        """The aggregate of a metric and class (default: mean over classes, headline reader); None if there is none."""
        wanted = (PREDICTION, reader or self.reader, label, metric)
        matches = (a for a in self.aggregates if (a["prediction"], a["reader"], a["class"], a["metric"]) == wanted)
        return next(matches, None)

    def only(self, cases: Collection[str]) -> Scores:
        """Those of some of the cases, summarised anew; without what is pooled over all."""
        rows = [row for row in self.rows if row["case"] in cases]
        return Scores(rows, protocol=self.protocol, seed=self.seed)

    def as_dict(self) -> dict[str, Any]:
        """Everything as strict JSON data: null is "not defined", the string "inf" is infinity."""
        return strict_json(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "seed": self.seed,
                "guide": self.guide,
                "pooled": self.pooled,
                "calibration": self.calibration,
                "aggregates": self.aggregates,
                "rows": self.rows,
            }
        )

    def save(self, folder: Path | str, *, overwrite: bool = False) -> list[Path]:
        """Write ``scores.csv`` (the rows) and ``scores.json`` (everything).

        In the CSV, an empty field is "not defined" or "does not apply", and ``inf`` is infinity; text that a
        spreadsheet would take for a formula has an apostrophe in front (`cpfnet.text.to_csv_cell`).

        Raises:
            OutputError: the folder cannot be written, or holds scores already and ``overwrite`` is False.
        """
        table, everything = Path(folder) / "scores.csv", Path(folder) / "scores.json"
        head = ["case", "patient", "prediction", "reader", "class"]
        columns = [*head, *(name for name in METRICS if any(name in row for row in self.rows)), *_COUNTS, *_PIXELS]
        rows = [[csv_cell(row.get(name)) for name in columns] for row in self.rows]
        text = to_json(self.as_dict()) + "\n"
        with replacing(table, overwrite=overwrite) as first, replacing(everything, overwrite=overwrite) as second:
            with first.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows([columns, *rows])
            second.write_text(text, encoding="utf-8")
        return [table, everything]

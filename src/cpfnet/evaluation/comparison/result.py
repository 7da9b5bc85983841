"""Comparison: how methods differ on the same cases, and the protocol that gives it meaning."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cpfnet.evaluation.comparison.paired_tests import Paired
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import csv_cell, strict_json
from cpfnet.files import replacing
from cpfnet.text import to_json

Verdict = Literal["better", "worse", "no difference shown"]


@dataclass(frozen=True, kw_only=True)
class Difference(Paired):
    """One method against the reference, in one class and metric.

    Attributes:
        method: its name.
        label: the class, or `MEAN` for the mean over classes.
        metric: a key of `METRICS`.
        p_holm: p, corrected for all comparisons made.
        verdict: "better" or "worse" where ``p_holm`` < 0.05, the interval excludes 0 and both point the same way.
    """

    method: str
    label: str
    metric: str
    p_holm: float
    verdict: Verdict

    @property
    def better(self) -> int:
        """Cases in which the method is better."""
        return self.higher if METRICS[self.metric].higher_is_better else self.lower

    @property
    def worse(self) -> int:
        """Cases in which the method is worse."""
        return self.lower if METRICS[self.metric].higher_is_better else self.higher

    def as_dict(self) -> dict[str, Any]:
        """Everything by name; the class is called ``class``."""
        own = asdict(self)
        head = {name: own.pop(name) for name in ("method", "label", "metric", "verdict")}
        head["class"] = head.pop("label")
        counts = {"better": self.better, "worse": self.worse}
        return {name: head[name] for name in ("method", "class", "metric", "verdict")} | own | counts


@dataclass
class Comparison:
    """What `compare` found.

    Attributes:
        reference: the method that the others are compared with.
        methods: all names, the reference first.
        differences: one for each other method, class and metric; for several classes, the mean over them comes first.
        runs: for methods with several runs of the same cases, one entry a class and metric: ``method, class, metric``,
            ``means`` (of each run, over cases) and their ``sd``.
        protocol: how all this was measured, in words.
        warnings: what a reader of the numbers should know.
        cases: (method, class, metric) → the difference of each case, NaN where not defined; for figures.
    """

    reference: str
    methods: list[str]
    differences: list[Difference]
    runs: list[dict[str, Any]]
    protocol: dict[str, str]
    warnings: list[str]
    cases: dict[tuple[str, str, str], np.ndarray] = field(repr=False)

    @property
    def headline(self) -> str:
        """The class of headline numbers: `MEAN`, or the only class."""
        return self.differences[0].label

    def of(self, metric: str, label: str | None = None, *, method: str | None = None) -> Difference | None:
        """One difference (default: headline class, first method after the reference); None if there is none."""
        wanted = (method or self.methods[1], label or self.headline, metric)
        return next((d for d in self.differences if (d.method, d.label, d.metric) == wanted), None)

    def as_dict(self) -> dict[str, Any]:
        """Everything except the cases as strict JSON data: null is "not defined", the string "inf" is infinity."""
        return strict_json(
            {
                "reference": self.reference,
                "methods": self.methods,
                "protocol": self.protocol,
                "warnings": self.warnings,
                "differences": [d.as_dict() for d in self.differences],
                "runs": self.runs,
            }
        )

    def save(self, folder: Path | str, *, overwrite: bool = False) -> list[Path]:
        """Write ``comparison.csv`` (the differences) and ``comparison.json`` (everything).

        Raises:
            OutputError: the folder cannot be written, or holds a comparison already and ``overwrite`` is False.
        """
        table, everything = Path(folder) / "comparison.csv", Path(folder) / "comparison.json"
        rows = [d.as_dict() for d in self.differences]
        text = to_json(self.as_dict()) + "\n"
        with replacing(table, overwrite=overwrite) as first, replacing(everything, overwrite=overwrite) as second:
            with first.open("w", encoding="utf-8", newline="") as file:
                lines = [["reference", *rows[0]], *(map(csv_cell, (self.reference, *row.values())) for row in rows)]
                csv.writer(file, lineterminator="\n").writerows(lines)
            second.write_text(text, encoding="utf-8")
        return [table, everything]

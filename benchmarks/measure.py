"""Medians and ratios of runs that take turns, so that disturbances affect all of them, as a table and as JSON."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from cpfnet.inference.backends.autotune import processor

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("cpfnet", "torch", "onnxruntime", "openvino", "nncf", "monai", "numpy", "pydicom", "highdicom")


@dataclass(frozen=True)
class Row:
    """What one way took, beside the first of its table.

    Attributes:
        name: of the way.
        seconds: median over the rounds.
        ratio: how many times as fast as the first: the median over the rounds of first / this, …
        low, high: … and its 95 % interval (percentile bootstrap over rounds, 2,000 resamples, seed 0).
        rounds: how many.
    """

    name: str
    seconds: float
    ratio: float
    low: float
    high: float
    rounds: int


def interleaved(runs: Mapping[str, Callable[[], object]], *, rounds: int, warm: bool = True) -> list[Row]:
    """Run all in turns, ``rounds`` times; the others are compared with the first.

    With ``warm``, each runs once before without being timed; runs of a minute do not need that.
    """
    for run in runs.values() if warm else ():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
    return compared(taken)


def compared(taken: Mapping[str, Sequence[float]]) -> list[Row]:
    """Seconds of each way, round by round, beside those of the first."""
    first = np.array(next(iter(taken.values())))
    return [_row(name, first, np.array(seconds)) for name, seconds in taken.items()]


def _row(name: str, first: np.ndarray, seconds: np.ndarray) -> Row:
    ratios = first / seconds
    again = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(again, axis=1), (0.025, 0.975))
    return Row(name, float(np.median(seconds)), float(np.median(ratios)), float(low), float(high), len(ratios))


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = ["| | seconds | times as fast (95 %) |", "| --- | --- | --- |"]
    lines += [f"| {row.name} | {row.seconds:.3g} | {row.ratio:.2f} ({row.low:.2f} … {row.high:.2f}) |" for row in rows]
    return "\n".join(lines)


def save(name: str, tables: Mapping[str, Sequence[Row]], **more: Any) -> Path:
    """Print all tables, and keep them with the machine and the versions as ``results/NAME.json``."""
    for title, rows in tables.items():
        print(f"\n## {title}\n\n{table(rows)}")
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    found = {
        "machine": processor(),
        "load": os.getloadavg()[0],
        "versions": versions,
        **more,
        "tables": {title: [vars(row) for row in rows] for title, rows in tables.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n{path}")
    return path

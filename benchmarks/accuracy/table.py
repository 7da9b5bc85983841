"""Markdown tables from the rows of runs: mean ± SD over seeds, paired differences, and the protocol beneath."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cpfnet
from benchmarks.accuracy.protocol import PROTOCOLS, Protocol
from benchmarks.accuracy.runs import Row, scores_name
from benchmarks.accuracy.variants import ABLATION, NETWORKS
from cpfnet.errors import CpfnetError, DatasetError, OutputError
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import BACKGROUND, MEAN, MEAN_WITH_BACKGROUND
from cpfnet.files import replacing

GUIDE = "guide"
_GUIDE_LABEL = "batch-pooled Dice"
_EQUAL = ("settings", "steps", "batch", "budget", "parameters")
"""What runs of one variant must agree on, or their mean means nothing."""
_PROTOCOL_LINES = ("region", "threshold", "grid", "pooling", "surface")
"""Lines of an evaluation's protocol that are shown below a table."""
_SHOWN = 4
"""Different values of one line that are shown."""


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """One Markdown text for each mark: ``drive``, ``drive-ablation`` …, with ``-mirrored`` for mirrored predictions.

    Raises:
        DatasetError: no row at all, or runs of one variant that differ in more than seed and fold.
    """
    if not rows:
        raise DatasetError("no row of any run", fix="make runs first, or give the folder that holds them")
    out = {}
    only_ablation = {v.name for v in ABLATION} - {v.name for v in NETWORKS}
    for protocol in PROTOCOLS.values():
        for mirrored in (False, True):
            of_set = [r for r in rows if r["dataset"] == protocol.name and r["mirrored"] == mirrored]
            networks = [r for r in of_set if r["variant"] not in only_ablation]
            ablation = [r for r in of_set if r["variant"] in {v.name for v in ABLATION}]
            mark = protocol.name + "-mirrored" * mirrored
            beyond = any(r["variant"] in only_ablation for r in ablation)
            if networks and not (beyond and len(ablation) == len(of_set)):  # an ablation compares no networks
                names = [v.name for v in NETWORKS]
                out[mark] = _text(protocol, _by_variant(networks, names), references=names[:1])
            if beyond:
                names = [v.name for v in ABLATION]
                out[f"{mark}-ablation"] = _text(
                    protocol, _by_variant(ablation, names), references=[names[0], NETWORKS[0].name]
                )
    return out


def fill(page: Path, texts: dict[str, str]) -> list[str]:
    """Put each text between its marks, ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    Returns:
        The marks filled.

    Raises:
        OutputError: the page has no such marks.
    """
    content = page.read_text(encoding="utf-8")
    for name, text in texts.items():
        marks = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        pattern = re.compile(f"{re.escape(marks[0])}.*?{re.escape(marks[1])}", re.DOTALL)
        if not pattern.search(content):
            raise OutputError(
                f"has no place for the table {name}",
                where=page,
                fix=f"write {marks[0]} and {marks[1]} where it shall stand",
            )
        whole = f"{marks[0]}\n\n{text}\n{marks[1]}"
        content = pattern.sub(lambda _, whole=whole: whole, content)
    with replacing(page, overwrite=True) as path:
        path.write_text(content, encoding="utf-8")
    return list(texts)


def _by_variant(rows: Sequence[Row], order: Sequence[str]) -> dict[str, list[Row]]:
    names = sorted({r["variant"] for r in rows}, key=lambda n: (order.index(n) if n in order else len(order), n))
    groups = {name: [r for r in rows if r["variant"] == name] for name in names}
    for name, group in groups.items():
        for key in _EQUAL:
            found = {str(r[key]) for r in group}
            if len(found) > 1:
                raise DatasetError(
                    f"runs of {name} differ in {key}: {' and '.join(sorted(found))}",
                    where=group[0]["dataset"],
                    fix="keep runs of different kinds in different --out folders, and give one of them",
                )
    return groups


def seed_means(rows: Iterable[Row], label: str, metric: str) -> tuple[list[float], int]:
    """The mean of finite values over all judged cases of each seed (all its folds), and the number of infinite values.

    Args:
        rows: runs of one variant.
        label: the class, or MEAN; `GUIDE` has none.
        metric: a key of METRICS, or `GUIDE`.
    """
    sums: dict[int, list[float]] = {}
    infinite = 0
    for row in rows:
        total, count = sums.setdefault(row["seed"], [0.0, 0])
        if metric == GUIDE:
            value, finite = (
                row["guide"][-1]["guide_dice"],
                row["guide"][-1]["cases"],
            )  # inside the region, where there is one
        else:
            found = next((s for s in row["scores"] if (s["class"], s["metric"]) == (label, metric)), None)
            if found is None:
                continue
            value, finite = found["finite_mean"], found["count"] - found["infinite"]
            infinite += found["infinite"]
        if finite:
            sums[row["seed"]] = [total + value * finite, count + finite]
    return [total / count for total, count in sums.values() if count], infinite


def _columns(protocol: Protocol, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """(heading, class, metric) of each column that some row has."""
    scores = [s for r in rows for s in r["scores"]]
    classes = list(
        dict.fromkeys(s["class"] for s in scores if s["class"] not in (BACKGROUND, MEAN, MEAN_WITH_BACKGROUND))
    )
    unit = rows[0]["protocol"]["distance unit"]
    out = []
    for metric in protocol.metrics:
        if metric == GUIDE:
            out.append((_GUIDE_LABEL, MEAN, GUIDE))
        elif any(s["metric"] == metric for s in scores):
            heading = METRICS[metric].label + (f", {unit}" if metric in ("hd95", "assd") else "")
            out.append((heading, MEAN, metric))
            if metric == "dice" and len(classes) > 1:
                out += [(f"{heading}, {name}", name, metric) for name in classes]
    return out


def _text(protocol: Protocol, groups: dict[str, list[Row]], *, references: Sequence[str]) -> str:
    every = [row for group in groups.values() for row in group]
    columns = _columns(protocol, every)
    judged = {name: {case for row in group for case in row["cases"]["judge"]} for name, group in groups.items()}
    unequal = len(set(map(frozenset, judged.values()))) > 1  # means over other cases are no comparison
    head = ["network", "weights", "steps", *(heading for heading, _, _ in columns), "training", "seeds"]
    head += ["cases judged"] * unequal
    body = []
    for name, group in groups.items():
        first = group[0]
        parameters = "–" if first["parameters"] is None else f"{first['parameters'] / 1e6:.1f} M"
        cells = [_cell(*seed_means(group, label, metric), metric) for _, label, metric in columns]
        minutes = statistics.mean(row["seconds"]["training"] for row in group) / 60
        seeds = len({row["seed"] for row in group})
        body.append(
            [name, parameters, f"{first['steps']:,} of {first['batch']}", *cells, f"{minutes:.0f} min", str(seeds)]
            + [str(len(judged[name]))] * unequal
        )
    parts = [_markdown(head, body), _beneath(protocol, every)]
    if len(groups) > 1:
        there = [name for name in references if name in groups] or list(groups)[:1]
        parts += dict.fromkeys(_differences(protocol, groups, reference) for reference in there)
    return "\n\n".join(parts) + "\n"


def _cell(means: Sequence[float], infinite: int, metric: str) -> str:
    if not means:
        return "∞" if infinite else "–"
    digits = 2 if metric in ("hd95", "assd") else 4
    spread = f" ± {statistics.stdev(means):.{digits}f}" if len(means) > 1 else ""
    return f"{statistics.mean(means):.{digits}f}{spread}" + (f" ({infinite} × ∞)" if infinite else "")


def _beneath(protocol: Protocol, rows: Sequence[Row]) -> str:
    """How the figures came about; where rows differ, all that they say."""

    def distinct(values: Iterable[Any]) -> str:
        different = list(dict.fromkeys(map(str, values)))
        return " / ".join(different[:_SHOWN]) + (f" / … ({len(different)})" if len(different) > _SHOWN else "")

    cases = distinct(
        f"{r['cases']['train']} train, {len(r['cases']['choose'])} choose, {len(r['cases']['judge'])} judge"
        for r in rows
    )
    folds = sorted({r["fold"] for r in rows})
    judged = len({case for r in rows for case in r["cases"]["judge"]})
    counted = f"{cases}; {judged} cases judged, folds {', '.join(map(str, folds))}" if protocol.folds > 1 else cases
    budget = distinct(
        "nnU-Net's own schedule"
        if b.get("full")
        else f"{b['minutes']:g} minutes"
        if "minutes" in b
        else f"{b['steps']:,} steps"
        for b in (r["budget"] for r in rows)
    )
    rules = "; ".join(
        f"{key}: {distinct(r['protocol'][key] for r in rows if key in r['protocol'])}" for key in _PROTOCOL_LINES
    )
    versions = [r["versions"] for r in rows]
    names = list(dict.fromkeys(name for v in versions for name in v))
    memory = [r["gpu_gib"] for r in rows if r["gpu_gib"]]
    lines = [
        f"Cases: {counted}. Mean over the judged cases of each seed, then mean ± SD over seeds; "
        "(k × ∞): values left out, of missed structures.",
        f"Budget of a run: {budget}. "
        f"Prediction: {'averaged over mirrored copies' if rows[0]['mirrored'] else 'not mirrored'}.",
        f"Protocol: {rules}.",
        f"Hardware: {distinct(r['hardware'] for r in rows)}"
        + (f"; at most {max(memory):.1f} GiB of its memory." if memory else "."),
        f"Versions: {'; '.join(f'{name} {distinct(v[name] for v in versions if name in v)}' for name in names)}.",
    ]
    return "\n".join(lines)


def _differences(protocol: Protocol, groups: dict[str, list[Row]], reference: str) -> str:
    """Paired differences to one network, by `cpfnet.compare`; why not, where that cannot be."""
    folder = scores_name(next(iter(groups.values()))[0]["mirrored"])
    missing = [
        name
        for name, group in groups.items()
        if any(not (r["place"] / folder / "scores.json").is_file() for r in group)
    ]
    if missing:
        return (
            f"No paired differences: {folder}/scores.json, the scores case by case, "
            f"is not beside each row of {', '.join(missing)}."
        )
    try:
        found = cpfnet.compare(
            {name: [row["place"] / folder for row in group] for name, group in groups.items()}, against=reference
        )
    except CpfnetError as error:
        return f"No paired differences: {error.what}."
    body = [
        [
            difference.method,
            METRICS[metric].label,
            f"{difference.difference:+.4f}"
            + ("" if math.isnan(difference.low) else f" ({difference.low:+.4f} … {difference.high:+.4f})"),
            "–" if math.isnan(difference.p_holm) else f"{difference.p_holm:.2g}",
            f"{difference.verdict}, {difference.better} : {difference.worse} cases",
        ]
        for method in found.methods[1:]
        for metric in protocol.metrics
        if metric != GUIDE and (difference := found.of(metric, method=method)) is not None
    ]
    head = [f"against {reference}", "metric", "difference (95 %)", "p, Holm", "verdict"]
    words = "; ".join(
        f"{key}: {found.protocol[key]}" for key in ("cases", "difference", "interval", "test", "correction")
    )
    warnings = "".join(f" Note: {warning}." for warning in found.warnings)
    return f"{_markdown(head, body)}\n\nPaired differences. {words}.{warnings}"


def _markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)

"""From a Comparison to a table for the terminal, and to the sections of a report."""

from __future__ import annotations

import math
from pathlib import Path

from cpfnet.evaluation.comparison.compare import FEWEST
from cpfnet.evaluation.comparison.result import Comparison, Difference
from cpfnet.evaluation.metrics.binary import METRICS
from cpfnet.evaluation.scores import MEAN
from cpfnet.report import page
from cpfnet.report.differences import Row, differences, row_names
from cpfnet.report.lettering import lettering

_SHOWN = {"better": 1, "worse": -1, "no difference shown": 0}


def _digits(metric: str) -> int:
    return 2 if METRICS[metric].distance else 4


def _value(value: float, metric: str, sign: str = "") -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return ("+∞" if sign else "∞") if value > 0 else "−∞"
    return f"{value:{sign if value else ''}.{_digits(metric)}f}".replace("-", "−")


def _interval(d: Difference) -> str:
    if math.isnan(d.low):
        return "not known"
    return f"{_value(d.low, d.metric, '+')} … {_value(d.high, d.metric, '+')}"


def _p(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _name(label: str) -> str:
    return "mean over classes" if label == MEAN else label


def sentence(d: Difference) -> str:
    """The verdict in words, with the numbers behind it."""
    if d.patients < FEWEST:
        return f"{d.verdict} (n = {d.patients}: no test can show one with fewer than {FEWEST} patients)"
    p = "" if d.verdict == "no difference shown" else f", p {'' if d.p_holm < 0.001 else '= '}{_p(d.p_holm)}"
    return f"{d.verdict} (n = {d.patients}, {'median, ' * (d.statistic == 'median')}interval {_interval(d)}{p})"


def console_table(comparison: Comparison, method: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Columns, rows and a style for each row: every difference of one method.

    ``n`` counts patients, ``+/=/−`` cases.
    """
    own = [d for d in comparison.differences if d.method == method]
    classes = len({d.label for d in own}) > 1
    columns = [*["class"] * classes, "metric", comparison.reference, method, "difference", "95 % interval", "n"]
    columns += ["p (Holm)", "+/=/−", "verdict"]
    rows = [
        [
            *[d.label.strip("()")] * classes,
            _unit(comparison, d.metric),
            _value(d.reference_mean, d.metric),
            _value(d.method_mean, d.metric),
            _value(d.difference, d.metric, "+") + " (median)" * (d.statistic == "median"),
            _interval(d),
            str(d.patients),
            _p(d.p_holm),
            f"{d.better}/{d.equal}/{d.worse}",
            d.verdict,
        ]
        for d in own
    ]
    styles = {"better": "green", "worse": "red", "no difference shown": ""}
    return columns, rows, [styles[d.verdict] for d in own]


def _unit(comparison: Comparison, metric: str) -> str:
    label = METRICS[metric].label
    return f"{label}, {comparison.protocol['distance unit']}" if METRICS[metric].distance else label


def _spread(comparison: Comparison, method: str, d: Difference) -> str:
    """SD over runs, if there are several."""
    for entry in comparison.runs:
        if (entry["method"], entry["class"], entry["metric"]) == (method, d.label, d.metric):
            return f"{len(entry['means'])} runs:\nSD {_value(entry['sd'], d.metric)}"
    return ""


def _cell(value: str, *details: str) -> page.Cell:
    """A cell whose lines are not broken: they are short, and hold intervals."""
    return page.Cell(value, "\n".join(details).replace(" ", "\N{NO-BREAK SPACE}"))


def _table(comparison: Comparison, method: str) -> page.Table:
    rows: list[list[str | page.Cell]] = []
    own = [d for d in comparison.differences if d.method == method]
    classes = len({d.label for d in own}) > 1
    for d in own:
        of_difference = [_interval(d)]
        if d.statistic == "median":
            finite = d.cases - d.infinite - d.infinite_reference - d.infinite_method
            of_difference[:0] = ["median"]
            of_difference += [f"{finite} finite pairs:", f"mean {_value(d.finite_difference, d.metric, '+')}"]
        undefined = d.undefined + d.undefined_reference + d.undefined_method
        of_n = [f"{d.cases} cases"] * (d.cases != d.patients) + [f"{undefined} not defined"] * (undefined > 0)
        of_n += [f"{d.infinite} infinite in both"] * (d.infinite > 0)
        infinite = [f"{number} × ∞" if number else "" for number in (d.infinite_reference, d.infinite_method)]
        means = [
            _cell(_value(mean, d.metric), *filter(None, [_spread(comparison, name, d), alone]))
            for mean, name, alone in zip(
                (d.reference_mean, d.method_mean), (comparison.reference, method), infinite, strict=True
            )
        ]
        rows.append(
            [
                f"{'Mean' if d.label == MEAN else d.label}: {_unit(comparison, d.metric)}"
                if classes
                else _unit(comparison, d.metric),
                *means,
                _cell(_value(d.difference, d.metric, "+"), *of_difference),
                _cell(str(d.patients), *of_n),
                _cell(_p(d.p_holm), f"alone {_p(d.p)}"),
                _cell(_two(d.rank_biserial), f"d {_two(d.cohens_d)}"),
                f"{d.better} / {d.equal} / {d.worse}",
                d.verdict.capitalize(),
            ]
        )
    columns = ["", "Reference", "Method", "Difference", "n", "p", "r", "+ / = / −", "Verdict"]
    caption = (
        "Mean over cases, with the SD over runs where there are several; n × ∞: cases infinite here and not there. "
        "Difference, below it its 95 % interval. n: patients. p: corrected (Holm), and alone. "
        "r: matched-pairs rank-biserial correlation; d: Cohen's d_z; both have the sign of the difference. "
        "+ / = / −: cases better, equal, worse."
    )
    return page.Table(columns, rows, caption)


def _summary(comparison: Comparison) -> page.Block:
    headline = [d for d in comparison.differences if d.label == comparison.headline]
    if len(comparison.methods) == 2:
        return page.Tiles(
            [page.Tile(_unit(comparison, d.metric), _value(d.difference, d.metric, "+"), sentence(d)) for d in headline]
        )
    metrics = list(dict.fromkeys(d.metric for d in headline))
    rows: list[list[str | page.Cell]] = []
    for method in comparison.methods[1:]:
        own = {d.metric: d for d in headline if d.method == method}
        cells = [_cell(_value(own[m].difference, m, "+"), own[m].verdict) if m in own else "–" for m in metrics]
        rows.append([method, *cells])
    caption = f"Difference from {comparison.reference}, {_name(comparison.headline)}."
    return page.Table(["", *(_unit(comparison, m) for m in metrics)], rows, caption)


def _two(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def _figures(comparison: Comparison) -> list[page.Section]:
    falling = [_unit(comparison, metric) for metric in METRICS if not METRICS[metric].higher_is_better]
    several = len(comparison.methods) > 2
    classes = len({d.label for d in comparison.differences}) > 1
    strips: dict[str, list[Row]] = {}
    forest: dict[str, list[Row]] = {}
    for d in comparison.differences:
        numbers = d.difference, d.low, d.high, _SHOWN[d.verdict]
        title = _unit(comparison, d.metric)
        if d.label == comparison.headline:
            cases = comparison.cases[d.method, d.label, d.metric]
            strips.setdefault(title, []).append(Row(d.method, *numbers, cases))
        name = ": ".join([*[d.method] * several, *[_name(d.label)] * classes])
        forest.setdefault(title, []).append(Row(name, *numbers))
    note = (
        f"Difference from {comparison.reference}; right of 0 is better, also where less is better. "
        "Diamond and line: {}the 95 % interval, to the edge where it is infinite; "
        "blue: better, orange: worse, dark: no difference shown."
    )
    middle = "mean (median, where distances are infinite on one side) and "
    dots = f"One dot a case, {_name(comparison.headline)}; n × ∞: cases infinite on one side only. "
    out = [
        page.Section(
            "Case by case",
            [
                page.Figure(
                    differences(strips, falling=falling),
                    f"Differences of each case: {', '.join(strips)}",
                    f"{dots}{note.format(middle)} {lettering(row_names(strips)).key}".strip(),
                )
            ],
        )
    ]
    if classes or several:
        picture = page.Figure(
            differences(forest, falling=falling),
            f"Forest plot of differences: {', '.join(forest)}",
            f"{note.format(middle)} {lettering(row_names(forest)).key}".strip(),
        )
        out.append(page.Section("All differences", [picture]))
    return out


def sections(comparison: Comparison) -> list[page.Section]:
    """Sections for `cpfnet.report.page.render`."""
    tables = [
        page.Section(f"{method} against {comparison.reference}", [_table(comparison, method)])
        for method in comparison.methods[1:]
    ]
    return [
        page.Section("Summary", [_summary(comparison), page.Notice(comparison.warnings)]),
        *_figures(comparison),
        *tables,
        page.Section("Protocol", [page.Pairs([(k.capitalize(), v) for k, v in comparison.protocol.items()])]),
        page.Section("Versions", [page.Pairs(page.installed_versions("numpy", "scipy"))]),
    ]


def write_report(comparison: Comparison, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the comparison as one self-contained HTML page.

    Raises:
        OutputError: the file exists and ``overwrite`` is False, or cannot be written.
    """
    others = ", ".join(comparison.methods[1:])
    return page.render(
        path,
        title=f"{others} against {comparison.reference}",
        subtitle=f"Cases: {comparison.protocol['cases']}",
        sections=sections(comparison),
        overwrite=overwrite,
    )

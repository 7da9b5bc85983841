"""What planning would make of labels: what it refuses, and how slices that a structure skips could be filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cpfnet.data.checks.file_summary import Content, Examined
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.dataset_yaml import short_labels
from cpfnet.data.finding import Finding
from cpfnet.data.infer_labels import meaning_of, values_in
from cpfnet.errors import DatasetError
from cpfnet.planning import Labels

_EXPLAINED = ("label-values", "soft-label", "lossy-label", "structure-names", "overlap", "unreadable", "non-finite")
"""Kinds of errors that say why labels cannot be planned for."""

_MOST_GAPS = 4
"""Structures of one label whose gaps are named."""


def refused(examined: Sequence[Examined], fixes: FixSuggestions, earlier: Sequence[Finding]) -> Iterator[Finding]:
    """What planning would refuse of label values, unless ``earlier`` findings name it already."""
    contents = _contents(examined)
    if not any(content.values for content in contents):
        return
    if any(finding.severity == "error" and finding.kind in _EXPLAINED for finding in earlier):
        return
    try:
        meaning_of(fixes.dataset, [values_in(content) for content in contents])
    except DatasetError as error:
        yield Finding("error", "label-values", fixes.dataset.name, error.what, error.fix or "")


def gaps(examined: Sequence[Examined], fixes: FixSuggestions) -> Iterator[Finding]:
    """Structures that skip slices."""
    for one in examined:
        for content in one.labels.values():
            if not content.gaps:
                continue
            where = fixes.shown(content.path)
            what = "; ".join(map(str, content.gaps[:_MOST_GAPS])) + "; …" * (len(content.gaps) > _MOST_GAPS)
            fix = f"draw what is missing in `{where}`"
            if labels := _labels(examined, fixes):
                filled = labels.model_copy(update={"interpolate_contours": True})
                fix += f"; or {fixes.declare(f'labels: {short_labels(filled)}')}, which fills such slices by shape"
            fix += "; or leave it if these are separate pieces: there, nothing will be learnt but background"
            yield Finding("warning", "contour-gap", where, what, fix, one.case.id)


def _contents(examined: Sequence[Examined]) -> list[Content]:
    """Labels that planning looks at."""
    pairs = [(one.case, content) for one in examined for content in one.labels.values()]
    return [c for case, c in pairs if case.split != "test" and c.readable and c.nonfinite is None]


def _labels(examined: Sequence[Examined], fixes: FixSuggestions) -> Labels | None:
    try:
        return meaning_of(fixes.dataset, [values_in(content) for content in _contents(examined)])[0]
    except DatasetError:
        return None

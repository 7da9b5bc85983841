"""What can be wrong with labels whose edges are soft, as lossy formats and smoothing leave them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cpfnet.data.case import Case
from cpfnet.data.checks.file_summary import Content
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.dataset_yaml import short_labels
from cpfnet.data.finding import Finding
from cpfnet.data.infer_labels import soft_edges, threshold_between
from cpfnet.label_values import shade
from cpfnet.labels import number_of
from cpfnet.planning import LabelClass, Labels

Pairs = list[tuple[Case, Content]]


def between_colours(blurred: Pairs, others: Pairs, fixes: FixSuggestions) -> Iterator[Finding]:
    """Labels whose values lie between a few colours.

    One colour on black can be read by a threshold, if that suits the others.
    """
    declared = fixes.dataset.labels
    described = [soft_edges(content.main, content.distinct) for _, content in blurred]
    found = {labels and labels.threshold for *_, labels in described}
    # One threshold acts on all labels.
    fits = len(found) == 1 and all(content.distinct <= 2 for _, content in others)
    for (case, content), (what, fix, labels) in zip(blurred, described, strict=True):
        where = fixes.shown(content.path)
        ways = [fix.replace("it", f"`{where}`", 1), fixes.drop(case)]
        if labels is not None and fits and (declared is None or len(declared.classes) == 1):
            classes = (
                labels.classes if declared is None else (LabelClass(name=declared.classes[0].name, values=(255,)),)
            )
            read = labels.model_copy(update={"classes": classes})
            ways.insert(0, fixes.declare(f"labels: {short_labels(read)}"))
        yield Finding("error", "soft-label", where, what, "; or ".join(ways), case.id)


def between_greys(soft: Pairs, pairs: Pairs, fixes: FixSuggestions) -> Iterator[Finding]:
    """Labels whose values lie between two greys, of all pairs: read by a threshold, where that suits the others."""
    declared = fixes.dataset.labels
    low, high = _poles([content for _, content in soft])
    threshold = threshold_between(low, high)
    hard = {v for _, content in pairs if not content.soft for v in content.values} - {0}
    # A threshold also acts on the labels without soft edges: their one structure must lie above it.
    one_class = len(declared.classes) == 1 if declared else len(hard) < 2
    if one_class and all(not isinstance(v, str) and v > threshold for v in hard):
        base = declared or Labels(classes=(LabelClass(name="foreground", values=(max(1, int(high)),)),))
        fix = fixes.declare(f"labels: {short_labels(base.model_copy(update={'threshold': threshold}))}")
        first = soft[0][1]
        names = tuple(fixes.shown(content.path) for _, content in soft)
        where = names[0] if len(names) == 1 else f"{len(names)} labels: {', '.join(names[:3])}{' …' * (len(names) > 3)}"
        what = (
            f"soft edges: {first.distinct} different values from {low:g} to {high:g}, as a lossy format (JPEG) leaves "
            "them"
        )
        fix = f"set `labels.threshold: {threshold:g}`: {fix}"
        # Undeclared, the plan proposes the threshold by itself; declared labels would be refused in training.
        yield Finding("error" if declared else "warning", "soft-label", where, what, fix, files=names)
        return
    for case, content in soft:
        where = fixes.shown(content.path)
        what = f"soft edges: {content.distinct} different values, where classes need one value each"
        fix = f"export `{where}` again, without loss and without interpolation; or {fixes.drop(case)}"
        yield Finding("error", "soft-label", where, what, fix, case.id)


def several_shades(values: Iterable[int | str], fixes: FixSuggestions) -> Iterator[Finding]:
    """Undeclared colours that are all nearly black or nearly white, more than one of a kind.

    Each would be a class that nobody drew.
    """
    shades = {value: shade(number_of(value)) for value in values}
    dark, bright = (tuple(sorted((v for v, s in shades.items() if s == pole), key=str)) for pole in (0, 255))
    if set(shades.values()) != {0, 255} or len(shades) == 2 or not any(isinstance(v, str) for v in shades):
        return
    meant = Labels(background=dark, classes=(LabelClass(name="foreground", values=bright),))
    what = (
        f"all labels together hold {len(shades)} colours, all nearly black or nearly white "
        f"({', '.join(map(str, (*dark, *bright)))}): each is a class"
    )
    fix = f"{fixes.declare(f'labels: {short_labels(meant)}')} if only two are meant; or declare what each means"
    yield Finding("warning", "label-values", fixes.dataset.name, what, fix)


def _poles(contents: Sequence[Content]) -> tuple[float, float]:
    numbers = [float(v) for content in contents for v in content.values if not isinstance(v, str)]
    return min(numbers), max(numbers)

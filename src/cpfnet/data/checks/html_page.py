"""What `check` found as one page that can be mailed: grouped by severity, with pictures of the worst cases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cpfnet.data.case import Dataset
from cpfnet.data.checks.case_picture import picture_of
from cpfnet.data.finding import Finding, shown
from cpfnet.report.page import Card, Cards, Pairs, Section, Text, Tile, Tiles, render

MOST_PICTURES = 24
"""Pictures on a page, from the most severe finding down, one a case."""

_TITLES = {"error": "Errors", "warning": "Warnings", "note": "Notes"}
_MEANINGS = {
    "error": "Training or evaluation would fail or lie.",
    "warning": "Look at it.",
    "note": "Good to know.",
}


def write_page(findings: Sequence[Finding], dataset: Dataset, path: Path, *, overwrite: bool = False) -> Path:
    """Write the page.

    Args:
        findings: as `cpfnet.data.checks.check.check` gives them, of ``dataset``.
        path: the file to write.
        overwrite: replace an existing file.

    Raises:
        OutputError: it exists, or cannot be written.
    """
    counts = {severity: sum(f.severity == severity for f in findings) for severity in _TITLES}
    patients = len({case.patient for case in dataset.cases})
    labelled = sum(bool(case.labels) for case in dataset.cases)
    tiles = [
        Tile("Cases", str(len(dataset.cases)), f"{labelled} labelled, {_many(patients, 'patient')}"),
        *(Tile(_TITLES[severity], str(count), _MEANINGS[severity]) for severity, count in counts.items()),
    ]
    summary: list[Tiles | Text] = [Tiles(tiles)]
    if not findings:
        summary.append(Text(["Nothing found: the dataset is fine."]))
    pictures = _pictures(findings, dataset)
    sections = [Section("Summary", summary)]
    for severity, title in _TITLES.items():
        cards = [_card(f, pictures.get(_case(f, dataset), ("", ""))) for f in findings if f.severity == severity]
        sections.append(Section(title, [Cards(cards)] if cards else []))
    sections += [_variants(f) for f in findings if f.variants]
    return render(
        path,
        title=f"Check of {dataset.name}",
        subtitle=f"Understood as: {dataset.layout}",
        sections=sections,
        overwrite=overwrite,
    )


def _case(finding: Finding, dataset: Dataset) -> str:
    """The id of the case that a finding is about, or of the first of many; "" where it is about the whole."""
    if finding.case is not None or not finding.files:
        return finding.case or ""
    first = finding.files[0]
    return next((c.id for c in dataset.cases if any(shown(f, dataset.root) == first for f in c.files)), "")


def _pictures(findings: Sequence[Finding], dataset: Dataset) -> dict[str, tuple[str, str]]:
    """Case → picture, and what is seen."""
    cases = {case.id: case for case in dataset.cases}
    out: dict[str, tuple[str, str]] = {}
    for finding in findings:
        name = _case(finding, dataset)
        if name in cases and name not in out and len(out) < MOST_PICTURES:
            out[name] = picture_of(cases[name])
    return out


def _card(finding: Finding, picture: tuple[str, str]) -> Card:
    uri, caption = picture
    return Card(
        title=finding.where,
        tag=finding.kind,
        text=finding.what,
        fixes=finding.fix.split("; or "),
        more=finding.files,
        uri=uri,
        alt=f"{finding.case or 'the first case'} with the outline of its label",
        caption=caption,
    )


def _variants(finding: Finding) -> Section:
    pairs = [(name, f"{_many(len(cases), 'case')}: {', '.join(cases)}") for name, cases in finding.variants.items()]
    unused = finding.kind == "unused-structures"
    return Section("Structures without a class" if unused else "Names of structures", [Pairs(pairs)])


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"

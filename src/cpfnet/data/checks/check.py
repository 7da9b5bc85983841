"""What can be wrong with a dataset: every file is read once, every problem comes with its fix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from cpfnet.cores import cores
from cpfnet.data.case import Dataset
from cpfnet.data.checks.file_summary import Examined, examine
from cpfnet.data.checks.fixes import FixSuggestions
from cpfnet.data.checks.image_checks import completeness, consistency, duplicates, files, notes
from cpfnet.data.checks.label_checks import labels
from cpfnet.data.checks.plan_checks import gaps, refused
from cpfnet.data.checks.privacy_checks import privacy
from cpfnet.data.checks.structure_name_checks import structures
from cpfnet.data.dataset import load
from cpfnet.data.finding import Finding
from cpfnet.progress import Bar
from cpfnet.text import natural

__all__ = ["Finding", "check"]

_SEVERITIES = ("error", "warning", "note")

MOST_ALIKE = 10
"""More findings of one kind than these become one."""


def check(dataset: Dataset | Path | str, *, workers: int | None = None, progress: bool = False) -> list[Finding]:
    """Read every file of a dataset and say what is wrong, most severe first.

    Each worker holds the pixels of one file at a time; of a file that was read, only a few numbers are kept.

    Args:
        dataset: as `load` gives it, or the path of one.
        workers: threads that read (decoding runs outside Python's lock); default: one a core.
        progress: show a bar on standard error.

    Raises:
        CpfnetError: the dataset cannot be understood at all.
    """
    data = dataset if isinstance(dataset, Dataset) else load(dataset)
    fixes = FixSuggestions(data)
    examined = list(_read(data, workers, progress))
    findings = list(data.problems)
    for one in examined:
        findings += files(one, fixes)
    findings += completeness(data.cases, fixes, earlier=tuple(findings))
    findings += [*consistency(examined, fixes), *duplicates(examined, fixes)]
    findings += [*labels(examined, fixes), *structures(examined, fixes)]
    findings += [*refused(examined, fixes, findings), *gaps(examined, fixes), *notes(examined, fixes)]
    findings += privacy(examined, fixes)
    return sorted(_condensed(findings), key=lambda f: (_SEVERITIES.index(f.severity), f.kind, natural(f.where), f.what))


def _read(data: Dataset, workers: int | None, progress: bool) -> Iterator[Examined]:
    with ThreadPoolExecutor(workers or cores()) as pool, Bar(show=progress) as bar:
        yield from bar.track(
            pool.map(partial(examine, labels=data.labels), data.cases), len(data.cases), description="Reading"
        )


def _condensed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One systematic cause, one finding."""
    similar: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        similar[finding.severity, finding.kind].append(finding)
    for group in similar.values():
        if len(group) <= MOST_ALIKE:
            yield from group
            continue
        group.sort(key=lambda f: natural(f.where))
        names = [finding.where for finding in group]
        yield replace(
            group[0],
            where=f"{len(group)} files: {', '.join(names[:3])} …",
            what=f"{group[0].what} (the first; the others likewise)",
            fix=f"{group[0].fix} (this is for the first; the others likewise, --json lists them)",
            case=None,
            files=tuple(names),
        )

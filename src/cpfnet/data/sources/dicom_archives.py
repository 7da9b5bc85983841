"""ZIP archives in a folder of DICOM studies.

Each holds a study, or the download that lies beside what was unpacked from it.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cpfnet.data.finding import Finding, quoted, shown
from cpfnet.errors import FormatError

if TYPE_CHECKING:
    from cpfnet.formats.dicom import Scan


def scan_with_archives(root: Path) -> tuple[Scan, list[Finding]]:
    """What lies in a folder, in the archives in it, too.

    A series or label that is there twice counts once, the unpacked one first.

    Returns:
        All of it, and findings: archives that cannot be read, and those that hold what is there already.
    """
    from cpfnet.formats.dicom import Scan, scan

    found, findings = scan(root), []
    again: list[Path] = []
    for archive in _archives(root):
        try:
            inside = scan(archive)
        except FormatError as error:
            where = shown(archive, root)
            fix = f"{error.fix or 'copy or export it again'}; or move `{where}` elsewhere"
            findings.append(Finding("error", "unreadable", where, error.what, fix))
            continue
        series = {(one.study, one.uid): one.instances for one in found.series}
        labels = {label.uid for label in found.labels}
        new = tuple(one for one in inside.series if (one.study, one.uid) not in series)
        drawn = tuple(label for label in inside.labels if label.uid not in labels)
        if len(new) < len(inside.series) or len(drawn) < len(inside.labels):
            again.append(archive)
        if more := sum(len(one.instances - series.get((one.study, one.uid), one.instances)) for one in inside.series):
            where = shown(archive, root)
            what = (
                f"holds {more} image{'s' * (more > 1)} of series that lie elsewhere without "
                f"{'them' if more > 1 else 'it'}: left out"
            )
            fix = f"unpack `{where}`, and move it elsewhere, if the series lacks them; or move `{where}` elsewhere"
            findings.append(Finding("warning", "archive", where, what, fix))
        found = Scan(
            series=tuple(sorted((*found.series, *new), key=lambda one: str(one.reference))),
            labels=tuple(sorted((*found.labels, *drawn), key=lambda label: str(label.path))),
            others=dict(Counter(found.others) + Counter(inside.others)),
            unreadable=(*found.unreadable, *inside.unreadable),
        )
    if again:
        what = (
            "holds what lies unpacked, or in another archive, too: taken once, not from "
            f"{quoted(again[:3], root)}{' …' * (len(again) > 3)}"
        )
        findings.append(Finding("note", "archive", root.resolve().name, what, "nothing needs to be done"))
    return found, findings


def _archives(root: Path) -> list[Path]:
    """ZIP archives in a folder, hidden ones apart."""
    # rglob would fail where a folder vanishes meanwhile.
    files = (Path(parent, name) for parent, _, names in os.walk(root) for name in names)
    paths = (path for path in files if path.suffix.lower() == ".zip" and path.is_file())
    return sorted(p for p in paths if not any(part.startswith((".", "__MACOSX")) for part in p.relative_to(root).parts))

"""From what the user wants compared to the evaluations of each method, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cpfnet.errors import DatasetError
from cpfnet.evaluation.scores import Scores

Report = Scores | Path | str


def load_runs(reports: Sequence[Path | str] | Mapping[str, Report | Sequence[Report]]) -> dict[str, list[Scores]]:
    """Load evaluations and name them.

    Args:
        reports: folders that `Scores.save` wrote (or the scores.json in them). A folder given as ``NAME=PATH`` is named
            NAME, others by the folder's name. One NAME given several times: runs of one method. Or name → Scores or
            folder, or several of them.

    Raises:
        DatasetError: a folder is given twice; or two have the same name, which the user did not give them.
        FormatError: a folder holds no scores, or damaged ones.
    """
    named: list[tuple[str, Report, bool]] = []
    if isinstance(reports, Mapping):
        for name, given in reports.items():
            several = [given] if isinstance(given, (Scores, Path, str)) else given
            named += [(name, report, True) for report in several]
    else:
        named += map(_named, reports)
    places: dict[Path, str] = {}
    out: dict[str, list[Scores]] = {}
    for name, report, _ in named:
        if not isinstance(report, Scores):
            place = _file(Path(report))
            if place in places:
                raise DatasetError(
                    f"is given twice, as {places[place]} and {name}", where=report, fix="give each evaluation once"
                )
            places[place] = name
        if name in out and not all(explicit for other, _, explicit in named if other == name):
            raise DatasetError(
                f"two evaluations are called {name!r}",
                fix="name them: NAME=PATH NAME2=PATH2; runs of one method (seeds, folds) get one NAME",
            )
        out.setdefault(name, []).append(report if isinstance(report, Scores) else Scores.load(report))
    return out


def _named(given: Path | str) -> tuple[str, Path, bool]:
    name, equals, path = str(given).partition("=")
    if equals and name and path and not Path(given).exists():
        return name, Path(path), True
    return _file(Path(given)).parent.name, Path(given), False


def _file(path: Path) -> Path:
    return (path if path.suffix == ".json" and not path.is_dir() else path / "scores.json").resolve()

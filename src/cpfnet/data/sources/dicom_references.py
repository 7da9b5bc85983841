"""Which image series a DICOM segmentation or structure set was drawn on."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cpfnet.data.finding import Finding, quoted, shown
from cpfnet.data.sources.patterns import find
from cpfnet.data.structure_names import normal

if TYPE_CHECKING:
    from cpfnet.formats.dicom import LabelObject, Series


MOST_WAYS = 4
"""Of more files than these no way to choose among them is spelt out."""


class ReferenceMatcher:
    """Finds the series of labels; one look at each.

    Args:
        series: all image series of a data set.
    """

    def __init__(self, series: Sequence[Series]):
        self.series = series
        self.holding = {instance: one.reference for one in series for instance in one.instances}

    def fitting(self, label: LabelObject) -> tuple[list[Series], bool]:
        """The series that a label was drawn on: one, several where this cannot be told, or none.

        What it refers to decides: the instances, else the series. Else its frame of reference does (DICOM PS3.3,
        C.7.4.1), in its own study first; and for a label that says nothing, its study.

        Returns:
            The series, and whether the label refers to it.
        """
        hits = {self.holding[uid] for uid in label.instances if uid in self.holding}
        frame = label.frame_of_reference
        silent = not (label.series or label.instances or frame)
        rules: tuple[Callable[[Series], bool], ...] = (
            lambda one: one.reference in hits,
            lambda one: one.uid in label.series,
            lambda one: bool(frame) and one.frame_of_reference == frame and one.study == label.study,
            lambda one: bool(frame) and one.frame_of_reference == frame,
            lambda one: silent and one.study == label.study,
        )
        for number, rule in enumerate(rules):
            if found := [one for one in self.series if rule(one)]:
                return found, number < 2
        return [], False


def alone(label: LabelObject, root: Path) -> Finding:
    """No series fits."""
    where = shown(label.path, root)
    named = f" (series {', '.join(sorted(label.series))})" if label.series else ""
    what = (
        f"the {label.kind.upper()} belongs to no image here: what it refers to{named} is not found, nor its frame of "
        "reference"
    )
    return Finding(
        "error", "no-image", where, what, f"add the image series that it was drawn on; or move `{where}` elsewhere"
    )


def elsewhere(label: LabelObject, series: Series, root: Path) -> Finding:
    """It refers to another series than the one that fits."""
    where = shown(label.path, root)
    what = (
        f"the {label.kind.upper()} refers to another series (UID {', '.join(sorted(label.series)) or 'unknown'}); "
        f"it is taken for `{shown(series.reference, root)}`, which has the same frame of reference"
    )
    fix = (
        "nothing needs to be done if it fits there, as a picture of it shows; or add the series that it was drawn "
        f"on; or move `{where}` elsewhere"
    )
    return Finding("warning", "other-series", where, what, fix)


def unclear(label: LabelObject, fitting: Sequence[Series], kinds: Sequence[str], root: Path) -> Finding:
    """Several series fit; ``kinds`` are their modalities."""
    references = [one.reference for one in fitting]
    ways = [f"write `modality: {kind}` into `dataset.yaml`" for kind in dict.fromkeys(kinds)]
    if len(ways) < len(fitting):
        ways = _keep_one(references, root)
    what = f"the {label.kind.upper()} fits {len(fitting)} image series: {_few(references, root)}; it is left out"
    return Finding("error", "ambiguous-image", shown(label.path, root), what, "; or ".join(ways))


def are_separate(labels: Sequence[LabelObject]) -> bool:
    """Has each object of one kind structures of its own, as where each structure has a SEG?"""
    drawn = [{normal(name) for name in one.names} for one in labels]
    one_kind = len({one.kind for one in labels}) == 1
    return one_kind and all(drawn) and len(set[str]().union(*drawn)) == sum(map(len, drawn))


def folder_of_all(labels: Sequence[LabelObject], every: Sequence[LabelObject]) -> Path | None:
    """The folder that stands for several objects of one image, which are one label; None where they are not.

    Args:
        labels: of one image and reader.
        every: of the data set.
    """
    paths = {one.path for one in labels}
    if not are_separate(labels) or not all(path.is_file() for path in paths):
        return None
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    return folder if paths == {one.path for one in every if folder in one.path.parents} else None


def taken_together(case: str, labels: Sequence[LabelObject], root: Path) -> Finding:
    """Several objects of one image are one label."""
    paths = [one.path for one in labels]
    what = f"{len(paths)} labels of one image, each with structures of its own, are taken together: {_few(paths, root)}"
    fix = "nothing needs to be done; `label: …` in `dataset.yaml` would choose one of them"
    return Finding("note", "together", shown(paths[0], root), what, fix, case)


def several(case: str, labels: Sequence[LabelObject], root: Path, *, chosen: bool, only: bool) -> Finding:
    """One series has several labels.

    Args:
        chosen: patterns of a dataset.yaml chose them already.
        only: no other series has any.
    """
    paths, kinds = [one.path for one in labels], [one.kind for one in labels]
    ways = _keep_one(paths, root)
    if not chosen and len(set(kinds)) == len(kinds):
        ways += [f"write `label: {kind}` into `dataset.yaml`" for kind in kinds]
    elif not chosen and (patterns := _patterns(paths, root, only)):
        ways += [f"write `label: '{pattern}'` into `dataset.yaml`" for pattern in patterns]
        readers = ", ".join(f"reader{number}: '{pattern}'" for number, pattern in enumerate(patterns, start=1))
        ways += [f"write `label: {{{readers}}}` into `dataset.yaml` if each is the work of one reader"]
    separate = are_separate(labels)
    if separate:
        ways.insert(0, "give them a folder of their own, where no label of another image lies")
    own = ", each with structures of its own" if separate else ""
    what = f"{len(paths)} labels of the same image series{own}: {_few(paths, root)}; the case is left out"
    files = tuple(shown(path, root) for path in paths)
    return Finding("error", "ambiguous-label", files[0], what, "; or ".join(ways), case, files)


def _few(paths: Sequence[Path], root: Path) -> str:
    return quoted(paths, root) if len(paths) <= MOST_WAYS else f"{quoted(paths[:MOST_WAYS], root)} …"


def _keep_one(paths: Sequence[Path], root: Path) -> list[str]:
    if len(paths) > MOST_WAYS:
        return ["keep one of them, and move the others elsewhere"]
    return [f"move {quoted([p for p in paths if p != keep], root)} elsewhere" for keep in paths]


def _patterns(paths: Sequence[Path], root: Path, only: bool) -> list[str]:
    """Patterns that tell the paths apart by names in which they differ, as far as these serve for other cases, too."""
    parts = [path.relative_to(root).parts for path in paths]
    plain = all(path.is_file() and re.fullmatch(r"[\w /.,+-]+", path.relative_to(root).as_posix()) for path in paths)
    if not plain or len({len(one) for one in parts}) > 1 or len(paths) > MOST_WAYS:
        return []
    same = [len(set(names)) == 1 for names in zip(*parts, strict=True)]
    patterns = ["/".join("*" if equal else name for equal, name in zip(same, one, strict=True)) for one in parts]
    return patterns if only or all(len(list(find(root, pattern))) > 1 for pattern in patterns) else []

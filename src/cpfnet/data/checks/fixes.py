"""The words of fixes: what can be followed literally, in the terms of the dataset at hand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cpfnet import formats
from cpfnet.data.case import STUDIES, Case, Dataset
from cpfnet.data.finding import quoted, shown
from cpfnet.formats.file_types import is_listing, is_reference, is_stack
from cpfnet.text import printable


class FixSuggestions:
    """Fixes for one dataset: a listed case is removed from its list, a found one by moving its files elsewhere."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset
        self.root = dataset.root
        self.list = printable(dataset.manifest.name) if dataset.manifest else None

    def shown(self, path: Path) -> str:
        return shown(path, self.root)

    def relative(self, text: str) -> str:
        """Words of an error, with paths as findings print them."""
        if self.root == Path():
            return text
        return re.sub(rf"(?<![\w./]){re.escape(str(self.root))}/", "", text)

    def quoted(self, paths: Iterable[Path]) -> str:
        return quoted(paths, self.root)

    def drop(self, *cases: Case) -> str:
        """Take cases out of the dataset."""
        if self.list:
            names = " and ".join(f"`{case.id}`" for case in cases)
            return f"remove the entry of case {names} from `{self.list}`"
        files = [path for case in cases for path in case.files if os.path.lexists(path) or formats.exists(path)]
        files = [path.parent if is_stack(path) else path for path in files]
        files = [one for path in files for one in (formats.files_of(path) if is_listing(path) else (path,))]
        # A folder takes along what lies in it.
        files = [path for path in files if not any(other in path.parents for other in files)]
        series = " (the files with this SeriesInstanceUID)" if any(is_reference(path) for path in files) else ""
        return f"move {self.quoted(files)}{series} elsewhere"

    def declare(self, line: str) -> str:
        """Write a line (``key: value``) of dataset.yaml."""
        if self.dataset.declaration:
            return f"write `{line}` into `{self.shown(self.dataset.declaration)}`"
        if self.list:
            return f"write `manifest: {self.list}` and `{line}` into `dataset.yaml` beside it, and use that as DATASET"
        return f"write `{line}` into `dataset.yaml`"

    def add_label(self, case: Case) -> str:
        """Name the label file that would fit, after the way of the others."""
        if self.list:
            return f"fill in `label` of case `{case.id}` in `{self.list}`"
        if self.dataset.layout == STUDIES:  # any name will do
            return "add a SEG or RTSTRUCT that refers to this series"
        example = next((other for other in self.dataset.cases if other.labels), None)
        path = example and _analogous(next(iter(example.labels.values())), example, case, self.root)
        return f"add the label `{self.shown(path)}`" if path else "add its label"

    def add_roi(self, case: Case) -> str:
        """As `add_label`."""
        if self.list:
            return f"fill in `roi` of case `{case.id}` in `{self.list}`"
        example = next((other for other in self.dataset.cases if other.roi), None)
        path = example and example.roi and _analogous(example.roi, example, case, self.root)
        return f"add the region of interest `{self.shown(path)}`" if path else "add its region of interest"


def _analogous(path: Path, example: Case, case: Case, root: Path) -> Path | None:
    """The file that would be to ``case`` what ``path`` is to ``example``."""
    if not path.is_relative_to(root):
        return None
    name = path.relative_to(root).as_posix()
    stems = formats.stem(example.images[0]), formats.stem(case.images[0])
    for old, new in ((example.id, case.id), stems):
        if _whole(old).search(name):
            name = _whole(example.patient).sub(lambda _: case.patient, name)
            return root / _whole(old).sub(lambda _: new, name)  # noqa: B023 (used at once)
    return None


def _whole(name: str) -> re.Pattern[str]:
    """A name, not as part of a longer word: ``c`` is not in ``.dcm``."""
    return re.compile(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])")

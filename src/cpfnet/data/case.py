"""The nouns of a dataset: `Case` and `Dataset`, which hold where things lie and read nothing.

`placed` reads a label.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from cpfnet import formats
from cpfnet.data.finding import UNPAIRED, Finding
from cpfnet.errors import DatasetError
from cpfnet.formats.orientation import orientation_mismatch
from cpfnet.image import Image, geometry_difference
from cpfnet.planning import Labels, Modality
from cpfnet.text import counted

_NAMED = 5
"""Problems named one by one where a dataset is used; `check` tells all."""


@dataclass(frozen=True)
class Case:
    """One thing to segment.

    Attributes:
        id: unique within the dataset; printable, without slashes.
        patient: whom it belongs to; folds never part a patient (default: the id).
        images: one file, or one a channel.
        labels: reader → file; one reader is called ``"label"``; empty for an unlabelled case.
        roi: mask of the evaluation region (non-zero counts), if any.
        split: ``"train"``, ``"val"`` or ``"test"`` where the dataset says so, else None.
        fold: the fold that it validates, where the dataset says so.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    labels: dict[str, Path] = field(default_factory=dict)
    roi: Path | None = None
    split: str | None = None
    fold: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Images, labels and region of interest."""
        return (*self.images, *self.labels.values(), *(() if self.roi is None else (self.roi,)))


STUDIES = "DICOM studies"
"""`Dataset.layout` where labels belong to the series that they refer to, whatever the files are called."""


@dataclass(frozen=True)
class Dataset:
    """All cases, and what the dataset itself declares (None where it says nothing).

    Attributes:
        root: the folder that the files lie in; findings print paths relative to it.
        name: for reports.
        cases: in natural order of their ids.
        modality, channels, labels: declared in dataset.yaml / dataset.json.
        layout: what it was understood as, for messages.
        problems: what could not be established (a label without image …); `check` reports them.
        manifest: the CSV or JSON that lists the cases, where one does.
        declaration: the dataset.yaml, where there is one.
    """

    root: Path
    name: str
    cases: tuple[Case, ...]
    modality: Modality | None = None
    channels: tuple[str, ...] | None = None
    labels: Labels | None = None
    layout: str = ""
    problems: tuple[Finding, ...] = ()
    manifest: Path | None = None
    declaration: Path | None = None


def add_labels(dataset: Dataset) -> str:
    """What to do where no case has a label: what kept those that are there from being found, or else to add some."""
    return next((finding.fix for finding in dataset.problems if finding.kind in UNPAIRED), "add labels")


def dataset_warnings(dataset: Dataset) -> list[str]:
    """What the user should know before the dataset is used.

    That is what could not be taken as it stands, the first ones by name.
    """
    problems = [finding for finding in dataset.problems if finding.severity != "note"]
    named = "".join(f"\n  {finding.where}: {finding.what}" for finding in problems[:_NAMED])
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)} of the dataset"
    more = "; `cpfnet check` says how to fix" + (" these:" if len(problems) <= _NAMED else " them, the first ones:")
    notes = [finding.what for finding in dataset.problems if finding.severity == "note"]
    unlabelled = [case.id for case in dataset.cases if case.split != "test" and not case.labels]
    if unlabelled:
        notes.append(
            f"{counted(len(unlabelled), 'case')} without a label that could be taken: {', '.join(unlabelled):.200}; "
            "`cpfnet check` says why"
        )
    return [*([f"{count}{more}{named}"] if problems else []), *notes]


def left_out(dataset: Dataset) -> list[str]:
    """The errors of the dataset, each of which may have cost a case: scores over it should say so."""
    errors = tuple(finding for finding in dataset.problems if finding.severity == "error")
    return dataset_warnings(replace(dataset, cases=(), problems=errors))


def placed(path: Path, image: Image, labels: Labels | None = None) -> Image:
    """Read a label or region of interest.

    Args:
        path: the file.
        image: that it was drawn on.
        labels: as for `formats.read_label`.

    Raises:
        DatasetError: it lies on another grid (the difference).
        FormatError: as `formats.read_label`.
    """
    label = formats.read_label(path, image, labels)
    difference = geometry_difference(image.shape, image.affine, label.shape, label.affine)
    if reason := orientation_mismatch(image.shape, _tag(image), label.shape, _tag(label)):
        raise DatasetError(
            reason,
            where=path,
            fix="turn the mask as viewers show its image; `cpfnet check` lists all such files",
        )
    if difference:
        raise DatasetError(
            f"does not lie on its image's grid: {difference} (the image first)",
            where=path,
            fix="make it on the image's own grid; `cpfnet check` lists all such files",
        )
    return label


def _tag(image: Image) -> int:
    return 1 if image.source is None else image.source.details.get("orientation", 1)

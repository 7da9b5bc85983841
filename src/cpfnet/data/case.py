"""The nouns of a dataset: `Case` and `Dataset`. Lazy: they hold where things lie and read nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cpfnet.data.finding import Finding
from cpfnet.planning import Labels, Modality


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

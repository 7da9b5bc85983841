"""DATASET → list of `Case`: the layouts understood without help, and `dataset.yaml` for all others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cpfnet.planning import Labels, Modality


@dataclass(frozen=True)
class Case:
    """One thing to segment. Lazy: holds where things lie, reads nothing, guesses nothing.

    Attributes:
        id: unique within the dataset.
        patient: whom it belongs to; folds never part a patient (default: the id).
        images: one file, or one a channel.
        labels: reader → file; one reader is called ``"label"``; empty for an unlabelled case.
        roi: mask of the evaluation region (non-zero counts), if any.
        split: ``"train"``, ``"val"`` or ``"test"`` where the dataset says so, else None.
    """

    id: str
    patient: str
    images: tuple[Path, ...]
    labels: dict[str, Path] = field(default_factory=dict)
    roi: Path | None = None
    split: str | None = None


@dataclass(frozen=True)
class Dataset:
    """All cases, and what the dataset itself declares (None where it says nothing).

    Attributes:
        root: the folder (or the folder of the dataset.yaml / manifest).
        name: for reports.
        cases: in natural order of their ids.
        modality, channels, labels: declared in dataset.yaml / dataset.json.
        layout: what it was understood as, for messages.
    """

    root: Path
    name: str
    cases: tuple[Case, ...]
    modality: Modality | None = None
    channels: tuple[str, ...] | None = None
    labels: Labels | None = None
    layout: str = ""

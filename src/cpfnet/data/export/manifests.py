"""What nnU-Net, MONAI and `cpfnet` itself want to be told about a converted data set: the lists beside its files.

Source: nnU-Net, documentation/dataset_format.md and manual_data_splits.md; http://medicaldecathlon.com and MONAI's
``load_decathlon_datalist``; `cpfnet.data.sources.csv_manifest` and `dataset_json`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ruamel.yaml import YAML

from cpfnet.errors import DatasetError
from cpfnet.planning import Labels, Modality
from cpfnet.text import to_csv_cell, to_json

Target = Literal["nnunet", "monai", "csv"]

MADE = "cpfnet convert"
"""Stands in the first lines of a list that a conversion wrote."""


@dataclass(frozen=True)
class Entry:
    """One converted case; files are relative to the folder, with ``/``.

    Attributes:
        id, patient: the case's.
        name: its id as a file name.
        images: one file, or one a channel.
        labels: reader → file.
        roi: mask of the evaluation region.
        split: as the data set says.
        fold: the fold that it validates, where folds decide.
    """

    id: str
    patient: str
    name: str
    images: tuple[str, ...]
    labels: dict[str, str]
    roi: str | None
    split: str | None
    fold: int | None

    @property
    def trains(self) -> bool:
        """Does it take part in training and validation?"""
        return bool(self.labels) and self.split != "test"


@dataclass(frozen=True)
class About:
    """What all cases have in common.

    Attributes:
        name, modality, channels: the data set's.
        labels: of the written files.
        ending: of all files.
        sheared: some grid is not rectangular, which not every reader of NIfTI takes.
    """

    name: str
    modality: Modality | None
    channels: tuple[str, ...]
    labels: Labels
    ending: str
    sheared: bool


def nnunet(entries: Sequence[Entry], about: About) -> dict[str, str]:
    """``dataset.json`` and ``splits_final.json`` of nnU-Net v2."""
    training = [entry for entry in entries if entry.trains]
    content: dict[str, Any] = {
        "name": about.name,
        "converted_by": MADE,
        "channel_names": dict(enumerate(_channels(about))),
        **_regions(about.labels),
        "numTraining": len(training),
        "file_ending": about.ending,
    }
    if about.sheared:  # its first choice, SimpleITK, refuses such files
        content["overwrite_image_reader_writer"] = "NibabelIO"
    return {"dataset.json": _json(content), "splits_final.json": _json(_splits(training))}


def _splits(training: Sequence[Entry]) -> list[dict[str, list[str]]]:
    own = [entry.name for entry in training if entry.split == "val"]
    folds: dict[int | None, list[str]] = {}
    for entry in training:
        folds.setdefault(entry.fold, []).append(entry.name)
    parts = [own] if own else [folds[number] for number in sorted(folds, key=lambda n: n or 0)]
    names = [entry.name for entry in training]
    # A single patient validates what it trains on.
    return [{"train": [n for n in names if n not in set(val)] or names, "val": val} for val in parts]


def monai(entries: Sequence[Entry], about: About) -> dict[str, str]:
    """``dataset.json``: a datalist as of the Medical Segmentation Decathlon, with folds."""
    if about.labels.exclusive:
        names = ["background", *(c.name for c in about.labels.classes), *("ignore" for _ in about.labels.ignore)]
        labels: dict[str, Any] = {"labels": {str(number): name for number, name in enumerate(names)}}
    else:
        labels = _regions(about.labels)
    lists: dict[str, list[dict[str, Any]]] = {"training": [], "validation": [], "test": []}
    for entry in entries:
        key = "test" if not entry.trains else "validation" if entry.split == "val" else "training"
        lists[key].append(_item(entry))
    content = {
        "name": about.name,
        "converted_by": MADE,
        "modality": dict(enumerate(_channels(about))),
        **labels,
        "numTraining": len(lists["training"]),
        "numTest": len(lists["test"]),
        **{key: items for key, items in lists.items() if items},
    }
    return {"dataset.json": _json(content)}


def _item(entry: Entry) -> dict[str, Any]:
    first, *others = entry.labels or [""]
    item: dict[str, Any] = {"case": entry.id, "patient": entry.patient}
    item["image"] = entry.images[0] if len(entry.images) == 1 else list(entry.images)
    if entry.labels:
        item |= {"label": entry.labels[first], **{f"label_{reader}": entry.labels[reader] for reader in others}}
    return item | _given(roi=entry.roi, fold=entry.fold)


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def manifest(entries: Sequence[Entry], about: About, made: str = MADE) -> dict[str, str]:
    """``cases.csv``, and the ``dataset.yaml`` that makes the folder a DATASET; ``made`` says what wrote it."""
    readers = sorted({reader for entry in entries for reader in entry.labels})
    columns = {reader: "label" if reader == "label" else f"label_{reader}" for reader in readers}
    rows = [
        {
            "case": to_csv_cell(entry.id),
            "image": ";".join(entry.images),
            **{columns[reader]: file for reader, file in entry.labels.items()},
            "patient": to_csv_cell(entry.patient),
            **_given(roi=entry.roi, split=entry.split, fold=entry.fold),
        }
        for entry in entries
    ]
    used = [name for name in ("roi", "patient", "split", "fold") if any(name in row for row in rows)]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, ["case", "image", *columns.values(), *used], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    content = {
        "name": about.name,
        "manifest": "cases.csv",
        **_given(modality=about.modality),
        "channels": list(about.channels),
        "labels": about.labels.model_dump(mode="json", exclude_defaults=True),
    }
    text = io.StringIO()
    YAML().dump(content, text)
    return {"cases.csv": table.getvalue(), "dataset.yaml": f"# Made by `{made}`.\n{text.getvalue()}"}


LISTS: dict[Target, Callable[[Sequence[Entry], About], dict[str, str]]] = {
    "nnunet": nnunet,
    "monai": monai,
    "csv": manifest,
}


def check_names(labels: Labels) -> None:
    """Refuse class names that are settings in a ``dataset.json``.

    Raises:
        DatasetError: a class is called ``background`` or ``ignore``.
    """
    for c in labels.classes:
        if c.name in ("background", "ignore"):
            raise DatasetError(
                f"a class is called {c.name!r}, which means something else in a dataset.json",
                where="labels",
                fix="give the class another name in dataset.yaml, or convert to csv",
            )


def _channels(about: About) -> tuple[str, ...]:
    """Channel names; nnU-Net chooses how to normalise by them, and only `CT` keeps Hounsfield units."""
    if about.modality == "ct":
        return ("CT",) * len(about.channels)
    return ("MR",) if about.modality == "mr" and about.channels == ("channel0",) else about.channels


def _regions(labels: Labels) -> dict[str, Any]:
    """nnU-Net's labels: name → number, or the numbers that make up a region."""
    named: dict[str, Any] = {"background": 0}
    named |= {c.name: c.values[0] if len(c.values) == 1 else list(c.values) for c in labels.classes}
    named |= {"ignore": labels.ignore[0]} if labels.ignore else {}
    overlapping = any(len(c.values) > 1 for c in labels.classes)
    return {"labels": named} | ({"regions_class_order": [c.written for c in labels.classes]} if overlapping else {})


def _json(content: Any) -> str:
    return to_json(content) + "\n"

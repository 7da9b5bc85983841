"""The folder of a store as a DATASET: `check`, `train --init`, `evaluate` and `convert` take it as it lies.

``dataset.yaml`` and ``cases.csv`` name the files below ``cases/``; all is made from the database, which alone counts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from cpfnet import formats
from cpfnet.data.export.manifests import About, Entry, manifest
from cpfnet.files import replacing
from cpfnet.planning import Plan
from cpfnet.serve.cases.case import Case
from cpfnet.serve.files import FileStore, read_manifest

CASES = "cases"


def write_dataset(folder: Path, files: FileStore, cases: Sequence[Case], plan: Plan) -> None:
    """Bring the lists up to date, each whole or not at all; the files that they name come first.

    Args:
        folder: of the store.
        files: where images and labels lie.
        cases: all of them.
        plan: of the Model that the cases are for: their channels and labels.

    Raises:
        OutputError, OSError: the disk is full, or files are missing.
    """
    entries = [_entry(folder, files, case) for case in cases]
    about = About(
        name=plan.name,
        modality=plan.modality,
        channels=tuple(channel.name for channel in plan.channels),
        labels=plan.labels,
        ending="",
        sheared=False,
    )
    for name, text in manifest(entries, about, "cpfnet serve").items():
        with replacing(folder / name, overwrite=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _entry(folder: Path, files: FileStore, case: Case) -> Entry:
    place, listed = PurePosixPath(CASES, case.id), read_manifest(files.path(case.input))
    names = {name: name for name in listed}
    if len(listed) == 1:  # its name may be a patient's; headers name the files beside them, so these keep theirs
        names = {name: f"image{formats.suffix_of(name)}" for name in listed}
    _link(folder / place / "image", files, {names[name]: digest for name, digest in listed.items()})
    dicom = formats.is_dicom(Path(case.images[0]))
    whole = dicom and len(case.images) > 1  # a series of lone files: its folder
    images = [place / "image"] if whole else [place / "image" / names.get(name, name) for name in case.images]
    labels = {}
    for author, label in case.counting.items():
        name = f"label-{label.version}{formats.suffix_of(label.name)}"
        _link(folder / place, files, {name: label.digest})
        labels[author or "label"] = str(place / name)
    return Entry(
        id=case.id,
        patient=case.patient,
        name=case.id,
        images=tuple(map(str, images)),
        labels=labels,
        roi=None,
        split=case.split,
        fold=None,
    )


def _link(folder: Path, files: FileStore, listed: Mapping[str, str]) -> None:
    for name, digest in listed.items():
        path = folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(files.path(digest), path)

"""One case into files that other tools read: every channel and every label on the image's own grid."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cpfnet import formats
from cpfnet.data.case import Case, placed
from cpfnet.data.export.manifests import Entry, Target
from cpfnet.errors import DatasetError
from cpfnet.image import Image, Segmentation
from cpfnet.label_values import region_mask
from cpfnet.labels import IGNORED, codes_of, empty_outside, encode
from cpfnet.messages import label_messages
from cpfnet.planning import Folds, Labels


@dataclass(frozen=True)
class Form:
    """How every case is written.

    Attributes:
        to: whom for.
        labels: of the files read.
        written: of the files written.
        ending: of their names.
        channels: of the images, as their format names them.
        colour: red, green and blue go into one file.
        folds: of the training cases.
    """

    to: Target
    labels: Labels
    written: Labels
    ending: str
    channels: tuple[str, ...]
    colour: bool
    folds: Folds


def numbered(labels: Labels, *, ignore: bool) -> Labels:
    """The same classes for files that hold 0, 1 … n, and n + 1 where not annotated."""
    codes = codes_of(labels)
    classes = [
        c.model_copy(
            update={
                "values": tuple(n for n, (_, owners) in enumerate(codes, start=1) if index in owners),
                "names": (),
                "write": None,
            }
        )
        for index, c in enumerate(labels.classes)
    ]
    ignored = (len(codes) + 1,) if ignore or labels.ignore else ()
    return Labels(classes=tuple(classes), exclusive=labels.exclusive, ignore=ignored)


def file_names(ids: Sequence[str]) -> dict[str, str]:
    """A name for each id that any file system and program takes; different also where case does not count."""
    taken: set[str] = set()
    names = {}
    for id in ids:
        plain = _plain(id) or "case"
        candidates = itertools.chain([plain], (f"{plain}-{n}" for n in itertools.count(2)))
        names[id] = next(name for name in candidates if name.casefold() not in taken)
        taken.add(names[id].casefold())
    return names


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+=-]+", "_", text).lstrip(".-")[:100]


def transcribe(case: Case, name: str, fold: int | None, folder: Path, form: Form) -> tuple[Entry, tuple[str, ...]]:
    """Read all of a case, then write all of it.

    Args:
        case: with or without label.
        name: of its files.
        fold: that it validates.
        folder: to write to.
        form: how.

    Returns:
        What was written, and what was repaired or assumed while reading.

    Raises:
        CpfnetError: a file cannot be read, does not lie on the image's grid or holds unknown values; or cannot be
            written.
    """
    image = formats.read(case.images).to_channels(form.channels)
    if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
        raise DatasetError(
            "holds NaN or infinite values", where=case.images[0], fix="replace them in the file, or leave the case out"
        )
    labels = {reader: placed(path, image, form.labels) for reader, path in case.labels.items()}
    codes = {reader: encode(label, form.labels, where=str(case.labels[reader])) for reader, label in labels.items()}
    roi = None if case.roi is None else region_mask(placed(case.roi, image))
    if roi is not None and form.to == "nnunet":  # which knows no regions; but that nothing is where no picture is
        blank = empty_outside(image.array, roi)
        for plane in codes.values():
            plane[~roi & ~(blank & (plane == 0))] = IGNORED
    for plane in codes.values():
        plane[plane == IGNORED] = next(iter(form.written.ignore), 0)

    part = ("Tr" if case.labels and case.split != "test" else "Ts") if form.to == "nnunet" else ""
    parts = [image] if form.colour else [Image(channel[None], image.affine) for channel in image.array]
    several = form.to == "nnunet" or len(parts) > 1
    images = [f"images{part}/{name}{f'_{i:04d}' if several else ''}{form.ending}" for i in range(len(parts))]
    masks: dict[str, np.ndarray] = {}
    files: dict[str, str] = {}
    for reader, plane in codes.items():
        unnamed = reader == "label" or (form.to == "nnunet" and not files)
        files[reader] = f"labels{part}{'' if unnamed else f'_{_plain(reader)}'}/{name}{form.ending}"
        masks[files[reader]] = plane
    region = None
    if roi is not None and form.to != "nnunet":
        region = f"roi/{name}{form.ending}"
        masks[region] = roi.astype(np.uint8)
    for path, channel in zip(images, parts, strict=True):
        formats.write_image(channel, folder / path)
    for path, mask in masks.items():
        formats.write(Segmentation(mask, image.affine), folder / path)
    warnings = dict.fromkeys(
        [*image.warnings, *(n for label in labels.values() for n in label_messages(label, form.labels))]
    )
    return Entry(case.id, case.patient, name, tuple(images), files, region, case.split, fold), tuple(warnings)

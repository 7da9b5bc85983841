"""The image series and labels in a folder or archive, and the one that a path means.

A path means one image series: the folder, archive or file that holds it alone, or ``FOLDER/series=UID`` if several are
there (the end of the UID is enough). Objects that are no images are ignored between images.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from cpfnet.errors import FormatError
from cpfnet.formats.dicom.image.datasets import Archives, Location, locations, stamp_of
from cpfnet.formats.dicom.image.summary import LabelObject, Summary, summarise
from cpfnet.formats.file_types import SERIES, check_readable, is_reference
from cpfnet.text import printable

_MODALITIES = {
    "CT": "ct",
    "MR": "mr",
    "PT": "pet",
    "US": "ultrasound",
    "IVUS": "ultrasound",
    "ES": "endoscopy",
    "SM": "microscopy",
    "GM": "microscopy",
    "OP": "fundus",
    "OPT": "oct",
    "OCT": "oct",
    "CR": "xray",
    "DX": "xray",
    "MG": "xray",
    "RG": "xray",
}


def modality_of(modality: str) -> str:
    """DICOM's word for a modality ("CT") → the Plan's ("ct"); "other" for all that the Plan does not distinguish."""
    return _MODALITIES.get(modality, "other")


_SLICES = ("CT", "MR", "PT", "NM")
"""Modalities whose instances are slices, even if their positions were lost."""


@dataclass(frozen=True)
class Series:
    """Image instances that belong together.

    Attributes:
        reference: a path for which `cpfnet.formats.read` reads exactly this series.
        uid, study: SeriesInstanceUID and StudyInstanceUID (derived if empty, see `datasets`).
        patient: digest of the PatientID, "" if it is empty; for comparisons, never to show.
        frame_of_reference: its UID, or "".
        modality: DICOM's word ("CT").
        instances: SOP instance UIDs.
        folder: the folder common to its files, or their ZIP archive.
        count: number of slices: instances, or frames of a multi-frame object.
        shape: (rows, columns) of the first instance.
        locations: its files, in no particular order.
    """

    reference: Path
    uid: str
    study: str
    patient: str = field(repr=False)
    frame_of_reference: str
    modality: str
    instances: frozenset[str] = field(repr=False)
    folder: Path
    count: int
    shape: tuple[int, int]
    locations: tuple[Location, ...] = field(repr=False)


@dataclass(frozen=True)
class Scan:
    """The contents of a folder, archive or file.

    Attributes:
        series: image series, by reference.
        labels: segmentations and structure sets, by path.
        others: number of objects of other kinds (``{"RTDOSE": 1}``; ``localizer``: the images of localizer series, if
            there are other series).
        unreadable: DICOM files that are damaged, each with the reason.
    """

    series: tuple[Series, ...]
    labels: tuple[LabelObject, ...]
    others: dict[str, int]
    unreadable: tuple[tuple[Path, str], ...]


def _summaries(paths: Sequence[Path], folders: dict[Path, int]) -> tuple[list[Summary], list[tuple[Path, str]]]:
    summaries, unreadable = [], []
    with Archives() as archives:
        for location in locations(paths, archives, folders):
            summary = summarise(location, archives)
            if isinstance(summary, str):
                unreadable.append((location.place / Path(location.member or location.path).name, summary))
            elif summary is not None:
                summaries.append(summary)
    return summaries, unreadable


def _series(items: list[Summary], held: Counter[Path]) -> Series:
    first = items[0]
    folder = first.location.path
    if first.location.member is None:
        folder = Path(os.path.commonpath([item.location.folder for item in items]))
    single = len(items) == 1 and first.location.member is None
    return Series(
        reference=first.location.path
        if single
        else folder
        if held[folder] == 1
        else folder / f"{SERIES}{first.series}",
        uid=first.series,
        study=first.study,
        patient=first.patient,
        frame_of_reference=first.frame_of_reference,
        modality=first.modality,
        instances=frozenset(item.uid for item in items),
        folder=folder,
        count=sum(item.frames for item in items),
        shape=first.shape,
        locations=tuple(item.location for item in items),
    )


def _split_pictures(items: list[Summary]) -> list[list[Summary]]:
    """The files of a series; but each picture without a place in the patient (radiograph, photograph) is an image."""
    slices = any(s.placed or s.modality in _SLICES or s.location.member is not None for s in items)
    return [items] if slices else [[item] for item in items]


def _scan(paths: Sequence[Path], folders: dict[Path, int]) -> Scan:
    summaries, unreadable = _summaries(paths, folders)
    images = sorted((s for s in summaries if s.kind == "image"), key=lambda s: (s.study, s.series))
    groups = [
        part for _, items in groupby(images, key=lambda s: (s.study, s.series)) for part in _split_pictures(list(items))
    ]
    volumes = [items for items in groups if not all(item.localizer for item in items)] or groups
    scouts = sum(map(len, groups)) - sum(map(len, volumes))
    # Number of image series in each folder or below it: if there is only one, its reference is the folder.
    held: Counter[Path] = Counter()
    for items in volumes:
        own = {item.location.folder for item in items}
        held.update(own.union(*(folder.parents for folder in own)))
    kinds = Counter(s.kind for s in summaries if s.kind != "image" and s.label is None)
    if scouts:
        kinds["localizer"] = scouts
    return Scan(
        series=tuple(sorted((_series(items, held) for items in volumes), key=lambda s: str(s.reference))),
        labels=tuple(sorted((s.label for s in summaries if s.label is not None), key=lambda label: str(label.path))),
        others=dict(kinds),
        unreadable=tuple(unreadable),
    )


def scan(paths: Path | str | Sequence[Path | str]) -> Scan:
    """The contents of a folder (recursively), a ZIP archive or a file, or of several together.

    Raises:
        FormatError: one does not exist, or an archive cannot be opened.
    """
    places = [Path(path) for path in ([paths] if isinstance(paths, (Path, str)) else paths)]
    for place in places:
        if not place.is_dir():
            check_readable(place)
    return _scan(places, {})


_SCANS: dict[Path, tuple[dict[Path, int], Scan]] = {}
_SCANS_KEPT = 16
_SETTLED = 2 * 10**9  # ns; times of change are too coarse to tell apart what happened in one moment


def _cached_scan(reference: Path) -> Scan:
    """The contents of the folder or archive of ``reference``, cached.

    Without the cache, reading all series of a folder would be quadratic in its files. A cached scan is used while no
    folder that it searched has changed, and no file of the series.
    """
    place, uid = reference.parent, reference.name.removeprefix(SERIES)
    if place in _SCANS:
        folders, cached = _SCANS[place]
        own = {at.path: at.stamp for series in cached.series if series.uid.endswith(uid) for at in series.locations}
        try:
            changed = any(folder.stat().st_mtime_ns != stamp for folder, stamp in folders.items())
            if own and not changed and all(stamp_of(path) == stamp for path, stamp in own.items()):
                return cached
        except OSError:  # one is gone
            pass
    now, folders = time.time_ns(), {}
    new = _scan([place], folders)
    if now - max(folders.values(), default=0) > _SETTLED:
        if len(_SCANS) >= _SCANS_KEPT:
            _SCANS.clear()
        _SCANS[place] = folders, new
    return new


def _described(series: Series) -> str:
    rows, columns = series.shape
    return f"{series.modality or 'no modality'}, {series.count} × {rows}×{columns}: {series.reference}"


def one_series(paths: Sequence[Path]) -> tuple[Series, tuple[str, ...]]:
    """The one image series that ``paths`` mean, and messages about damaged files next to it.

    Args:
        paths: a folder, archive, file or reference; or several files of one series.

    Raises:
        FormatError: there is none, or several (it lists them); or a file among them is damaged.
    """
    path = paths[0]
    chosen = path.name.removeprefix(SERIES) if len(paths) == 1 and is_reference(path) else None
    places = [path.parent] if chosen is not None else list(paths)
    for place in places:
        if not place.is_dir():
            check_readable(place)
    contents = _scan(places, {}) if chosen is None else _cached_scan(path)
    where = places[0] if len(places) == 1 else places[0].parent
    damaged = [f"{printable(file.name)} {reason}" for file, reason in contents.unreadable]
    several = "\n".join(f"    {_described(series)}" for series in contents.series[:20])
    if chosen is not None:
        matching = [series for series in contents.series if series.uid.endswith(chosen)] if chosen else []
        if len(matching) != 1:
            raise FormatError(
                f"holds {len(matching) or 'no'} image series with a UID that ends in {chosen!r}; there are\n{several}",
                where=where,
                fix="name one of these, with enough of the end of its UID",
            )
        return matching[0], tuple(f"{words}: left out" for words in damaged)
    if damaged and [file for file, _ in contents.unreadable] == places:
        raise FormatError(contents.unreadable[0][1], where=where, fix="copy or export it again")
    if damaged:
        more = " …" if len(damaged) > 5 else ""
        raise FormatError(
            f"{len(damaged)} of its DICOM files cannot be read: {'; '.join(damaged[:5])}{more}",
            where=where,
            fix="copy or export the series again, or take the damaged files away if they do not belong to it",
        )
    if len(contents.series) > 1:
        raise FormatError(
            f"holds {len(contents.series)} image series:\n{several}",
            where=where,
            fix="name one of them as above",
        )
    if not contents.series:
        kinds = [f"{label.kind.upper()} {label.path.name}" for label in contents.labels]
        kinds += [f"{count} {kind}" for kind, count in contents.others.items()]
        only = f", only {', '.join(kinds[:8])}" if kinds else ""
        raise FormatError(
            f"{'is a folder that ' if where.is_dir() else ''}holds no DICOM image{only}",
            where=where,
            fix="give an image file, or the folder, ZIP archive or files of a DICOM image series",
        )
    return contents.series[0], ()

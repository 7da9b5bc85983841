"""DICOM among the inputs: the image series in folders, archives and lone files, and what their results are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpfnet.data.pseudonyms import case_ids
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats.dicom import Scan, Series, is_archive, is_reference, modality_of, one_series, scan
from cpfnet.inference.inputs import Item


@dataclass(frozen=True)
class _Found:
    """A series, what `formats.read` shall be given, and the input that it lies in."""

    series: Series
    files: tuple[Path, ...]
    given: Path

    @property
    def modality(self) -> str:
        return modality_of(self.series.modality)


def series_items(places: Sequence[Path], modality: str) -> list[Item]:
    """Every image series that lies in folders (and the archives in them), archives and lone files, or that is named.

    A series is called after those of its folders, from the one common to all places down, that tell it from the others, as cases of
    a data set are (`case_ids`); one that is a single file after it, too. Among lone files those of one series come together, and
    objects that are no images do not count.

    Args:
        places: folders, ZIP archives, DICOM files, ``FOLDER/series=UID``.
        modality: the Model's: series of others have no part in the names of its own.

    Returns:
        Series first, then what cannot be read, with its error. Folders without DICOM give nothing.
    """
    found: dict[frozenset[str], _Found] = {}
    errors: list[Item] = []
    lone = [place for place in places if place.is_file() and not is_archive(place)]
    for place in places:
        if place in lone:
            continue
        for part in [place, *_archives_in(place)]:
            try:
                if is_reference(part):
                    one = one_series([part])[0]
                    found.setdefault(one.instances, _Found(one, (part,), part.parent))
                    continue
                inside = scan(part)
                for one in inside.series:
                    found.setdefault(one.instances, _Found(one, (one.reference,), place))
                errors += _damaged(inside, {one.reference for one in inside.series})
                if part.is_file() and part is place and not inside.series:
                    raise FormatError("holds no DICOM image", where=part, mend="give the archive of an image series")
            except CpfnetError as error:
                errors.append(_failed(part, error))
    if lone:
        inside = scan(lone)
        errors += _damaged(inside, set())
        for one in inside.series:
            files = tuple(sorted(location.path for location in one.locations))
            found.setdefault(one.instances, _Found(one, files, files[0].parent))
        if not inside.series:  # reading says what they are
            errors += [Item((path,), path.stem) for path in lone if path not in inside.unreadable]
    return _named(list(found.values()), modality) + errors


def _archives_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.[zZ][iI][pP]") if path.is_file()) if folder.is_dir() else []


def _failed(path: Path, error: CpfnetError) -> Item:
    return Item((path,), path.name, error)


def _damaged(inside: Scan, own: set[Path]) -> list[Item]:
    """Files that cannot be read, where no series in whose folder they lie will say so."""
    return [
        _failed(path, FormatError(reason, where=path, mend="copy or export it again"))
        for path, reason in inside.unreadable
        if not own & {path, *path.parents}
    ]


def _named(found: list[_Found], modality: str) -> list[Item]:
    places = [one.given if one.given.is_dir() else one.given.parent for one in found]
    root = Path(os.path.commonpath([place.resolve() for place in places])) if places else Path()
    items = []
    for fits in (True, False):
        group = [one for one in found if ("other" in (modality, one.modality) or modality == one.modality) == fits]
        names = case_ids([_folders(one, root) for one in group], [one.series.uid for one in group], root.name)
        for name, one in zip(names, group, strict=True):
            place = one.series.folder if len(one.files) > 1 else one.files[0]
            own = name if fits else f"{name}-{one.series.modality}"
            items.append(Item(one.files, own, place=place, modality=one.modality))
    return items


def _folders(found: _Found, root: Path) -> tuple[str, ...]:
    """Names of folders from the root down; an archive counts as one, and so does a file that is a series by itself."""
    folder = found.series.folder.resolve()
    parts = folder.relative_to(root).parts
    if folder.is_file():
        return (*parts[:-1], folder.stem)
    single = len(found.series.locations) == 1
    return (*parts, found.files[0].stem) if single and found.files[0].is_file() else parts

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
from cpfnet.inference.predictor import suits


@dataclass(frozen=True)
class _Found:
    """A series, what `formats.read` shall be given, and the input that it lies in."""

    series: Series
    files: tuple[Path, ...]
    given: Path

    @property
    def modality(self) -> str | None:
        return modality_of(self.series.modality) if self.series.modality else None


def series_items(places: Sequence[Path], modality: str) -> list[Item]:
    """Every image series that lies in folders (and the archives in them), archives and lone files, or that is named.

    The only series of a patient's folder or archive is called after it; others after those of their folders that tell them apart, as
    cases of a data set are (`case_ids`), and after their own name where they are single files. Among lone files those of one
    series come together, and objects that are no images do not count.

    Args:
        places: folders, ZIP archives, DICOM files, ``FOLDER/series=UID``.
        modality: the Model's: series of others have no part in the names of its own, and are skipped beside one of their
            study that fits, unless a place is theirs alone.

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
            found.setdefault(one.instances, _Found(one, files, files[0] if len(files) == 1 else files[0].parent))
        if not inside.series:  # reading says what they are
            errors += [Item((path,), path.stem) for path in lone if path not in inside.unreadable]
    return _named(list(found.values()), modality, set(places)) + errors


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


def _named(found: list[_Found], modality: str, places: set[Path]) -> list[Item]:
    patients: dict[Path, set[str]] = {}
    for one in found:
        patients.setdefault(one.given, set()).add(one.series.patient or one.series.study)
    fitting = [one for one in found if suits(one.modality, modality)]
    studies = {one.series.study for one in fitting}
    items = []
    for group in (fitting, [one for one in found if one not in fitting]):
        for one, name in zip(group, _names(group, patients), strict=True):
            fits = group is fitting
            items.append(
                Item(
                    one.files,
                    name if fits else f"{name}-{one.series.modality}",
                    place=one.series.folder if len(one.files) > 1 else one.files[0],
                    modality=one.modality,
                    skipped=not fits and one.series.study in studies and places.isdisjoint(one.files),
                )
            )
    return items


def _names(found: list[_Found], patients: dict[Path, set[str]]) -> list[str]:
    """Of each input on its own; where these repeat, of all in the folder that is common to the inputs."""
    names: dict[int, str] = {}
    for given in dict.fromkeys(one.given for one in found):
        members = [index for index, one in enumerate(found) if one.given == given]
        if len(members) == len(patients[given]) == 1:
            name = given.stem if given.is_file() else _folder(given).name
            names |= {members[0]: case_ids([()], [""], name)[0]}
        else:
            names |= zip(members, _of_folder(_folder(given), [found[index] for index in members]), strict=True)
    if len(set(names.values())) < len(names):
        return _of_folder(Path(os.path.commonpath([_folder(one.given) for one in found])), found)
    return [names[index] for index in range(len(found))]


def _folder(given: Path) -> Path:
    """The folder that an input is or lies in, as the user called it: links are not followed."""
    return Path(os.path.abspath(given if given.is_dir() else given.parent))  # noqa: PTH100 (resolve() follows links)


def _of_folder(root: Path, found: list[_Found]) -> list[str]:
    """After the folders in ``root`` that tell series apart; an archive counts as one, and so does a file that is a series."""
    folders = []
    for one in found:
        parts = Path(os.path.abspath(one.series.folder)).relative_to(root).parts  # noqa: PTH100
        if one.series.folder.is_file():
            parts = (*parts[:-1], one.series.folder.stem)
        elif len(one.files) == 1 and one.files[0].is_file():
            parts = (*parts, one.files[0].stem)
        folders.append(parts)
    return case_ids(folders, [one.series.uid for one in found], root.name)

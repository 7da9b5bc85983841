"""DICOM among the inputs: the image series in folders, archives and lone files, and what their results are called."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cpfnet.data.pseudonyms import case_ids
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats.dicom import Scan, Series, is_archive, is_reference, modality_of, one_series, read_header, scan
from cpfnet.formats.dicom.objects import Archives
from cpfnet.formats.dicom.summary import Summary, look
from cpfnet.inference.inputs import Item
from cpfnet.inference.predictor import unfit


@dataclass(frozen=True)
class _Found:
    """A series, what `formats.read` shall be given, and the input that it lies in."""

    series: Series
    files: tuple[Path, ...]
    given: Path

    @property
    def modality(self) -> str | None:
        return modality_of(self.series.modality) if self.series.modality else None

    def misfit(self, channels: int, modality: str, source: str) -> str:
        """Why a Model for such images is not for this series; "" if it may be."""
        if other := unfit(self.modality, modality):
            return other
        with Archives() as archives:
            first = look(self.series.locations[0], archives)
        if isinstance(first, Summary) and first.colour and channels != 3:
            return f"in colours, and the model was fitted for {channels} channel{'s' * (channels > 1)}"
        if source == "volumes" and self.series.count == 1:
            try:
                placed = read_header(*self.files).affine is not None
            except CpfnetError:  # said when it is read
                return ""
            return "" if placed else "a picture without position, and the model was fitted for volumes"
        return ""


def series_items(places: Sequence[Path], channels: int, modality: str, source: str) -> list[Item]:
    """Every image series that lies in folders (and the archives in them), archives and lone files, or that is named.

    The only series of a patient's folder or archive is called after it; others after those of their folders that tell them apart, as
    cases of a data set are (`case_ids`), and after their own name where they are single files. Among lone files those of one
    series come together, and objects that are no images do not count.

    Args:
        places: folders, ZIP archives, DICOM files, ``FOLDER/series=UID``.
        channels, modality, source: the Model's: series that it is not for have no part in the names of its own, and are
            skipped beside one of their study that fits, unless a place is theirs alone.

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
    misfits = [one.misfit(channels, modality, source) for one in found.values()]
    return _named(list(found.values()), misfits, set(places)) + errors


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


def _named(found: list[_Found], misfits: list[str], places: set[Path]) -> list[Item]:
    patients: dict[Path, set[str]] = {}
    for one in found:
        patients.setdefault(one.given, set()).add(one.series.patient or one.series.study)
    fitting = [(one, why) for one, why in zip(found, misfits, strict=True) if not why]
    others = [(one, why) for one, why in zip(found, misfits, strict=True) if why]
    studies = {one.series.study for one, _ in fitting}
    items = []
    for group in (fitting, others):
        for (one, why), name in zip(group, _names([one for one, _ in group], patients), strict=True):
            beside = one.series.study in studies and places.isdisjoint(one.files)
            items.append(
                Item(
                    one.files,
                    f"{name}-{one.series.modality}" if why else name,
                    place=one.series.folder if len(one.files) > 1 else one.files[0],
                    modality=one.modality,
                    skipped=why if beside else "",
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

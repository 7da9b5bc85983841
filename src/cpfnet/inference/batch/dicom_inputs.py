"""DICOM among the inputs: the image series in folders, archives and lone files, and what their results are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpfnet import formats
from cpfnet.data.sources.pseudonyms import digest
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats.dicom import Scan, Series, is_archive, is_reference, modality_of, one_series, read_header, scan
from cpfnet.formats.dicom.image.datasets import Archives
from cpfnet.formats.dicom.image.summary import Summary, summarise
from cpfnet.inference.batch.item import Item
from cpfnet.inference.batch.result_names import Name, below
from cpfnet.inference.input_checks import modality_mismatch


@dataclass(frozen=True)
class _Found:
    """A series, what `formats.read` shall be given, the input that it lies in, and whether it was named by its UID."""

    series: Series
    files: tuple[Path, ...]
    given: Path
    by_uid: bool = False

    @property
    def is_file(self) -> bool:
        """Is it all of one file, which is no archive?"""
        return len(self.files) == 1 and self.files[0].is_file() and not self.series.folder.is_file()

    @property
    def name(self) -> Name:
        given = self.given if self.given.is_dir() else self.given.parent
        if self.is_file:
            return below(given, self.files[0].parent, formats.stem(self.files[0]))
        folder = self.series.folder
        return below(given, folder.parent, formats.stem(folder)) if folder.is_file() else below(given, folder)

    @property
    def modality(self) -> str | None:
        return modality_of(self.series.modality) if self.series.modality else None

    def misfit(self, channels: int, modality: str, source: str) -> str:
        """Why a Model for such images is not for this series; "" if it may be."""
        if other := modality_mismatch(self.modality, modality):
            return other
        with Archives() as archives:
            first = summarise(self.series.locations[0], archives)
        if isinstance(first, Summary) and first.colour and channels != 3:
            return f"in colours, and the model was fitted for {channels} channel{'s' * (channels > 1)}"
        if source == "volumes" and self.series.count == 1:
            try:
                placed = read_header(*self.files).affine is not None
            except CpfnetError:  # said when it is read
                return ""
            return "" if placed else "a picture without position, and the model was fitted for volumes"
        return ""


def series_items(
    places: Sequence[Path], channels: int, modality: str, source: str
) -> tuple[list[tuple[Item, Name]], list[Item]]:
    """Every image series that lies in folders (and the archives in them), archives and lone files, or that is named.

    A series is called after the folder, the archive or the single file that it is, below what was given (`names`);
    series that share a folder or an archive, and those named by their UID, have a digest of it in addition. Among lone
    files those of one series come together, and objects that are no images do not count.

    Args:
        places: folders, ZIP archives, DICOM files, ``FOLDER/series=UID``.
        channels, modality, source: the Model's: series that it is not for have no part in the names of its own, and are
            skipped beside one of their study that fits, unless a place is theirs alone.

    Returns:
        Series with their names, and what cannot be read, with its error. Folders without DICOM give nothing.
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
                    found.setdefault(one.instances, _Found(one, (part,), part.parent, by_uid=True))
                    continue
                inside = scan(part)
                for one in inside.series:
                    found.setdefault(one.instances, _Found(one, (one.reference,), place))
                errors += _damaged(inside, {one.reference for one in inside.series})
                if part.is_file() and part is place and not inside.series:
                    raise FormatError("holds no DICOM image", where=part, fix="give the archive of an image series")
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
    return _named(list(found.values()), misfits, set(places)), errors


def _archives_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.[zZ][iI][pP]") if path.is_file()) if folder.is_dir() else []


def _failed(path: Path, error: CpfnetError) -> Item:
    return Item((path,), path.name, error)


def _damaged(inside: Scan, own: set[Path]) -> list[Item]:
    """Files that cannot be read, where no series in whose folder they lie will say so."""
    return [
        _failed(path, FormatError(reason, where=path, fix="copy or export it again"))
        for path, reason in inside.unreadable
        if not own & {path, *path.parents}
    ]


def _named(found: list[_Found], misfits: list[str], places: set[Path]) -> list[tuple[Item, Name]]:
    """Series that share a folder or an archive are told apart by their UIDs.

    Those that the Model is not for have no part in it.
    """
    studies = {one.series.study for one, why in zip(found, misfits, strict=True) if not why}
    sharing = Counter(
        (one.series.folder, bool(why)) for one, why in zip(found, misfits, strict=True) if not one.is_file
    )
    named = []
    for one, why in zip(found, misfits, strict=True):
        shares = not one.is_file and sharing[one.series.folder, bool(why)] > 1
        name = one.name
        last = f"{name.parts[-1]}{f'-{digest(one.series.uid)}' if shares or one.by_uid else ''}"
        last += f"-{one.series.modality}" if why else ""
        beside = one.series.study in studies and places.isdisjoint(one.files)
        item = Item(
            one.files,
            last,
            place=one.series.folder if len(one.files) > 1 else one.files[0],
            modality=one.modality,
            skipped=why if beside else "",
        )
        named.append((item, replace(name, parts=(*name.parts[:-1], last))))
    return [one for _, one in sorted(zip(misfits, named, strict=True), key=lambda pair: bool(pair[0]))]

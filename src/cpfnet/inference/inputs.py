"""What the user named → images: their channel files, and what their results are called."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpfnet import formats
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats.files import is_reference, looks_like_dicom

IMAGES = ("images", "imagesTs")
"""Folders of a data set that hold the images to segment."""

NO_IMAGES = {"mask", "masks", "label", "labels", "labelsTr", "labelsTs", "roi"}
"""Folders of a data set that hold no images."""

LIST = ".txt"
"""Ends the name of a text file that lists inputs, one a line."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Item:
    """One image to be.

    Attributes:
        files: one, or one a channel; of DICOM what `cpfnet.formats.read` takes for one series.
        name: of its results: below the output folder, without suffix.
        error: why there is no image.
        place: of a DICOM series, for messages; default: the first file.
        modality: of a DICOM series, in the Plan's words.
        skipped: why the Model is not for this series, which nobody named, while another of its study fits; else "".
    """

    files: tuple[Path, ...]
    name: str
    error: CpfnetError | None = None
    place: Path | None = None
    modality: str | None = None
    skipped: str = ""

    @property
    def path(self) -> Path:
        """What to call it in messages."""
        return self.place or self.files[0]


def collect(
    inputs: Sequence[str | Path],
    *,
    channels: int,
    modality: str = "other",
    source: str = "",
    out: Path | None = None,
) -> list[Item]:
    """Look up files, folders, patterns, and lists of these.

    A folder means the image files in it; if it has none, those in its ``images/`` (or ``imagesTs/``), else those in the
    ``images/`` of its subfolders, else in all subfolders but label folders; and every DICOM series in it or below. Channel files
    ``NAME_0000``, ``NAME_0001`` … make one image for a Model with several channels, unless the first alone has them all; DICOM files
    of one series make one image (see `series_items`). Results are called as their inputs; where two inputs share a name,
    all keep their folders below the inputs' common one. A list is a text file with one of them a line, relative to its own folder; empty lines and those that begin
    with # do not count.

    Args:
        inputs: as a shell would pass them, patterns too.
        channels, modality: of the Model.
        source: ``"images"`` or ``"volumes"``, what it was fitted for; "": unknown.
        out: not looked into.

    Returns:
        Pictures and NIfTI in the order given, each file once, then DICOM series; what led nowhere comes last, with its error.

    Raises:
        CpfnetError: a list cannot be read.
    """
    files: dict[Path, None] = {}  # an ordered set
    dicom: dict[Path, None] = {}
    errors: list[Item] = []
    folders: list[Path] = []  # without pictures: perhaps with DICOM
    for given in _unlisted(inputs):
        path = Path(given)
        found = [path]
        if not path.exists() and glob.has_magic(given):
            found = [Path(match) for match in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207 (absolute ones too)
            found = [match for match in found if match.is_dir() or _is_image(match) or _is_dicom(match)]
            if not found:
                error = FormatError("no image file matches", where=given, mend="quote the pattern; check the folder")
                errors.append(Item((path,), path.name, error))
        for match in found:
            if match.is_dir():
                inside = _images_in(match, out)
                files |= dict.fromkeys(inside)
                dicom[match] = None
                folders += [] if inside else [match]
            elif _is_dicom(match):
                dicom[match] = None
            else:
                files[match] = None
    series: list[Item] = []
    if dicom:
        from cpfnet.inference.series import series_items

        for item in series_items(list(dicom), channels, modality, source):
            (series if item.error is None else errors).append(item)
    for folder in folders:
        if not any(folder in (item.path, *item.path.parents) for item in (*series, *errors)):
            error = FormatError(
                "holds no image file", where=folder, mend=f"known are DICOM and {' '.join(formats.IMAGE_SUFFIXES)}"
            )
            errors.append(Item((folder,), folder.name, error))
    return _distinct(_named(_grouped(list(files), channels)) + series) + errors


def _unlisted(inputs: Sequence[str | Path]) -> Iterator[str]:
    """What was given, and in place of lists what they say."""
    for given in map(str, inputs):
        path = Path(given)
        if path.suffix.lower() != LIST or path.is_dir():
            yield given
            continue
        try:  # names on disk need not be UTF-8; surrogates give their bytes back when the file is opened
            text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        except OSError as error:
            raise CpfnetError(
                f"cannot be read: {error.strerror}", where=path, mend="give a text file with one input a line"
            ) from None
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if "\0" in text or not lines:
            found = "is no plain text, or UTF-16" if "\0" in text else "lists nothing"
            raise CpfnetError(found, where=path, mend="write one input a line, as UTF-8")
        for line in lines:
            yield str(path.parent / line)


def _images_in(folder: Path, out: Path | None) -> list[Path]:
    """Image files of a folder, in natural order; those of subfolders only where it has none itself."""
    direct = sorted((p for p in folder.iterdir() if _is_image(p)), key=_natural)
    if direct:
        return direct
    for name in IMAGES:
        if (folder / name).is_dir():
            return _images_in(folder / name, out)
    below = [p for p in folder.rglob("*") if _is_image(p) and not NO_IMAGES & set(p.relative_to(folder).parts[:-1])]
    below = [p for p in below if set(IMAGES) & set(p.relative_to(folder).parts[:-1])] or below
    if out is not None:
        below = [p for p in below if not p.resolve().is_relative_to(out.resolve())]
    return sorted(below, key=_natural)


def _is_image(path: Path) -> bool:
    return not formats.is_dicom(path) and not path.name.startswith(".") and path.is_file()


def _is_dicom(path: Path) -> bool:
    """Is it one series of a folder, an archive, or a file that is called or begins as a DICOM object?"""
    if not formats.is_dicom(path) or not path.is_file():
        return is_reference(path) and path.parent.exists()
    try:
        with path.open("rb") as file:
            return bool(formats.suffix_of(path)) or looks_like_dicom(file.read(144))
    except OSError:  # said when it is read
        return False


def _natural(path: Path) -> list[str | int]:
    """Sorts case_2 before case_10."""
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"(\d+)", str(path)))]


def _grouped(files: list[Path], channels: int) -> list[Item]:
    """Put channel files together: ``NAME_0000`` … without gaps, where the first alone has too few channels."""
    groups: dict[tuple[Path, str, str], dict[int, Path]] = {}
    for file in files:
        if match := _CHANNEL.fullmatch(formats.stem(file)):
            groups.setdefault((file.parent, match[1], formats.suffix_of(file)), {})[int(match[2])] = file
    items: dict[Path, Item] = {}
    for (_, name, _), members in groups.items():
        count = len(members)
        if sorted(members) != list(range(count)) or (count > 1 and not _lacks_channels(members[0], channels)):
            continue  # numbered images, each whole
        item = Item(tuple(members[index] for index in range(count)), name)
        items |= dict.fromkeys(members.values(), item)
    return list(dict.fromkeys(items.get(file, Item((file,), formats.stem(file))) for file in files))


def _lacks_channels(file: Path, channels: int) -> bool:
    try:
        return len(formats.read_header(file).channels) < channels
    except CpfnetError:  # said when the image is read
        return channels > 1


def _named(items: list[Item]) -> list[Item]:
    """Names without collisions, where folders tell the files apart."""
    if len({item.name for item in items}) < len(items):
        parents = [item.files[0].resolve().parent for item in items]
        root = os.path.commonpath(parents)
        items = [
            replace(item, name=(parent.relative_to(root) / item.name).as_posix())
            for item, parent in zip(items, parents, strict=True)
        ]
    return items


def _distinct(items: list[Item]) -> list[Item]:
    """Names without collisions between formats."""
    names = Counter(item.name for item in items)
    return [
        replace(item, name=item.name + formats.suffix_of(item.files[0]).replace(".", "_"))
        if names[item.name] > 1
        else item
        for item in items
    ]

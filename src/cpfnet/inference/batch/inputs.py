"""What the user named → images: their channel files, and what their results are called."""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cpfnet import formats
from cpfnet.data.sources.unread_files import counted, unread_fix
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats.file_types import is_reference, is_stack, looks_like_dicom, place_of
from cpfnet.inference.batch.item import Item
from cpfnet.inference.batch.result_names import Name, below, distinct
from cpfnet.inference.batch.unread_inputs import may_be_image, unread_images
from cpfnet.text import printable

logger = logging.getLogger(__name__)

IMAGES = ("images", "imagesTs")
"""Folders of a data set that hold the images to segment."""

NO_IMAGES = {"mask", "masks", "label", "labels", "labelstr", "labelsts", "roi", "segmentation", "segmentations"}
"""Folders of a data set that hold no images, in lower case."""

LIST = ".txt"
"""Ends the name of a text file that lists inputs, one a line."""

_CHANNEL = re.compile(r"(.+)_(\d{4})")


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
    ``images/`` of its subfolders, else in all subfolders but label folders; and every DICOM series in it or below.
    Channel files ``NAME_0000``, ``NAME_0001`` … make one image for a Model with several channels, unless the first
    alone has them all; DICOM files of one series make one image (see `series_items`). Results are called as their
    inputs (see `result_names`). A list is a text file with one of them a line, relative to its own folder; empty lines
    and those that begin with # do not count.

    Files of kinds that are not read, in folders or among the matches of a pattern, are named in a warning; so are
    images below a folder that has some of its own.

    Args:
        inputs: as a shell would pass them, patterns too.
        channels, modality: of the Model.
        source: ``"images"`` or ``"volumes"``, what it was fitted for; "": unknown.
        out: not looked into.

    Returns:
        Pictures and NIfTI in the order given, each file once, then DICOM series; what led nowhere comes last, with its
        error.

    Raises:
        CpfnetError: a list cannot be read.
    """
    files: dict[Path, Path] = {}  # file → the folder that stands for what was given
    dicom: dict[Path, None] = {}  # an ordered set
    errors: list[Item] = []
    folders: list[Path] = []  # without pictures: perhaps with DICOM
    unread: list[Path] = []
    deeper: list[tuple[Path, Path]] = []  # images below a folder that has some of its own
    for given in _unlisted(inputs):
        path = Path(given)
        found = [path]
        if not path.exists() and glob.has_magic(given):
            # Not Path.glob: patterns may be absolute.
            matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207
            found = [match for match in matches if match.is_dir() or _is_image(match) or _is_dicom(match)]
            unread += [match for match in matches if match not in found and may_be_image(match)]
            if not found:
                error = FormatError("no image file matches", where=given, fix="quote the pattern; check the folder")
                errors.append(Item((path,), path.name, error))
        for match in found:
            if match.is_dir():
                root, inside = _images_in(match, out)
                for file in inside:
                    files.setdefault(file, root)
                dicom[match] = None
                folders += [] if inside else [match]
                if inside and inside[0].parent == root:
                    deeper += [(root, file) for file in _below(root, out) if file.parent != root]
                unread += unread_images(match, out, NO_IMAGES)
            elif _is_dicom(match):
                dicom[match] = None
            else:
                files.setdefault(match, place_of(match).parent)
    if deeper := [(folder, file) for folder, file in deeper if file not in files]:
        folder, file = deeper[0]
        many = f"{len(deeper)} images" if len(deeper) > 1 else "1 image"
        logger.warning(
            "Left out: %s in folders below, such as %s, since %s has images of its own\n"
            "  → if these are to be predicted, too, give their folders as further inputs",
            many,
            printable(str(file)),
            printable(str(folder)),
        )
    named = _grouped(files, channels)
    if dicom:
        from cpfnet.inference.batch.dicom_inputs import series_items  # loads pydicom, which pictures do without

        series, damaged = series_items(list(dicom), channels, modality, source)
        named += series
        errors += damaged
    taken = [item.path for item, _ in named] + [item.path for item in errors]
    for folder in folders:
        if not any(folder in (path, *path.parents) for path in taken):
            inside = [path for path in unread if folder in path.parents]
            error = FormatError(
                f"holds no image file{f'; {counted(inside)}' if inside else ''}",
                where=folder,
                fix=f"known are DICOM and {' '.join(formats.IMAGE_SUFFIXES)}",
            )
            errors.append(Item((folder,), folder.name, error))
            unread = [path for path in unread if path not in inside]
    if unread := list(dict.fromkeys(unread)):
        logger.warning(
            "Left out: %s, which is no format that is read\n  → if these are images, %s",
            counted(unread),
            unread_fix(unread, Path()),
        )
    return _called(named) + errors


def _called(named: list[tuple[Item, Name]]) -> list[Item]:
    """The inputs with the names of their results. Those that nothing tells apart are refused, all of them."""
    names = distinct([name for _, name in named], [formats.suffix_of(item.files[0]) for item, _ in named])
    often = Counter(names)
    items = []
    for (item, _), name in zip(named, names, strict=True):
        error = None
        if often[name] > 1:
            other = next(o for (o, _), n in zip(named, names, strict=True) if n == name and o is not item)
            error = FormatError(
                f"its result would be called {name}, and so would that of {other.path}",
                where=item.path,
                fix="rename one of them, or predict them one after the other into folders of their own (-o)",
            )
        items.append(replace(item, name=name, error=error))
    return items


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
                f"cannot be read: {error.strerror}", where=path, fix="give a text file with one input a line"
            ) from None
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        if "\0" in text or not lines:
            found = "is no plain text, or UTF-16" if "\0" in text else "lists nothing"
            raise CpfnetError(found, where=path, fix="write one input a line, as UTF-8")
        for line in lines:
            yield str(path.parent / line)


def _images_in(folder: Path, out: Path | None) -> tuple[Path, list[Path]]:
    """Image files of a folder, in natural order; those of subfolders only where it has none itself.

    Before them comes the folder that stands for it.
    """
    direct = sorted((p for p in folder.iterdir() if _is_image(p)), key=_natural)
    if direct:
        return folder, direct
    for name in IMAGES:
        if (folder / name).is_dir():
            return _images_in(folder / name, out)
    deeper = _below(folder, out)
    return folder, [p for p in deeper if set(IMAGES) & set(p.relative_to(folder).parts[:-1])] or deeper


def _below(folder: Path, out: Path | None) -> list[Path]:
    """Image files in a folder and its subfolders, in natural order.

    Those in label folders, in hidden ones and in ``out`` are left out.
    """
    found = [p for p in folder.rglob("*") if _is_image(p) and not _set_aside(p.relative_to(folder).parent)]
    if out is not None:
        found = [p for p in found if not p.resolve().is_relative_to(out.resolve())]
    return sorted(found, key=_natural)


def _set_aside(inside: Path) -> bool:
    """Is a folder, or one that it lies in, for labels or hidden, as those of notebooks and of records are?"""
    return any(part.lower() in NO_IMAGES or part.startswith(".") for part in inside.parts)


def _is_image(path: Path) -> bool:
    label = formats.suffix_of(path) == ".seg.nrrd"
    return not label and not formats.is_dicom(path) and not path.name.startswith(".") and path.is_file()


def _is_dicom(path: Path) -> bool:
    """Is it one series of a folder, an archive, or a file that is called or begins as a DICOM object?"""
    if not formats.is_dicom(path) or not path.is_file():
        return is_reference(path) and not is_stack(path) and path.parent.exists()
    try:
        with path.open("rb") as file:
            return bool(formats.suffix_of(path)) or looks_like_dicom(file.read(144))
    except OSError:  # reading it will tell
        return False


def _natural(path: Path) -> list[str | int]:
    """Sorts case_2 before case_10."""
    return [int(part) if odd % 2 else part for odd, part in enumerate(re.split(r"(\d+)", str(path)))]


def _grouped(files: Mapping[Path, Path], channels: int) -> list[tuple[Item, Name]]:
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
    grouped = dict.fromkeys(items.get(file, Item((file,), formats.stem(place_of(file)))) for file in files)
    return [(item, below(files[item.files[0]], place_of(item.files[0]).parent, item.name)) for item in grouped]


def _lacks_channels(file: Path, channels: int) -> bool:
    try:
        return len(formats.read_header(file).channels) < channels
    except CpfnetError:  # reading the image will tell
        return channels > 1

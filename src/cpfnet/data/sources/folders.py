"""The plain layout: ``images/`` with ``masks/`` or ``labels/``, perhaps ``roi/`` or ``fov/``, splits above or below."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from cpfnet import formats
from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, elsewhere, quoted, shown
from cpfnet.data.sources.suggest_dataset_yaml import suggest
from cpfnet.data.sources.unread_files import bare, unread_finding, unread_in
from cpfnet.errors import DatasetError
from cpfnet.formats.file_types import looks_like_dicom, place_of
from cpfnet.text import natural, printable

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
LABEL_FOLDERS = ("masks", "labels")
ROI_FOLDERS = ("roi", "fov")
LOOKED_INTO = 1000
"""Files of a folder that are looked into before it is given up."""
_AFFIX = re.compile(
    r"[-_. ](masks?|seg|segmentations?|labels?|gt|groundtruth|ground_truth|annotation|manual|roi|fov)$",
    re.IGNORECASE,
)


def folders(path: Path) -> dict[str, Path]:
    """Sub-folders by lower-case name; hidden ones do not count."""
    return {entry.name.lower(): entry for entry in entries(path) if entry.is_dir()}


def image_files(path: Path) -> list[Path]:
    """Files of a known image format (links that lead nowhere, too), in natural order; hidden files do not count."""
    return [entry for entry in entries(path) if not entry.is_dir() and known(entry)]


def images_in(path: Path) -> list[Path]:
    """As `image_files`, and the sub-folders that hold DICOM objects: a series each.

    Among other images a ZIP archive is none.
    """
    found = [
        entry
        for entry in entries(path)
        if (holds_dicom(entry) if entry.is_dir() and entry.name.lower() not in SPLITS else known(entry))
    ]
    if all(formats.is_dicom(entry) for entry in found):
        return found
    return [entry for entry in found if formats.suffix_of(entry) != ".zip"]


def holds_dicom(folder: Path) -> bool:
    """Does a DICOM object lie in or below a folder, among its first `LOOKED_INTO` files?"""

    def files() -> Iterator[Path]:
        for parent, below, names in os.walk(folder):
            below.sort()
            yield from (Path(parent, name) for name in sorted(names))

    return any(begins_as_dicom(file) for file in islice(files(), LOOKED_INTO))


def begins_as_dicom(path: Path) -> bool:
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return False
        with path.open("rb") as file:
            return looks_like_dicom(file.read(144))
    except OSError:
        return False


def known(path: Path) -> bool:
    return bool(formats.suffix_of(path))


def entries(path: Path) -> list[Path]:
    try:
        entries = [entry for entry in path.iterdir() if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DatasetError(
            f"cannot be listed: {error.strerror}", where=printable(str(path)), fix="allow reading this folder"
        ) from None
    return sorted(entries, key=lambda entry: natural(printable(entry.name)))


def identifier(path: Path) -> str:
    """The stem (of ``FOLDER/series=UID`` and ``FOLDER/stack=…``, the folder's) as a case id.

    Printable, and the same for composed and decomposed accents (macOS).
    """
    place = place_of(path)
    return unicodedata.normalize("NFC", printable(formats.stem(place)))


def called(path: Path) -> str:
    """As `identifier`, of files in formats that are not read, too, and without the usual ending of a label."""
    return _AFFIX.sub("", unicodedata.normalize("NFC", printable(bare(path))))


def unread(folder: Path | None, there: Iterable[str], lacking: Iterable[str] = ()) -> list[Path]:
    """Files in formats that are not read, of cases that are not ``there``; and what is called as one that lacks it."""
    own = set(there)
    wanted = set(lacking) - own
    return [path for path in unread_in(folder, wanted) if not {called(path), bare(path)} & own] if folder else []


def match(
    images: Iterable[str], files: Iterable[Path], root: Path, what: str
) -> tuple[dict[str, Path], list[Finding], list[Path]]:
    """Which file belongs to which image: by equal stem, or stem and a usual ending (``_mask``, ``-label`` …).

    Returns:
        id → file, problems (two files fit one image), and files that fit none.
    """
    ids = set(images)
    fitting: dict[str, list[Path]] = defaultdict(list)
    alone = []
    for path in files:
        stem = identifier(path)
        bare = _AFFIX.sub("", stem)
        if stem in ids or bare in ids:
            fitting[stem if stem in ids else bare].append(path)
        else:
            alone.append(path)
    problems = [
        Finding(
            "error",
            f"ambiguous-{what}",
            shown(paths[0], root),
            f"{len(paths)} files could be the {what} of case {case}: {quoted(paths, root)}; the case is left out",
            "; or ".join(elsewhere([p for p in paths if p != keep], root) for keep in paths),
            case,
        )
        for case, paths in fitting.items()
        if len(paths) > 1
    ]
    return {case: paths[0] for case, paths in fitting.items() if len(paths) == 1}, problems, alone


def _only(parts: dict[str, Path], names: tuple[str, ...], where: Path) -> Path | None:
    found = [parts[name] for name in names if name in parts]
    if len(found) > 1:
        raise DatasetError(
            f"holds both {found[0].name}/ and {found[1].name}/",
            where=where,
            fix="keep one of them, or say which in a dataset.yaml: `label: …`",
        )
    return found[0] if found else None


def parts_of(root: Path) -> list[tuple[str | None, Path, Path | None, Path | None]]:
    """(split, images, labels, roi) folders, or none where this is another layout."""
    here = folders(root)
    if "images" in here:
        images, labels, roi = here["images"], _only(here, LABEL_FOLDERS, root), _only(here, ROI_FOLDERS, root)
        below = {name: path for name, path in folders(images).items() if name in SPLITS}
        parts: list[tuple[str | None, Path, Path | None, Path | None]] = [
            (
                SPLITS[name],
                path,
                folders(labels).get(name) if labels else None,
                folders(roi).get(name) if roi else None,
            )
            for name, path in below.items()
        ]
        return parts if below and not images_in(images) else [(None, images, labels, roi), *parts]
    above = {name: folders(path) for name, path in here.items() if name in SPLITS}
    return [
        (
            SPLITS[name],
            inside["images"],
            _only(inside, LABEL_FOLDERS, here[name]),
            _only(inside, ROI_FOLDERS, here[name]),
        )
        for name, inside in above.items()
        if "images" in inside
    ]


def images_and_masks(root: Path) -> Dataset | None:
    """Understand the plain layout.

    None where there is no ``images`` folder with an image in it, or neither masks nor labels.
    """
    parts = parts_of(root)
    if not parts:
        return None
    if not any(labels for _, _, labels, _ in parts):
        return None
    cases: list[Case] = []
    problems: list[Finding] = []
    for split, images, labels, roi in parts:
        found, trouble = _collect(root, split, images, labels, roi)
        cases += found
        problems += trouble
    if not cases and not problems:
        return None
    lost = not any(case.labels for case in cases) and not any(one.kind == "ambiguous-label" for one in problems)
    if lost and (finding := _unpaired(root, parts)):
        problems = [finding, *(one for one in problems if one.kind != "no-image")]
    return Dataset(root, root.resolve().name, told_apart(cases), layout="images and masks", problems=tuple(problems))


def _unpaired(root: Path, parts: Sequence[tuple[str | None, Path, Path | None, Path | None]]) -> Finding | None:
    """Masks are there, but none is called as an image: how they go together all the same, where names tell."""
    labels = [folder for _, _, folder, _ in parts if folder]
    images = [path for _, folder, _, _ in parts for path in images_in(folder)]
    within = [path for folder in labels for path in folders(folder).values() if image_files(path)]
    files = [path for folder in labels for path in image_files(folder)]
    if not images or not (files or within):
        return None
    suggestion = suggest(root)
    if files:
        what = f"no mask is called as an image: {quoted(files[:1], root)} and {quoted(images[:1], root)}"
        fix = "give each mask the name of its image; or say their names in a dataset.yaml: `image: …`, `label: …`"
    else:
        folders_found = ", ".join(f"{printable(path.name)} ({len(image_files(path))})" for path in within[:5])
        what = f"holds no mask itself, but in folders: {folders_found}{' …' * (len(within) > 5)}"
        fix = "move the masks out of these folders, called as their images; or say where they lie, in a dataset.yaml"
    if suggestion is not None:
        several = not files and len(suggestion.labels) > 1
        fix = suggestion.fix + "; or draw all of them into one label map a case, with a value for each" * several
    return Finding("error", "names", shown(labels[0], root), what, fix)


def told_apart(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Where splits hold the same names, all ids begin with their split, so that none is called 001 alone."""
    if len({case.id for case in cases}) == len(cases):
        return tuple(cases)
    named = [(case, case.split or "train") for case in cases]
    return tuple(replace(case, id=f"{name}_{case.id}", patient=f"{name}_{case.patient}") for case, name in named)


def _collect(
    root: Path, split: str | None, images: Path, labels: Path | None, roi: Path | None
) -> tuple[list[Case], list[Finding]]:
    by_id: dict[str, Path] = {}
    problems: list[Finding] = []
    for path in images_in(images):
        case = identifier(path)
        if case in by_id:
            problems.append(duplicate_case(case, [by_id[case], path], root))
        else:
            by_id[case] = path
    label_of, trouble, alone = match(by_id, images_in(labels) if labels else [], root, "label")
    aside = unread(images, by_id, map(called, alone))
    roi_of, roi_trouble, roi_alone = match(by_id, image_files(roi) if roi else [], root, "roi")
    kinds = {
        "images": aside,
        "masks": unread(labels, label_of, by_id),
        "regions of interest": unread(roi, roi_of, by_id),
    }
    findings = [unread_finding(paths, root, what) for what, paths in kinds.items() if paths]
    problems = [*findings, *problems, *trouble, *roi_trouble]
    without = {name for path in aside for name in (called(path), bare(path))}
    unusable = {finding.case for finding in (*trouble, *roi_trouble)}
    strays: dict[str, list[Path]] = defaultdict(list)
    for path in (*alone, *roi_alone):
        if not {called(path), identifier(path)} & without:  # its image is there, unread
            strays[called(path)].append(path)
    example = next(iter(by_id.values()), None)
    problems += [
        without_image(paths, root, [sibling(example, stem)] if example else []) for stem, paths in strays.items()
    ]
    cases = [
        Case(case, case, (path,), {"label": label_of[case]} if case in label_of else {}, roi_of.get(case), split)
        for case, path in by_id.items()
        if case not in unusable
    ]
    return cases, problems


def duplicate_case(case: str, paths: list[Path], root: Path) -> Finding:
    return Finding(
        "error",
        "duplicate-case",
        shown(paths[1], root),
        f"a second file for case {case}, beside {quoted(paths[:1], root)}; it is left out",
        "; or ".join(elsewhere([path], root) for path in reversed(paths)),
        case,
    )


def sibling(example: Path, stem: str) -> Path:
    """The file called ``stem`` after the way of ``example``: same folder, same suffix."""
    return example.with_name(stem + example.name[len(formats.stem(example)) :])


def without_image(paths: list[Path], root: Path, images: list[Path]) -> Finding:
    """A label, its region of interest, or both lack their image; ``images`` are the files that would fit."""
    add = f"add the image {quoted(images, root)}; or " if images else ""
    what = "no image belongs to it" + (f", nor to {quoted(paths[1:], root)}" if len(paths) > 1 else "")
    return Finding("error", "no-image", shown(paths[0], root), what, f"{add}{elsewhere(paths, root)}")

"""nnU-Net raw data sets: ``imagesTr/``, ``labelsTr/``, and the channel number at the end of each image's name.

Source: nnU-Net, documentation/dataset_format.md.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from cpfnet import formats
from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, elsewhere, quoted, shown
from cpfnet.data.sources.dataset_json import declared, read_json
from cpfnet.data.sources.folders import (
    called,
    duplicate_case,
    folders,
    identifier,
    image_files,
    match,
    sibling,
    told_apart,
    unread,
    without_image,
)
from cpfnet.data.sources.unread_files import bare, unread_finding, unread_in
from cpfnet.errors import DatasetError
from cpfnet.text import printable

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


def raw(root: Path) -> Dataset | None:
    """Understand nnU-Net raw data (``imagesTr/{case}_{channel}``); None where this is another layout.

    Raises:
        DatasetError: no labelsTr, or a broken dataset.json.
    """
    here = folders(root)
    training = here.get("imagestr")
    if training is None:
        return None
    pictures = [path for path in image_files(training) if not formats.is_dicom(path)]
    aside = unread_in(training)
    if not any(_CHANNEL.match(identifier(path)) for path in pictures) and (
        "labelstr" not in here or not (pictures or any(_CHANNEL.match(bare(path)) for path in aside))
    ):
        return None
    file = root / "dataset.json"
    content = read_json(file) if file.is_file() else {}
    if "labelstr" not in here:
        raise DatasetError(
            "holds imagesTr/ but no labelsTr/", where=root, fix="add the folder labelsTr/ with one label a case"
        )
    ending = content.get("file_ending")
    ending = ending.lower() if isinstance(ending, str) else ""
    _check_ending(training, pictures, ending, file)
    channels, labels, modality = declared(content, file)
    cases, problems = _collect(root, training, here["labelstr"], ending)
    if "imagests" in here:
        test, more = _collect(root, here["imagests"], here.get("labelsts"), ending)
        cases += [replace(c, split="test") for c in test]
        problems += more
    name = str(content.get("name") or root.resolve().name)
    return Dataset(root, name, told_apart(cases), modality, channels, labels, "nnU-Net raw", tuple(problems))


def _check_ending(folder: Path, pictures: list[Path], ending: str, where: Path) -> None:
    """Refuse a `file_ending` that no image has."""
    if pictures and not any(path.name.lower().endswith(ending) for path in pictures):
        suffix = formats.suffix_of(pictures[0])
        raise DatasetError(
            f"file_ending is {ending!r}, but none of the {len(pictures)} images in {folder.name}/ ends so: "
            f"{printable(pictures[0].name)}",
            where=where,
            fix=f'write "file_ending": "{suffix}" into it',
        )


def _collect(root: Path, images: Path, labels: Path | None, ending: str) -> tuple[list[Case], list[Finding]]:
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    problems: list[Finding] = []
    numberless: dict[Path, str] = {}
    others: list[Path] = []
    for path in image_files(images):
        parsed = _CHANNEL.match(identifier(path))
        if not path.name.lower().endswith(ending):
            others.append(path)
        elif parsed is None:
            numberless[path] = _case_of(path)
        elif (channel := int(parsed["channel"])) in found[parsed["case"]]:
            problems.append(duplicate_case(parsed["case"], [found[parsed["case"]][channel], path], root))
        else:
            found[parsed["case"]][channel] = path
    problems += [_rename(path, _numbered(path), root, _LACKS_NUMBER) for path in numberless]
    if others:
        problems.append(_other_ending(others, ending, root))
    usual = Counter(tuple(sorted(files)) for files in found.values()).most_common(1)
    expected = usual[0][0] if usual else ()
    label_of, trouble, alone = match(found, image_files(labels) if labels else [], root, "label")
    unusable = {finding.case for finding in trouble}
    aside = unread(images, ())
    masks = unread(labels, label_of, found)
    problems[:0] = [unread_finding(paths, root, what) for paths, what in ((aside, "images"), (masks, "masks")) if paths]
    unread_cases = {_CHANNEL.sub(r"\g<case>", called(path)) for path in aside}
    example = next((files[min(files)] for files in found.values()), None)
    for path in alone:
        if (case := _case_of(path)) in found and case not in label_of:
            problems.append(_rename(path, case, root, "a label carries no channel number", case))
        elif {called(path), identifier(path)}.isdisjoint({*numberless.values(), *unread_cases}):
            lost = [sibling(example, f"{identifier(path)}_{n:04d}") for n in expected] if example else []
            trouble.append(without_image([path], root, lost))
    cases = []
    for case, files in found.items():
        paths = tuple(files[number] for number in sorted(files))
        lacking = [number for number in expected if number not in files]
        if lacking:
            trouble.append(_missing_channel(case, lacking, paths, label_of.get(case), root))
        elif case not in unusable:
            cases.append(Case(case, case, paths, {"label": label_of[case]} if case in label_of else {}))
    return cases, [*problems, *trouble]


_LACKS_NUMBER = "its name lacks the channel number that nnU-Net's images end in, such as _0000; it is left out"


def _case_of(path: Path) -> str:
    """The case that a name means which carries a channel number wrongly, or none."""
    return re.sub(r"[-_. ]\d{4}$", "", identifier(path))


def _numbered(path: Path) -> str:
    """The name with its channel number as nnU-Net wants it, from 0."""
    name = re.sub(r"[-. ](\d{4})$", r"_\1", identifier(path))
    return name if _CHANNEL.match(name) else f"{name}_0000"


def _rename(path: Path, name: str, root: Path, what: str, case: str | None = None) -> Finding:
    where = shown(path, root)
    return Finding(
        "error", "channel-number", where, what, f"rename `{where}` to `{shown(sibling(path, name), root)}`", case
    )


def _other_ending(paths: list[Path], ending: str, root: Path) -> Finding:
    where = (
        shown(paths[0], root)
        if len(paths) == 1
        else f"{len(paths)} files: {', '.join(shown(p, root) for p in paths[:3])}{' …' * (len(paths) > 3)}"
    )
    what = f"not ending in {ending}, as `file_ending` in dataset.json says: left out"
    fix = (
        "nothing needs to be done if they are no images to learn from; or export all images alike, as `file_ending` "
        "says"
    )
    return Finding("warning", "file-ending", where, what, fix, files=tuple(shown(path, root) for path in paths))


def _missing_channel(case: str, lacking: list[int], paths: tuple[Path, ...], label: Path | None, root: Path) -> Finding:
    missing = [sibling(paths[0], f"{case}_{number:04d}") for number in lacking]
    present = [*paths, *([] if label is None else [label])]
    return Finding(
        "error",
        "missing-channel",
        shown(paths[0], root),
        f"case {case} lacks channel {', '.join(f'{n:04d}' for n in lacking)} that other cases have; it is left out",
        f"add the image {quoted(missing, root)}; or {elsewhere(present, root)}",
        case,
    )

"""nnU-Net raw data sets, and what their (and the Medical Segmentation Decathlon's) ``dataset.json`` declares.

Source: nnU-Net, documentation/dataset_format.md; http://medicaldecathlon.com.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from cpfnet import formats
from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, elsewhere, quoted, shown
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
from cpfnet.planning import Labels, Modality
from cpfnet.settings import validate
from cpfnet.text import printable

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_MR = re.compile(r"^(mri?\b|t1|t2|flair|dwi|adc|pd\b|swi|bold)", re.IGNORECASE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a bare list of entries is a datalist's training part.

    Raises:
        DatasetError: not there, not text, not JSON (with the line), or not an object.
    """
    try:
        content = json.loads(path.read_bytes())  # UTF-8 or UTF-16, with or without its mark
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror}", where=path, mend="give the path of a JSON file"
        ) from None
    except UnicodeDecodeError:
        raise DatasetError("is not a UTF-8 text file", where=path, mend="save it as UTF-8") from None
    except RecursionError:
        raise DatasetError("not valid JSON: nested too deeply", where=path, mend="correct the file") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        mend = "write paths with / in place of \\" if "escape" in line else "correct the line"
        raise DatasetError(f"not valid JSON: {line}", where=path, mend=mend) from None
    if isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        return {"training": content}
    if not isinstance(content, dict):
        raise DatasetError(
            f"holds a JSON {type(content).__name__}, expected an object", where=path, mend=f"see {_FORMAT}"
        )
    return content


_FORMAT = "documentation/dataset_format.md of nnU-Net"


def declared(content: dict[str, Any], where: Path) -> tuple[tuple[str, ...] | None, Labels | None, Modality | None]:
    """Channel names, labels and modality of a ``dataset.json`` (either version of nnU-Net, or the Decathlon's)."""
    channels = _channel_names(content.get("channel_names") or content.get("modality"), where)
    modality: Modality | None = None
    if channels and all(name.lower() == "ct" for name in channels):
        modality = "ct"
    elif channels and all(_MR.match(name) for name in channels):
        modality = "mr"
    return channels, _labels(content, where), modality


def _channel_names(named: Any, where: Path) -> tuple[str, ...] | None:
    """Names in the order of the channels: of ``{"0": "T1"}``, ``{"T1": 0}`` or ``["T1"]``."""
    if isinstance(named, list):
        named = dict(enumerate(named))
    if not isinstance(named, dict) or not named:
        return None
    pairs = list(named.items())
    if not all(_number(key) is not None for key, _ in pairs):
        pairs = [(number, name) for name, number in pairs]
    numbers = {_number(key): name for key, name in pairs}
    if None in numbers or len(numbers) < len(pairs) or not all(isinstance(name, (str, int)) for _, name in pairs):
        raise DatasetError(
            f"channel_names does not number the channels: {str(named)[:200]}",
            where=where,
            mend='write a name for each number: "channel_names": {"0": "T1", "1": "FLAIR"}',
        )
    return tuple(str(numbers[number]) for number in sorted(numbers))  # type: ignore[type-var]


def _number(value: Any) -> int | None:
    text = str(value)
    return int(text) if not isinstance(value, bool) and text.isdecimal() and len(text) < 5 else None


def _labels(content: dict[str, Any], where: Path) -> Labels | None:
    raw = content.get("labels")
    if not isinstance(raw, dict) or not raw:
        return None
    if all(
        key.isdecimal() and len(key) < 10 and isinstance(name, str) for key, name in raw.items()
    ):  # first version: {"1": "tumour"}
        raw = {name: int(value) for value, name in raw.items()}
    background = raw.get("background", 0)
    ignore = raw.get("ignore", [])
    named = {name: values for name, values in raw.items() if name not in ("background", "ignore")}
    regions = any(isinstance(values, list) and len(values) > 1 for values in named.values())
    order = content.get("regions_class_order")
    written = order if regions and isinstance(order, list) and len(order) == len(named) else [None] * len(named)
    data = {
        "background": background,
        "ignore": ignore,
        "exclusive": not regions,
        "classes": [
            {"name": name, "values": values, "write": write}
            for (name, values), write in zip(named.items(), written, strict=True)
        ],
    }
    return validate(Labels, data, where=f"{where}, labels") if named else None


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
            "holds imagesTr/ but no labelsTr/", where=root, mend="add the folder labelsTr/ with one label a case"
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
            mend=f'write "file_ending": "{suffix}" into it',
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
    mend = "nothing needs to be done if they are no images to learn from; or export all images alike, as `file_ending` says"
    return Finding("warning", "file-ending", where, what, mend, files=tuple(shown(path, root) for path in paths))


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

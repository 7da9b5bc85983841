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

from cpfnet.data.case import Case, Dataset
from cpfnet.data.finding import Finding, natural, quoted, shown
from cpfnet.data.layouts import (
    duplicate_case,
    folders,
    identifier,
    image_files,
    match,
    sibling,
    told_apart,
    without_image,
)
from cpfnet.errors import DatasetError
from cpfnet.planning import Labels, Modality
from cpfnet.settings import validate

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_MR = re.compile(r"^(mri?\b|t1|t2|flair|dwi|adc|pd\b|swi|bold)", re.IGNORECASE)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DatasetError: not there, not text, not JSON (with the line), or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
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
        raise DatasetError(f"not valid JSON: {line}", where=path, mend="correct the line") from None
    if not isinstance(content, dict):
        raise DatasetError(
            f"holds a JSON {type(content).__name__}, expected an object", where=path, mend=f"see {_FORMAT}"
        )
    return content


_FORMAT = "documentation/dataset_format.md of nnU-Net"


def declared(content: dict[str, Any], where: Path) -> tuple[tuple[str, ...] | None, Labels | None, Modality | None]:
    """Channel names, labels and modality of a ``dataset.json`` (either version of nnU-Net, or the Decathlon's)."""
    named = content.get("channel_names") or content.get("modality")
    channels: tuple[str, ...] | None = None
    if isinstance(named, dict):
        channels = tuple(str(named[key]) for key in sorted(named, key=lambda k: natural(str(k))))
    modality: Modality | None = None
    if channels and all(name.lower() == "ct" for name in channels):
        modality = "ct"
    elif channels and all(_MR.match(name) for name in channels):
        modality = "mr"
    return channels, _labels(content, where), modality


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
    if training is None or not any(_CHANNEL.match(identifier(path)) for path in image_files(training)):
        return None
    file = root / "dataset.json"
    content = read_json(file) if file.is_file() else {}
    if "labelstr" not in here:
        raise DatasetError(
            "holds imagesTr/ but no labelsTr/", where=root, mend="add the folder labelsTr/ with one label a case"
        )
    ending = str(content.get("file_ending", ""))
    channels, labels, modality = declared(content, file)
    cases, problems = _collect(root, training, here["labelstr"], ending)
    if "imagests" in here:
        test, more = _collect(root, here["imagests"], here.get("labelsts"), ending)
        cases += [replace(c, split="test") for c in test]
        problems += more
    name = str(content.get("name") or root.resolve().name)
    return Dataset(root, name, told_apart(cases), modality, channels, labels, "nnU-Net raw", tuple(problems))


def _collect(root: Path, images: Path, labels: Path | None, ending: str) -> tuple[list[Case], list[Finding]]:
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    problems: list[Finding] = []
    for path in image_files(images):
        parsed = _CHANNEL.match(identifier(path))
        if parsed is None or not path.name.endswith(ending):
            continue
        case, channel = parsed["case"], int(parsed["channel"])
        if channel in found[case]:
            problems.append(duplicate_case(case, [found[case][channel], path], root))
        else:
            found[case][channel] = path
    usual = Counter(tuple(sorted(files)) for files in found.values()).most_common(1)
    expected = usual[0][0] if usual else ()
    label_of, trouble, alone = match(found, image_files(labels) if labels else [], root, "label")
    unusable = {finding.case for finding in trouble}
    example = next((files[min(files)] for files in found.values()), None)
    for path in alone:
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


def _missing_channel(case: str, lacking: list[int], paths: tuple[Path, ...], label: Path | None, root: Path) -> Finding:
    missing = [sibling(paths[0], f"{case}_{number:04d}") for number in lacking]
    present = [*paths, *([] if label is None else [label])]
    return Finding(
        "error",
        "missing-channel",
        shown(paths[0], root),
        f"case {case} lacks channel {', '.join(f'{n:04d}' for n in lacking)} that other cases have; it is left out",
        f"add the image {quoted(missing, root)}; or delete {quoted(present, root)}",
        case,
    )

"""``dataset.json``, of nnU-Net (either version) or the Medical Segmentation Decathlon: what it declares, what it lists.

Source: nnU-Net, documentation/dataset_format.md; http://medicaldecathlon.com; MONAI, ``load_decathlon_datalist``.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from cpfnet.data.case import Case, Dataset
from cpfnet.data.sources.folders import identifier
from cpfnet.data.sources.list_columns import ALSO, only, role
from cpfnet.data.sources.list_entries import case_id, fold_number, listed_path, unique
from cpfnet.errors import DatasetError
from cpfnet.planning import Labels, Modality
from cpfnet.settings import validate

_MR = re.compile(r"^(mri?\b|t1|t2|flair|dwi|adc|pd\b|swi|bold)", re.IGNORECASE)
_FORMAT = "documentation/dataset_format.md of nnU-Net"
_LISTS = {"training": None, "train": None, "validation": "val", "val": "val", "test": "test", "testing": "test"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a bare list of entries is a datalist's training part.

    Raises:
        DatasetError: not there, not text, not JSON (with the line), or not an object.
    """
    try:
        content = json.loads(path.read_bytes())  # UTF-8 or UTF-16, with or without its mark
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror}", where=path, fix="give the path of a JSON file"
        ) from None
    except UnicodeDecodeError:
        raise DatasetError("is not a UTF-8 text file", where=path, fix="save it as UTF-8") from None
    except RecursionError:
        raise DatasetError("not valid JSON: nested too deeply", where=path, fix="correct the file") from None
    except ValueError as error:  # not JSON, or a number of thousands of digits
        line = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        fix = "write paths with / in place of \\" if "escape" in line else "correct the line"
        raise DatasetError(f"not valid JSON: {line}", where=path, fix=fix) from None
    if isinstance(content, list) and content and all(isinstance(entry, dict) for entry in content):
        return {"training": content}
    if not isinstance(content, dict):
        raise DatasetError(
            f"holds a JSON {type(content).__name__}, expected an object", where=path, fix=f"see {_FORMAT}"
        )
    return content


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
            fix='write a name for each number: "channel_names": {"0": "T1", "1": "FLAIR"}',
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


def is_datalist(content: dict[str, Any], root: Path) -> bool:
    """Does this JSON list its cases, by files that exist? (nnU-Net's first version lists names without channels.)"""
    entries = content.get("training") or content.get("train")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        return False
    image = next((value for key, value in entries[0].items() if role(key) == "image"), None)
    first = image[0] if isinstance(image, list) and image else image
    return isinstance(first, str) and (
        os.path.exists(listed_path(root, first))  # noqa: PTH110 (a name too long is none)
        or not (root / "imagesTr").is_dir()
    )


def datalist(path: Path) -> Dataset:
    """``{"training": [{"image": …, "label": …, "fold": 0}], "validation": […], "test": […]}``.

    ``image`` may be a list (one file a channel); an entry may be a bare file name. Relative paths start at the JSON's
    folder.

    Raises:
        DatasetError: not such a list, or an entry that cannot be, with its number.
    """
    content = read_json(path)
    cases = []
    for key, split in _LISTS.items():
        entries = content.get(key, [])
        if not isinstance(entries, list):
            raise DatasetError(f"`{key}` is not a list", where=path, fix='write [{"image": "…", "label": "…"}, …]')
        own_split = "train" if split is None and ("validation" in content or "val" in content) else split
        cases += [_entry(entry, own_split, path, f"{path}, {key}[{i}]") for i, entry in enumerate(entries)]
    if not cases:
        raise DatasetError(
            "lists no case", where=path, fix='write {"training": [{"image": "a.nii.gz", "label": "b.nii.gz"}, …]}'
        )
    channels, labels, modality = declared(content, path)
    kept, problems = unique(cases, path)
    return Dataset(
        path.parent,
        str(content.get("name") or path.parent.resolve().name),
        kept,
        modality,
        channels,
        labels,
        "datalist JSON",
        tuple(problems),
        path,
    )


def _entry(entry: Any, split: str | None, path: Path, where: str) -> Case:
    if isinstance(entry, (str, list)):
        entry = {"image": entry}
    entry = entry if isinstance(entry, dict) else {}
    image, *others = (entry.get(only(entry, known, where)) for known in ALSO)
    names = [image] if isinstance(image, str) else image
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n for n in names):
        raise DatasetError("names no image file", where=where, fix='write {"image": "…", "label": "…"}')
    if not all(other is None or isinstance(other, str) for other in others):
        raise DatasetError(
            "`label` and `roi` must be file names", where=where, fix='write {"image": "…", "label": "…"}'
        )
    label, roi = (listed_path(path.parent, other) if other else None for other in others)
    images = tuple(listed_path(path.parent, name) for name in names)
    case = case_id(str(entry.get("case") or entry.get("id") or identifier(images[0])))
    return Case(
        case,
        str(entry.get("patient") or case),
        images,
        {} if label is None else {"label": label},
        roi,
        split,
        fold_number(entry.get("fold"), where),
    )

"""What of a Model is handed on: files by an allow-list, without the names of cases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cpfnet.errors import CpfnetError
from cpfnet.model import CARD, FIRST_STAGE, METRICS, PARTS, WEIGHTS, Model, is_model
from cpfnet.text import brief, counted, printable, to_json

README, CONFIG, ORIGIN = "README.md", "config.json", "origin.yaml"
"""Made for a hub, and by `pull`."""

Content = Path | bytes
"""A file as it lies, or what is written in its place."""

_FILES = (*PARTS, METRICS, CARD)
_FOLD, _STAGE = re.compile(r"fold-\d{1,3}"), re.compile(r"[0-9a-f]{16}")
_PLACE = re.compile(rf"({_FOLD.pattern}/)?({FIRST_STAGE}/{_STAGE.pattern}/)?", re.ASCII)
_MADE = {"report.html", "logs", "exports", ".work", "out-of-fold", "scores.csv", "scores.json", "all"}
"""What cpfnet makes in a Model's folder besides the Model, of images and cases: it stays where it is."""
_CUT = ".new"
_HARMLESS = {README, CONFIG, ORIGIN, _CUT, ".cache", ".gitattributes", ".DS_Store"}
_LARGEST_HEADER = 2**24  # bytes; some hundred a tensor


def is_shared(name: str) -> bool:
    """Is a file called so, from the Model's folder with ``/``, part of a Model that is handed on?"""
    return _PLACE.sub("", name, count=1) in _FILES


def models_in(folder: Path) -> list[Model]:
    """The Model in a folder, or those of its folds, each checked by its own hashes.

    Raises:
        CpfnetError: there is none, or it is damaged.
    """
    return [Model.load(one) for one in _folds(folder) or [folder]]


def _folds(folder: Path) -> list[Path]:
    """The Models of a cross-validation in a folder; none where it is one Model."""
    if not folder.is_dir() or (folder / WEIGHTS).is_file():
        return []
    return sorted(one for one in folder.iterdir() if _FOLD.fullmatch(one.name) and is_model(one))


def _places(folder: Path) -> dict[str, Path]:
    """The folders of a Model's files, by what goes before the files' names: its own, of folds, of first stages."""
    found = {"": folder} | {f"{one.name}/": one for one in _folds(folder)}
    for prefix, place in list(found.items()):
        for stage in sorted((place / FIRST_STAGE).glob("*")):
            if _STAGE.fullmatch(stage.name):
                found[f"{prefix}{FIRST_STAGE}/{stage.name}/"] = stage
    return found


def shared_files(folder: Path) -> dict[str, Content]:
    """The files of a Model that are handed on, sorted by name.

    ``metrics.json`` goes without the names of cases, which may be those of patients: their numbers take their place.

    Args:
        folder: of a Model, or of a cross-validation.

    Raises:
        CpfnetError: no Model, a damaged one, or one that names cases elsewhere.
    """
    names = {
        name for model in models_in(folder) for stage in (model, *model.first_stage) for name in _case_names(stage)
    }
    found: dict[str, Content] = {}
    for prefix, place in _places(folder).items():
        if (place / _CUT).exists():
            raise CpfnetError(
                "its saving was cut short, so that its files lie in two places",
                where=place,
                fix="put them together, in Python: cpfnet.Model.load(FOLDER).save(FOLDER)",
            )
        for name in _FILES:
            path = place / name
            if not path.is_file():
                continue
            if name == WEIGHTS:
                _check_weights_file(path)
            if name == CARD:
                _check_card(path, names)
            found[prefix + name] = _anonymous(path) if name == METRICS else path
    return dict(sorted(found.items()))


def left_out(folder: Path) -> list[str]:
    """What cpfnet made besides the Model, such as the report: it holds images, and is not handed on."""
    return sorted(name for name in _MADE if (folder / name).exists())


def check_nothing_else(folder: Path) -> None:
    """Refuse a Model's folder with files that nobody meant to share: images, tables, logs.

    Raises:
        CpfnetError: there are such, with their names.
    """
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    others = sorted(name for name in files if not _is_own(name))
    if others:
        raise CpfnetError(
            f"holds what is no part of a Model, and may be data, identifiers or logs: {_first(others)}; "
            "nothing was sent",
            where=folder,
            fix="move it elsewhere if it does not belong there, or send the Model alone:  cpfnet pack MODEL -o "
            "model.zip,  then  cpfnet push model.zip OWNER/NAME",
        )


def _is_own(name: str) -> bool:
    rest = _PLACE.sub("", name, count=1).partition("/")[0]
    return is_shared(name) or rest in _MADE | _HARMLESS or rest.startswith(".saving-")


def _first(names: list[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def without_case_names(metrics: dict[str, Any]) -> dict[str, Any]:
    """Validation scores that name no case: how many there were is kept as ``cases.withheld``.

    Example:
        >>> without_case_names({"cases": {"train": ["smith"]}, "validation": {"dice": 0.9, "cases": {"jones": {}}}})
        {'cases': {'train': [], 'validation': [], 'withheld': {'train': 1}}, 'validation': {'dice': 0.9}}
    """
    cases = metrics.get("cases", {})
    kept: dict[str, Any] = {
        key: metrics[key] for key in ("validation", "history", "fitting", "calibration", "parts") if key in metrics
    }
    if "validation" in kept:
        kept["validation"] = {key: value for key, value in kept["validation"].items() if key in ("dice", "classes")}
    counts = {part: len(cases[part]) for part in ("train", "validation") if cases.get(part)}
    withheld = counts or cases.get("withheld")
    return {"cases": {"train": [], "validation": [], "withheld": withheld}} | kept if withheld else kept


def _anonymous(path: Path) -> bytes:
    metrics = json.loads(path.read_text(encoding="utf-8"))  # of a Model that was loaded, so it is JSON
    return (to_json(without_case_names(metrics)) + "\n").encode()


def _case_names(model: Model) -> set[str]:
    """Names of cases that a card may not say: not those that are part of what any card says."""
    cases, own = model.metrics.get("cases", {}), model.card()
    names = {name for part in ("train", "validation") for name in cases.get(part, ()) if len(name) > 3}
    return {name for name in names if not _says(own, name)}


def _check_card(path: Path, names: set[str]) -> None:
    """Refuse a card that was edited and names cases.

    Raises:
        CpfnetError: it does, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CpfnetError(f"cannot be read: {error}", where=path, fix="restore it, in UTF-8") from None
    if named := sorted(name for name in names if _says(text, name)):
        raise CpfnetError(
            f"names {counted(len(named), 'case')} of the training data: {brief(named)}; nothing was sent",
            where=path,
            fix="take the names out of the card: they may be those of patients",
        )


def _says(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _check_weights_file(path: Path) -> None:
    """Refuse weights that are no safetensors, or carry text besides the tensors.

    Raises:
        CpfnetError: so it is.
    """
    fix = "train again, or load and save the Model in Python: cpfnet.Model.save writes the tensors alone"
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length <= _LARGEST_HEADER else None
    except (OSError, ValueError):
        header = None
    if not isinstance(header, dict):
        raise CpfnetError("is no safetensors file", where=path, fix=fix)
    notes = header.get("__metadata__") or {}
    if set(notes) - {"format"}:
        raise CpfnetError(f"carries text besides the tensors: {brief(sorted(notes))}", where=path, fix=fix)

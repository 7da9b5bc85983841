"""What of a Model is handed on: files by an allow-list, without the names of cases."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cpfnet.errors import CpfnetError
from cpfnet.model import CARD, METRICS, PARTS, WEIGHTS, Model, is_model, part_path
from cpfnet.text import brief, counted, to_json

README, CONFIG, ORIGIN = "README.md", "config.json", "origin.yaml"
"""Made for a hub, and by `pull`."""

Content = Path | bytes
"""A file as it lies, or what is written in its place."""

_FILES = (*PARTS, METRICS, CARD)
_FOLD = re.compile(r"fold-\d{1,3}")
_SHARED = re.compile(rf"({_FOLD.pattern}/)?({'|'.join(map(re.escape, _FILES))})")
_BESIDE = {"report.html", "logs", "exports", ".work", ".new", ".DS_Store", README, CONFIG, ORIGIN}
"""What cpfnet itself leaves in a Model's folder, besides the Model: it stays where it is."""
_LARGEST_HEADER = 2**24  # bytes; some hundred a tensor


def is_shared(name: str) -> bool:
    """Is a file called so, from the Model's folder with ``/``, part of a Model that is handed on?"""
    return _SHARED.fullmatch(name) is not None


def folds_of(folder: Path) -> list[Path]:
    """The Models of a cross-validation in a folder; none where it is one Model."""
    if not folder.is_dir() or part_path(folder, WEIGHTS).is_file():
        return []
    return sorted(one for one in folder.iterdir() if _FOLD.fullmatch(one.name) and is_model(one))


def models_in(folder: Path) -> list[Model]:
    """The Model in a folder, or those of its folds, each checked by its own hashes.

    Raises:
        CpfnetError: there is none, or it is damaged.
    """
    return [Model.load(one) for one in folds_of(folder) or [folder]]


def shared_files(folder: Path) -> dict[str, Content]:
    """The files of a Model that are handed on, sorted by name.

    ``metrics.json`` goes without the names of cases, which may be those of patients: their numbers take their place.

    Args:
        folder: of a Model, or of a cross-validation.

    Raises:
        CpfnetError: no Model, a damaged one, or one that names cases elsewhere.
    """
    models = models_in(folder)
    for model in models:
        _check_weights_file(model.weights)
    _check_card(folder, models)
    found: dict[str, Content] = {}
    for place, prefix in ((folder, ""), *((one, f"{one.name}/") for one in folds_of(folder))):
        for name in _FILES:
            path = part_path(place, name)
            if path.is_file():
                found[prefix + name] = _anonymous(path) if name == METRICS else path
    return dict(sorted(found.items()))


def left_out(folder: Path) -> list[str]:
    """What cpfnet made besides the Model, such as the report: it holds images, and is not handed on."""
    return sorted(name for name in _names(folder) if name in _BESIDE - {README, CONFIG, ORIGIN, ".new", ".DS_Store"})


def check_nothing_else(folder: Path) -> None:
    """Refuse a Model's folder with files that nobody meant to share: images, tables, logs.

    Raises:
        CpfnetError: there are such, with their names.
    """
    folds = folds_of(folder)
    others = [name for name in _names(folder) if not _is_own(name) and folder / name not in folds]
    others += [f"{fold.name}/{name}" for fold in folds for name in _names(fold) if not _is_own(name)]
    if others:
        raise CpfnetError(
            f"holds what is no part of a Model, and may be data, identifiers or logs: {brief(sorted(others))}; "
            "nothing was sent",
            where=folder,
            fix="move it elsewhere if it does not belong there, or send the Model alone:  cpfnet pack MODEL -o "
            "model.zip,  then  cpfnet push model.zip OWNER/NAME",
        )


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def _is_own(name: str) -> bool:
    return name in _FILES or name in _BESIDE or name.startswith(".saving-")


def without_case_names(metrics: dict[str, Any]) -> dict[str, Any]:
    """Validation scores that name no case: how many there were is kept as ``cases.withheld``.

    Example:
        >>> without_case_names({"cases": {"train": ["smith"]}, "validation": {"dice": 0.9, "cases": {"jones": {}}}})
        {'cases': {'withheld': {'train': 1}}, 'validation': {'dice': 0.9}}
    """
    cases = metrics.get("cases", {})
    kept: dict[str, Any] = {
        key: metrics[key] for key in ("validation", "history", "fitting", "calibration") if key in metrics
    }
    if "validation" in kept:
        kept["validation"] = {key: value for key, value in kept["validation"].items() if key in ("dice", "classes")}
    counts = {part: len(names) for part, names in cases.items() if part in ("train", "validation")}
    withheld = counts or cases.get("withheld")
    return {"cases": {"withheld": withheld}} | kept if withheld else kept


def _anonymous(path: Path) -> bytes:
    metrics = json.loads(path.read_text(encoding="utf-8"))  # of a Model that was loaded, so it is JSON
    return (to_json(without_case_names(metrics)) + "\n").encode()


def _check_card(folder: Path, models: list[Model]) -> None:
    """Refuse a card that was edited and names cases.

    Raises:
        CpfnetError: it does, or cannot be read.
    """
    cards = [(part_path(Path(str(model.folder)), CARD), model) for model in models]
    if folder not in (model.folder for model in models):
        cards.append((folder / CARD, models[0]))
    for path, model in cards:
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CpfnetError(f"cannot be read: {error}", where=path, fix="restore it, in UTF-8") from None
        parts = model.metrics.get("cases", {})
        names = {name for part in ("train", "validation") for name in parts.get(part, []) if len(name) > 3}
        own = model.card()
        named = sorted(name for name in names if _says(text, name) and not _says(own, name))
        if named:
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

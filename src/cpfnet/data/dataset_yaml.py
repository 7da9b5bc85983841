"""``dataset.yaml``: what the user says about a dataset, and the patterns that find its files."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cpfnet.data.structure_files import is_path, side_by_side
from cpfnet.planning import Labels, Modality, Strict

_PLACEHOLDER = re.compile(r"\{(case|patient)\}")


def _pattern(value: str) -> str:
    """Refuse patterns that leave the root, or that no case could be found by."""
    segments = value.split("/")
    if value.startswith(("/", "~")) or re.match(r"[A-Za-z]:", value) or "\\" in value or ".." in segments:
        raise ValueError(
            f"the pattern {value!r} leaves the dataset's folder; write it relative to `root`, with '/' and without '..'"
        )
    if unknown := re.findall(r"\{(?!(?:case|patient)\})[^}]*\}?", value):
        raise ValueError(
            f"{unknown[0]!r} in {value!r} is not known; placeholders are {{case}} and {{patient}}, * matches anything"
        )
    if "**" in value:
        raise ValueError(f"'**' in {value!r} is not understood; write one * for each folder")
    return value


def _telling(value: str) -> str:
    """A pattern that tells cases apart."""
    _pattern(value)
    if not _PLACEHOLDER.search(value):
        raise ValueError(f"the pattern {value!r} holds neither {{case}} nor {{patient}}, so it cannot tell cases apart")
    return value


def _patterns(value: Any, check: Callable[[str], str] = _telling) -> Any:
    """Check the patterns before their union is, whose complaints about each member nobody could read."""
    if isinstance(value, dict) and value:
        return {key: _patterns(v, check) if isinstance(v, str) else _no_pattern(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)) and value:
        return tuple(_patterns(v, check) if isinstance(v, str) else _no_pattern(v) for v in value)
    if isinstance(value, str) and value:
        return check(value)
    return value if value is None else _no_pattern(value)


def _no_pattern(value: Any) -> Any:
    raise ValueError(f"{value!r} is no pattern; write for example 'scans/{{case}}.png'")


Patterns = BeforeValidator(_patterns)
LabelPatterns = BeforeValidator(partial(_patterns, check=_pattern))

LABEL_KINDS = ("seg", "rtstruct")
"""Values of `label` that choose the label objects of DICOM studies by what they are."""


_SETTINGS = ("background", "ignore", "exclusive", "threshold", "fraction", "overlap", "interpolate_contours")
"""Keys of `Labels` beside its classes."""

_TAKEN = (*_SETTINGS, "tubular", "classes")
"""Keys of the short form that name no class."""


def full_labels(value: Any) -> Any:
    """The short form of labels → the plan's: ``{background: 0, vessel: 255, tubular: [vessel]}``.

    Every key but the settings' own (``background``, ``ignore``, ``exclusive``, ``threshold``, ``fraction``,
    ``overlap``, ``interpolate_contours``, ``tubular``) names a class; its value is a file value, a colour, the name or
    pattern of a DICOM structure, a list of these, or a mapping as in the plan. A class with names alone takes the next
    free value, from 1.
    """
    if not isinstance(value, dict) or "classes" in value:
        return value
    if value and all(_is_number(key) and isinstance(name, str) and not _is_number(name) for key, name in value.items()):
        value = _by_name(value)
    settings = {key: value[key] for key in _SETTINGS if key in value}
    tubular = value.get("tubular", [])
    tubular = [tubular] if isinstance(tubular, str) else tubular
    named = {str(name): v for name, v in value.items() if name not in settings and name != "tubular"}
    if not isinstance(tubular, list) or (unknown := [name for name in tubular if name not in named]):
        raise ValueError(
            f"`tubular` names {unknown if isinstance(tubular, list) else tubular!r}, no class of {list(named)}"
        )
    if not named:
        raise ValueError("no class is named; write for example `labels: {vessel: 255}`")
    classes = []
    for name, v in named.items():
        entry = {"name": name, **(v if isinstance(v, dict) else _meaning(v))}
        classes.append({**entry, "tubular": True} if name in tubular else entry)
    taken = [v for entry in classes for v in _items(entry.get("values", ()))]
    free = (n for n in itertools.count(1) if n not in taken)
    for entry in classes:
        if "values" not in entry and settings.get("exclusive", True) and entry.get("names"):
            entry["values"] = next(free)
    return {**settings, "classes": classes}


def _is_number(value: Any) -> bool:
    """An integer, quoted or not."""
    return re.fullmatch(r"[+-]?[0-9]{1,9}", str(value).strip()) is not None


def _by_name(names: dict[Any, str]) -> dict[str, list[int]]:
    """``{1: tumour, 2: tumour}``, the other way round, as in older lists → ``{tumour: [1, 2]}``."""
    values: dict[str, list[int]] = {}
    for value, name in names.items():
        values.setdefault(name, []).append(int(value))
    return values


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


def _meaning(value: Any) -> dict[str, Any]:
    """A short form's values and names.

    What is no integer, quoted or not, and looks like no colour is the name of a structure.
    """
    names = [v for v in _items(value) if isinstance(v, str) and not v.startswith("#") and not _is_number(v)]
    values = [v for v in _items(value) if v not in names]
    return {**({"values": values} if values or not names else {}), **({"names": names} if names else {})}


def short_labels(labels: Labels) -> str:
    """One line of YAML that reads back as ``labels``; the plan's own form where a class is called as a setting is."""

    def scalar(values: tuple[int | str, ...]) -> str:
        words = [str(v) if isinstance(v, int) else f"'{v}'" for v in values]
        return words[0] if len(words) == 1 else f"[{', '.join(words)}]"

    def quoted(text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    def name(text: str) -> str:
        return text if re.fullmatch(r"(?!(?i:true|false|null)$)[A-Za-z_]\w*", text) else quoted(text)

    long = any(c.name in _TAKEN for c in labels.classes)
    entries = []
    for c in labels.classes:
        values = f"values: {scalar(c.values)}"
        more = [] if c.write is None else [f"write: {scalar((c.write,))}"]
        more += [f"names: [{', '.join(map(quoted, c.names))}]"] if c.names else []
        given = c.model_dump(mode="json", include={"category", "type", "colour"}, exclude_none=True)
        more += [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in given.items()]
        if long:
            more += ["tubular: true"] if c.tubular else []
            entries.append(f"{{{', '.join([f'name: {quoted(c.name)}', values, *more])}}}")
        else:
            entries.append(
                f"{name(c.name)}: {{{', '.join([values, *more])}}}" if more else f"{name(c.name)}: {scalar(c.values)}"
            )
    parts = [] if labels.background == (0,) else [f"background: {scalar(labels.background)}"]
    parts += [f"classes: [{', '.join(entries)}]"] if long else entries
    parts += [f"ignore: {scalar(labels.ignore)}"] if labels.ignore else []
    parts += [] if labels.exclusive else ["exclusive: false"]
    parts += [] if labels.threshold is None else [f"threshold: {labels.threshold:g}"]
    parts += [] if labels.fraction == 0.5 else [f"fraction: {labels.fraction:g}"]
    parts += [] if labels.overlap is None else [f"overlap: {labels.overlap}"]
    parts += ["interpolate_contours: true"] if labels.interpolate_contours else []
    tubular = [name(c.name) for c in labels.classes if c.tubular and not long]
    parts += [f"tubular: [{', '.join(tubular)}]"] if tubular else []
    return "{" + ", ".join(parts) + "}"


def _strings(value: Any) -> Any:
    items = value if isinstance(value, (list, tuple)) else [value]
    return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in items]


Ids = Annotated[tuple[str, ...], BeforeValidator(_strings)]


class Splits(Strict):
    """Which cases (or patients) validate and test; all others train. ``*`` and ``?`` match as in file names."""

    val: Ids = Field((), description="cases or patients that validate")
    test: Ids = Field((), description="cases or patients set aside as test")


class Declaration(Strict):
    """The keys of a ``dataset.yaml``; all may be missing: then the layout is understood by itself.

    Patterns are relative to ``root``. ``{case}`` and ``{patient}`` each stand for one name (anything but '/'); ``*``
    and ``?`` match as in file names; beside a ``*`` a name is made of whole words (``*{case}.png`` finds fov_21.png as
    21). What a pattern for labels or regions finds belongs to the image with the same names, and is no image itself.
    """

    name: str | None = Field(None, description="of the data set, for plans and reports; default: its folder's")
    root: str | None = Field(None, description="where the files lie, relative to this file; default: its own folder")
    manifest: str | None = Field(None, description="CSV or datalist JSON that lists the cases, relative to root")
    image: Annotated[str | tuple[str, ...] | dict[str, str] | None, Patterns] = Field(
        None, description="pattern, or one a channel: a list, or channel → pattern"
    )
    label: Annotated[str | tuple[str, ...] | dict[str, str] | None, LabelPatterns] = Field(
        None,
        description="pattern, or reader → pattern; or a list of patterns, one file a structure; of DICOM studies "
        "(without `image`) also seg or rtstruct: only these labels",
    )
    roi: Annotated[str | None, Patterns] = Field(None, description="pattern of masks of the evaluation region")
    patient: str | None = Field(
        None, description="regular expression: what it matches in a case's id (its first group) is the patient"
    )
    modality: Modality | None = Field(
        None,
        description="default: as DICOM headers say, else guessed; of a folder of DICOM studies only such series are "
        "used",
    )
    channels: tuple[str, ...] | None = Field(None, description="one name for each channel of the images, in order")
    labels: Annotated[Labels, BeforeValidator(full_labels)] | None = None
    split: Splits | None = None

    @model_validator(mode="before")
    @classmethod
    def _files_of_structures(cls, data: Any) -> Any:
        """``labels: {liver: '{case}/liver.dcm'}`` → the patterns in `label`, and what they call their structures."""
        if not isinstance(data, dict):
            return data
        labels, listed = data.get("labels"), data.get("label")
        if labels is None and isinstance(listed, (list, tuple)) and listed and all(map(is_path, listed)):
            names = side_by_side(listed).structures  # one class for each file that is listed, and no other
            if any("*" in name for name in names):
                raise ValueError("`label` lists files with '*' in the place of a structure; name the classes: `labels`")
            return {**data, "labels": {name: {"names": [name]} for name in names}}
        if not isinstance(labels, dict):
            return data
        named = {name: _items(value) for name, value in labels.items() if name not in _TAKEN}
        files = {name: items for name, items in named.items() if any(map(is_path, items))}
        if not files:
            return data
        if other := next((name for name, items in named.items() if not all(map(is_path, items))), None):
            raise ValueError(f"`labels` gives files of structures, but not of {other!r}; give a file for each class")
        if data.get("label") is not None:
            raise ValueError("`labels` names the files of labels already; remove `label`")
        patterns = [pattern for items in files.values() for pattern in items]
        structures = iter(side_by_side(patterns).structures)
        meant = {name: [next(structures) for _ in items] for name, items in files.items()}
        return {**data, "label": patterns, "labels": {**labels, **meant}}

    @field_validator("patient")
    @classmethod
    def _regular(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except (re.error, RecursionError, OverflowError) as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _fits(self) -> Declaration:
        if self.image is None and (self.roi is not None or (self.label is not None and self.manifest is not None)):
            raise ValueError("`label` and `roi` need `image`, too")
        if isinstance(self.label, tuple):
            side_by_side(self.label)
            if self.image is None:
                raise ValueError("files of structures need `image`, too")
        if self.image is not None and self.manifest is not None:
            raise ValueError("`manifest` and `image` exclude each other: the cases are listed, or found by patterns")
        if isinstance(self.image, dict) and self.channels is not None:
            raise ValueError("`image` names the channels already; remove `channels`")
        return self

    @property
    def images(self) -> dict[str, str]:
        """Channel → pattern."""
        if isinstance(self.image, dict):
            return dict(self.image)
        patterns = (self.image,) if isinstance(self.image, str) else self.image or ()
        return {f"channel{i}": pattern for i, pattern in enumerate(patterns)}

    @property
    def readers(self) -> dict[str, str | tuple[str, ...]]:
        """Reader → pattern, or patterns of one file a structure."""
        return {"label": self.label} if isinstance(self.label, (str, tuple)) else dict(self.label or {})

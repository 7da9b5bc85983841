"""Settings as YAML: read with the line of every mistake, written with the meaning of every key."""

from __future__ import annotations

import difflib
import errno
import itertools
import re
import stat
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from cpfnet.errors import CpfnetError, PlanError
from cpfnet.files import replacing

M = TypeVar("M", bound=BaseModel)
Changes = Mapping[str, Any] | Iterable[str | tuple[str, Any]]
"""Dotted key → value; or ``section.key=value`` texts, the value being YAML, or pairs of key and value."""

_LARGEST = 2**18  # bytes of a settings file: some thousand times the usual size, and a few seconds to parse
_MOST = 50_000  # values in it, each counted as often as aliases repeat it
_MERGES = 100
_DEPTH = 200  # open brackets


def _line(tree: Any, path: tuple[str | int, ...]) -> int | None:
    """1-based line of the deepest part of ``path`` that is in the document."""
    line = None
    for key in path:
        if isinstance(tree, CommentedMap) and key in tree:
            if key in (tree.lc.data or {}):  # a key merged by << stands elsewhere
                line = tree.lc.key(key)[0] + 1
        elif isinstance(tree, CommentedSeq) and isinstance(key, int) and key < len(tree):
            line = tree.lc.item(key)[0] + 1
        else:
            continue  # pydantic puts the tags of unions into the path, too
        tree = tree[key]
    return line


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All settings classes inside a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _tag(model: type[BaseModel]) -> str | None:
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _neighbour(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    """'Known keys …' for an unknown key, the nearest first."""
    models = _models(model)
    for key in path[:-1]:
        tagged = [m for m in models if _tag(m) == key]
        if tagged:  # pydantic names the member of a union by its tag
            models = tagged
        elif isinstance(key, str):
            models = next((_models(m.model_fields[key].annotation) for m in models if key in m.model_fields), [])
    names = list(dict.fromkeys(name for m in models for name in m.model_fields))
    near = difflib.get_close_matches(str(path[-1]), names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known here: {', '.join(names)}" if names else "remove it"


def _written(data: Any, path: tuple[str | int, ...]) -> list[str]:
    """``path`` as the user would write it: without the tags of unions, which pydantic puts in between."""
    out = []
    for index, key in enumerate(path):
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            if index < len(path) - 1 and isinstance(data, dict) and data.get("kind") == key:
                continue
        out.append(str(key))
    return out


def validate(model: type[M], data: Any, *, where: str, tree: Any = None) -> M:
    """Build ``model`` from plain data.

    Raises:
        PlanError: every unknown key and wrong value, with its field, line (given ``tree``) and what would do.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines, fixes = [], []
        problems = error.errors(include_url=False)
        for problem in problems:
            path = problem["loc"]
            if any(other["loc"][: len(path)] == path and len(other["loc"]) > len(path) for other in problems):
                continue  # pydantic also reports a list whose entry is wrong as too short
            line = _line(tree, path)
            field = ".".join(_written(data, path))
            if problem["type"] == "extra_forbidden":
                message = "unknown key"
                fixes.append(f"{field}: {_neighbour(model, path)}")
            else:
                message = problem["msg"].removeprefix("Value error, ")
                if problem["type"] != "missing" and not isinstance(problem["input"], (dict, list)):
                    message += f" (found {problem['input']!r})"
            place = (f"line {line}: " if line else "") + (f"{field:.100}: " if field else "")
            lines.append(place + (message if len(message) < 400 else f"{message[:400]} …"))
        if len(lines) > 20:
            lines[10:] = [f"and {len(lines) - 10} more"]
        raise PlanError(
            "; ".join(lines), where=where, fix="; ".join(fixes[:10]) or "correct the value and run again"
        ) from None


def _text_of(path: Path, what: str) -> str:
    """The text of a settings file; devices, pipes and files that are far too large are not read."""
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise PlanError("is a device or a pipe", where=path, fix=f"give the path of a {what}")
    if status.st_size > _LARGEST:
        raise PlanError(
            f"holds {status.st_size} bytes; settings hold up to {_LARGEST}",
            where=path,
            fix=f"give the path of a {what}",
        )
    text = path.read_text(encoding="utf-8")
    if text.count("<<:") > _MERGES:
        raise PlanError(f"merges (<<:) more than {_MERGES} times", where=path, fix="write the keys out")
    steps = (1 if c in "[{" else -1 for c in text if c in "[]{}")
    if max(itertools.accumulate(steps), default=0) > _DEPTH:  # the parser's time grows with its square
        raise PlanError(f"not valid YAML: brackets more than {_DEPTH} deep", where=path, fix="write the values out")
    return text


def load_yaml(path: Path, *, what: str = "settings file such as plan.yaml") -> CommentedMap:
    """A YAML mapping with line numbers.

    Raises:
        PlanError: not there, not text, not YAML, or not a mapping.
    """
    yaml = YAML(typ="rt")  # the round-trip loader builds plain containers only; tags run no code
    yaml.allow_duplicate_keys = False
    try:
        tree = yaml.load(_text_of(path, what))
    except CpfnetError:
        raise
    except OSError as error:
        raise PlanError(f"cannot be read: {error.strerror}", where=path, fix=f"give the path of a {what}") from None
    except UnicodeDecodeError:
        raise PlanError("is not a UTF-8 text file", where=path, fix=f"give the path of a {what}") from None
    except Exception as error:  # ruamel raises many other errors than its own on tags and merges that make no sense
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise PlanError(
            f"{line}not valid YAML: {problem}",
            where=path,
            fix="correct the line; indentation and colons matter, and a value with { or [ in it may need quotes",
        ) from None
    if not isinstance(tree, CommentedMap):
        raise PlanError("holds no settings (expected `key: value` lines)", where=path, fix=f"give the path of a {what}")
    return tree


def _plain(value: Any, seen: Iterator[int] | None = None) -> Any:
    """Without ruamel's own types.

    Raises:
        ValueError: aliases repeat values without end, or beyond all reason (a "billion laughs").
    """
    seen = itertools.count() if seen is None else seen
    if next(seen) > _MOST:
        raise ValueError(f"aliases (*) multiply its values beyond {_MOST}")
    if isinstance(value, dict):
        return {str(k): _plain(v, seen) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, seen) for v in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (int, float, str):  # ruamel keeps notations in subclasses
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def read_yaml(model: type[M], path: Path) -> M:
    """Read and validate a settings file.

    Raises:
        PlanError: see `validate` and `load_yaml`.
    """
    tree = load_yaml(path)
    return validate(model, plain(tree, path), where=str(path), tree=tree)


def plain(tree: CommentedMap, path: Path) -> Any:
    """What a settings file says, in Python's own types.

    Raises:
        PlanError: values that refer to themselves, or too many of them.
    """
    try:
        return _plain(tree)
    except ValueError as error:
        raise PlanError(str(error), where=path, fix="write the values out") from None
    except RecursionError:
        raise PlanError("holds itself, or is nested too deeply", where=path, fix="write the values out") from None


def choices(annotation: Any) -> str:
    """'a | b | c' for a Literal, also inside a union or a tuple."""
    if typing.get_origin(annotation) is Literal:
        return " | ".join(str(a) for a in typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple):
        return next(filter(None, (choices(a) for a in typing.get_args(annotation))), "")
    return ""


def _commented(model: BaseModel, comments: dict[str, str], prefix: str = "", indent: int = 0) -> CommentedMap:
    out = CommentedMap()
    for name, info in type(model).model_fields.items():
        value, key = getattr(model, name), f"{prefix}{name}"
        out[name] = _tree(value, comments, key, indent)
        options = "" if name == "kind" else choices(info.annotation)
        hint = "; ".join(filter(None, (info.description, options)))
        scalar = not isinstance(out[name], CommentedMap) and not (
            isinstance(out[name], CommentedSeq) and not out[name].fa.flow_style()
        )
        if hint and scalar:
            out.yaml_add_eol_comment(hint, name, column=36)
        if key in comments:
            printable = ["".join(c if c.isprintable() else " " for c in line) for line in comments[key].splitlines()]
            lines = [part for line in printable for part in textwrap.wrap(line, 110 - indent)]
            out.yaml_set_comment_before_after_key(name, before="\n".join(lines), indent=indent)
    return out


def _text(value: str) -> str:
    """In quotes unless it is made of plain words: what plain YAML scalars lose or misread is a long list."""
    plain = all(part.isalnum() for part in re.split("[ _.+/-]", value)) and value.isprintable()
    return value if plain else DoubleQuotedScalarString(value)


def _tree(value: Any, comments: dict[str, str], key: str, indent: int) -> Any:
    if isinstance(value, BaseModel):
        return _commented(value, comments, f"{key}.", indent + 2)
    if isinstance(value, (list, tuple)):
        items = CommentedSeq(_tree(v, comments, f"{key}.{i}", indent + 2) for i, v in enumerate(value))
        if not any(isinstance(v, BaseModel) for v in value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, dict):
        out = CommentedMap((_text(k), _tree(v, comments, f"{key}.{k}", indent + 2)) for k, v in value.items())
        if not value:
            out.fa.set_flow_style()
        return out
    return _text(value) if isinstance(value, str) else value


def write_yaml(model: BaseModel, path: Path, comments: dict[str, str] | None = None, *, header: str = "") -> None:
    """Write settings as YAML, whole or not at all.

    Args:
        model: the settings.
        path: the file; an existing one is replaced by this one in one step.
        comments: dotted key → why it has this value, written above it.
        header: lines at the top.

    Raises:
        OutputError: the place cannot be written.
    """
    tree = _commented(model, comments or {})
    if header:
        tree.yaml_set_start_comment(header)
    yaml = YAML(typ="rt")
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    with replacing(path, overwrite=True) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)


def _parse_setting(setting: str) -> tuple[str, Any]:
    """``section.key=value`` as the dotted key and the value that the YAML means."""
    dotted, equals, text = setting.partition("=")
    if not equals or not dotted.strip():
        raise PlanError(
            f"{setting!r} is not a setting", where="--set", fix="write section.key=value, for example training.batch=8"
        )
    try:
        return dotted.strip(), _plain(YAML(typ="safe", pure=True).load(text)) if text.strip() else None
    except (YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise PlanError(
            f"{text[:60]!r} is not a YAML value: {problem}", where=f"--set {dotted}", fix="quote it"
        ) from None


def changes(settings: Changes) -> list[tuple[str, Any]]:
    """Settings as dotted keys and plain values; a mapping inside one changes the keys it names, not the whole section.

    Raises:
        PlanError: a text is not ``section.key=value``, or a key is not text.
    """
    if isinstance(settings, str):
        fix = 'give several, such as {"training.epochs": 3} or ["training.epochs=3"]'
        raise PlanError(f"settings are one text, {settings!r}", where="settings", fix=fix)
    if not isinstance(settings, Mapping):
        return [_parse_setting(setting) if isinstance(setting, str) else setting for setting in settings]
    return [pair for key, value in settings.items() for pair in _flat(key, value)]


def _flat(key: Any, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(key, str) or not key.strip():
        raise PlanError(f"{key!r} is no name of a setting", where="settings", fix="write it as in training.epochs")
    # Another `kind` is another section, and options belong to one network: both are given whole.
    if isinstance(value, Mapping) and value and "kind" not in value and key.strip().rpartition(".")[2] != "options":
        return [pair for inner, one in value.items() for pair in _flat(f"{key}.{inner}", one)]
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return [(key.strip(), _plain(value.tolist() if hasattr(value, "tolist") else value))]


def check_keys(model: type[BaseModel], settings: Changes) -> None:
    """Refuse settings with a key that no section of this kind has; `assign` checks the rest.

    Raises:
        PlanError: no '=', no YAML value, or an unknown key.
    """
    for dotted, _ in changes(settings):
        path = [int(key) if key.isdecimal() else key for key in dotted.split(".")]
        models = [model]
        for depth, key in enumerate(path):
            if isinstance(key, int):
                continue
            if not models:  # a mapping with keys of its own, such as options
                break
            having = [m for m in models if key in m.model_fields]
            if not having:
                field = ".".join(map(str, path[: depth + 1]))
                fix = f"{field}: {_neighbour(model, tuple(path[: depth + 1]))}"
                raise PlanError(f"{field}: unknown key", where="--set", fix=fix)
            models = [inner for m in having for inner in _models(m.model_fields[key].annotation)]


def under(key: str, settings: Changes) -> dict[str, Any]:
    """What the settings set below a section that has keys of its own, such as ``network.options``."""
    found: dict[str, Any] = {}
    for dotted, value in changes(settings):
        if dotted == key and isinstance(value, dict):
            found = dict(value)
        elif dotted.startswith(f"{key}.") and "." not in (last := dotted.removeprefix(f"{key}.")):
            found[last] = value
    return found


def is_set(key: str, settings: Changes) -> bool:
    """Does one of the settings set this key, its section, or a part of it?"""
    dotted = [one for one, _ in changes(settings)]
    return any(one == key or one.startswith(f"{key}.") or key.startswith(f"{one}.") for one in dotted)


def assign(data: dict[str, Any], dotted: str, value: Any) -> None:
    """Apply one of `changes` to plain settings, in place.

    Another ``kind`` starts its section again, because the other keys belong to the old kind.

    Raises:
        PlanError: a path that leads nowhere. `validate` reports an unknown last key.
    """
    setting = f"{dotted}={value}"
    *path, last = dotted.split(".")
    current: Any = data
    for depth, key in enumerate(path):
        if isinstance(current, dict) and key in current and current[key] is None:
            current[key] = {}  # a section that is switched off; `validate` says where there can be none
        if isinstance(current, list) and key.isdecimal() and int(key) < len(current):
            current = current[int(key)]
        elif isinstance(current, dict) and isinstance(current.get(key), (dict, list)):
            current = current[key]
        else:
            section = ".".join(path[: depth + 1])
            if isinstance(current, dict) and key in current:
                raise PlanError(
                    f"{section!r} is a value, not a section", where=f"--set {setting}", fix=f"write {section}=value"
                )
            known = ", ".join(map(str, current)) if isinstance(current, dict) else f"0 … {len(current) - 1}"
            near = difflib.get_close_matches(key, list(current), n=1) if isinstance(current, dict) else []
            fix = f"did you mean {near[0]!r}?" if near else f"known here: {known}"
            raise PlanError(f"no section {section!r}", where=f"--set {setting}", fix=fix)
    if isinstance(current, list):
        if not last.isdecimal() or int(last) >= len(current):
            raise PlanError(f"no entry {last!r}", where=f"--set {setting}", fix=f"known here: 0 … {len(current) - 1}")
        current[int(last)] = value
    else:
        if last == "kind" and current.get("kind") != value:
            current.clear()
        current[last] = value

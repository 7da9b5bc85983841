"""Settings files: every mistake with its line, every key with its meaning, settings from the command line."""

from __future__ import annotations

import contextlib
import os
import textwrap
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml.error import YAMLError

from cpfnet.errors import PlanError
from cpfnet.planning import Plan
from cpfnet.settings import assign, changes, check_keys, read_yaml, write_yaml


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Circle(Strict):
    kind: Literal["circle"] = "circle"
    radius: float = Field(1.0, gt=0, description="mm")


class Square(Strict):
    kind: Literal["square"] = "square"
    side: float = 2.0


class Item(Strict):
    name: str
    shape: Annotated[Circle | Square, Field(discriminator="kind")] = Circle()


class Settings(Strict):
    title: str = "x"
    mode: Literal["fast", "good"] = Field("good", description="how")
    items: tuple[Item, ...] = Field((Item(name="one"),), min_length=1)
    sizes: tuple[int, int] | None = None
    extra: dict[str, object] = Field(default_factory=dict)


def read(folder: Path, text: str) -> Settings:
    path = folder / "settings.yaml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return read_yaml(Settings, path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mode: good\ntilte: y\n", ["line 2: tilte: unknown key", "did you mean 'title'?"]),
        ("title: y\nzzz: 1\n", ["line 2: zzz: unknown key", "known here: title, mode, items"]),
        ("mode: slow\n", ["line 1: mode: Input should be 'fast' or 'good' (found 'slow')"]),
        ("items:\n  - name: a\n  - {}\n", ["line 3: items.1.name: Field required"]),
        ("items:\n  - name: a\n    shape: {kind: circle, radius: 0}\n", ["line 3: items.0.shape.radius", "(found 0)"]),
        (
            "items:\n  - name: a\n    shape:\n      kind: circle\n      side: 3\n",
            ["line 5: items.0.shape.side: unknown key", "known here: kind, radius"],
        ),
        (
            "items:\n  - name: a\n    shape:\n      kind: square\n      sid: 3\n",
            ["line 5: items.0.shape.sid", "did you mean 'side'?"],
        ),
        ("items:\n  - name: a\n    shape: {kind: disc}\n", ["line 3: items.0.shape", "'circle', 'square'"]),
        ("sizes: [1]\n", ["line 1: sizes.1: Field required"]),
        ("sizes: [1, two]\n", ["line 1: sizes.1", "(found 'two')"]),
        ("title: a\ntitle: b\n", ["line 2: not valid YAML", "duplicate key"]),
        ("title: [a\n", ["not valid YAML"]),
        ("title: 'a\n", ["not valid YAML"]),
        ("title: *a\n", ["line 1: not valid YAML", "alias"]),
        ("a: 1\n---\nb: 2\n", ["not valid YAML"]),
        ("- a\n", ["holds no settings"]),
        ("", ["holds no settings"]),
        ("just words\n", ["holds no settings"]),
        ("{" * 1000, ["not valid YAML"]),
        ("extra: !!python/object/apply:os.system [echo]\n", ["extra"]),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: list[str]) -> None:
    with pytest.raises(PlanError) as caught:
        read(tmp_path, text)
    for part in message:
        assert part in str(caught.value)
    assert caught.value.where == str(tmp_path / "settings.yaml")
    assert caught.value.fix


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        read(tmp_path, "mode: slow\ntilte: y\nsizes: [1, 2, 3]\n")
    assert all(f"line {line}:" in caught.value.what for line in (1, 2, 3))


def test_a_wrong_entry_does_not_make_its_list_too_short(tmp_path: Path) -> None:
    with pytest.raises(PlanError) as caught:
        read(tmp_path, "items:\n  - nam: a\n")
    assert "at least 1 item" not in caught.value.what


@pytest.mark.parametrize(
    ("data", "message"), [(None, "No such file"), (b"\xff\xfe\x00", "UTF-8"), (b"a: \x00", "YAML")]
)
def test_what_is_no_text(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "plan.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(PlanError, match=message):
        read_yaml(Settings, path)


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        read_yaml(Settings, tmp_path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("abc:-[]{}#&*!|>'\"%@`, \n\t0123.~?=<"), max_size=60))
@example("title: &a [*a]")
@example("? [1, 2]\n: 3")
@example("<<: {title: 3}")
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    """Whatever stands in the file, the only error is PlanError."""
    with contextlib.suppress(PlanError):
        read(tmp_path, text)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(codec="utf-8")),
    st.dictionaries(
        st.text(st.characters(codec="utf-8")),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False)
            | st.text(st.characters(codec="utf-8")),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text("ab:# ", max_size=3), inner, max_size=3)
            ),
            max_leaves=5,
        ),
        max_size=4,
    ),
)
@example("null", {"1": "yes", "~": "1e3", "a": "0x1F", "b": "2020-01-01", "c": " padded ", "d": "# no comment"})
@example("\x85\u2028", {"a": 1e-05, "b": 1e300, "c": -0.0, "d": float("inf"), "": []})
def test_any_content_survives_its_file(tmp_path: Path, title: str, extra: dict) -> None:
    made = Settings(title=title, extra=extra)
    write_yaml(made, tmp_path / "out.yaml", {"title": "why: # because\nof this", "extra": ""})
    assert read_yaml(Settings, tmp_path / "out.yaml") == made


def test_the_file_explains_itself(tmp_path: Path) -> None:
    comments = {"mode": "good, since there is time", "items": "found in the data", "items.0.shape.radius": "median"}
    write_yaml(Settings(), tmp_path / "out.yaml", comments, header="Made for a test")
    lines = (tmp_path / "out.yaml").read_text().splitlines()
    assert lines[0] == "# Made for a test"
    at = {
        line.split(":")[0].strip(" -"): number for number, line in enumerate(lines) if not line.strip().startswith("#")
    }
    assert lines[at["mode"] - 1] == "# good, since there is time"
    assert lines[at["mode"]].endswith("# how; fast | good")
    assert lines[at["items"] - 1] == "# found in the data"
    assert lines[at["radius"] - 1].strip() == "# median"
    assert lines[at["radius"]].endswith("# mm")


def test_an_unwritable_place_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.yaml"
    write_yaml(Settings(title="old"), path)
    with pytest.raises(YAMLError):  # a programming mistake, not the user's
        write_yaml(Settings(extra={"a": object()}), path)
    assert read_yaml(Settings, path).title == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.yaml"]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("a.b=3", {"a": {"b": 3}, "list": [{"x": 1}]}),
        ("a.b = [1, two]", {"a": {"b": [1, "two"]}, "list": [{"x": 1}]}),
        ("a.b={c: 1e-3}", {"a": {"b": {"c": 0.001}}, "list": [{"x": 1}]}),
        ("a.b=x=y", {"a": {"b": "x=y"}, "list": [{"x": 1}]}),
        ("a.b=", {"a": {"b": None}, "list": [{"x": 1}]}),
        ("a.new=true", {"a": {"b": 0, "new": True}, "list": [{"x": 1}]}),
        ("list.0.x=2", {"a": {"b": 0}, "list": [{"x": 2}]}),
        ("list.0=2", {"a": {"b": 0}, "list": [2]}),
    ],
)
def test_assign(setting: str, expected: dict) -> None:
    data = {"a": {"b": 0}, "list": [{"x": 1}]}
    assign(data, *changes([setting])[0])
    assert data == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("a.b", "is not a setting"),
        ("=3", "is not a setting"),
        ("aa.b=3", "did you mean 'a'?"),
        ("a.b.c=3", "'a.b' is a value, not a section"),
        ("list.1.x=3", "known here: 0 … 0"),
        ("list.one=3", "no entry 'one'"),
        ("list.²=3", "no entry '²'"),
        ("list.².x=3", "no section 'list.²'"),
        ("a.b=[1", "not a YAML value"),
        ("a.b=&a [*a]", "not a YAML value"),
        ("a.b=!!python/name:os.system x", "not a YAML value"),
        ("a.b=" + "[" * 1000, "not a YAML value"),
        ("...=1", "no section ''"),
    ],
)
def test_assign_refuses(setting: str, message: str) -> None:
    data = {"a": {"b": 0}, "list": [{"x": 1}]}
    with pytest.raises(PlanError) as caught:
        assign(data, *changes([setting])[0])
    assert message in str(caught.value)
    assert data == {"a": {"b": 0}, "list": [{"x": 1}]}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.bach=8", "training.bach: unknown key\n  → training.bach: did you mean 'batch'?"),
        ("trainig.batch=8", "trainig: unknown key\n  → trainig: did you mean 'training'?"),
        ("channels.0.intensity.radus=3", "did you mean 'radius'?"),
        ("labels.classes.0.zzz=x", "known here: name, values"),
        ("...=1", "known here: name, modality"),
        ("training.batch", "is not a setting"),
        ("training.batch=[1", "not a YAML value"),
    ],
)
def test_keys_that_no_plan_has_are_refused_before_there_is_one(setting: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_keys(Plan, ["training.seed=1", setting])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"training.epochs": 3}, [("training.epochs", 3)]),
        (
            {"training": {"epochs": 3, "augmentation": {"flips": ("width",)}}},
            [("training.epochs", 3), ("training.augmentation.flips", ["width"])],
        ),
        (
            {"network": {"name": "unet", "options": {"widths": (4, 8)}}},
            [("network.name", "unet"), ("network.options", {"widths": [4, 8]})],
        ),
        (
            {"channels.0.intensity": {"kind": "window", "low": 0}},
            [("channels.0.intensity", {"kind": "window", "low": 0})],
        ),
        (
            {"inference.tile": None, "spatial.patch": np.array([64, 32]), "training.batch": np.int64(2)},
            [("inference.tile", None), ("spatial.patch", [64, 32]), ("training.batch", 2)],
        ),
        ({"network.weights": "3"}, [("network.weights", "3")]),  # text stays text
        ({"network.options": {}}, [("network.options", {})]),
        (["training.epochs=3", ("training.batch", 2)], [("training.epochs", 3), ("training.batch", 2)]),
        ((), []),
    ],
)
def test_settings_in_python(given: object, expected: list[tuple[str, object]]) -> None:
    assert changes(given) == expected
    check_keys(Plan, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.epochs=3", "give several"),
        ({3: 4}, "3 is no name of a setting"),
        ({"": 4}, "'' is no name of a setting"),
        ({"training": {"bach": 8}}, "did you mean 'batch'?"),
        ({"trainig.batch": 8}, "did you mean 'training'?"),
    ],
)
def test_settings_in_python_that_cannot_be(given: object, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_keys(Plan, given)
    assert message in str(caught.value)


def test_another_kind_starts_its_section_anew() -> None:
    data = {"shape": {"kind": "circle", "radius": 3}}
    assign(data, "shape.kind", "circle")
    assert data == {"shape": {"kind": "circle", "radius": 3}}
    assign(data, "shape.kind", "square")
    assert data == {"shape": {"kind": "square"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: &a [x, x]\n"
            + "".join(f"{k}: &{k} [{', '.join([f'*{j}'] * 9)}]\n" for j, k in zip("abcdef", "bcdefg", strict=True)),
            "multiply",
        ),
        ("&a {name: *a}", "holds itself"),
        ("name: &a {<<: *a}", "not valid YAML"),
        ("name: !!bool perhaps", "not valid YAML"),
        ("? {a: {b: c}}\n: 1", "not valid YAML|known|unknown"),
        ("# x\n" * 100_000, "hold up to"),
        ("name: {<<: {x: 1}}\n" * 101, "more than 100 times"),
    ],
)
def test_files_made_to_exhaust_the_reader_are_refused(tmp_path, text, words):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError, match=words):
        Plan.load(tmp_path / "plan.yaml")


def test_pipes_and_devices_are_no_settings(tmp_path):
    os.mkfifo(tmp_path / "plan.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    for name in ("plan.yaml", "zero.yaml"):
        with pytest.raises(PlanError, match="device or a pipe"):
            Plan.load(tmp_path / name)

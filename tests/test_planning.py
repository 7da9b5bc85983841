"""The Plan: what it accepts, what it refuses, and that it survives its file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cpfnet.data.dataset_yaml import Declaration
from cpfnet.errors import OutputError, PlanError
from cpfnet.planning import Labels, LossPlan, NetworkPlan, Plan, content_hash
from cpfnet.settings import _models, check_keys, choices


def content(**changes: Any) -> dict[str, Any]:
    """The least that a Plan needs."""
    return {
        "name": "test",
        "source": "images",
        "channels": [{"name": "grey", "intensity": {"kind": "minmax"}}],
        "labels": {"classes": [{"name": "vessel", "values": [255]}]},
        "spatial": {"patch": [64, 64]},
        "training": {"samples": 16},
        **changes,
    }


def plan(**changes: Any) -> Plan:
    return Plan.model_validate(content(**changes))


@pytest.mark.parametrize("key", ["name", "in_channels", "classes", "spatial_dims"])
def test_options_of_a_network_leave_alone_what_the_plan_says_elsewhere(key: str) -> None:
    with pytest.raises(PlanError, match=rf"network.options: '{key}' is no option"):
        plan().with_settings([f"network.options={{{key}: 3}}"])


def test_another_network_has_none_of_the_old_ones_options() -> None:
    narrow = plan(network={"name": "cpfnet-hr", "options": {"width": 16}})
    assert narrow.with_settings(["network.name=segresnet"]).network.options == {}
    assert narrow.with_settings(["network.name=cpfnet-hr", "network.weights=none"]).network.options == {"width": 16}
    # What is given stays, before or after the name, even where it is what was there.
    for given_too in (
        ["network.options={width: 16}", "network.name=segresnet"],
        ["network.name=segresnet", "network.options={width: 16}"],
    ):
        assert narrow.with_settings(given_too).network.options == {"width": 16}
    assert narrow.with_settings(["network.options.width=32", "network.name=cpfnet"]).network.options == {"width": 32}


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
FLOAT = st.floats(1e-6, 1e6)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    dims = draw(st.sampled_from([2, 3]))
    intensity = st.one_of(
        st.builds(lambda low, width: {"kind": "window", "low": low, "high": low + width}, st.floats(-1e4, 1e4), FLOAT),
        st.just({"kind": "zscore"}),
        st.just({"kind": "percentiles", "low": 1, "high": 99}),
        st.builds(lambda m, s: {"kind": "scale", "mean": m, "std": s}, st.floats(-10, 10), FLOAT),
    )
    names = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    return plan(
        name=draw(TEXT),
        source="volumes",
        channels=[{"name": n, "intensity": draw(intensity)} for n in draw(st.lists(TEXT, min_size=1, max_size=3))],
        labels={"classes": [{"name": n, "values": [2 * i + 1, 2 * i + 2]} for i, n in enumerate(names)]},
        spatial={
            "mode": f"{dims}d",
            "patch": [draw(st.integers(32, 512)) for _ in range(dims)],
            "spacing": draw(st.none() | st.tuples(FLOAT if dims == 3 else st.none() | FLOAT, FLOAT, FLOAT)),
        },
        network={
            "options": draw(st.dictionaries(TEXT, TEXT | st.integers() | FLOAT | st.booleans() | st.none(), max_size=3))
        },
        training={
            "samples": draw(st.integers(1, 10**6)),
            "learning_rate": draw(FLOAT),
            "ema": draw(st.none() | st.just(0.999)),
        },
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plans(), st.dictionaries(st.sampled_from(["spatial.patch", "training", "training.batch", "channels"]), TEXT))
def test_saved_plan_reads_back_equal(tmp_path: Path, made: Plan, comments: dict[str, str]) -> None:
    made.save(tmp_path / "plan.yaml", comments=comments)
    back = Plan.load(tmp_path / "plan.yaml")
    assert back == made
    assert back.hash == made.hash


def test_settings_that_came_later_change_no_hash_until_they_are_used() -> None:
    """An earlier plan has none of them; with a value of its own each makes another plan."""
    made = plan()
    earlier = made.model_dump(mode="json")
    values = {"scale_factors": [0.7, 1.4], "low_resolution": 0.25, "inverted_gamma": 0.1}
    for name in values:
        del earlier["training"]["augmentation"][name]
    for name in ("encoder_rate", "frozen_statistics", "validation"):
        del earlier["training"][name]
    del earlier["first_stage"]
    assert content_hash(earlier) == made.hash == Plan.model_validate(earlier).hash
    hashes = {made.with_settings({f"training.augmentation.{name}": value}).hash for name, value in values.items()}
    part = made.with_settings(["training.validation={cases: 3, pieces: 1}"])
    hashes.add(part.hash)
    for same in (
        {"training": {"validation": {"cases": 3, "pieces": 1}}},
        ["training.validation.cases=3", "training.validation.pieces=1"],
    ):
        assert made.with_settings(same) == part
    assert len({made.hash, *hashes}) == 5
    with pytest.raises(PlanError, match="the smallest size comes first"):
        made.with_settings(["training.augmentation.scale_factors=[1.4, 0.7]"])


def test_hash_is_of_the_content_not_of_the_text(tmp_path: Path) -> None:
    made = plan()
    made.save(tmp_path / "a.yaml", comments={"training.batch": "because"})
    lines = (tmp_path / "a.yaml").read_text().replace("# because", "# or not").splitlines()
    (tmp_path / "b.yaml").write_text("\n".join(line for line in lines if "modality" not in line))  # the default
    assert Plan.load(tmp_path / "b.yaml").hash == made.hash
    assert made.with_settings(["training.batch=5"]).hash != made.hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spatial": {"patch": [64]}}, "patch of 2 sizes, got"),
        ({"spatial": {"patch": [64, 16]}}, "16 is too small: give at least 32"),
        ({"spatial": {"patch": [7, 64, 64], "mode": "3d"}, "source": "volumes"}, "7 is too small: the depth needs"),
        ({"spatial": {"patch": [8, 64, 16], "mode": "3d"}, "source": "volumes"}, "16 is too small: give at least 32"),
        ({"spatial": {"mode": "3d", "patch": [64, 64, 64]}}, "3d needs volumes"),
        ({"spatial": {"patch": [64, 64], "neighbours": 1}}, "neighbours = 1 does not fit mode 2d"),
        ({"spatial": {"patch": [64, 64], "mode": "2.5d"}, "source": "volumes"}, "needs at least 1"),
        ({"spatial": {"patch": [64, 64], "spacing": [1, 1, 1]}}, "plain images have none"),
        ({"spatial": {"patch": [64, 64], "size": [64, 64]}, "source": "volumes"}, "volumes use spatial.spacing"),
        ({"spatial": {"patch": [64, 64], "longest": 64}, "source": "volumes"}, "volumes use spatial.spacing"),
        ({"spatial": {"patch": [64, 64], "longest": 64, "size": [64, 64]}}, "size and longest both say"),
        ({"spatial": {"patch": [64, 64], "spacing": [1, 0, 1]}, "source": "volumes"}, "greater than 0"),
        ({"spatial": {"patch": [64, 64], "spacing": [1, None, 1]}, "source": "volumes"}, "valid number"),
        (
            {"spatial": {"patch": [64, 64, 64], "mode": "3d", "spacing": [None, 1, 1]}, "source": "volumes"},
            "without a distance of slices is for 2d",
        ),
        ({"inference": {"tile": [64, 64, 64]}}, "inference.tile needs 2 sizes"),
        ({"training": {"samples": 1, "augmentation": {"channel_dropout": {"red": 0.5}}}}, "channels are"),
        ({"inference": {"mirror": ["depth"]}}, "mirroring along depth needs spatial.mode 3d"),
        ({"inference": {"overlap": 1.0}}, "less than 1"),
        ({"inference": {"min_component_size": [1, 2, 3]}}, r"min_component_size has 3 values for \d class"),
        ({"inference": {"min_component_size": -1}}, "greater than or equal to 0"),
        ({"inference": {"min_component_size": []}}, "at least 1"),
        ({"inference": {"min_component_size": "small"}}, "valid number"),
        (
            {
                "inference": {"quarter_turns": True},
                "spatial": {"patch": [64, 64], "spacing": [1, 3, 1]},
                "source": "volumes",
            },
            "needs square pixels",
        ),
        ({"training": {"samples": 4, "augmentation": {"flips": ["depth"]}}}, "mirroring along depth"),
        ({"training": {"samples": 4, "learning_rate": float("inf")}}, "finite"),
        ({"training": {"samples": 4, "foreground": float("nan")}}, "foreground"),
        ({"channels": []}, "at least 1 item"),
        ({"channels": [{"name": "a", "intensity": {"kind": "window", "low": 5, "high": 5}}]}, "must be below high"),
        (
            {"channels": [{"name": "a", "intensity": {"kind": "percentiles", "low": 50, "high": 20}}]},
            "must be below high",
        ),
        ({"modality": "petscan"}, "modality"),
        ({"folds": {"count": 1}}, "greater than or equal to 2"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        plan(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": [{"name": "a", "values": [1]}, {"name": "a", "values": [2]}]}, "names repeat"),
        (
            {"classes": [{"name": "a", "values": [1]}, {"name": "b", "values": [1]}]},
            "value 1 belongs to class 'a' and to",
        ),
        ({"classes": [{"name": "a", "values": [1, 1]}]}, "belongs to class 'a' and to class 'a'"),
        ({"classes": [{"name": "a", "values": ["#010101"]}, {"name": "b", "values": [1]}]}, "value 1 belongs to"),
        ({"classes": [{"name": "a", "values": [0]}]}, "value 0 belongs to background"),
        ({"classes": [{"name": "a", "values": [1]}], "ignore": [1]}, "value 1 belongs to ignore"),
        ({"classes": [{"name": "a", "values": [0, 1]}], "exclusive": False}, "also background or ignored"),
        ({"classes": [{"name": "a", "values": [1], "write": 0}]}, "would be written as 0, which is background"),
        ({"classes": [{"name": "a", "values": [1], "write": 9}], "ignore": [9]}, "would be written as 9"),
        ({"classes": [{"name": "a", "values": 1}, {"name": "b", "values": 2, "write": 1}]}, "set `write`"),
        ({"classes": [{"name": "a", "values": 1}, {"name": "b", "values": 2}], "threshold": 5}, "exactly one class"),
        ({"classes": [{"name": "a", "values": ["red"]}]}, "neither an integer nor a colour"),
        ({"classes": [{"name": "a", "values": ["#fff"]}]}, "neither an integer nor a colour"),
        ({"classes": [{"name": "a", "values": [True]}]}, "neither an integer nor a colour"),
        ({"classes": [{"name": "a", "values": [2**24]}]}, "no label value"),
        ({"classes": [{"name": "a", "values": []}]}, "at least 1 item"),
        ({"classes": [{"name": "", "values": [1]}]}, "at least 1 character"),
        ({"classes": []}, "at least 1 item"),
    ],
)
def test_contradictory_labels_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Labels.model_validate(changes)


def test_network_channels_and_outputs() -> None:
    made = plan(
        source="volumes",
        channels=[{"name": n, "intensity": {"kind": "zscore"}} for n in ("t1", "t2")],
        spatial={"mode": "2.5d", "neighbours": 2, "patch": [64, 64]},
    )
    assert made.in_channels == 10
    assert made.spatial.dims == 2
    assert made.labels.outputs == 2


def test_single_value_needs_no_brackets() -> None:
    labels = Labels.model_validate({"background": 0, "ignore": 9, "classes": [{"name": "a", "values": "#FF0000"}]})
    assert labels.classes[0].values == ("#ff0000",)
    assert labels.ignore == (9,)


def test_settings_make_a_new_plan() -> None:
    made = plan()
    for value, kept in (("12", (12.0,)), ("[0.5]", (0.5,)), ("null", None)):
        assert made.with_settings([f"inference.min_component_size={value}"]).inference.min_component_size == kept
    changed = made.with_settings(["training.batch=8", "labels.classes.0.name=lesion", "inference.mirror=[width]"])
    assert (changed.training.batch, changed.labels.classes[0].name, changed.inference.mirror) == (
        8,
        "lesion",
        ("width",),
    )
    assert made.training.batch == 4
    assert made.with_settings([]) == made.with_settings({}) == made
    named = {"training.batch": 8, "labels.classes.0.name": "lesion", "inference": {"mirror": ("width",)}}
    assert made.with_settings(named) == changed


def test_keys_that_a_plan_may_have_pass() -> None:
    def dotted(value: object, path: str) -> list[str]:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [path, *(inner for key, part in pairs for inner in dotted(part, f"{path}.{key}".lstrip(".")))]

    keys = dotted(plan().model_dump(mode="json"), "")[1:]
    assert len(keys) > 60
    check_keys(Plan, [f"{key}=1" for key in keys])
    check_keys(Plan, ["channels.3.intensity.low=1", "network.options.anything=1", "network.options.any.thing=1"])


def test_settings_change_the_kind_of_normalisation() -> None:
    changed = plan().with_settings(["channels.0.intensity.kind=percentiles", "channels.0.intensity.low=2"])
    assert changed.channels[0].intensity.model_dump() == {"kind": "percentiles", "low": 2.0, "high": 99.5}


def test_settings_are_checked_together() -> None:
    with pytest.raises(PlanError, match="needs volumes"):
        plan().with_settings(["spatial.mode=3d", "spatial.patch=[64, 64, 64]"])


def test_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").mkdir()
    with pytest.raises(OutputError) as caught:
        plan().save(tmp_path / "plan.yaml")
    assert caught.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["plan.yaml"]


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        inner = _models(info.annotation)
        yield from (entry for part in inner for entry in settings_of(part, f"{prefix}{name}."))
        if not inner:
            yield prefix + name, info


def test_every_setting_says_what_it_is() -> None:
    plain = ("kind", "channels.name", "classes.name", "intensity.")  # their section says it
    silent = [
        name
        for model in (Plan, Declaration)
        for name, info in settings_of(model)
        if not info.description and not choices(info.annotation) and not any(word in name for word in plain)
    ]
    assert not silent


def test_names_of_networks_and_losses_stand_in_the_plan() -> None:
    from cpfnet.network import zoo
    from cpfnet.training.loss import LOSSES

    ours = sorted(zoo.SHIPPED)
    for section, names in ((NetworkPlan, ours), (LossPlan, LOSSES)):
        written = section.model_fields["name"].description or ""
        assert set(names) <= set(re.split(", | or ", written))

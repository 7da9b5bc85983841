"""A Model folder: self-contained, whole, and honest about what was changed in it."""

import re

import numpy as np
import pytest
import torch
from markdown_it import MarkdownIt

from cpfnet.errors import CpfnetError, OutputError, WeightsError
from cpfnet.files import sha256
from cpfnet.model import Fitted, FittedChannel, Model, untrained
from cpfnet.network import zoo
from cpfnet.planning import (
    Channel,
    LabelClass,
    Labels,
    NetworkPlan,
    Plan,
    Scale,
    Spatial,
    TrainingPlan,
    content_hash,
)
from cpfnet.settings import load_yaml, plain


@pytest.fixture
def model():
    plan = Plan(
        name="tiny",
        source="images",
        channels=(Channel(name="grey", intensity=Scale()),),
        labels=Labels(classes=(LabelClass(name="lesion", values=(255,)),)),
        spatial=Spatial(patch=(32, 32)),
        network=NetworkPlan(name="unet", options={"widths": [4, 4, 8, 8, 8]}, weights="none"),
        training=TrainingPlan(samples=8),
    )
    torch.manual_seed(0)
    network = zoo.build("unet", 1, 2, widths=[4, 4, 8, 8, 8])
    fitted = Fitted(
        plan_hash=plan.hash,
        cases=3,
        epochs=2,
        channels=(FittedChannel(name="grey", low=3, high=250),),
        validation_dice=0.5,
    )
    return Model(plan, fitted, network.state_dict(), {"validation": {"dice": 0.5}})


def test_what_is_saved_is_loaded(model, tmp_path):
    folder = model.save(tmp_path / "model")
    loaded = Model.load(folder)
    assert (loaded.plan, loaded.fitted, loaded.metrics) == (model.plan, model.fitted, model.metrics)
    x = torch.rand(1, 1, 40, 50)
    with torch.inference_mode():
        assert torch.equal(loaded.network()(x), model.network()(x))
    assert {p.name for p in folder.iterdir()} == {
        "plan.yaml",
        "weights.safetensors",
        "fitted.yaml",
        "metrics.json",
        "card.md",
    }


def test_the_card_says_what_the_model_is_not_for(model):
    card = model.card()
    for part in ("lesion (written as 255)", "3 training cases", "grey: 3 … 250", "0.5000", "Not a medical device"):
        assert part in card


def test_model_and_plan_are_one_line(model, tmp_path):
    plan = model.plan.model_copy(update={"name": "ti\nny"})
    assert (
        repr(plan)
        == str(plan)
        == (
            rf"Plan(ti\nny: 1 class (lesion) in other images, 2d 32×32, unet, {plan.training.epochs} epochs, "
            rf"{plan.hash[:8]})"
        )
    )
    start = "Model(tiny: 1 class (lesion) in other images, 2d 32×32, unet, 3 training cases, validation Dice 0.500"
    assert repr(model) == f"{start})"
    model.save(tmp_path / "model")
    assert repr(Model.load(tmp_path / "model")) == f"{start}, in {tmp_path / 'model'})"
    many = tuple(LabelClass(name=f"c{i}", values=(i,)) for i in range(1, 200))
    large = model.plan.model_copy(update={"labels": Labels(classes=many)})
    assert "199 classes (c1, c2, c3, c4 and 195 more)" in repr(large)


def test_no_name_acts_in_the_card(model):
    evil = "<script>alert(1)</script> [a](javascript:b) \x1b[2J\n\n# c | `d`"
    labels = model.plan.labels.model_copy(
        update={"classes": (LabelClass(name=evil, values=(1,)), LabelClass(name="b", values=(2,)))}
    )
    channel = model.fitted.channels[0].model_copy(update={"name": evil})
    plan = model.plan.model_copy(update={"name": evil, "labels": labels})
    fitted = model.fitted.model_copy(update={"channels": (channel,), "min_component_size": (4, 5)})
    card = Model(plan, fitted, model.state).card()
    html = MarkdownIt("commonmark", {"html": True}).render(card)
    assert set(re.findall(r"<(\w+)", html)) == {"h1", "h2", "p", "ul", "li", "code"}  # what the card is made of
    assert html.count("<h1>") == 1
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt; [a](javascript:b) \\x1b[2J\\n\\n# c | `d`") == 4
    assert "\x1b" not in card
    assert "<script" not in card


def test_the_card_says_how_probabilities_become_masks(model):
    model.fitted = model.fitted.model_copy(
        update={"temperature": 1.31, "threshold": (0.42,), "min_component_size": (120,)}
    )
    for line in (
        "- temperature: 1.31",
        "- threshold: 0.42",
        "- smallest connected component kept, pixels of the network's grid: 120",
    ):
        assert line in model.card()


def with_line(file, line):
    """A YAML file with a key of one line, or of a list, in another way."""
    key = line.split(":")[0]
    kept = [row for row in file.read_text().splitlines() if not row.lstrip().startswith((f"{key}:", "- 0"))]
    file.write_text("\n".join([*kept, line, ""]))


@pytest.mark.parametrize(("line", "expected"), [("threshold: 0.3", (0.3,)), ("threshold: [0.3]", (0.3,))])
def test_one_value_holds_for_all_classes(model, tmp_path, line, expected):
    file = model.save(tmp_path) / "fitted.yaml"
    with_line(file, line)
    assert Model.load(tmp_path).fitted.threshold == expected


def test_as_many_values_as_classes(model, tmp_path):
    with_line(model.save(tmp_path) / "fitted.yaml", "threshold: [0.4, 0.6]")
    with pytest.raises(CpfnetError, match="2 values for threshold, and the plan has 1 class: one for all"):
        Model.load(tmp_path)


@pytest.mark.parametrize(
    "line", ["temperature: 0", "temperature: -1", "threshold: 1.2", "threshold: []", "min_component_size: -3"]
)
def test_values_that_cannot_be_are_refused(model, tmp_path, line):
    with_line(model.save(tmp_path) / "fitted.yaml", line)
    with pytest.raises(CpfnetError, match=line.split(":")[0]):
        Model.load(tmp_path)


def test_weights_in_channels_last_are_saved(model, tmp_path):
    network = model.network().to(memory_format=torch.channels_last)
    model.state = network.state_dict()
    model.save(tmp_path)
    again = Model.load(tmp_path).network().state_dict()
    assert all(np.array_equal(again[k], v) for k, v in model.state.items())


def test_a_plan_edited_after_training_is_refused(model, tmp_path):
    model.save(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text(plan.read_text().replace("std: 1.0", "std: 2.0"))
    with pytest.raises(CpfnetError, match="changed after training"):
        Model.load(tmp_path)


def test_a_model_of_an_earlier_version_is_read(model, tmp_path):
    """Its plan lacks a key that has come since, and has the hash of then."""
    model.save(tmp_path / "old")
    path = tmp_path / "old" / "plan.yaml"
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if "quarter_turns:" not in line)
    assert text != path.read_text()
    path.write_text(text)
    fitted = tmp_path / "old" / "fitted.yaml"
    old = content_hash(plain(load_yaml(path), path))
    fitted.write_text(fitted.read_text().replace(model.plan.hash, old))
    again = Model.load(tmp_path / "old")
    assert again.plan == model.plan
    again.save(tmp_path / "new")
    assert Model.load(tmp_path / "new").fitted.plan_hash == model.plan.hash


@pytest.mark.parametrize("name", ["plan.yaml", "fitted.yaml", "weights.safetensors"])
def test_a_missing_part_is_named(model, tmp_path, name):
    model.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CpfnetError, match=f"{name} missing"):
        Model.load(tmp_path)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"<html>" + b])
def test_damaged_weights_are_refused(model, tmp_path, damage):
    file = model.save(tmp_path) / "weights.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(WeightsError, match=r"weights\.safetensors: are damaged"):
        Model.load(tmp_path)


def test_what_is_no_weight_file_is_refused_even_if_its_hash_fits(model, tmp_path):
    file = model.save(tmp_path) / "weights.safetensors"
    old = sha256(file)
    file.write_bytes(b"<html>")
    fitted = tmp_path / "fitted.yaml"
    fitted.write_text(fitted.read_text().replace(old, sha256(file)))
    with pytest.raises(WeightsError, match=r"weights\.safetensors: cannot be read"):
        Model.load(tmp_path).network()


def test_weights_of_another_network_are_refused(model, tmp_path):
    model.save(tmp_path / "a")
    model.state = zoo.build("unet", 1, 3, widths=[4, 4, 8, 8, 8]).state_dict()
    model.save(tmp_path / "b")
    with pytest.raises(WeightsError, match="do not fit network 'unet'"):
        Model.load(tmp_path / "b").network()


def test_no_folder_and_no_place_are_errors(model, tmp_path):
    with pytest.raises(CpfnetError, match="no such folder"):
        Model.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        model.save(tmp_path / "file" / "model")


def test_the_depth_of_dynunet_follows_the_plan(model):
    plan = model.plan.with_settings(["network.name=dynunet", "network.options={}", "spatial.patch=[64, 320]"])
    with torch.device("meta"):
        assert untrained(plan).multiple == (16, 64)
        assert untrained(plan.with_settings(["spatial.patch=[320, 320]"])).multiple == (64, 64)
        assert untrained(plan.with_settings(["network.name=unet"])).multiple == (16, 16)


def test_several_models_decide_by_means_and_the_smallest_of_sizes(model):
    two = Labels(classes=(LabelClass(name="a", values=(1, 2)), LabelClass(name="b", values=(2,))), exclusive=False)
    plan = model.plan.model_copy(update={"labels": two})
    changes = (
        {"temperature": 1.0, "threshold": (0.25,), "min_component_size": (8.0, 2.0)},
        {"temperature": 2.0, "threshold": (0.5, 0.75), "min_component_size": (5.0,)},
        {"temperature": 4.5, "threshold": (0.75, 0.5), "min_component_size": (9.0,)},
    )
    models = [Model(plan, model.fitted.model_copy(update=change)) for change in changes]
    models[2].plan = plan.with_settings(["inference.min_component_size=[7, 1]"])  # as asked for, not as fitted
    together = Fitted.combined(models)
    assert (together.temperature, together.threshold, together.min_component_size) == (2.5, (0.5, 0.5), (5.0, 1.0))
    assert Fitted.combined(models[:1]).threshold == (0.25, 0.25)
    assert together.channels == model.fitted.channels

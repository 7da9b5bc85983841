"""A threshold chosen on one split for another: what is chosen, what it changes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.model import Model
from cpfnet.planning import Labels
from tests import synthetic
from tests.inference.oracle import FULL, make_model

SOFT = 4.0
"""Sharpness at which the oracle's probability of its second plane is sigmoid(SOFT · (2 x − 1)), x the brightness."""


def soft(model: Model) -> Model:
    model.state = {"sharpness": torch.tensor([SOFT])}
    return model


def vessels(**more) -> Model:
    return soft(make_model(source="images", labels=Labels(classes=[{"name": "vessel", "values": [255]}]), **more))


def regions() -> Model:
    classes = [{"name": "dark", "values": [1]}, {"name": "bright", "values": [2]}]
    return soft(make_model(source="images", labels=Labels(classes=classes, exclusive=False)))


def write(root: Path, *, limits: dict[str, float], label: str, split: str, roi: bool = False) -> Path:
    """Images of all brightnesses; those above a case's limit are its class."""
    rng = np.random.default_rng(0)
    for case, limit in limits.items():
        x = rng.random((40, 44))
        inside = rng.random(x.shape) < 0.7 if roi else np.ones(x.shape, bool)
        truth = np.where(inside, x > limit, rng.random(x.shape) < 0.5)
        synthetic.write_raster(root / f"images/{case}.png", np.uint8(np.rint(x * FULL)))
        value = {"vessel": truth * 255, "regions": np.where(x < limit / 4, 1, np.where(x > limit, 2, 0))}[label]
        synthetic.write_raster(root / f"masks/{case}.png", np.uint8(value))
        synthetic.write_raster(root / f"roi/{case}.png", np.uint8(inside * 255))
    lines = [
        "image: images/{case}.png",
        "label: masks/{case}.png",
        "roi: roi/{case}.png" if roi else "",
        "labels: {vessel: 255}" if label == "vessel" else "labels: {dark: 1, bright: 2, exclusive: false}",
        f"split: {split}",
    ]
    (root / "dataset.yaml").write_text("\n".join(lines))
    return root


def probability(x: float) -> float:
    return float(1 / (1 + np.exp(-SOFT * (2 * x - 1))))


def brightness(p: float) -> float:
    return float(np.log(p / (1 - p)) / SOFT / 2 + 0.5)


TRAIN = {"a": 0.7, "b": 0.7, "c": 0.7}


@pytest.mark.parametrize("roi", [False, True])
def test_the_threshold_that_fits_the_other_split_is_taken(tmp_path, roi):
    root = write(tmp_path, limits=TRAIN | {"t": 0.7}, label="vessel", split="{test: [t]}", roi=roi)
    model = vessels()
    own = cpfnet.evaluate(root, model, cpfnet.PredictorOptions(device="cpu"))
    scores = cpfnet.evaluate(
        root, model, cpfnet.PredictorOptions(device="cpu"), threshold_on="train", out=tmp_path / "out"
    )
    said, fitted = scores.protocol["threshold"], scores.protocol["fitted"]
    limit = float(fitted.split()[2])
    assert limit == pytest.approx(probability(0.7), abs=0.011)
    assert scores.of("dice")["mean"] > 0.98 > own.of("dice")["mean"]
    assert said == "best mean Dice over the 3 cases of the train split, of 0.01 to 0.99"
    assert (own.protocol["threshold"], own.protocol["fitted"]) == ("the model's own", "vessel above 0.5")
    assert model.fitted.threshold == (0.5,)  # the Model itself stays as it was
    assert scores.of("auc")["mean"] == own.of("auc")["mean"]
    with Pillow.open(tmp_path / "out/predictions/t.png") as mask, Pillow.open(root / "images/t.png") as image:
        np.testing.assert_array_equal(np.asarray(mask) > 0, np.asarray(image) / FULL > brightness(limit))
    report = (tmp_path / "out/report.html").read_text()
    assert said in report
    assert fitted in report


def test_each_region_has_its_own(tmp_path):
    root = write(tmp_path, limits={"a": 0.8, "b": 0.8, "t": 0.8}, label="regions", split="{val: [a, b], test: [t]}")
    scores = cpfnet.evaluate(root, regions(), cpfnet.PredictorOptions(device="cpu"), threshold_on="val")
    assert scores.of("dice", "dark")["mean"] > 0.97
    assert scores.of("dice", "bright")["mean"] > 0.97
    dark, bright = (float(part.split()[2]) for part in scores.protocol["fitted"].split(", "))
    assert dark == pytest.approx(1 / (1 + np.exp(SOFT * 0.2)), abs=0.011)
    assert bright == pytest.approx(1 / (1 + np.exp(SOFT * 0.2)), abs=0.011)


def test_cases_count_alike_and_readers_are_averaged(tmp_path):
    limits = {"a": 0.6, "b": 0.6, "c": 0.9, "t": 0.6}
    root = write(tmp_path, limits=limits, label="vessel", split="{test: [t]}")
    (root / "dataset.yaml").write_text(
        (root / "dataset.yaml")
        .read_text()
        .replace("label: masks/{case}.png", "label: {r: 'masks/{case}.png', s: 'masks/{case}.png'}")
    )
    said = cpfnet.evaluate(root, vessels(), cpfnet.PredictorOptions(device="cpu"), threshold_on="train").protocol[
        "fitted"
    ]
    curves = []
    for case in "abc":
        x = np.asarray(Pillow.open(root / f"images/{case}.png")) / FULL
        truth = np.asarray(Pillow.open(root / f"masks/{case}.png")) > 0
        levels = np.arange(1, 100) / 100
        found = [x > brightness(t) for t in levels]
        curves.append([2 * (f & truth).sum() / (f.sum() + truth.sum()) for f in found])
    assert float(said.split()[2]) == pytest.approx(levels[np.argmax(np.mean(curves, axis=0))], abs=0.011)


def test_what_trained_the_model_is_said(tmp_path):
    root = write(tmp_path, limits=TRAIN | {"t": 0.7, "v": 0.7}, label="vessel", split="{val: [v], test: [t]}")
    model = vessels()
    model.metrics = {"cases": {"train": ["a", "b"], "validation": ["v"]}}
    said = cpfnet.evaluate(root, model, cpfnet.PredictorOptions(device="cpu"), threshold_on="train").protocol[
        "threshold"
    ]
    assert "3 cases of the train split (2 of them trained the model)" in said
    scores = cpfnet.evaluate(root, model, cpfnet.PredictorOptions(device="cpu"), split="val", threshold_on="train")
    assert "1 of 1 cases carry the names of cases that chose its epoch" in scores.warnings[0]
    assert scores.protocol["validated on"] == "1 of these cases"


@pytest.mark.parametrize(
    ("options", "message", "fix"),
    [
        (
            {"split": "train", "threshold_on": "train"},
            r"3 of the 3 cases to score are of the train split.*\(a, b, c\)",
            "--split",
        ),
        (
            {"split": "all", "threshold_on": "val"},
            "1 of the 5 cases to score are of the val split",
            "score other cases",
        ),
        ({"threshold_on": "test"}, "cannot be chosen on 'test'", "train or val"),
    ],
)
def test_nothing_is_tuned_on_what_is_scored(tmp_path, options, message, fix):
    root = write(tmp_path, limits=TRAIN | {"t": 0.7, "v": 0.7}, label="vessel", split="{val: [v], test: [t]}")
    with pytest.raises(CpfnetError, match=message) as caught:
        cpfnet.evaluate(root, vessels(), cpfnet.PredictorOptions(device="cpu"), out=tmp_path / "out", **options)
    assert fix in caught.value.fix
    assert not (tmp_path / "out").exists()


def test_another_scan_of_a_patient_is_no_other_patient(tmp_path):
    root = write(tmp_path, limits={"p1_a": 0.7, "p2_a": 0.7, "p1_b": 0.7}, label="vessel", split="{test: [p1_b]}")
    with (root / "dataset.yaml").open("a") as file:
        file.write("\npatient: '^(p.)_'\n")
    with pytest.raises(CpfnetError, match=r"1 of the 1 cases to score are of the train split or its patients \(p1_b\)"):
        cpfnet.evaluate(root, vessels(), cpfnet.PredictorOptions(device="cpu"), threshold_on="train")


def test_where_there_is_no_threshold_to_choose(tmp_path):
    root = write(tmp_path, limits=TRAIN | {"t": 0.7}, label="vessel", split="{test: [t]}")
    three = make_model(source="images", values=(1, 2, 3))
    with pytest.raises(CpfnetError, match="of 3 exclusive classes the most probable one is taken"):
        cpfnet.evaluate(root, three, threshold_on="train")
    with pytest.raises(CpfnetError, match="no labelled case in split 'val'") as caught:
        cpfnet.evaluate(root, vessels(), threshold_on="val")
    assert "dataset.yaml" in caught.value.fix
    with pytest.raises(CpfnetError, match="masks are decided already") as caught:
        cpfnet.evaluate(root, root / "masks", threshold_on="train")
    assert "give the Model" in caught.value.fix
    with pytest.raises(CpfnetError, match="a Model has labels of its own"):
        cpfnet.evaluate(root, vessels(fitted={"threshold": 0.4}), label_plan=root / "plan.yaml")


def test_the_protocol_of_several_models_and_classes(tmp_path):
    root = write(tmp_path, limits=TRAIN, label="vessel", split="{val: [c]}")
    pair = [vessels(fitted={"threshold": 0.4}), vessels(fitted={"threshold": 0.7})]
    assert cpfnet.evaluate(root, pair, cpfnet.PredictorOptions(device="cpu")).protocol["fitted"] == "vessel above 0.55"
    written = cpfnet.evaluate(root, root / "masks").protocol
    assert written["threshold"] == "predictions as written"
    assert "fitted" not in written
    picky = vessels(fitted={"threshold": 0.4, "min_component_size": 3, "temperature": 1.5})
    said = "vessel above 0.4; temperature 1.5; components dropped: vessel below 3 pixels of the network's grid"
    assert cpfnet.evaluate(root, picky, cpfnet.PredictorOptions(device="cpu")).protocol["fitted"] == said
    coarse = soft(make_model(source="images", values=(255,), longest=40, fitted={"min_component_size": 9}))
    coarse.plan = coarse.plan.model_copy(update={"labels": picky.plan.labels})
    told = cpfnet.evaluate(root, [picky, coarse], cpfnet.PredictorOptions(device="cpu")).protocol["fitted"]
    assert told.endswith("components dropped: those that are too small for each of the models")


def test_a_model_of_another_task_is_told(tmp_path):
    root = write(tmp_path, limits=TRAIN, label="vessel", split="{val: [c]}")
    declared = (root / "dataset.yaml").read_text()
    (root / "dataset.yaml").write_text(declared.replace("vessel", "lesion"))
    said = cpfnet.evaluate(root, vessels(), cpfnet.PredictorOptions(device="cpu")).warnings[0]
    assert "classes are lesion here, and vessel in the Model" in said
    (root / "dataset.yaml").write_text(declared)
    scores = cpfnet.evaluate(root, vessels(), cpfnet.PredictorOptions(device="cpu"))
    assert not [warning for warning in scores.warnings if "in the Model" in warning]
    (root / "dataset.yaml").write_text(f"{declared}\nmodality: fundus\n")
    scores = cpfnet.evaluate(root, vessels(), cpfnet.PredictorOptions(device="cpu"))
    assert "images are fundus here, and other in the Model" in scores.warnings[0]

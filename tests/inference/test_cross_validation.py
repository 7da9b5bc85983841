"""A folder of folds is an ensemble wherever a Model is asked for, with what was fitted on all; nothing else passes."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cpfnet
from cpfnet.data import dataset, splits
from cpfnet.errors import CpfnetError, InputRefused
from cpfnet.inference.batch import records
from cpfnet.inference.batch.job import Order
from cpfnet.inference.batch.ray_worker import Setting, Worker
from cpfnet.inference.batch.records import Recipe
from cpfnet.inference.cross_validation import CrossValidation, FittedOnFolds, is_cross_validation
from cpfnet.inference.dataset_predictions import assign, predict_cases
from cpfnet.inference.evaluate_models import ScoringOptions, predict_split
from cpfnet.inference.model_arguments import names_a_model, open_model, open_models
from cpfnet.model import Fitted, FittedChannel, Model, Quality
from cpfnet.serve.http.models import served
from cpfnet.serve.worker import digest_of
from tests import synthetic
from tests.inference.oracle import bright, make_model

THRESHOLD, TEMPERATURE = 0.35, 1.1
QUALITY = Quality(cases=6, lowest=0.5, found=("class 1",))
CPU, OUT = cpfnet.PredictorOptions(device="cpu"), cpfnet.OutputOptions()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photographs; the last one is for the test."""
    folder = tmp_path_factory.mktemp("made") / "data"
    for number in range(7):
        _, mask = synthetic.blobs(np.random.default_rng(number), (40, 44))
        synthetic.write_raster(folder / "images" / f"case{number}.png", bright(mask, 1))
        synthetic.write_raster(folder / "masks" / f"case{number}.png", mask)
    lines = ["image: images/{case}.png", "label: masks/{case}.png", "labels: {'class 1': 1}", "split: {test: [case6]}"]
    (folder / "dataset.yaml").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(root: Path) -> Path:
    """Three folds, each with values of its own, and what was fitted on all."""
    cv = root.parent / "cv"
    cases = splits.to_learn_from(dataset.load(root))
    models = []
    for number, (train, held_out) in enumerate(splits.folds(cases, 3, 0)):
        channel = FittedChannel(name="channel0", low=number, high=200 + number, levels=((0, 1 + number),) * 3)
        own = {"threshold": (0.6 + number / 10,), "cases": 4, "channels": (channel,)}
        model = make_model(source="images", values=(1,), fitted=own)
        model.metrics = {"cases": {"train": [c.id for c in train], "validation": [c.id for c in held_out]}}
        model.save(cv / f"fold-{number}")
        models.append(Model.load(cv / f"fold-{number}"))
    found = {"threshold": (THRESHOLD,), "temperature": TEMPERATURE, "quality": QUALITY}
    fitted = FittedOnFolds.of(models).model_copy(update=found)
    CrossValidation(cv, models[0].plan, fitted, models, {"fitting": {"quality": "of all"}}).save()
    return cv


@pytest.fixture
def cv(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "cv"))


def test_the_folds_decide_together_with_what_was_fitted_on_all(cv: Path) -> None:
    models = open_models(cv)
    combined = Fitted.combined(models)
    assert (combined.threshold, combined.temperature, combined.quality) == ((THRESHOLD,), TEMPERATURE, QUALITY)
    assert [model.weights_hash for model in models] == [Model.load(cv / f"fold-{k}").weights_hash for k in range(3)]
    assert models[0].metrics["fitting"] == {"quality": "of all"}
    for model in models:  # within what any of them was trained on
        (channel,) = model.fitted.channels
        assert (channel.low, channel.high, channel.levels[0]) == (0, 202, (0, 3))
        assert model.fitted.cases == 6
    assert open_models(CrossValidation.load(cv))[1].digest == models[1].digest
    assert {m.digest for m in models}.isdisjoint(Model.load(cv / f"fold-{k}").digest for k in range(3))


def test_records_tell_the_ensemble_from_its_folds(root: Path, cv: Path, tmp_path: Path) -> None:
    image = root / "images" / "case6.png"
    cpfnet.predict_files(cv, [image], tmp_path / "masks", CPU, OUT)
    record = records.find(tmp_path / "masks", "case6")
    assert record is not None
    assert record.models == tuple(sorted(model.digest for model in open_models(cv)))
    apart = Recipe.of([Model.load(cv / f"fold-{k}") for k in range(3)], CPU, OUT)
    assert record.differences(record.input, apart, force=False) == ["other Models made it"]


def test_a_worker_of_a_cluster_decides_as_the_ensemble_does(cv: Path, tmp_path: Path) -> None:
    models = open_models(cv)
    folders = tuple(model.folder for model in models)
    worker, before = Worker(), logging.getLogger("cpfnet").propagate
    setting = Setting(folders, tuple(m.fitted for m in models), Order(tmp_path, CPU), Path.cwd(), cv, logging.INFO)
    try:
        assert worker.start(setting) == cpfnet.__version__
    finally:
        logger = logging.getLogger("cpfnet")
        logger.removeHandler(logger.handlers[-1])
        logger.propagate = before
    assert [model.digest for model in worker.predictor.models] == [model.digest for model in models]


def test_evaluate_scores_each_case_by_the_model_that_has_not_seen_it(root: Path, cv: Path, tmp_path: Path) -> None:
    scores = cpfnet.evaluate(root, cv, CPU)
    assert [row["case"] for row in scores.rows if row["class"] == "class 1"] == [f"case{k}" for k in range(6)]
    assert "(out of fold)" in scores.protocol["chosen"]
    assert f"class 1 above {THRESHOLD}" in scores.protocol["fitted"]
    assert not any("trained on:" in warning for warning in scores.warnings)
    assert any("by the one model that was not trained on it" in warning for warning in scores.warnings)

    models = open_models(cv)
    predict_split(dataset.load(root), models, ScoringOptions("val"), CPU, tmp_path)
    for model, cases in zip(models, CrossValidation.load(cv).folds, strict=True):
        found = [records.find(tmp_path, case) for case in cases]
        assert [record is not None and record.models for record in found] == [(model.digest,)] * len(cases)


def test_folds_are_scored_beyond_the_range_of_what_each_has_seen(root: Path, cv: Path) -> None:
    """A case at the end of what the data hold is not in the range of the fold that was trained on all others."""
    channel = FittedChannel(name="channel0", low=0, high=1e5)
    models = [Model.load(cv / f"fold-{number}") for number in range(3)]
    others = [replace(one, fitted=one.fitted.model_copy(update={"channels": (channel,)})) for one in models]
    assert len({row["case"] for row in cpfnet.evaluate(root, others, CPU, split="val").rows}) == 6
    with pytest.raises(InputRefused):
        cpfnet.evaluate(root, others, CPU, split="test")


def test_all_models_predict_where_scores_are_not_out_of_fold(root: Path, cv: Path) -> None:
    cases, models = dataset.load(root).cases, open_models(cv)
    (one,) = assign(cases, models, out_of_fold=False)
    assert (one.cases, one.models) == (list(cases), models)
    apart = assign(cases, models, out_of_fold=True)
    assert sorted(len(part.models) for part in apart) == [1, 1, 1, 3]  # nobody has seen the case of the test


def test_volumes_are_taken_within_the_spacings_of_all_folds() -> None:
    spacings = [((2.0, 0.7, 0.7), (3.0, 0.8, 0.8)), ((1.0, 0.75, 0.75), (2.5, 0.9, 0.9))]
    models = [make_model(fitted={"spacing_low": low, "spacing_high": high}) for low, high in spacings]
    for number, model in enumerate(models):
        model.metrics = {"cases": {"train": [str(number)], "validation": []}}
    found = FittedOnFolds.of(models)
    assert (found.spacing_low, found.spacing_high) == ((1.0, 0.7, 0.7), (3.0, 0.9, 0.9))


def test_the_test_split_and_strange_data_are_scored_by_the_ensemble(root: Path, cv: Path, tmp_path: Path) -> None:
    scores = cpfnet.evaluate(root, cv, CPU, split="test")
    assert {row["case"] for row in scores.rows} == {"case6"}
    assert scores.protocol["model"].startswith("3 × oracle (oracle, plan ")
    assert all("optimistic" not in warning for warning in scores.warnings)
    strange = Path(shutil.copytree(root, tmp_path / "strange"))
    (strange / "dataset.yaml").write_text((root / "dataset.yaml").read_text().replace("split: {test: [case6]}", ""))
    for number in range(7):
        for kind in ("images", "masks"):
            (strange / kind / f"case{number}.png").rename(strange / kind / f"other{number}.png")
    assert cpfnet.evaluate(strange, cv, CPU).protocol["chosen"] == "all labelled cases"


def test_interrupted_predictions_go_on(root: Path, cv: Path, tmp_path: Path) -> None:
    cases, models = dataset.load(root).cases[:4], open_models(cv)

    def predict() -> list[tuple[int, int]]:
        items = predict_cases(cases, models, tmp_path / "made", CPU, out_of_fold=True)
        assert [item.case for item in items] == [case.id for case in cases]
        return [(item.prediction.stat().st_mtime_ns, item.probabilities.stat().st_mtime_ns) for item in items]

    first = predict()
    (tmp_path / "made" / "case1.png").unlink()
    second = predict()
    assert [a == b for a, b in zip(first, second, strict=True)] == [True, False, True, True]
    models[1].fitted = models[1].fitted.model_copy(update={"threshold": (0.9,)})
    third = predict()
    mine = [case.id in models[1].metrics["cases"]["validation"] for case in cases]
    assert [a != b for a, b in zip(second, third, strict=True)] == mine
    assert any(mine)
    assert not all(mine)


def test_predictions_of_somebody_else_are_not_taken(root: Path, cv: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "masks", tmp_path / "scores" / "predictions")
    with pytest.raises(CpfnetError, match=r"case\d.png: exists already, and no record tells what it was made from"):
        cpfnet.evaluate(root, cv, CPU, out=tmp_path / "scores")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda cv: (cv / "fitted.yaml").unlink(), "has not ended: fitted.yaml is missing"),
        (lambda cv: shutil.rmtree(cv / "fold-2"), "fold-2: no such folder"),
        (
            lambda cv: (shutil.rmtree(cv / "fold-1"), shutil.copytree(cv / "fold-2", cv / "fold-1")),
            "fold-1: is another",
        ),
        (lambda cv: edit(cv / "fold-0" / "fitted.yaml", "temperature: 1.0", "temperature: 2.0"), "fold-0: is another"),
        (lambda cv: edit(cv / "plan.yaml", "name: oracle", "name: changed"), "fold-0: its plan is not the one"),
        (lambda cv: edit(cv / "fitted.yaml", "[0.35]", "[0.3, 0.4]"), "2 values for threshold"),
        (lambda cv: (cv / "fitted.yaml").write_text(without_models(cv)), r"models: .*at least 2 items"),
    ],
)
def test_what_does_not_belong_together_is_refused(cv: Path, damage, said: str) -> None:
    damage(cv)
    assert names_a_model(cv)
    with pytest.raises(CpfnetError, match=said):
        open_models(cv)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def without_models(cv: Path) -> str:
    text = (cv / "fitted.yaml").read_text(encoding="utf-8")
    return f"{text[: text.index('models:')]}models: []\n"


def test_a_fold_that_does_not_know_its_cases_leaves_them_out_of_the_scores(root: Path, cv: Path) -> None:
    (cv / "fold-0" / "metrics.json").unlink()
    known = {case for fold in CrossValidation.load(cv).folds for case in fold}
    assert len(known) == 4
    assert {row["case"] for row in cpfnet.evaluate(root, cv, CPU).rows} == known


@pytest.mark.parametrize("opened", [False, True])
def test_it_is_served_as_one(cv: Path, opened: bool) -> None:
    (one,) = served([CrossValidation.load(cv) if opened else cv])
    assert one.folder == cv
    assert one.digest == digest_of(open_models(cv)) != digest_of([*open_models(cv)][:1])
    told = one.as_json()
    assert (told["models"], told["validation_dice"]) == (3, None)
    assert told["card"].startswith("The average of 3 Models.")


def test_a_folder_of_data_with_such_names_is_none(tmp_path: Path) -> None:
    (tmp_path / "fold-0" / "images").mkdir(parents=True)
    (tmp_path / "plan.yaml").write_text("{}")
    assert not names_a_model(tmp_path)


def test_one_model_is_asked_for(cv: Path, tmp_path: Path) -> None:
    with pytest.raises(CpfnetError, match="ensemble of 3 folds, and one Model is asked for") as refused:
        cpfnet.export(cv, "onnx", out=tmp_path / "a.onnx")
    assert refused.value.fix == f"give the folder of one of them, such as {cv / 'fold-0'}"
    assert open_model(cv / "fold-1").folder == cv / "fold-1"


def test_folders_of_images_are_no_folds(tmp_path: Path) -> None:
    (tmp_path / "fold-0").mkdir()
    assert not is_cross_validation(tmp_path)
    assert not names_a_model(tmp_path)
    with pytest.raises(CpfnetError, match="holds no cross-validation"):
        CrossValidation.load(tmp_path)


def test_packed_it_is_the_same_ensemble(cv: Path, tmp_path: Path) -> None:
    packed = cpfnet.pack(cv, tmp_path / "cv.zip")
    assert [model.digest for model in open_models(packed)] == [model.digest for model in open_models(cv)]
    again = cpfnet.pack(CrossValidation.load(cv), tmp_path / "again.zip")
    assert again.read_bytes() == packed.read_bytes()
    with pytest.raises(CpfnetError, match="ensemble of 3 folds, and one Model is asked for"):
        cpfnet.export(packed, "onnx", out=tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda cv: (cv / "fitted.yaml").unlink(), "has not ended"),
        (lambda cv: shutil.rmtree(cv / "fold-2"), "fold-2: no such folder"),
    ],
)
def test_what_nobody_could_open_is_not_packed(cv: Path, tmp_path: Path, damage, said: str) -> None:
    damage(cv)
    with pytest.raises(CpfnetError, match=said):
        cpfnet.pack(cv, tmp_path / "cv.zip")
    assert not (tmp_path / "cv.zip").exists()

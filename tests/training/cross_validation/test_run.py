"""A cross-validation that was killed in a fold and while it predicted, and whose fold failed, ends as it would have."""

from __future__ import annotations

import csv
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image as Picture

from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.errors import CpfnetError, OutputError, TrainingError
from cpfnet.inference.cross_validation import CrossValidation
from cpfnet.inference.model_arguments import open_models
from cpfnet.model import Model
from cpfnet.planning import Plan
from cpfnet.training.cross_validation.all_cases import train_on_all
from cpfnet.training.cross_validation.folds import gpus_of
from cpfnet.training.cross_validation.run import cross_validate
from cpfnet.training.options import PlanOptions, TrainOptions
from cpfnet.training.run import train
from tests.training.conftest import images_plan

RESUMED = TrainOptions(device="cpu", resume=True, checkpoint_every=0.0)
FITTED_LATER = ("fitted.yaml", "metrics.json", "scores.csv", "scores.json", "report.html")


def two_folds() -> Plan:
    return images_plan(epochs=3, samples=8).with_settings({"folds.count": 2})


def kill(now: Callable[[], bool], run: Callable[..., object], *options: object) -> None:
    """Begin or go on, and kill the process that does as soon as ``now`` says so; those that it started end by it."""
    process = multiprocessing.get_context("fork").Process(target=run, args=options)
    process.start()
    end = time.monotonic() + 240
    while not now():
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < end, "it did not come so far in four minutes"
        time.sleep(0.005)
    assert process.pid is not None
    started = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _, left = psutil.wait_procs(started, timeout=60)
    assert not left


@pytest.fixture(scope="module")
def begun(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed while the first fold was trained; then that fold's checkpoint was damaged, and restored."""
    out = tmp_path_factory.mktemp("run") / "cv"
    checkpoint = out / "fold-0" / ".work" / "last.ckpt"
    kill(checkpoint.exists, cross_validate, images.root, out, PlanOptions(two_folds()), RESUMED)
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[:100])
    with pytest.raises(TrainingError, match=r"1 of 2 folds failed \(fold-0\): .*last.ckpt: is damaged") as failed:
        cross_validate(images.root, out, PlanOptions(), RESUMED)
    assert failed.value.fix is not None
    assert "--resume" in failed.value.fix
    assert (out / "fold-1" / "report.html").is_file()  # the other one went on
    with pytest.raises(CpfnetError, match=r"has not ended: fitted.yaml is missing"):
        open_models(out)
    checkpoint.write_bytes(whole)
    return out


@pytest.fixture(scope="module")
def cv(images: Dataset, begun: Path) -> Path:
    """Killed again while it predicted, and ended."""
    masks = begun / "out-of-fold"
    options = (images.root, begun, PlanOptions(two_folds()), RESUMED)
    kill(lambda: len(list(masks.glob("case_*.png"))) >= 2, cross_validate, *options)
    assert not (begun / "scores.csv").exists()
    when, first = min((mask.stat().st_mtime_ns, mask) for mask in masks.glob("case_*.png"))
    cross_validate(images.root, begun, PlanOptions(), RESUMED)
    assert first.stat().st_mtime_ns == when  # left as it was
    return begun


@pytest.mark.slow
def test_a_fold_is_an_ordinary_run_whatever_became_of_its_processes(images: Dataset, cv: Path, tmp_path: Path) -> None:
    model = CrossValidation.load(cv).models[0]  # it was killed, and failed
    alone = train(images, two_folds(), tmp_path / "alone", TrainOptions(device="cpu", fold=0))
    assert model.weights_hash == alone.weights_hash
    assert model.fitted == alone.fitted
    assert model.metrics["cases"] == alone.metrics["cases"]


@pytest.mark.slow
def test_what_was_fitted_and_scored_is_that_of_a_run_that_nobody_killed(
    images: Dataset, cv: Path, tmp_path: Path
) -> None:
    shutil.copytree(cv, tmp_path / "cv")
    for name in FITTED_LATER:
        (tmp_path / "cv" / name).unlink()
    shutil.rmtree(tmp_path / "cv" / "out-of-fold")
    again = cross_validate(images.root, tmp_path / "cv", PlanOptions(), RESUMED)
    for name in FITTED_LATER[:-1]:
        assert (tmp_path / "cv" / name).read_bytes() == (cv / name).read_bytes(), name
    made = {mask.name: mask.read_bytes() for mask in (cv / "out-of-fold").glob("*.png")}
    assert made == {mask.name: mask.read_bytes() for mask in (tmp_path / "cv" / "out-of-fold").glob("*.png")}
    assert len(made) == 6  # nothing that the killed process had half written

    with (cv / "scores.csv").open(newline="", encoding="utf-8") as file:
        dice = {row["case"]: float(row["dice"]) for row in csv.DictReader(file) if row["class"] == "blob"}
    assert sorted(dice) == sorted(case.id for case in images.cases)
    pooled = again.metrics["out_of_fold"]["dice"]
    assert pooled["mean"] == pytest.approx(sum(dice.values()) / len(dice))
    assert pooled["low"] < pooled["mean"] < pooled["high"]
    for fold, told in zip(again.folds, again.metrics["folds"], strict=True):
        assert told["dice"]["mean"] == pytest.approx(sum(dice[case] for case in fold) / len(fold))
    assert again.fitted.cases == again.fitted.quality.cases == 6  # three cases a fold would have been too few
    assert not (cv / ".work" / "cache").exists()


@pytest.mark.slow
def test_a_model_of_all_cases_learns_from_the_folds_how_long(
    images: Dataset, cv: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = CrossValidation.load(cv)
    best = [model.fitted.epochs for model in found.models]
    model = train_on_all(images.root, cv, PlanOptions(), TrainOptions(device="cpu"))
    assert model.plan.training.epochs == model.fitted.epochs == round(sum(best) / 2 * 6 / 3)  # twice as many cases
    assert model.metrics["cases"] == {"train": [case.id for case in images.cases], "validation": []}
    for name in ("temperature", "threshold", "min_component_size", "quality"):
        assert getattr(model.fitted, name) == getattr(found.fitted, name)
    assert model.fitted.validation_dice is None
    assert "No case was held out" in (cv / "all" / "card.md").read_text()
    assert "no score of this Model can be given" in (cv / "all" / "report.html").read_text()
    assert Model.load(cv / "all").digest == model.digest
    with pytest.raises(TrainingError, match="follows the plan of its folds"):
        train_on_all(images.root, cv, PlanOptions(settings=["training.batch=1"]), TrainOptions(device="cpu"))
    fewer = Path(shutil.copytree(images.root, tmp_path / "data"))
    case = load(fewer).cases[0]
    for file in (*case.images, *case.labels.values()):
        file.unlink()
    with caplog.at_level("WARNING"), pytest.raises(OutputError, match="exists already"):
        train_on_all(fewer, cv, PlanOptions(), TrainOptions(device="cpu"))
    assert f"The folds had other cases (1 case: {case.id})" in caplog.text


@pytest.mark.slow
def test_folders_are_not_mixed_up(images: Dataset, cv: Path, tmp_path: Path) -> None:
    from cpfnet.training.from_dataset import train_on_dataset

    with pytest.raises(OutputError, match="holds a cross-validation"):
        train_on_dataset(images.root, cv, PlanOptions(), RESUMED)
    with pytest.raises(OutputError, match="exists already"):
        cross_validate(images.root, cv, PlanOptions(), TrainOptions(device="cpu"))
    with pytest.raises(OutputError, match="holds the run of one Model, not folds"):
        cross_validate(images.root, cv / "fold-0", PlanOptions(), RESUMED)
    with pytest.raises(TrainingError, match=r"training.batch: 2 then, 1 now"):
        cross_validate(images.root, cv, PlanOptions(settings=["training.batch=1"]), RESUMED)
    with pytest.raises(TrainingError, match="2 epochs are asked for, and a fold has 3 behind it"):
        cross_validate(images.root, cv, PlanOptions(epochs=2), RESUMED)
    assert len(open_models(cv)) == 2  # the plan was left as it is
    with pytest.raises(TrainingError, match="holds no folds"):
        train_on_all(images.root, tmp_path, PlanOptions(), RESUMED)


@pytest.mark.slow
def test_folds_of_other_labels_are_not_fitted_together(images: Dataset, cv: Path, tmp_path: Path) -> None:
    (cv / "fitted.yaml").rename(tmp_path / "fitted.yaml")
    data = Path(shutil.copytree(images.root, tmp_path / "data"))
    case = load(data).cases[0]
    (mask,) = case.labels.values()
    Picture.fromarray(np.zeros_like(np.asarray(Picture.open(mask)))).save(mask)
    try:
        with pytest.raises(TrainingError, match=rf"began with other cases \(changed: \w+/{case.id}\)"):
            cross_validate(data, cv, PlanOptions(), RESUMED)
    finally:
        (tmp_path / "fitted.yaml").rename(cv / "fitted.yaml")


@pytest.mark.slow
def test_folds_that_are_left_begin_from_the_same_weights(images: Dataset, cv: Path, tmp_path: Path) -> None:
    out, first = Path(shutil.copytree(cv, tmp_path / "cv")), cv / "fold-0"
    shutil.rmtree(out / "fold-1")
    with pytest.raises(TrainingError, match="was begun from no Model"):
        cross_validate(images.root, out, PlanOptions(), replace(RESUMED, init=first))
    (out / ".work" / "init").write_text(Model.load(cv / "fold-1").weights_hash)
    with pytest.raises(TrainingError, match="was begun from another Model"):
        cross_validate(images.root, out, PlanOptions(), replace(RESUMED, init=first))
    with pytest.raises(TrainingError, match="was begun from a Model") as refused:
        cross_validate(images.root, out, PlanOptions(), RESUMED)
    assert refused.value.fix == "give the Model that the first command named (--init)"
    assert not (out / "fold-1").exists()


def test_one_patient_cannot_be_cross_validated(tmp_path: Path) -> None:
    from tests import synthetic

    synthetic.make_images_dataset(tmp_path / "data", cases=1)
    with pytest.raises(CpfnetError, match="no case can be held out"):
        cross_validate(tmp_path / "data", tmp_path / "cv", PlanOptions(two_folds()), TrainOptions(device="cpu"))
    assert not (tmp_path / "cv").exists()


@pytest.mark.parametrize(
    ("device", "visible", "found"),
    [("auto", None, ["0", "1"]), ("cuda", "3,GPU-5e", ["3", "GPU-5e"]), ("cpu", None, []), ("cuda:1", None, [])],
)
def test_folds_are_dealt_out_to_the_gpus_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch, device: str, visible: str | None, found: list[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus_of(device) == found

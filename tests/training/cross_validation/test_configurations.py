"""2-D and 3-D are trained on the same folds, and the folder stands for what did better out of fold."""

from __future__ import annotations

import csv
import logging
import shutil
from pathlib import Path
from statistics import mean

import pytest
from typer.testing import CliRunner

import cpfnet
from cpfnet.cli.app import app
from cpfnet.data.case import Dataset
from cpfnet.errors import CpfnetError, OutputError, PlanError, TrainingError
from cpfnet.inference.configurations import Configurations, is_configurations
from cpfnet.inference.cross_validation import CrossValidation
from cpfnet.inference.model_arguments import folder_to_share, names_a_model, open_models
from cpfnet.training.cross_validation.configurations import compare_configurations
from cpfnet.training.options import PlanOptions, TrainOptions
from tests import synthetic
from tests.training.cross_validation.test_run import kill

SETTINGS = [
    "training.samples=4",
    "training.batch=2",
    "training.accumulate=1",
    "training.learning_rate=0.01",
    "training.workers=0",
    "training.precision=fp32",
    "training.warmup=0",
    "folds.count=2",
    "network.options={widths: [4, 4, 8, 8, 8]}",
    "network.weights=none",
]
WANTED = PlanOptions(settings=SETTINGS, epochs=1, network="unet")
CPU, RESUMED = TrainOptions(device="cpu"), TrainOptions(device="cpu", resume=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.make_volumes_dataset(tmp_path_factory.mktemp("made") / "data", shape=(32, 32, 10))


@pytest.fixture(scope="module")
def made(data: Path) -> Path:
    """Killed once 2-D was done, and gone on with."""
    out = data.parent / "out"
    kill((out / "3d").is_dir, compare_configurations, data, out, WANTED, CPU)
    with pytest.raises(CpfnetError, match=r"nothing is chosen yet: configurations.yaml is missing"):
        open_models(out)
    first = (out / "2d" / "fold-0" / "weights.safetensors").stat().st_mtime_ns
    compare_configurations(data, out, PlanOptions(), RESUMED)  # as it was begun, without saying so again
    assert (out / "2d" / "fold-0" / "weights.safetensors").stat().st_mtime_ns == first
    return out


def dice(folder: Path) -> dict[str, float]:
    """Of each case, the mean over its classes."""
    found: dict[str, list[float]] = {}
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["class"].startswith("("):
                found.setdefault(row["case"], []).append(float(row["dice"]))
    return {case: mean(values) for case, values in found.items()}


@pytest.mark.slow
def test_both_are_cross_validated_on_the_same_folds_and_the_better_one_is_chosen(made: Path) -> None:
    flat, deep = (CrossValidation.load(made / mode) for mode in ("2d", "3d"))
    assert (flat.plan.spatial.mode, deep.plan.spatial.mode) == ("2d", "3d")
    assert flat.folds == deep.folds
    assert flat.plan.network == deep.plan.network
    found = Configurations.load(made)
    cases = {name: dice(made / name) for name in ("2d", "3d", "both")}
    assert found.choice.dice == pytest.approx({name: mean(values.values()) for name, values in cases.items()})
    first, second = found.choice.advantages
    better = "3d" if mean(cases["3d"].values()) > mean(cases["2d"].values()) else "2d"
    assert (first.of, first.over, second.of, second.over) == ("3d", "2d", "both", better)
    assert first.dice == pytest.approx(mean(cases["3d"][case] - cases["2d"][case] for case in cases["2d"]))
    assert second.dice == pytest.approx(mean(cases["both"][case] - cases[better][case] for case in cases["2d"]))
    assert first.patients == second.patients == 4
    assert second.low is not None
    assert found.choice.chosen == ("both" if second.low > 0 else better)


@pytest.mark.slow
def test_the_folder_stands_for_it_wherever_a_model_is_asked_for(
    data: Path, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = Path(shutil.copytree(made, tmp_path / "out"))
    image = data / "images" / "case_00.nii.gz"
    assert names_a_model(out)
    for chosen in ("2d", "3d", "both"):
        found = Configurations.load(out)
        found.choice = found.choice.model_copy(update={"chosen": chosen})
        found.save()
        folders = [out / "2d", out / "3d"] if chosen == "both" else [out / chosen]
        with caplog.at_level(logging.INFO):
            models = open_models(out)
        assert f"stands for {' and '.join(folder.name for folder in folders)} in it" in caplog.text
        assert [m.digest for m in models] == [m.digest for folder in folders for m in open_models(folder)]
        options = cpfnet.PredictorOptions(device="cpu")
        if chosen == "both":
            with pytest.raises(CpfnetError, match="stands for two cross-validations"):
                cpfnet.pack(out, tmp_path / "both.zip")
        else:
            assert folder_to_share(out) == folders[0]
        mask = cpfnet.predict(out, image, options)
        assert (mask.array == cpfnet.predict(folders, image, options).array).all()
    scores = cpfnet.evaluate(data, Configurations.load(out), cpfnet.PredictorOptions(device="cpu"))
    assert {row["case"]: row["dice"] for row in scores.rows if row["class"] == "(mean)"} == pytest.approx(
        dice(out / "both")
    )
    assert any("by those models alone that were not trained on it" in warning for warning in scores.warnings)

    shutil.rmtree(out / "3d" / "fold-0")
    shutil.copytree(out / "3d" / "fold-1", out / "3d" / "fold-0")
    with pytest.raises(CpfnetError, match="another Model than the one"):
        open_models(out)
    shutil.rmtree(out / "3d")
    shutil.copytree(out / "2d", out / "3d")
    with pytest.raises(CpfnetError, match="holds other Models than those"):
        open_models(out)


@pytest.mark.slow
def test_folders_are_not_mixed_up(data: Path, made: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        compare_configurations(data, made, WANTED, CPU)
    for place in (made / "2d", data):
        with pytest.raises(OutputError, match="exists already") as refused:
            compare_configurations(data, place, WANTED, RESUMED)
        assert "choose another folder" in str(refused.value.fix)
    before = {path: path.read_bytes() for path in made.rglob("*.yaml")}
    with pytest.raises(TrainingError, match=r"training.batch: 2 then, 1 now"):
        compare_configurations(data, made, PlanOptions(settings=["training.batch=1"]), RESUMED)
    assert {path: path.read_bytes() for path in made.rglob("*.yaml")} == before
    with pytest.raises(TrainingError, match="holds no folds") as refused_all:
        cpfnet.train(data, made, fold="all")
    assert "2d" in str(refused_all.value.fix)


def test_images_and_one_mode_alone_are_refused_before_anything_is_written(
    data: Path, images: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(PlanError, match="images are always learned in 2-D"):
        compare_configurations(images.root, out, PlanOptions(), CPU)
    with pytest.raises(PlanError, match="no ImageNet weights in 3-D"):
        compare_configurations(data, out, PlanOptions(weights="imagenet"), CPU)
    with pytest.raises(TrainingError, match=r"the plan for 2d is to be one for 2\.5d"):
        compare_configurations(data, out, PlanOptions(settings=["spatial.mode=2.5d", "spatial.neighbours=1"]), CPU)
    assert not out.exists()
    assert not is_configurations(out)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "one Model is trained"),
        (["--folds", "all", "--plan", "plan.yaml"], "each configuration has its own"),
        (["--folds", "all", "--init", "model"], "cannot both start from its weights"),
        (["--folds", "all", "--fold", "all"], "follows the folds of one configuration"),
    ],
)
def test_the_command_line_refuses_what_does_not_go_together(options: list[str], said: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "data", "-o", str(tmp_path), "--configurations", "all", *options])
    assert said in str(result.exception)

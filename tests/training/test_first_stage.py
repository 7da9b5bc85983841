"""Two stages: the second learns from masks of cases unknown to the first, and holds that one whole."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import cpfnet
from cpfnet import formats
from cpfnet.data.case import Dataset
from cpfnet.data.splits import split
from cpfnet.errors import CpfnetError, TrainingError
from cpfnet.inference.cross_validation import CrossValidation, FittedOnFolds
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model
from cpfnet.network import zoo
from cpfnet.planning import Plan
from cpfnet.sharing.local_folder import local_folder
from cpfnet.sharing.pack import pack
from cpfnet.training import first_stage
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.first_stage import FirstStage, open_first_stage
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from tests.training.conftest import volumes_plan

CPU = PredictorOptions(device="cpu", backend="torch", force=True)


class Echo(torch.nn.Module):
    """Finds what the first stage found: logits of the planes after the image's one channel."""

    def __init__(self, in_channels: int, classes: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.in_channels, self.classes, self.spatial_dims = in_channels, classes, spatial_dims
        self.scale = torch.nn.Parameter(torch.tensor([20.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = x[:, 1:]
        return self.scale * torch.cat([1 - planes.sum(1, keepdim=True), planes], dim=1)


@pytest.fixture(scope="module", autouse=True)
def echo() -> None:
    if "echo" not in zoo.names():
        zoo.register("echo", Echo)


COARSE = volumes_plan("3d", epochs=1, samples=4).with_settings({"spatial.spacing": [4, 2, 2], "folds.count": 2})
FINE = volumes_plan("3d", epochs=1, samples=2).with_settings(
    {"folds.count": 2, "first_stage": True, "network.name": "echo", "spatial.slices": "axial"}
)


@pytest.fixture(scope="module")
def folds(volumes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The first stage on both folds."""
    root = tmp_path_factory.mktemp("first")
    for fold in (0, 1):
        train(volumes, COARSE, root / str(fold), TrainOptions(fold=fold, device="cpu"))
    return root / "0", root / "1"


@pytest.fixture(scope="module")
def whole(
    volumes: Dataset, folds: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, dict[str, np.ndarray]]:
    """Both stages, and what was shown of each case; without the folders that the first stage was trained in."""
    root = tmp_path_factory.mktemp("whole")
    first = [shutil.copytree(folder, root / folder.name) for folder in folds]
    shown = {}

    def listening(*args: object, **keywords: object) -> dict[str, Path]:
        files = first_stage_find(*args, **keywords)
        shown.update({case: np.load(file) for case, file in files.items()})
        return files

    first_stage_find = first_stage.find
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpfnet.training.run.find", listening)
        train(volumes, FINE, root / "model", TrainOptions(fold=1, device="cpu", first_stage=tuple(first)))
    for folder in first:
        shutil.rmtree(folder)
    return Model.load(root / "model"), shown


@pytest.fixture(scope="module")
def other(volumes: Dataset, folds: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The second stage on the other fold."""
    out = tmp_path_factory.mktemp("other") / "model"
    train(volumes, FINE, out, TrainOptions(fold=0, device="cpu", first_stage=folds))
    return out


def test_each_case_is_shown_what_a_model_found_that_did_not_learn_from_it(
    volumes: Dataset, folds: tuple[Path, Path], whole: tuple[Model, dict[str, np.ndarray]]
) -> None:
    _, shown = whole
    assert shown.keys() == {case.id for case in volumes.cases}
    for fold, folder in enumerate(folds):
        predictor = Predictor([Model.load(folder)], CPU)
        learned, held_out = split(volumes, COARSE, fold)
        for case in held_out:
            codes = predictor.codes(formats.read(case.images))
            np.testing.assert_array_equal(shown[case.id], codes)
        assert not {case.id for case in held_out} & {case.id for case in learned}


def test_the_whole_holds_its_first_stage_and_predicts_alone(
    volumes: Dataset, folds: tuple[Path, Path], whole: tuple[Model, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    model, shown = whole
    first = Model.load(folds[1])  # the other one learned from the validation cases
    assert [one.digest for one in model.first_stage] == [first.digest] == list(model.fitted.first_stage)
    assert "what 1 Model of a first stage found" in model.card()
    moved = Model.load(shutil.copytree(str(model.folder), tmp_path / "moved"))
    assert moved.digest == model.digest
    again = Model.load(moved.save(tmp_path / "again"))
    assert again.digest == model.digest
    assert moved.first_stage[0].folder.is_relative_to(tmp_path / "moved")  # type: ignore[union-attr]
    alone, both = Predictor([first], CPU), Predictor([again], CPU)
    done: list[float] = []
    for case in volumes.cases:
        image = formats.read(case.images)
        found = both.predict(image, progress=done.append)
        np.testing.assert_array_equal(found.array, alone.predict(image).array)
        assert found.affine is not None
        np.testing.assert_array_equal(found.affine, image.affine)
    assert done[-1] == 1
    # On the validation cases the whole sees what it was judged by.
    for case in split(volumes, FINE, 1)[1]:
        np.testing.assert_array_equal(
            both._first_stages[again.fitted.first_stage].codes(formats.read(case.images)), shown[case.id]
        )


def test_an_ensemble_of_wholes_asks_each_first_stage(
    volumes: Dataset, folds: tuple[Path, Path], whole: tuple[Model, dict[str, np.ndarray]], other: Path
) -> None:
    models = whole[0], Model.load(other), Model.load(folds[0])
    assert len({model.fitted.first_stage for model in models}) == 3
    plain = {"temperature": 1.0, "min_component_size": (0.0,)}  # what is fitted is averaged by itself
    three = [replace(model, fitted=model.fitted.model_copy(update=plain)) for model in models]
    image = formats.read(volumes.cases[0].images)
    apart = [Predictor([one], CPU).predict(image, keep_probabilities=True).probabilities for one in three]
    together = Predictor(three, CPU).predict(image, keep_probabilities=True)
    np.testing.assert_allclose(together.probabilities, np.mean(apart, axis=0), atol=1e-5)  # type: ignore[arg-type]


def test_progress_counts_each_model_of_a_first_stage(
    volumes: Dataset, folds: tuple[Path, Path], whole: tuple[Model, dict[str, np.ndarray]]
) -> None:
    first = tuple(map(Model.load, folds))
    fitted = whole[0].fitted.model_copy(update={"first_stage": tuple(one.digest for one in first)})
    image, alone, together = formats.read(volumes.cases[0].images), list[float](), list[float]()
    Predictor(first, CPU).predict(image, progress=alone.append)
    Predictor([replace(whole[0], fitted=fitted, first_stage=first)], CPU).predict(image, progress=together.append)
    assert together[: len(alone)] == pytest.approx([2 / 3 * share for share in alone])  # two Models of three
    assert together[-1] == 1


def test_a_run_is_resumed_with_the_same_first_stage(
    volumes: Dataset, folds: tuple[Path, Path], other: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(other, tmp_path / "model"))
    longer = FINE.with_settings(["training.epochs=2"])
    with pytest.raises(TrainingError, match="its Models are not given"):
        train(volumes, longer, out, TrainOptions(fold=0, device="cpu", resume=True))
    train(volumes, longer, out, TrainOptions(fold=0, device="cpu", resume=True, first_stage=folds))
    changed = Model.load(folds[0])
    changed.state = {key: -value for key, value in changed.network().state_dict().items()}
    another = (changed.save(tmp_path / "changed"), folds[1])
    with pytest.raises(TrainingError, match=r"began with other cases \(changed"):
        train(volumes, longer, out, TrainOptions(fold=0, device="cpu", resume=True, first_stage=another))


def _opened(folders: tuple[Path, ...], plan: Plan, dataset: Dataset, fold: int = 0) -> FirstStage:
    return open_first_stage(folders, plan, *split(dataset, plan, fold))


def test_what_is_refused(
    volumes: Dataset, folds: tuple[Path, Path], whole: tuple[Model, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    assert _opened((), COARSE, volumes) == FirstStage()
    with pytest.raises(TrainingError, match=r"the plan has none\n.*first_stage=true"):
        _opened(folds, COARSE, volumes)
    with pytest.raises(TrainingError, match="its Models are not given"):
        _opened((), FINE, volumes)
    with pytest.raises(TrainingError, match=r"all Models of the first stage learned from 2 cases .*\n.*every fold"):
        _opened(folds[:1], FINE, volumes)
    with pytest.raises(TrainingError, match="each Model of the first stage learned from some case that validates"):
        _opened(folds, FINE.with_settings(["folds.seed=1"]), volumes)
    with pytest.raises(TrainingError, match="has a first stage itself"):
        _opened((*folds, Path(str(whole[0].folder))), FINE, volumes)
    relabelled = FINE.with_settings({"labels.classes": [{"name": "a", "values": [1]}, {"name": "c", "values": [2]}]})
    with pytest.raises(CpfnetError, match="different classes"):
        _opened(folds, relabelled, volumes)
    silent = Path(shutil.copytree(folds[0], tmp_path / "silent"))
    (silent / "metrics.json").unlink()
    with pytest.raises(TrainingError, match="does not say which cases it learned from"):
        _opened((silent, folds[1]), FINE, volumes)


def test_a_cross_validation_stands_for_its_folds(volumes: Dataset, folds: tuple[Path, Path], tmp_path: Path) -> None:
    copies = [shutil.copytree(folder, tmp_path / f"fold-{folder.name}") for folder in folds]
    models = [Model.load(folder) for folder in copies]
    CrossValidation(tmp_path, models[0].plan, FittedOnFolds.of(models), models).save()
    opened, apart = _opened((tmp_path,), FINE, volumes), _opened(folds, FINE, volumes)
    assert [model.weights_hash for model in opened.kept] == [model.weights_hash for model in apart.kept]
    asked = {case: [model.weights_hash for model in models] for case, models in opened.of_case.items()}
    assert asked == {case: [model.weights_hash for model in models] for case, models in apart.of_case.items()}


def test_cases_that_only_the_first_stage_learned_from_are_told(
    volumes: Dataset, whole: tuple[Model, dict[str, np.ndarray]]
) -> None:
    model = replace(whole[0], metrics={})
    learned = model.first_stage[0].metrics["cases"]["train"]
    warnings = cpfnet.evaluate(volumes.root, model, CPU).warnings
    count, total = len(learned), len(volumes.cases)
    assert f"{count} of {total} cases carry the names of cases that the model was trained on" in " ".join(warnings)


def test_cases_that_may_be_here_under_other_names_are_told(
    volumes: Dataset, folds: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renamed = Path(shutil.copytree(folds[0], tmp_path / "renamed"))
    metrics = json.loads((renamed / "metrics.json").read_text())
    metrics["cases"]["train"].append("somebody")
    (renamed / "metrics.json").write_text(json.dumps(metrics))
    with caplog.at_level(logging.WARNING):
        _opened((renamed, folds[1]), FINE, volumes)
    assert "learned from 1 case (somebody) that this run has not" in caplog.text


class TestFolder:
    """A whole is its first stage, too."""

    @pytest.fixture
    def copied(self, whole: tuple[Model, dict[str, np.ndarray]], tmp_path: Path) -> Path:
        return Path(shutil.copytree(str(whole[0].folder), tmp_path / "copied"))

    def test_missing(self, copied: Path) -> None:
        shutil.rmtree(copied / "first_stage")
        with pytest.raises(CpfnetError, match="no such folder"):
            Model.load(copied)

    def test_another(self, copied: Path, folds: tuple[Path, Path]) -> None:
        (place,) = (copied / "first_stage").iterdir()
        shutil.rmtree(place)
        shutil.copytree(folds[0], place)
        with pytest.raises(CpfnetError, match="is another Model than"):
            Model.load(copied)

    def test_itself(self, copied: Path) -> None:
        (place,) = (copied / "first_stage").iterdir()
        shutil.rmtree(place)
        place.symlink_to(copied)
        with pytest.raises(CpfnetError, match="a first stage cannot have one itself"):
            Model.load(copied)

    def test_none_named(self, copied: Path) -> None:
        text = (copied / "fitted.yaml").read_text()
        (copied / "fitted.yaml").write_text(text[: text.index("first_stage:")])
        with pytest.raises(CpfnetError, match="the plan has a first stage, and none is named"):
            Model.load(copied)

    def test_packed(self, copied: Path, volumes: Dataset) -> None:
        archive = pack(copied, copied.with_name("packed.zip"))
        assert not any(case.id.encode() in archive.read_bytes() for case in volumes.cases)
        packed = Model.load(local_folder(archive))
        assert packed.digest == Model.load(copied).digest
        image = formats.read(volumes.cases[0].images)
        found = Predictor([packed], CPU).predict(image).array
        np.testing.assert_array_equal(found, Predictor([Model.load(copied)], CPU).predict(image).array)

    def test_export(self, copied: Path) -> None:
        from cpfnet import api

        for kind in ("bundle", "openvino-int8"):
            data = copied if kind == "openvino-int8" else None
            with pytest.raises(CpfnetError, match=f"export to {kind} knows one network alone"):
                api.export(copied, kind, data=data)  # type: ignore[arg-type]


def test_the_cache_goes_with_its_masks(whole: tuple[Model, dict[str, np.ndarray]]) -> None:
    assert not RunFolder(Path(str(whole[0].folder))).cache.exists()

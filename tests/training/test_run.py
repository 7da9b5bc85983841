"""From a dataset to a Model: the whole way, and every way in which it may end early."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cpfnet
from cpfnet import formats
from cpfnet.data.case import Dataset
from cpfnet.data.dataset import load
from cpfnet.errors import CpfnetError, DatasetError, NetworkError, OutputError, PlanError, TrainingError, WeightsError
from cpfnet.model import Model
from cpfnet.network import zoo
from cpfnet.planning import Plan
from cpfnet.preprocessing.intensity import levels
from cpfnet.training import checkpoint
from cpfnet.training.checkpoint import RunFolder
from cpfnet.training.loop import Run
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from tests import synthetic
from tests.training.conftest import full_disk, images_plan, volumes_plan


def weights(out: Path) -> bytes:
    return (out / "weights.safetensors").read_bytes()


def test_images_end_in_a_model(images: Dataset, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = images_plan(epochs=6, samples=10, batch=2, accumulate=1, ema=0.8, workers=2)
    model = train(images, plan, out, TrainOptions(device="cpu"))
    assert model.fitted.cases == 4
    assert model.fitted.validation_dice > 0.7
    low, high = model.fitted.channels[0].low, model.fitted.channels[0].high
    assert 0 < low < high < 255
    pictures = [formats.read(case.images).array for case in images.cases if case.id in model.metrics["cases"]["train"]]
    for k, channel in enumerate(model.fitted.channels):
        found = np.array([levels(picture[k], plan.channels[k].intensity) for picture in pictures])
        np.testing.assert_array_equal(channel.levels, np.stack([found.min(axis=0), found.max(axis=0)], axis=-1))
    loaded = Model.load(out)
    assert loaded.fitted == model.fitted
    assert loaded.plan == plan
    with torch.inference_mode():
        assert loaded.network()(torch.zeros(1, 3, 50, 40)).shape == (1, 2, 50, 40)
    metrics = json.loads((out / "metrics.json").read_text())
    history, told = metrics["history"], metrics["calibration"]
    assert set(metrics["fitting"]) == {"temperature", "threshold", "min_component_size", "quality"}
    (fitted,) = (line for line in caplog.messages if line.startswith("Fitted"))
    assert fitted.startswith(f"Fitted temperature {model.fitted.temperature:g}; threshold 0.5; ")
    assert fitted.endswith("quality not known (why: report.html)")  # of two cases
    assert (told["cases"], told["temperature"]) == (2, model.fitted.temperature)
    if model.fitted.temperature != 1:  # kept only where it helps on cases left out
        assert told["after"]["blob"]["brier"] < told["before"]["blob"]["brier"] * 1.05
    assert model.fitted.threshold == (0.5,)  # two cases choose none
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in history] == [5, 10, 15, 20, 25, 30]
    assert max(row["dice"] for row in history) == model.fitted.validation_dice
    with (out / "logs" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["dice blob"]) for r in rows] == [row["dice blob"] for row in history]
    assert all(row["seconds"] > 0 for row in history)
    assert list((out / "logs" / "tensorboard").glob("events.*"))
    assert not (out / ".work" / "cache").exists()
    assert sum("images/s" in line for line in caplog.messages) == 6
    assert caplog.messages[-1] == f"Done: the best Model, of epoch {model.fitted.epochs}, is in {out}"


@pytest.mark.parametrize("mode", ["2d", "2.5d", "3d"])
def test_volumes_end_in_a_model(volumes: Dataset, out: Path, mode: str) -> None:
    model = train(volumes, volumes_plan(mode, epochs=1, samples=3), out, TrainOptions(device="cpu"))
    assert model.fitted.spacing_low == model.fitted.spacing_high == (2.0, 1.0, 1.0)
    scores, ids = model.metrics["validation"], model.metrics["cases"]
    assert set(scores["cases"]) == set(ids["validation"])
    assert {*ids["train"], *ids["validation"]} == {c.id for c in volumes.cases}
    assert set(scores["classes"]) == {"a", "b"}


class _Supervised(nn.Module):
    """Logits at three sizes in training, one tensor otherwise."""

    def __init__(self, in_channels: int, classes: int, *, spatial_dims: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.heads = nn.ModuleList(nn.Conv2d(8, classes, 1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        features = self.body(x)
        if not self.training:
            return self.heads[0](features)
        return [head(nn.functional.max_pool2d(features, 2**k)) for k, head in enumerate(self.heads)]


def test_a_network_with_deep_supervision(images: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.NETWORKS, "_registered", dict(zoo.NETWORKS.registered()))
    zoo.register("supervised", _Supervised)
    plan = images_plan().with_settings(["network.name=supervised", "network.options={}", "training.precision=bf16"])
    train(images, plan, out, TrainOptions(device="cpu"))
    with torch.inference_mode():
        assert Model.load(out).network()(torch.zeros(1, 3, 40, 50)).shape == (1, 2, 40, 50)


def test_what_dice_is_pooled_over_is_said_where_memory_lacks(
    images: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training and len(x) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return self.head(x)

    monkeypatch.setattr(zoo.NETWORKS, "_registered", dict(zoo.NETWORKS.registered()))
    zoo.register("large", lambda in_channels, classes, *, spatial_dims: Large())
    pooled = {"name": "dice+ce", "options": {"pooled": True}}
    plan = images_plan(epochs=1, samples=4, batch=4, accumulate=1, loss=pooled)
    train(images, plan.with_settings(["network.name=large"]), out, TrainOptions(device="cpu", progress=False))
    found = [record.getMessage() for record in caplog.records if "is out of memory with 4" in record.getMessage()]
    assert len(found) == 1
    assert found[0].endswith("(CUDA out of memory); Dice is pooled over these")


@pytest.mark.parametrize("mode", ["2d", "3d"])
def test_a_part_of_the_validation_cases_after_epochs_and_whole_ones_at_the_end(
    volumes: Dataset, tmp_path: Path, mode: str
) -> None:
    """All pieces of all cases keep the same best Model; few of them leave the final scores those of whole cases."""

    def trained(name: str, validation: dict[str, int] | None) -> Model:
        plan = volumes_plan(mode, epochs=3, validation=validation)
        return train(volumes, plan, tmp_path / name, TrainOptions(device="cpu"))

    full, same = trained("full", None), trained("same", {"cases": 99, "pieces": 10_000})
    assert same.fitted.epochs == full.fitted.epochs
    assert (tmp_path / "same" / "weights.safetensors").read_bytes() == full.weights.read_bytes()
    for case, dices in full.metrics["validation"]["cases"].items():
        assert same.metrics["validation"]["cases"][case] == pytest.approx(dices)
    few = trained("few", {"cases": 1, "pieces": 2, "whole": 1})
    held_out = few.metrics["cases"]["validation"]
    assert held_out == full.metrics["cases"]["validation"]
    assert len(few.metrics["validation"]["cases"]) == 1 < len(held_out)
    assert few.fitted.validation_dice == few.metrics["validation"]["dice"]
    assert few.fitted.validation_dice not in [row["dice"] for row in few.metrics["history"]]


def test_a_resumed_run_with_another_tile_is_validated_on_the_same_pixels(volumes: Dataset, tmp_path: Path) -> None:
    plan = volumes_plan("3d", epochs=1, validation={"cases": 2, "pieces": 1})
    train(volumes, plan, tmp_path / "out", TrainOptions(device="cpu"))
    before = checkpoint.load(RunFolder(tmp_path / "out").checkpoint)["pieces"]
    more = plan.with_settings(["inference.tile=[48, 48, 48]", "training.epochs=2"])
    train(volumes, more, tmp_path / "out", TrainOptions(device="cpu", resume=True))
    assert checkpoint.load(RunFolder(tmp_path / "out").checkpoint)["pieces"] == before
    assert len(before) == 2


def test_a_model_whose_run_has_not_ended_claims_no_scores_of_pieces(
    volumes: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "finish", lambda run, *args, **more: Model.load(run.folder.out))
    plan = volumes_plan("2d", epochs=1, validation={"cases": 1, "pieces": 2})
    model = train(volumes, plan, out, TrainOptions(device="cpu"))
    assert model.fitted.validation_dice is None
    assert "validation" not in model.metrics
    assert "not measured" in (out / "card.md").read_text()


def test_overlapping_regions(volumes: Dataset, out: Path) -> None:
    content = volumes_plan("2d", epochs=1, samples=3).model_dump(mode="json")
    content["labels"] = {
        "exclusive": False,
        "classes": [{"name": "whole", "values": [1, 2]}, {"name": "core", "values": [2]}],
    }
    model = train(volumes, Plan.model_validate(content), out, TrainOptions(device="cpu"))
    assert set(model.metrics["validation"]["classes"]) == {"whole", "core"}


def test_a_single_case_trains_and_says_what_that_means(
    images: Dataset, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = replace(images, cases=images.cases[:1])
    model = train(one, images_plan(epochs=1, samples=2), out, TrainOptions(device="cpu"))
    assert model.fitted.cases == 1
    assert any("validation is on the training data" in line for line in caplog.messages)
    assert "Fitted nothing: the validation cases are the training cases" in caplog.messages
    assert (model.fitted.temperature, model.metrics["calibration"]) == (1, {})


def test_runs_repeat_exactly(images: Dataset, tmp_path: Path) -> None:
    plan = images_plan(ema=0.9, precision="bf16")
    for name, workers in (("a", 0), ("b", 1)):
        plan = plan.with_settings([f"training.workers={workers}"])
        train(images, plan, tmp_path / name, TrainOptions(device="cpu"))
    one, other = (Model.load(tmp_path / name).network().state_dict() for name in ("a", "b"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("every", "written"), [(300.0, 1), (0.0, 6 + 3)])  # 2 steps an epoch
def test_brief_epochs_share_a_checkpoint(
    images: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch, every: float, written: int
) -> None:
    numbers: list[int] = []
    save = checkpoint.save

    def noting(state: dict[str, object], path: Path) -> None:
        numbers.append(state["number"])
        save(state, path)

    monkeypatch.setattr(checkpoint, "save", noting)
    plan = images_plan(epochs=3, samples=4, batch=2, accumulate=1)
    train(images, plan, out, TrainOptions(device="cpu", checkpoint_every=every))
    assert (len(numbers), numbers[-1]) == (written, 12)


def test_nothing_is_overwritten(images: Dataset, out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        cpfnet.train(images.root, out, plan=images_plan(), device="cpu")
    assert [p.name for p in out.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ("training.loss.name=dise", PlanError, "unknown loss 'dise'"),
        ("network.name=unett", NetworkError, "unet"),
        ("network.options.depth=3", NetworkError, "depth"),
        ("training.precision=fp16", PlanError, "fp16"),
    ],
)
def test_plans_that_cannot_be(images: Dataset, out: Path, setting: str, error: type[CpfnetError], words: str) -> None:
    with pytest.raises(error, match=words):
        cpfnet.train(images.root, out, plan=images_plan().with_settings([setting]), device="cpu")
    assert not out.exists()


def test_devices_and_folds_that_are_not_there(images: Dataset, out: Path) -> None:
    with pytest.raises(CpfnetError, match="cuda:99"):
        train(images, images_plan(), out, TrainOptions(device="cuda:99"))
    with pytest.raises(DatasetError, match="no fold 7"):
        train(images, images_plan(), out, TrainOptions(device="cpu", fold=7))


def test_a_plan_for_other_weights_is_said(images: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = images_plan().with_settings(["network.weights=imagenet"])
    out = tmp_path / "model"
    with pytest.raises(CpfnetError, match="share it evenly"):  # what cannot be is found before anything is trained
        cpfnet.train(images.root, out, plan=plan, weights="none", device="cpu", devices=3)
    assert any("planned for 'imagenet': cpfnet plan --weights none" in message for message in caplog.messages)


def test_a_plan_for_other_data_is_said(images: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = images_plan().model_copy(update={"modality": "dermoscopy"})
    declared = tmp_path / "dataset.yaml"
    declared.write_text(
        f"root: {images.root}\nimage: images/{{case}}.png\nlabel: masks/{{case}}.png\nmodality: fundus\n"
        "labels: {background: [0], classes: [{name: vessel, values: [255]}]}\n"
    )
    with pytest.raises(CpfnetError, match="share it evenly"):
        cpfnet.train(declared, tmp_path / "model", plan=other, device="cpu", devices=3)
    assert caplog.messages == [
        "classes are vessel here, and blob in the plan; images are fundus here, and dermoscopy in the plan: "
        "what is learned are the plan's, by their label values"
    ]


def test_networks_without_imagenet_weights_start_from_scratch_and_say_so(
    images: Dataset, out: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = images_plan(epochs=1, samples=2).with_settings(["network.weights=imagenet"])
    train(images, plan, out, TrainOptions(device="cpu"))
    said = "unet, 2-D, widths [4, 4, 8, 8, 8] has no ImageNet weights: starting from scratch."
    assert said in caplog.messages


def test_fine_tuning_takes_what_fits(volumes: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plan = volumes_plan("2d", epochs=1, samples=2, learning_rate=1e-9, weight_decay=0.0)
    first = train(volumes, plan, tmp_path / "first", TrainOptions(device="cpu"))
    content = plan.model_dump(mode="json")
    content["labels"]["classes"] = [{"name": "both", "values": [1, 2]}]
    second = train(
        volumes, Plan.model_validate(content), tmp_path / "second", TrainOptions(device="cpu", init=tmp_path / "first")
    )
    old, new = first.network().state_dict(), second.network().state_dict()
    other = {key for key in old if old[key].shape != new[key].shape}
    assert other
    for key in old.keys() - other:
        torch.testing.assert_close(old[key], new[key], atol=1e-6, rtol=0)
    (line,) = [line for line in caplog.messages if line.startswith("Weights from")]
    assert all(key in line for key in other)
    bigger = plan.with_settings(["network.options.widths=[16, 16, 32, 32, 32]"])
    with pytest.raises(
        TrainingError,
        match=r"of its weights \(unet, 2-D, widths \[4, .*fit this network \(unet, 2-D, widths \[16, "
        r"(.|\n)*--network unet --set",
    ):
        train(volumes, bigger, tmp_path / "third", TrainOptions(device="cpu", init=tmp_path / "first"))


def test_a_run_stopped_before_its_first_checkpoint_goes_on_from_the_same_weights(
    images: Dataset, tmp_path: Path
) -> None:
    plan, fresh = images_plan(epochs=1, samples=2), TrainOptions(device="cpu")
    train(images, plan, tmp_path / "first", fresh)
    out, fine = tmp_path / "second", replace(fresh, init=tmp_path / "first")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:  # as a kill while its cases are prepared
        patched.setattr("cpfnet.training.run._cached", stop)
        with pytest.raises(KeyboardInterrupt):
            train(images, plan, out, fine)
    with pytest.raises(TrainingError, match="was begun from a Model"):
        train(images, plan, out, replace(fresh, resume=True))
    train(images, plan, out, replace(fine, resume=True))


def test_fine_tuning_without_a_plan_takes_the_models_network(
    images: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny = [
        "training.samples=2",
        "training.batch=2",
        "training.workers=0",
        "spatial.patch=[32, 32]",
        "training.warmup=0",
    ]
    narrow = ["network.name=cpfnet", "network.options={width: 4, gpg: false}", "network.weights=none"]
    first, second = tmp_path / "first", tmp_path / "second"
    arguments = {"epochs": 1, "device": "cpu"}
    cpfnet.train(images.root, first, settings=[*tiny, *narrow], **arguments)
    tuned = cpfnet.train(images.root, second, settings=tiny, init=first, **arguments)
    assert tuned.plan.network.name == "cpfnet"
    assert tuned.plan.network.options == {"width": 4, "gpg": False}
    assert f"Weights from {first}" in caplog.messages


def test_a_network_that_imagenet_weights_do_not_fit_is_refused_before_they_are_sought(
    images: Dataset, out: Path
) -> None:
    narrow = ["network.name=cpfnet", "network.options={width: 4}", "network.weights=nowhere.pth"]
    with pytest.raises(WeightsError, match="64 channels at the first level, and this CPFNet 4"):
        train(images, images_plan().with_settings(narrow), out, TrainOptions(device="cpu"))


def test_divergence_stops_with_step_cases_and_advice(images: Dataset, out: Path) -> None:
    plan = images_plan(learning_rate=1e30, optimiser="sgd", clip=None, epochs=5)
    with pytest.raises(TrainingError, match=r"(the loss|the gradient's norm) is (nan|inf) at step \d+ of 10") as caught:
        train(images, plan, out, TrainOptions(device="cpu"))
    assert "case_0" in caught.value.what
    assert "training.learning_rate (now 1e+30)" in caught.value.fix


def test_a_full_disk_ends_in_a_message(images: Dataset, out: Path) -> None:
    with full_disk(100_000), pytest.raises(OutputError, match="cannot be written"):
        train(images, images_plan(), out, TrainOptions(device="cpu"))
    train(images, images_plan(), out, TrainOptions(device="cpu", resume=True))


class TestResume:
    def test_more_epochs_stretch_the_schedule_aloud(
        self, images: Dataset, out: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        train(images, images_plan(epochs=1), out, TrainOptions(device="cpu"))
        assert RunFolder(out).first_plan() == images_plan(epochs=1)
        model = train(images, images_plan(epochs=3), out, TrainOptions(device="cpu", resume=True))
        assert any("3 epochs instead of 1" in line and "stretched" in line for line in caplog.messages)
        history = model.metrics["history"]
        assert [row["epoch"] for row in history] == [1, 2, 3]
        plan = images_plan(epochs=3)
        assert history[1]["learning_rate"] == pytest.approx(0.01 * (1 - 3 / 6) ** 0.9)
        assert Model.load(out).plan == plan
        with pytest.raises(TrainingError, match=r"2 epochs are asked for, and 3\.0 are done"):
            train(images, images_plan(epochs=2), out, TrainOptions(device="cpu", resume=True))

    def test_a_finished_run_stays_as_it_is(self, images: Dataset, out: Path) -> None:
        train(images, images_plan(), out, TrainOptions(device="cpu"))
        before = weights(out)
        train(images, images_plan(), out, TrainOptions(device="cpu", resume=True))
        assert weights(out) == before

    def test_other_plans_folds_and_data_are_refused(self, images: Dataset, out: Path, tmp_path: Path) -> None:
        train(images, images_plan(epochs=1), out, TrainOptions(device="cpu", fold=0))
        with pytest.raises(TrainingError, match=r"training\.batch: 2 then, 3 now"):
            train(images, images_plan(epochs=1, batch=3), out, TrainOptions(device="cpu", resume=True))
        with pytest.raises(TrainingError, match="other cases"):
            train(images, images_plan(epochs=2), out, TrainOptions(device="cpu", resume=True, fold=1))
        assert RunFolder(out).first_plan() == images_plan(epochs=1)
        moved = load(synthetic.make_images_dataset(tmp_path / "moved", roi=True))
        train(moved, images_plan(epochs=2), out, TrainOptions(device="cpu", resume=True))
        changed = load(synthetic.make_images_dataset(tmp_path / "changed", roi=True, seed=1))
        with pytest.raises(TrainingError, match=r"changed: train/case_"):
            train(changed, images_plan(epochs=2), out, TrainOptions(device="cpu", resume=True))

    def test_without_a_run_it_begins_one(self, images: Dataset, out: Path, caplog: pytest.LogCaptureFixture) -> None:
        train(images, images_plan(epochs=1), out, TrainOptions(device="cpu", resume=True))
        assert any("starting from the beginning" in line for line in caplog.messages)
        with pytest.raises(TrainingError, match="no training run began here"):
            RunFolder(out / "elsewhere").first_plan()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_cleanly_and_the_run_goes_on_to_the_same_result(
        self, images: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture, number: signal.Signals
    ) -> None:
        plan = images_plan(epochs=3, samples=12, workers=1)
        train(images, plan, tmp_path / "whole", TrainOptions(device="cpu"))

        class Interrupt(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.getMessage().startswith("epoch 1/3"):  # from another thread, while the next step is under way
                    threading.Timer(0.02, os.kill, (os.getpid(), number)).start()

        before = signal.getsignal(number)
        interrupt, logger = Interrupt(), logging.getLogger("cpfnet.training")
        logger.addHandler(interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(images, plan, tmp_path / "cut", TrainOptions(device="cpu"))
        logger.removeHandler(interrupt)
        assert signal.getsignal(number) is before
        assert any("--resume" in line for line in caplog.messages[-1:])
        assert checkpoint.load(tmp_path / "cut" / ".work" / "last.ckpt")["number"] >= 12
        train(images, plan, tmp_path / "cut", TrainOptions(device="cpu", resume=True))
        assert weights(tmp_path / "cut") == weights(tmp_path / "whole")

"""A Model as a MONAI bundle, judged by MONAI's own tools: verified, run, and its network taken."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import cpfnet
from cpfnet.errors import OutputError, WeightsError
from cpfnet.model import Model
from cpfnet.monai_bundle.write import write_bundle
from cpfnet.network import zoo
from cpfnet.planning import Labels, NetworkPlan, Scale, Window, ZScore
from tests import synthetic
from tests.inference.oracle import bright, make_model
from tests.predicting import predict_files

REGIONS = Labels(
    classes=[
        {"name": "whole", "values": [1, 2, 3]},
        {"name": "core", "values": [2, 3]},
        {"name": "active", "values": [3]},
    ],
    exclusive=False,
)


def random_unet(**options) -> Model:
    """A Model that another process can build, too: a tiny U-Net with random weights, and nothing fitted neutral."""
    unet = NetworkPlan(name="unet", options={"widths": [8, 8, 8, 8, 8]}, weights="none")
    model = make_model(
        change=lambda plan: plan.model_copy(update={"network": unet}),
        fitted={"temperature": 1.7, "threshold": 0.52, "min_component_size": 30},
        **options,
    )
    torch.manual_seed(0)
    plan = model.plan
    network = zoo.build("unet", plan.in_channels, plan.labels.outputs, spatial_dims=plan.spatial.dims, **unet.options)
    model.state = network.state_dict()
    return model


def files(folder: Path) -> list[str]:
    own = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in own if path.parts[0] != ".cpfnet")


def command(*words: object, where: Path) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "monai.bundle", *map(str, words)]
    return subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=120, check=False)


def run(bundle: Path, images: Path, out: Path, **more) -> None:
    """As the command, in this process."""
    monai.bundle.run(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(out),
        device="cpu",
        **more,
    )


def metadata(bundle: Path) -> dict:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def verify(file: Path, bundle: Path) -> None:
    monai.bundle.verify_metadata(meta_file=str(file), filepath=str(bundle / "configs" / "metadata.schema.json"))


def pixels(file: Path) -> np.ndarray:
    return np.asarray(Pillow.open(file)) if file.suffix == ".png" else np.asarray(nibabel.load(file).dataobj)


def predicted(model: Model, images: Path, out: Path) -> list[Path]:
    outcomes = predict_files([model], [images], out, backend="torch", device="cpu", listen=pytest.fail)
    assert [one.status for one in outcomes] == ["done"] * len(outcomes)
    return [one.output for one in outcomes]


def assert_same(masks: list[Path], out: Path) -> None:
    assert masks
    for file in masks:
        expected, found = pixels(file), pixels(out / file.name)
        assert len(np.unique(expected)) > 1  # else there is nothing to compare
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def vessels(tmp_path_factory) -> tuple[Path, Model]:
    """A bundle for one class in RGB images, and the Model it was made of; that Model's folder is gone."""
    folder = tmp_path_factory.mktemp("vessels")
    model = random_unet(source="images", values=(255,), channels=3)
    model.save(folder / "model")
    write_bundle(Model.load(folder / "model"), folder / "vessels")
    shutil.rmtree(folder / "model")
    return folder / "vessels", model


@pytest.fixture
def photographs(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(2):
        _, mask = synthetic.phantom((70 + number, 90))
        image = np.clip(bright(mask, 3)[..., None] + rng.integers(0, 30, (*mask.shape, 3)), 0, 200)
        synthetic.write_raster(tmp_path / "photographs" / f"{number}.png", np.uint8(image))
    return tmp_path / "photographs"


class TestCommands:
    @pytest.mark.slow
    def test_verify_metadata(self, vessels):
        bundle, _ = vessels
        schema = "configs/metadata.schema.json"
        done = command("verify_metadata", "--meta_file", "configs/metadata.json", "--filepath", schema, where=bundle)
        assert done.returncode == 0, done.stderr
        assert "metadata is verified with no error" in done.stdout + done.stderr

    @pytest.mark.slow
    def test_run_writes_the_masks_of_predict(self, vessels, photographs, tmp_path):
        bundle, model = vessels
        moved = shutil.copytree(bundle, tmp_path / "elsewhere")
        configs = ("--config_file", moved / "configs/inference.json", "--meta_file", moved / "configs/metadata.json")
        places = ("--bundle_root", moved, "--dataset_dir", photographs, "--output_dir", "found", "--device", "cpu")
        done = command("run", *configs, *places, where=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "2 of 2 done, in found" in done.stdout
        assert_same(predicted(model, photographs, tmp_path / "expected"), tmp_path / "found")
        assert files(bundle) == files(moved)
        # What was fitted matters: without it the masks are others.
        plain = Model(
            model.plan, model.fitted.model_copy(update={"threshold": (0.5,), "min_component_size": (0,)}), model.state
        )
        others = predicted(plain, photographs, tmp_path / "plain")
        assert not all(np.array_equal(pixels(file), pixels(tmp_path / "found" / file.name)) for file in others)


class TestRun:
    def test_slices_with_their_neighbours(self, tmp_path):
        model = make_model(
            mode="2.5d", neighbours=1, slices="axial", values=(1, 2, 3), fitted={"min_component_size": 3}
        )
        bundle = write_bundle(model, tmp_path / "bundle")
        _, mask = synthetic.phantom((9, 34, 36))
        synthetic.write_nifti(tmp_path / "scans" / "scan.nii.gz", bright(mask, 3), spacing=(0.7, 0.8, 3.0))
        run(bundle, tmp_path / "scans", tmp_path / "found")
        masks = predicted(model, tmp_path / "scans", tmp_path / "expected")
        assert_same(masks, tmp_path / "found")
        one, other = (nibabel.load(folder / "scan.nii.gz").affine for folder in (tmp_path / "found", masks[0].parent))
        np.testing.assert_array_equal(one, other)

    def test_regions(self, tmp_path):
        model = make_model(
            source="images", labels=REGIONS, fitted={"threshold": (0.4, 0.5, 0.6), "min_component_size": (9, 4, 1)}
        )
        bundle = write_bundle(model, tmp_path / "bundle")
        synthetic.write_raster(tmp_path / "images" / "a.png", bright(synthetic.phantom((48, 40))[1], 3))
        run(bundle, tmp_path / "images", tmp_path / "found")
        assert_same(predicted(model, tmp_path / "images", tmp_path / "expected"), tmp_path / "found")

    def test_options_of_predict_are_overrides(self, vessels, photographs, tmp_path):
        bundle, _ = vessels
        run(bundle, photographs / "0.png", tmp_path / "out", **{"run#format": "nifti", "run#probabilities": True})
        assert files(tmp_path / "out") == ["0.nii.gz", "probabilities/0.nii.gz"]

    def test_a_bad_image_does_not_stop_the_others_and_is_no_success(self, vessels, photographs, tmp_path, capsys):
        bundle, _ = vessels
        (photographs / "00.png").write_text("text")
        with pytest.raises(SystemExit, match=r"00\.png"):
            run(bundle, photographs, tmp_path / "out")
        assert "2 of 3 done" in capsys.readouterr().out
        assert files(tmp_path / "out") == ["0.png", "1.png"]
        with pytest.raises(SystemExit, match="exists already"):
            run(bundle, photographs, tmp_path / "out")

    def test_in_another_folder_it_says_what_is_missing(self, vessels, tmp_path, monkeypatch):
        bundle, _ = vessels
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit, match="not where the bundle lies") as caught:
            monai.bundle.run(config_file=str(bundle / "configs" / "inference.json"))
        assert str(tmp_path / "models") in str(caught.value)
        assert "--bundle_root" in str(caught.value)


class TestNetwork:
    def test_monai_takes_it_with_its_weights(self, vessels, monkeypatch):
        bundle, model = vessels
        monkeypatch.chdir(bundle)
        parser = monai.bundle.ConfigParser()
        parser.read_config("configs/inference.json")
        network = parser.get_parsed_content("network_def")
        x = torch.randn(1, 3, 40, 48)
        torch.testing.assert_close(network(x), model.network()(x), rtol=0, atol=0)
        network(x).square().mean().backward()  # to be fine-tuned
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_weights_that_were_put_back_are_those_that_predict(self, tmp_path):
        bundle = write_bundle(make_model(source="images", values=(80, 160, 255)), tmp_path / "bundle")
        file = synthetic.write_raster(tmp_path / "images" / "a.png", bright(synthetic.phantom((48, 40))[1], 3))
        run(bundle, file, tmp_path / "before")
        assert set(np.unique(pixels(tmp_path / "before" / "a.png"))) == {0, 80, 160, 255}
        model = Model.load(bundle / "models")
        model.state = {"sharpness": torch.tensor([-1000.0])}  # what is near is far
        model.save(bundle / "models")
        run(bundle, file, tmp_path / "after")
        assert set(np.unique(pixels(tmp_path / "after" / "a.png"))) == {0, 255}

    def test_shapes_and_types_are_those_of_the_metadata(self, vessels, tmp_path):
        for bundle in (vessels[0], write_bundle(random_unet(mode="2.5d", neighbours=1), tmp_path / "bundle")):
            configs = bundle / "configs"
            monai.bundle.verify_net_in_out(
                "network_def",
                meta_file=str(configs / "metadata.json"),
                config_file=str(configs / "inference.json"),
                device="cpu",
                n=9,
                bundle_root=str(bundle),
            )


class TestMetadata:
    def test_each_demand_of_monai_is_checked(self, vessels, tmp_path):
        bundle, _ = vessels
        whole, file = metadata(bundle), tmp_path / "metadata.json"
        versions = ["monai_version", "pytorch_version", "numpy_version", "required_packages_version"]
        words = ["task", "description", "authors", "copyright"]
        for key in ("schema", "version", *versions, *words, "network_data_format"):
            file.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
            with pytest.raises(ValueError, match="schema" if key == "schema" else "Failed validating"):
                verify(file, bundle)
        for key in ("type", "format", "num_channels", "spatial_shape", "dtype", "value_range"):
            broken = json.loads(json.dumps(whole))
            del broken["network_data_format"]["inputs"]["image"][key]
            file.write_text(json.dumps(broken))
            with pytest.raises(ValueError, match="Failed validating"):
                verify(file, bundle)
        for value in ({"inputs": {}}, {"outputs": {}}, []):
            file.write_text(json.dumps(whole | {"network_data_format": value}))
            with pytest.raises(ValueError, match="Failed validating"):
                verify(file, bundle)

    @pytest.mark.parametrize(
        ("options", "image", "pred", "mask", "value_range"),
        [
            (
                {
                    "source": "images",
                    "values": (80, 255),
                    "channels": 2,
                    "intensity": Scale(full=255, mean=0.5, std=0.25),
                },
                ["channel0", "channel1"],
                ["background", "class 80", "class 255"],
                {"0": "background", "80": "class 80", "255": "class 255"},
                [-2, 2],
            ),
            (
                {
                    "mode": "2.5d",
                    "neighbours": 1,
                    "values": (1,),
                    "modality": "ct",
                    "intensity": Window(low=-100, high=200),
                },
                ["slice -1: channel0", "slice +0: channel0", "slice +1: channel0"],
                ["background", "class 1"],
                {"0": "background", "1": "class 1"},
                [0, 1],
            ),
            (
                {"mode": "3d", "labels": REGIONS, "intensity": ZScore()},
                ["channel0"],
                ["whole", "core", "active"],
                {"0": "background", "1": "whole", "2": "core", "3": "active"},
                [],
            ),
            (
                {"source": "images", "values": ("#ff0000", "#00ff00")},
                ["channel0"],
                ["background", "class #ff0000", "class #00ff00"],
                {"0": "red", "1": "green", "2": "blue"},
                [0, 1],
            ),
        ],
        ids=["images", "2.5d", "regions-3d", "colours"],
    )
    def test_channels_are_called_as_in_the_plan(self, tmp_path, options, image, pred, mask, value_range):
        model = make_model(**options)
        bundle = write_bundle(model, tmp_path / "bundle")
        verify(bundle / "configs" / "metadata.json", bundle)
        exchange = metadata(bundle)["network_data_format"]
        given, found = exchange["inputs"]["image"], exchange["outputs"]["pred"]
        written = exchange["post_processed_outputs"]["mask"]
        assert given["channel_def"] == {str(i): name for i, name in enumerate(image)}
        assert found["channel_def"] == {str(i): name for i, name in enumerate(pred)}
        assert (given["num_channels"], found["num_channels"]) == (model.plan.in_channels, model.plan.labels.outputs)
        assert len(given["spatial_shape"]) == model.plan.spatial.dims
        assert given["value_range"] == value_range
        assert written["channel_def"] == mask

    def test_scores_come_with_how_they_were_measured(self, tmp_path):
        model = make_model(values=(1, 2), fitted={"validation_dice": 0.75})
        model.metrics = {
            "validation": {"dice": 0.75, "classes": {"class 1": 0.8, "class 2": 0.7}, "cases": {"a": {}, "b": {}}},
            "cases": {"train": ["c", "d"], "validation": ["a", "b"]},
        }
        found = metadata(write_bundle(model, tmp_path / "bundle"))
        assert found["eval_metrics"] == {"mean_dice": 0.75, "dice_per_class": [0.8, 0.7]}
        assert "2 validation cases" in found["eval_protocol"]
        assert "optimistic" in found["eval_protocol"]
        assert "trained on, too" not in found["eval_protocol"]
        assert "Not a medical device" in found["intended_use"]

    def test_nothing_measured_is_nothing_claimed(self, vessels):
        found = metadata(vessels[0])
        assert found["eval_metrics"] == {}
        assert found["eval_protocol"] == "not measured"
        assert found["required_packages_version"] == {"cpfnet": cpfnet.__version__}

    def test_names_are_never_run(self, tmp_path):
        names = ["$__import__('pathlib').Path('run').touch()", "@bundle_root", "%configs/inference.json"]
        labels = Labels(classes=[{"name": name, "values": [value]} for value, name in enumerate(names, start=1)])
        bundle = write_bundle(
            make_model(labels=labels, change=lambda plan: plan.model_copy(update={"name": names[0]})),
            tmp_path / "bundle",
        )
        parser = monai.bundle.ConfigParser()
        parser.read_config(str(bundle / "configs" / "inference.json"))
        parser.read_meta(str(bundle / "configs" / "metadata.json"))
        parsed = parser.get_parsed_content("_meta_")
        assert parsed == metadata(bundle)
        meant = parsed["network_data_format"]["outputs"]["pred"]["channel_def"].values()
        assert [name.strip() for name in meant] == ["background", *names]


class TestWriting:
    def test_what_a_bundle_holds(self, vessels):
        bundle, model = vessels
        assert files(bundle) == [
            "configs/inference.json",
            "configs/metadata.json",
            "configs/metadata.schema.json",
            "docs/README.md",
            "models/card.md",
            "models/fitted.yaml",
            "models/metrics.json",
            "models/plan.yaml",
            "models/weights.safetensors",
        ]
        kept = Model.load(bundle / "models")
        assert kept.plan == model.plan
        assert kept.fitted == model.fitted
        assert [path.name for path in bundle.parent.iterdir()] == ["vessels"]

    def test_by_the_verb_and_the_model_stays_where_it_is(self, tmp_path):
        model = make_model()
        model.save(tmp_path / "model")
        before = files(tmp_path / "model")
        assert cpfnet.export(model, "bundle", out=tmp_path / "new" / "bundle") == tmp_path / "new" / "bundle"
        assert model.folder == tmp_path / "model"
        assert files(tmp_path / "model") == before

    def test_an_existing_folder_is_refused(self, tmp_path):
        (tmp_path / "mine").mkdir()
        with pytest.raises(OutputError, match="exists already"):
            write_bundle(make_model(), tmp_path / "mine")
        with pytest.raises(OutputError, match="is no bundle of a Model"):
            write_bundle(make_model(), tmp_path / "mine", overwrite=True)
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="is no bundle of a Model"):
            write_bundle(make_model(), tmp_path / "file", overwrite=True)
        assert files(tmp_path) == ["file"]

    def test_an_earlier_bundle_is_replaced_when_asked_and_nothing_else_in_it(self, tmp_path):
        bundle = write_bundle(make_model(values=(1,)), tmp_path / "bundle")
        (bundle / "LICENSE").write_text("mine")
        synthetic.write_raster(bundle / "masks" / "a.png", np.zeros((4, 4), np.uint8))
        with pytest.raises(OutputError, match="exists already") as caught:
            write_bundle(make_model(values=(1, 2)), bundle)
        assert "--overwrite" in caught.value.fix
        assert len(Model.load(bundle / "models").plan.labels.classes) == 1
        before = files(bundle)
        write_bundle(make_model(values=(1, 2)), bundle, overwrite=True)
        assert files(bundle) == before
        assert len(Model.load(bundle / "models").plan.labels.classes) == 2
        write_bundle(Model.load(bundle / "models"), bundle, overwrite=True)  # onto itself
        assert files(bundle) == before

    def test_where_nothing_can_be_written_nothing_is_left(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="cannot be written"):
            write_bundle(make_model(), tmp_path / "file" / "bundle")
        assert files(tmp_path) == ["file"]

    def test_weights_of_another_network_are_refused_before_anything_is_written(self, tmp_path):
        model = make_model()
        model.state = {"alien": torch.zeros(1)}
        with pytest.raises(WeightsError, match="alien"):
            write_bundle(model, tmp_path / "bundle")
        assert list(tmp_path.iterdir()) == []

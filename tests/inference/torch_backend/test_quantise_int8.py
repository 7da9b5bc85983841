"""int8: calibrated on training cases, judged on validation cases, kept only where it decides as float32 does."""

from pathlib import Path

import numpy as np
import pytest
import torch

import cpfnet
from cpfnet.errors import DatasetError, NetworkError
from cpfnet.inference.backends import autotune, exported_files
from cpfnet.inference.backends.select import backend_of
from cpfnet.inference.torch_backend import quantise_int8
from cpfnet.inference.torch_backend.network import torch_backend
from cpfnet.model import Model
from cpfnet.network import zoo
from tests import synthetic
from tests.inference.torch_backend.test_onnx_graph import trained

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def bright_spots(root: Path, cases: int = 6) -> Path:
    """Blobs that are brighter than all else."""
    rng = np.random.default_rng(0)
    for number in range(cases):
        y, x = np.mgrid[:48, :56]
        mask = (y - 24) ** 2 + (x - 20 - 3 * number) ** 2 < 120
        synthetic.write_raster(
            root / f"images/{number}.png", np.uint8(np.where(mask, 170, 40) + rng.integers(0, 25, mask.shape))
        )
        synthetic.write_raster(root / f"masks/{number}.png", np.uint8(mask) * 1)
    (root / "dataset.yaml").write_text("image: images/{case}.png\nlabel: masks/{case}.png\n")
    return root / "dataset.yaml"


@pytest.fixture
def spotting(tmp_path) -> Model:
    """A Model that finds what is brighter than half, named after the cases of `bright_spots`."""
    model = trained(tmp_path / "model", scramble=False)
    network = zoo.build("tiny", 1, 2, spatial_dims=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network[0].weight[:, :, 1, 1] = 1
        network[1].weight.fill_(1)
        network[3].weight[1] = 1
        network[3].bias[:] = torch.tensor([0.0, -4.0])
    metrics = {"cases": {"train": ["0", "1", "2", "3"], "validation": ["4", "5"]}}
    Model(model.plan, model.fitted, network.eval().state_dict(), metrics).save(model.folder)
    return Model.load(model.folder)


def test_it_is_made_kept_and_predicts(spotting, tmp_path, caplog):
    caplog.set_level("INFO", "cpfnet")
    dataset = bright_spots(tmp_path / "data")
    path = cpfnet.export(spotting, "openvino-int8", data=dataset)
    assert path == spotting.folder / "exports" / "network-int8.xml"
    assert path.with_suffix(".bin").is_file()
    judged = exported_files.record(spotting).int8
    assert judged.passed
    assert judged.agreement >= autotune.AGREEMENT
    assert judged.gain == pytest.approx(0, abs=0.001)
    assert "2 validation cases" in caplog.messages[-1]
    assert "openvino-int8" in autotune.candidates(spotting)
    x = np.random.default_rng(0).random((1, 1, 64, 64)).astype(np.float32)
    exact, rough = torch_backend(spotting, "cpu")(x), backend_of(spotting, "openvino-int8")(x)
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.ptp(exact)  # not float32, and near it


def test_what_is_not_good_enough_is_refused_with_the_figures_and_not_kept(spotting, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(quantise_int8, "AGREEMENT", 1.1)
    caplog.set_level("INFO", "cpfnet")
    with pytest.raises(NetworkError, match=r"not good enough for this Model: .*110\.0% needed"):
        cpfnet.export(spotting, "openvino-int8", data=bright_spots(tmp_path / "data"))
    assert len([text for text in caplog.messages if "layers that matter most" in text]) == 2  # both ways were tried
    assert exported_files.record(spotting).int8 is None
    assert sorted(p.name for p in (spotting.folder / "exports").iterdir()) == ["network.onnx", "record.yaml"]


@pytest.mark.parametrize("suffix", [".xml", ".bin"])
def test_a_graph_that_is_not_what_was_written_is_not_run(spotting, tmp_path, suffix):
    path = cpfnet.export(spotting, "openvino-int8", data=bright_spots(tmp_path / "data"))
    damaged, whole = path.with_suffix(suffix), path.with_suffix(suffix).read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(NetworkError, match=rf"network-int8\{suffix} is not what was written") as caught:
        backend_of(spotting, "openvino-int8")
    assert "--to openvino-int8 --data" in caught.value.fix
    assert "openvino-int8" not in autotune.candidates(spotting)
    damaged.write_bytes(whole)
    assert "openvino-int8" in autotune.candidates(spotting)
    damaged.unlink()
    assert "openvino-int8" not in autotune.candidates(spotting)


def test_the_graph_of_other_weights_is_not_run(spotting, tmp_path):
    cpfnet.export(spotting, "openvino-int8", data=bright_spots(tmp_path / "data"))
    network = spotting.network()
    with torch.no_grad():
        network[3].bias.neg_()
    Model(spotting.plan, spotting.fitted, network.state_dict()).save(spotting.folder)
    again = Model.load(spotting.folder)
    assert (spotting.folder / "exports" / "network-int8.xml").is_file()  # it still lies there
    with pytest.raises(NetworkError, match="was not quantised"):
        backend_of(again, "openvino-int8")


def test_another_dataset_is_refused(spotting, tmp_path):
    root = tmp_path / "data"
    bright_spots(root)
    for file in [*root.glob("*/[0-3].png")]:
        file.unlink()
    with pytest.raises(DatasetError, match="none of the Model's 4 training cases"):
        cpfnet.export(spotting, "openvino-int8", data=root / "dataset.yaml")

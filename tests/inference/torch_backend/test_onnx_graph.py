"""Exported networks: the same logits, in any runtime, for any batch and size; and what is chosen among them."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import cpfnet
from cpfnet.errors import CpfnetError, NetworkError, OutputError
from cpfnet.files import sha256
from cpfnet.inference.backends import autotune, exported_files
from cpfnet.inference.backends import select as backends
from cpfnet.inference.backends.select import backend_of
from cpfnet.inference.torch_backend import onnx_graph
from cpfnet.inference.torch_backend.network import torch_backend
from cpfnet.model import Model, untrained
from cpfnet.network import zoo
from cpfnet.planning import NetworkPlan
from tests.inference.oracle import make_model
from tests.predicting import messages_to
from tests.synthetic import write_raster


class Tiny(torch.nn.Sequential):
    """Exported in a second."""

    def __init__(self, in_channels, classes, *, spatial_dims):
        conv, norm = (
            (torch.nn.Conv2d, torch.nn.BatchNorm2d) if spatial_dims == 2 else (torch.nn.Conv3d, torch.nn.BatchNorm3d)
        )
        super().__init__(conv(in_channels, 8, 3, padding=1), norm(8), torch.nn.ReLU(), conv(8, classes, 1))
        self.in_channels, self.classes, self.spatial_dims = in_channels, classes, spatial_dims


class Stubborn(Tiny):
    """What it does depends on what it sees, so there is no one graph of it."""

    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else super().forward(-x)


def trained(folder, name="tiny", *, values=(1,), scramble=True, **options) -> Model:
    """A Model of a real network in a folder; its weights and statistics are random, so that nothing is neutral."""
    for own in (Tiny, Stubborn):  # only now: the networks of the package have tests that take all there are
        if own.__name__.lower() not in zoo.names():
            zoo.register(own.__name__.lower(), own)
    model = make_model(
        source="images" if options.get("mode", "2d") == "2d" else "volumes",
        values=values,
        change=lambda plan: plan.model_copy(update={"network": NetworkPlan(name=name, weights="none")}),
        **options,
    )
    torch.manual_seed(0)
    plan = model.plan
    network = untrained(plan)
    for module in network.modules() if scramble else ():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    model.state = network.eval().state_dict()
    model.save(folder)
    return Model.load(folder)


@pytest.fixture(scope="module")
def vessels(tmp_path_factory) -> Model:
    """CPFNet for one class in images, exported."""
    model = trained(tmp_path_factory.mktemp("vessels") / "model", "cpfnet", channels=3)
    exported_files.prepared(model)
    return model


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Model:
    model = trained(tmp_path_factory.mktemp("tiny") / "model", channels=3)
    exported_files.prepared(model)
    return model


def image(model, *size, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size[0], model.plan.in_channels, *size[1:])).astype(np.float32)


def other_graph(graph) -> bytes:
    """The same graph with other weights, which every runtime runs."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(graph)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(-2 * value, tensor.name))
    return model.SerializeToString()


@pytest.mark.slow
class TestGraph:
    @pytest.mark.parametrize("name", ["onnx", "openvino"])
    @pytest.mark.parametrize("size", [(1, 32, 32), (1, 33, 64), (2, 71, 65), (5, 96, 40)])
    def test_any_batch_and_size_gives_torchs_logits(self, vessels, name, size):
        x = image(vessels, *size)
        expected = torch_backend(vessels, "cpu")(x)
        found = backend_of(vessels, name, device="cpu")(x)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)

    def test_plain_onnxruntime_runs_it_and_finds_labels_intensity_and_plan_inside(self, vessels):
        import onnxruntime

        session = onnxruntime.InferenceSession(exported_files.prepared(vessels), providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        (logits,) = session.get_outputs()
        assert (given.name, logits.name) == ("image", "logits")
        assert given.shape[1] == 3
        assert all(isinstance(given.shape[axis], str) for axis in (0, 2, 3))  # free
        inside = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
        plan = vessels.plan.model_dump(mode="json")
        assert inside["plan"] == plan
        assert inside["labels"] == plan["labels"]
        assert inside["intensity"] == {
            f"channel{i}": {"kind": "scale", "full": 200.0, "mean": 0.0, "std": 1.0} for i in range(3)
        }
        assert inside["fitted"]["threshold"] == [0.5]

    def test_what_it_holds_is_said_in_the_record(self, vessels):
        found = exported_files.record(vessels)
        assert found.weights == sha256(vessels.folder / "weights.safetensors")
        assert 0 < found.difference <= onnx_graph.TOLERANCE

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("cpfnet-hr", {"mode": "2.5d", "neighbours": 1}),
            ("cpfnet-guide", {"mode": "3d"}),
            ("unet", {}),
            ("dynunet", {"mode": "3d"}),
            ("dynunet-res", {"mode": "3d"}),
            ("mednext", {}),
            ("mednext", {"mode": "3d"}),
            ("tiny", {"mode": "3d"}),
        ],
        ids=["hr-2.5d", "guide-3d", "unet", "dynunet-3d", "dynunet-res-3d", "mednext", "mednext-3d", "tiny-3d"],
    )
    def test_networks_and_modes(self, tmp_path, name, options):
        model = trained(tmp_path / "model", name, values=(1, 2), **options)
        assert cpfnet.export(model, "onnx") == tmp_path / "model" / "exports" / "network.onnx"
        x = image(model, 2, *(48, 64, 40)[: model.plan.spatial.dims])
        expected = torch_backend(model, "cpu")(x)
        for runtime in ("onnx", "openvino"):
            assert np.abs(backend_of(model, runtime)(x) - expected).max() < 1e-4 * np.ptp(expected)

    def test_other_weights_make_it_anew(self, tiny, tmp_path):
        folder = shutil.copytree(tiny.folder, tmp_path / "model")
        assert exported_files.record(Model.load(folder)) is not None
        network = tiny.network()
        with torch.no_grad():
            next(network.parameters()).mul_(2)
        again = Model(tiny.plan, tiny.fitted, state=network.state_dict())
        again.save(folder)
        model = Model.load(folder)
        assert exported_files.record(model) is None
        x = image(model, 1, 64, 64)
        expected = torch_backend(model, "cpu")(x)
        assert np.abs(backend_of(model, "onnx")(x) - expected).max() < 1e-4 * np.ptp(expected)
        assert np.abs(backend_of(tiny, "onnx")(x) - expected).max() > 1e-2 * np.ptp(expected)

    def test_a_graph_that_gives_something_else_is_refused_and_not_kept(self, tiny, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx_graph, "TOLERANCE", 1e-12)
        with pytest.raises(NetworkError, match="gives something else than torch"):
            onnx_graph.write_onnx(tiny, tmp_path / "network.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_files_of_the_user_are_not_replaced(self, tiny, tmp_path):
        file = tmp_path / "network.onnx"
        file.write_text("mine")
        with pytest.raises(OutputError, match="exists already"):
            cpfnet.export(tiny, "onnx", out=file)
        assert file.read_text() == "mine"

    def test_openvinos_own_files(self, tiny, tmp_path):
        import openvino

        file = cpfnet.export(tiny, "openvino", out=tmp_path / "vessels.xml")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["vessels.bin", "vessels.xml"]
        graph = openvino.Core().read_model(file)
        assert json.loads(graph.get_rt_info(["cpfnet", "plan"]).value)["name"] == "oracle"
        x = image(tiny, 1, 64, 96)
        found = openvino.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0]
        expected = torch_backend(tiny, "cpu")(x)
        assert np.abs(found - expected).max() < 1e-4 * np.ptp(expected)

    @pytest.mark.parametrize("way", ["cut", "other weights", "renamed", "missing", "a folder"])
    @pytest.mark.parametrize("torch", [True, False], ids=["with torch", "without torch"])
    def test_a_graph_that_is_not_what_was_written_is_never_run(self, tiny, tmp_path, monkeypatch, way, torch):
        """Made again, and said so, where torch is there; refused where it is not."""
        folder = shutil.copytree(tiny.folder, tmp_path / "model")
        model, graph = Model.load(folder), folder / "exports" / "network.onnx"
        autotune.remember(
            model, exported_files.Choice(setting="another", backend="onnx", on="1 × 32×32 pixels", judged=())
        )
        if way == "cut":
            graph.write_bytes(graph.read_bytes()[:1000])
        elif way == "other weights":
            graph.write_bytes(other_graph(graph))
        else:
            graph.unlink() if way != "renamed" else graph.rename(graph.with_suffix(".bak"))
            if way == "a folder":
                graph.mkdir()
        x = image(model, 1, 64, 64)
        expected = torch_backend(model, "cpu")(x)
        find_spec = exported_files.find_spec
        if not torch:
            monkeypatch.setattr(exported_files, "find_spec", lambda name: None if name == "torch" else find_spec(name))
        for name in ("onnx", "openvino") if way == "other weights" else ("onnx",):
            said = []
            if not torch or way == "a folder":
                with pytest.raises(CpfnetError, match=r"is not the graph that was written|is a folder") as caught:
                    backend_of(model, name, device="cpu")
                assert str(graph) in str(caught.value)
                continue
            damaged = graph.read_bytes() if graph.exists() else b""
            with messages_to(said.append):
                backend = backend_of(model, name, device="cpu")
            assert np.abs(backend(x) - expected).max() < 1e-4 * np.ptp(expected)
            assert graph.read_bytes() != damaged
            assert [str(graph) in text and "made again from the weights" in text for text in said] == [True]
            with messages_to(pytest.fail):  # once
                assert backend_of(model, name, device="cpu")
            graph.write_bytes(damaged)
        if torch and way != "a folder":
            assert len(exported_files.written(model).choices) == 1  # the judgements of all machines stay

    def test_a_graph_that_no_runtime_reads_is_named(self, tmp_path):
        (tmp_path / "network.onnx").write_bytes(b"no graph")
        for runtime in (onnx_graph.onnx_backend, onnx_graph.openvino_backend):
            with pytest.raises(NetworkError, match="cannot be run") as caught:
                runtime(tmp_path / "network.onnx")
            assert str(tmp_path / "network.onnx") in str(caught.value)


def test_a_network_that_cannot_be_exported_says_so_and_leaves_nothing(tmp_path):
    model = trained(tmp_path / "model", "stubborn")
    with pytest.raises(NetworkError, match="'stubborn' cannot be written as ONNX"):
        cpfnet.export(model, "onnx")
    assert list((tmp_path / "model" / "exports").iterdir()) == []


def test_int8_needs_the_data_and_nothing_else_does(tmp_path):
    with pytest.raises(CpfnetError, match="needed to export to openvino-int8"):
        cpfnet.export(make_model(), "openvino-int8")
    with pytest.raises(CpfnetError, match="not needed to export to onnx"):
        cpfnet.export(make_model(), "onnx", data=tmp_path)


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
@pytest.mark.parametrize("name", ["vessels", "vessels.pt", "v1.2"])
def test_graphs_are_called_as_their_runtimes_ask(tmp_path, to, suffix, name):
    with pytest.raises(OutputError, match=rf"(?s)end in {suffix}.*{name}{suffix}"):
        cpfnet.export(make_model(), to, out=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_folder_must_be_saved_first():
    with pytest.raises(CpfnetError, match="lies in no folder"):
        cpfnet.export(make_model(), "onnx")


class TestNames:
    def test_an_unknown_backend_names_those_there_are(self):
        with pytest.raises(NetworkError, match="unknown backend 'tensorrt'") as caught:
            backend_of(make_model(), "tensorrt")
        assert "openvino-bf16" in caught.value.fix

    def test_int8_that_was_not_made_says_how(self, tiny):
        with pytest.raises(NetworkError, match="was not quantised") as caught:
            backend_of(tiny, "openvino-int8")
        assert "--to openvino-int8 --data" in caught.value.fix

    def test_small_networks_stay_with_torch_and_get_no_exports(self, tmp_path):
        model = make_model()
        model.save(tmp_path / "model")
        with messages_to(pytest.fail):
            backend = backend_of(Model.load(tmp_path / "model"), "auto", device="cpu")
        assert not isinstance(backend, autotune.AutoBackend)
        assert not (tmp_path / "model" / "exports").exists()


class TestChoice:
    @pytest.fixture
    def model(self, tiny, tmp_path, monkeypatch) -> Model:
        monkeypatch.setattr(backends, "SMALL", 0)  # choose, however little there is to gain
        return Model.load(shutil.copytree(tiny.folder, tmp_path / "model"))

    def test_the_fastest_of_those_that_decide_alike_is_taken_logged_and_kept(self, model, caplog):
        caplog.set_level("INFO", "cpfnet")
        backend = backend_of(model, "auto", device="cpu")
        x = image(model, 2, 128, 128)
        expected = torch_backend(model, "cpu")(x)
        assert np.count_nonzero(autotune.decided(expected, model)) > autotune.FOUND
        assert np.abs(backend(x) - expected).max() < 1e-4 * np.ptp(expected)  # the first batch is float32's
        (text,) = caplog.messages
        (kept,) = exported_files.record(model).choices
        assert kept.setting == autotune.setting()
        assert kept.backend in text
        passed = [one for one in kept.judged if one.passed]
        assert kept.backend == min(passed, key=lambda one: one.seconds).backend
        assert {one.backend for one in kept.judged} >= {"openvino", "onnx"}
        # The next run takes it at once.
        with messages_to(pytest.fail):
            assert not isinstance(backend_of(model, "auto", device="cpu"), autotune.AutoBackend)

    def test_empty_images_choose_nothing(self, model):
        model.fitted = model.fitted.model_copy(update={"threshold": (1.0,)})
        with messages_to(pytest.fail):
            backend_of(model, "auto", device="cpu")(image(model, 1, 64, 64))
        assert exported_files.record(model).choices == ()

    def test_a_choice_of_another_machine_is_not_taken_but_kept(self, model):
        elsewhere = exported_files.Choice(setting="another", backend="onnx", on="1 × 32×32 pixels", judged=())
        autotune.remember(model, elsewhere)
        assert autotune.known(model) is None
        autotune.remember(model, elsewhere.model_copy(update={"setting": autotune.setting()}))
        assert autotune.known(model) == "onnx"
        assert len(exported_files.record(model).choices) == 2

    def test_a_damaged_record_is_made_again(self, model):
        (model.folder / "exports" / "record.yaml").write_text("weights: [")
        assert exported_files.record(model) is None
        backend_of(model, "onnx", device="cpu")
        assert exported_files.record(model) is not None

    def test_a_backend_that_decides_otherwise_is_not_taken_however_fast(self, model):
        exact = backend_of(model, "openvino", device="cpu")
        x = image(model, 1, 96, 96)
        runs = {"openvino": exact, "hasty": lambda batch: -exact(batch[..., :1, :1].repeat(96, 2).repeat(96, 3))}
        good, bad = autotune.compare(runs, x, model)
        assert good.passed
        assert (good.agreement, good.dice) == (1, 1)
        assert not bad.passed

    def test_masks_are_those_of_torch(self, model, tmp_path):
        from PIL import Image as Pillow

        rng = np.random.default_rng(1)
        for number in range(3):
            Pillow.fromarray(rng.integers(0, 200, (72, 90, 3), np.uint8)).save(tmp_path / f"{number}.png")
        files = sorted(tmp_path.glob("*.png"))
        for name in ("torch", "auto"):
            done = cpfnet.predict_files(
                model, files, tmp_path / name, cpfnet.PredictorOptions(backend=name, force=True)
            )
            assert [one.status for one in done] == ["done"] * 3
        for file in files:
            one, other = (np.asarray(Pillow.open(tmp_path / name / file.name)) for name in ("torch", "auto"))
            assert np.mean(one != other) <= 1 - autotune.AGREEMENT


def test_dice_of_all_classes_counts_a_class_only_where_it_is_the_same():
    a = np.array([0, 1, 1, 2, 2, 0])
    b = np.array([0, 1, 2, 2, 2, 1])
    assert autotune.overlap(a, b) == pytest.approx(2 * 3 / (4 + 5))
    assert autotune.overlap(np.zeros(4), np.zeros(4)) == 1


def test_a_choice_holds_for_a_processor_with_its_runtimes():
    import openvino

    assert autotune.setting() == autotune.setting()
    assert autotune.setting().startswith(autotune.processor() + ", ")
    assert f"openvino {openvino.__version__.split('-')[0]}" in autotune.setting()


def test_a_picture_takes_neither_torch_nor_scipy(tiny, tmp_path):
    """They would take longer to load than all the rest."""
    write_raster(tmp_path / "a.png", np.random.default_rng(0).integers(0, 200, (64, 64, 3), np.uint8))
    program = f"""
import sys, cpfnet
model = cpfnet.Model.load({str(tiny.folder)!r})
options = cpfnet.PredictorOptions(backend="openvino", force=True)
done = cpfnet.predict_files(model, [{str(tmp_path / "a.png")!r}], {str(tmp_path / "out")!r}, options)
print(done[0].status, *{{"torch", "monai", "scipy", "skimage"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "done", done.stderr


_LIMITED = """
import logging, resource, sys
from pathlib import Path
import numpy as np
from cpfnet.errors import NetworkError
from cpfnet.inference.backends.select import backend_of
from cpfnet.model import Model

backend_name, folder, mib = sys.argv[1], sys.argv[2], int(sys.argv[3])
said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("cpfnet").addHandler(handler)
logging.getLogger("cpfnet").setLevel("INFO")
backend = backend_of(Model.load(folder), backend_name, device="cpu")
x = np.random.default_rng(0).random((32, 3, 256, 256), dtype=np.float32)
expected = np.concatenate([backend(x[i : i + 1]) for i in range(32)])
pages = int(Path("/proc/self/statm").read_text().split()[0])
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + mib * 2**20, limits[1]))
try:
    found = backend(x)
except (NetworkError, MemoryError) as error:
    assert isinstance(error, MemoryError) or "does not fit into the memory of cpu" in str(error), error
    print("refused", *said)
else:
    resource.setrlimit(resource.RLIMIT_AS, limits)
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-4
    print("whole", *said)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_runtimes_halve_a_batch_that_does_not_fit(tiny, backend):
    """With a limit on the address space; where little is left, runtimes raise, or give back nothing at all."""
    results = []
    for mib in (60, 85, 120, 170):
        done = subprocess.run(
            [sys.executable, "-c", _LIMITED, backend, str(tiny.folder), str(mib)],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
    assert any("cpu is out of memory: going on with batches of 16" in result for result in results), results
    assert any(result.startswith("whole") for result in results), results

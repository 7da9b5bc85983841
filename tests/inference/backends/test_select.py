import time

import numpy as np
import pytest
import torch

from cpfnet.errors import NetworkError, WeightsError
from cpfnet.inference.backends.autotune import AutoBackend
from cpfnet.inference.backends.out_of_memory import exhausted
from cpfnet.inference.backends.select import backend_of
from cpfnet.inference.torch_backend.network import pick_device, torch_backend
from cpfnet.model import Model
from cpfnet.network import zoo
from tests.inference.oracle import Oracle, make_model, oracle


@pytest.mark.parametrize("spatial", [{}, {"mode": "2.5d", "neighbours": 1}, {"mode": "3d"}])
def test_torch_gives_what_numpy_gives(spatial):
    model = make_model(channels=2, **spatial)
    shape = (3, model.plan.in_channels, *[33, 40, 35][: model.plan.spatial.dims])
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    out = torch_backend(model, "cpu")(x)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, oracle(model)(x), atol=1e-3)


def test_views_and_flipped_arrays_are_taken():
    model = make_model()
    x = np.random.default_rng(0).random((2, 1, 40, 33), dtype=np.float32)[..., ::-1]
    np.testing.assert_allclose(torch_backend(model, "cpu")(x), oracle(model)(x), atol=1e-3)


def test_a_real_network_is_exact_in_fp32_and_near_in_bf16():
    model = make_model(change=lambda plan: plan.model_copy(update={"network": _network("cpfnet")}))
    torch.manual_seed(0)
    network = zoo.build("cpfnet", 1, 4).eval()
    for name, value in network.state_dict().items():
        if name.endswith("bn2.weight"):  # from zero, the residual blocks would do nothing
            value.fill_(0.5)
    model.state = network.state_dict()
    x = np.random.default_rng(0).normal(size=(1, 1, 64, 64)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(torch_backend(model, "cpu")(x), expected, atol=1e-4)
    rough = torch_backend(model, "cpu", "bf16")(x)
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - expected).max() < 0.1 * np.abs(expected).max() + 0.1


def _network(name):
    from cpfnet.planning import NetworkPlan

    return NetworkPlan(name=name, weights="none")


class Hungry(Oracle):
    """Has memory for so many images at once."""

    room = 2

    def forward(self, x):
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().forward(x)


class TestOutOfMemory:
    def model(self, room):
        name = f"hungry-{room}"
        if name not in zoo.names():
            zoo.register(name, type("Hungry", (Hungry,), {"room": room}))
        return make_model(change=lambda plan: plan.model_copy(update={"network": _network(name)}))

    def test_batches_are_halved_aloud_and_stay_small(self, caplog):
        caplog.set_level("INFO", "cpfnet")
        model = self.model(2)
        backend = torch_backend(model, "cpu")
        x = np.random.default_rng(0).random((7, 1, 32, 32), dtype=np.float32)
        for _ in range(2):
            np.testing.assert_allclose(backend(x), oracle(model)(x), atol=1e-3)
        assert caplog.messages == [
            "cpu is out of memory: going on with batches of 3",
            "cpu is out of memory: going on with batches of 1",
        ]

    def test_a_single_piece_that_does_not_fit_is_an_error_with_a_fix(self):
        backend = torch_backend(self.model(0), "cpu")
        with pytest.raises(NetworkError, match="single piece of 32×40 does not fit"):
            backend(np.zeros((2, 1, 32, 40), np.float32))

    def test_so_is_one_that_the_cpu_cannot_hold(self):
        class Huge(Oracle):
            def forward(self, x):
                return super().forward(x) + torch.empty(1 << 55)

        if "huge" not in zoo.names():
            zoo.register("huge", Huge)
        model = make_model(change=lambda plan: plan.model_copy(update={"network": _network("huge")}))
        with pytest.raises(NetworkError, match="memory of cpu"):
            torch_backend(model, "cpu")(np.zeros((1, 1, 32, 40), np.float32))

    def test_other_errors_stay_what_they_are(self):
        with pytest.raises(RuntimeError, match="size"):
            torch_backend(make_model(), "cpu")(np.zeros((2, 0, 32, 40), np.float32))


@pytest.mark.parametrize("name", ["gpu", "mps", "", "cuda:x", "meta"])
def test_unknown_devices_are_named(name):
    with pytest.raises(NetworkError, match="unknown device"):
        pick_device(name)


def test_a_cuda_device_that_is_not_there():
    with pytest.raises(NetworkError, match=r"no device 'cuda:99': \d+ CUDA devices found"):
        pick_device("cuda:99")


def test_auto_takes_cuda_where_there_is_one():
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_weights_of_another_network_are_refused():
    model = make_model()
    model.state = {"other": torch.zeros(1)}
    with pytest.raises(WeightsError, match="oracle"):
        torch_backend(model, "cpu")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB.",
        "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "FIND was unable to find an engine to execute this computation",
    ],
)
def test_what_cuda_says_of_lacking_memory_is_understood(said: str) -> None:
    assert exhausted(RuntimeError(said))
    assert not exhausted(RuntimeError("CUDA error: device-side assert triggered"))


def test_fp16_needs_a_gpu():
    with pytest.raises(NetworkError, match="fp16 needs a GPU"):
        backend_of(make_model(), "torch-fp16", device="cpu")


def test_a_choice_among_named_backends_goes_on_with_what_decides_alike_and_keeps_nothing(tmp_path, caplog):
    """As on a GPU: float32, and half precision if it passes."""
    caplog.set_level("INFO", "cpfnet")
    make_model().save(tmp_path / "model")
    model = Model.load(tmp_path / "model")
    x = np.random.default_rng(0).random((2, 1, 64, 64), dtype=np.float32)
    exact = oracle(model)
    for wrong in (False, True):

        def make(name, wrong=wrong):
            def slow(batch):
                time.sleep(0.02)
                return exact(batch)

            return slow if name == "torch" else (lambda batch: exact(1 - batch) if wrong else exact(batch))

        backend = AutoBackend(model, make, ["torch", "torch-bf16"])
        np.testing.assert_array_equal(backend(x), exact(x))
        assert caplog.messages[-1].startswith("Backend torch:" if wrong else "Backend torch-bf16:")
        np.testing.assert_array_equal(backend(x), exact(x))
    assert not (tmp_path / "model" / "exports").exists()

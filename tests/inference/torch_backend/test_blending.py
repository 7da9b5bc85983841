"""Blending in PyTorch: what NumPy gives, on any device; here on the CPU."""

from functools import partial

import numpy as np
import pytest
import torch

from cpfnet.errors import NetworkError
from cpfnet.inference.backends.autotune import AutoBackend
from cpfnet.inference.sliding_window import Network as Seen
from cpfnet.inference.sliding_window import SlidingWindow, predict_array
from cpfnet.inference.torch_backend.blending import DeviceBlend
from cpfnet.inference.torch_backend.network import TorchBackend, torch_backend
from tests.inference.oracle import make_model
from tests.inference.test_memory_of_volumes import REGIONS, mixing

CPU = torch.device("cpu")


class OnDevice(TorchBackend):
    """A network whose probabilities are summed in PyTorch, as on a GPU."""

    blend = partial(DeviceBlend, place=CPU)


def pair(model):
    """The same network twice: summed in NumPy, and in PyTorch."""
    plain = mixing(model)
    return plain, OnDevice(lambda batch: torch.from_numpy(plain(batch)), CPU, fix="")


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize(
    ("spatial", "inference", "shape"),
    [
        ({}, {"tile": (32, 40), "mirror": ("height", "width"), "quarter_turns": True}, (3, 50, 70)),
        ({"mode": "2.5d", "neighbours": 1}, {"tile": (32, 32), "mirror": ("width",)}, (5, 60, 33)),
        ({"mode": "3d"}, {"mirror": ("depth",), "quarter_turns": True, "batch": 3}, (70, 40, 45)),
        ({"source": "images"}, {"mirror": ("width",), "quarter_turns": True}, (41, 50)),
    ],
    ids=["2d", "2.5d", "3d", "picture"],
)
def test_it_gives_what_numpy_gives(spatial, inference, shape, tta, regions):
    model = make_model(labels=REGIONS if regions else None, inference=inference, **spatial)
    array = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    array[..., :20] = 0.5  # some tiles hold nothing else
    expected, found = (predict_array(backend, array, model.plan, tta=tta) for backend in pair(model))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_planes_are_taken_as_from_numpy():
    model = make_model(mode="3d", inference={"mirror": ("depth",)})
    array = np.random.default_rng(0).random((1, 90, 33, 40), dtype=np.float32)
    expected, found = (SlidingWindow([Seen(backend, model.plan, tta=True)], array) for backend in pair(model))
    for stop in (1, 2, 33, 34, 80, 90):
        np.testing.assert_allclose(found.take(stop), expected.take(stop), atol=1e-6)


def test_a_choice_of_precision_begins_and_goes_on_there():
    """As on a GPU: the first tiles are compared, in NumPy, and those that follow stay on the device."""
    model = make_model(mode="3d", inference={"batch": 1})
    array = np.random.default_rng(0).random((1, 70, 40, 45), dtype=np.float32)
    made = []

    def make(name):
        made.append(OnDevice(torch_backend(model, "cpu").logits, CPU, fix=""))
        return made[-1]

    backend = AutoBackend(model, make, ["torch", "torch-bf16"])
    found = predict_array(backend, array, model.plan)
    assert backend.settled
    assert len(made) == 2
    np.testing.assert_allclose(found, predict_array(torch_backend(model, "cpu"), array, model.plan), atol=1e-6)


def test_what_is_no_number_is_refused():
    model = make_model(mode="3d")
    backend = OnDevice(lambda batch: torch.full((len(batch), 4, *batch.shape[2:]), torch.nan), CPU, fix="")
    with pytest.raises(NetworkError, match="NaN"):
        predict_array(backend, np.zeros((1, 40, 40, 40), np.float32), model.plan)


def test_another_shape_is_refused():
    model = make_model(mode="3d")
    backend = OnDevice(lambda batch: torch.zeros((len(batch), 2, *batch.shape[2:])), CPU, fix="")
    with pytest.raises(NetworkError, match=r"\(1, 2, 32, 32, 32\) where the plan expects \(1, 4, 32, 32, 32\)"):
        predict_array(backend, np.zeros((1, 32, 32, 32), np.float32), model.plan)


class Full(DeviceBlend):
    """Of a device with memory for 40 planes."""

    def _on_device(self, shape):
        if shape[1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super()._on_device(shape)


def test_sums_that_the_device_cannot_hold_go_on_in_the_memory_of_the_machine(caplog):
    model = make_model(mode="3d", inference={"batch": 8})
    array = np.random.default_rng(0).random((1, 100, 33, 35), dtype=np.float32)
    plain, backend = pair(model)
    backend.blend = partial(Full, place=CPU)
    np.testing.assert_allclose(
        predict_array(backend, array, model.plan), predict_array(plain, array, model.plan), atol=1e-6
    )
    assert [message for message in caplog.messages if "blending" in message] == [
        "cpu has no memory for 100 planes of probabilities: blending on the CPU"
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("tta", [False, True])
def test_a_gpu_gives_what_a_cpu_gives(tta):
    model = make_model(mode="3d", inference={"mirror": ("depth", "width")})
    array = np.random.default_rng(0).random((1, 70, 40, 45), dtype=np.float32)
    expected, found = (
        predict_array(torch_backend(model, device), array, model.plan, tta=tta) for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)

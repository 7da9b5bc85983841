"""What is left out, and what is held, when an image goes through networks tile by tile: results stay the same."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.image import Image
from cpfnet.inference import sliding_window
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.inference.sliding_window import Network, SlidingWindow, predict_array
from cpfnet.inference.tiling import mirrored_copies, tile_windows, turned_back
from cpfnet.inference.torch_backend.network import TorchBackend
from tests.inference.oracle import make_model
from tests.inference.test_memory_of_volumes import REGIONS, mixing

SPATIAL = {
    "2d": {"inference": {"tile": (32, 32), "mirror": ("height", "width"), "quarter_turns": True}},
    "2.5d": {"mode": "2.5d", "neighbours": 1, "inference": {"tile": (32, 40), "mirror": ("width",)}},
    "3d": {"mode": "3d", "inference": {"mirror": ("depth", "width")}},
    "picture": {"source": "images", "inference": {"tile": (32, 48), "mirror": ("width",), "quarter_turns": True}},
}


def with_air(shape, channels, seed):
    """Noise in a box, and around it one value in each channel, as beside a patient."""
    rng = np.random.default_rng(seed)
    array = np.empty((channels, *shape), np.float32)
    array[:] = rng.random((channels, *[1] * len(shape)))
    box = tuple(slice(low := int(rng.integers(0, n)), int(rng.integers(low, n)) + 1) for n in shape)
    array[(slice(None), *box)] = rng.random(array[(slice(None), *box)].shape)
    return array


def counted(backend):
    def one(x):
        one.pieces += len(x)
        return backend(x)

    one.pieces = 0
    return one


def without_shortcut(backend, array, plan, **options):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding_window, "one_value", lambda piece: None)
        return predict_array(backend, array, plan, **options)


@pytest.mark.parametrize("kind", SPATIAL)
@settings(deadline=None, max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 90), st.integers(1, 90)),
    batch=st.integers(1, 5),
    tta=st.booleans(),
    overlap=st.sampled_from([0.0, 0.5]),
    regions=st.booleans(),
    seed=st.integers(0, 99),
)
def test_empty_surroundings_change_nothing(kind, shape, batch, tta, overlap, regions, seed):
    model = make_model(channels=2, labels=REGIONS if regions else None, **SPATIAL[kind])
    size = shape[1:] if kind == "picture" else (shape[0] if kind == "3d" else 1 + shape[0] % 5, *shape[1:])
    array = with_air(size, 2, seed)
    backend, plain = counted(mixing(model)), counted(mixing(model))
    options = {"batch": batch, "tta": tta, "overlap": overlap}
    found = predict_array(backend, array, model.plan, **options)
    np.testing.assert_array_equal(found, without_shortcut(plain, array, model.plan, **options))
    assert backend.pieces <= plain.pieces + 1  # a batch of two where it would be one


@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_real_network_gives_the_same_bits(batch):
    """A library computes a batch of one by other kernels, which round otherwise."""
    model = make_model(mode="3d", patch=(32, 32, 32))
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.InstanceNorm3d(8)
    head = torch.nn.Conv3d(8, 4, 3, padding=1)

    @torch.inference_mode()
    def forward(x):
        return head(torch.relu(norm(conv(torch.from_numpy(x)))))

    backend = counted(TorchBackend(forward, torch.device("cpu"), fix=""))
    array = np.zeros((1, 32, 64, 97), np.float32)
    array[:, :, 50:, 50:70] = np.random.default_rng(0).random((32, 14, 20))
    found = predict_array(backend, array, model.plan, batch=batch)
    seen, backend.pieces = backend.pieces, 0
    np.testing.assert_array_equal(found, without_shortcut(backend, array, model.plan, batch=batch))
    assert seen < backend.pieces


def test_air_is_seen_once():
    model = make_model(mode="3d")
    array = np.zeros((1, 64, 200, 200), np.float32)
    array[:, :, 90:110, 90:110] = 1
    backend = counted(mixing(model))
    predict_array(backend, array, model.plan, overlap=0, batch=1)
    windows = list(tile_windows(array.shape[1:], (32, 32, 32), 0))
    body = sum(array[(0, *window)].any() for window in windows)
    assert backend.pieces == body + 1 < len(windows) / 2


@settings(deadline=None, max_examples=20)
@given(
    shape=st.tuples(st.integers(1, 110), st.integers(1, 50), st.integers(1, 50)),
    batch=st.integers(1, 5),
    mirror=st.sampled_from([(), ("width",), ("depth", "height")]),
    runs=st.lists(st.integers(1, 40), min_size=1),
    seed=st.integers(0, 99),
)
def test_planes_are_the_same_however_many_are_taken_at_once(shape, batch, mirror, runs, seed):
    model = make_model(mode="3d", inference={"mirror": mirror})
    array = with_air(shape, 1, seed)
    networks = [Network(mixing(model), model.plan, batch=batch, tta=tta) for tta in (False, True)]
    window, stops = SlidingWindow(networks, array), np.cumsum(runs)
    parts = [window.take(int(stop)) for stop in stops[stops < shape[0]]] + [window.take(shape[0])]
    whole = SlidingWindow(networks, array).take(shape[0])
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    one, other = (predict_array(n.backend, array, n.plan, batch=batch, tta=n.tta) for n in networks)
    # Another order of up to 64 additions, to sums of up to 8 in float32, before they are divided by the 4 copies.
    np.testing.assert_allclose(whole, one + other, atol=5e-6)


@settings(deadline=None)
@given(
    size=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    plan=st.sampled_from(["height", "width", "depth"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_windows_of_copies_are_found_in_the_image(size, plan, seed):
    mirror = tuple({"height", "width", plan} if len(size) == 3 else {"height", "width"})
    model = make_model(mode="3d", inference={"mirror": mirror, "quarter_turns": True})
    image, rng = np.arange(np.prod(size)).reshape(size), np.random.default_rng(seed)
    for axes, turns in [*mirrored_copies(model.plan, len(size)), ((-1,), 3), ((), 2)]:
        copy = np.rot90(np.flip(image, axes), turns, (-2, -1))
        window = tuple(slice(low := int(rng.integers(0, n)), int(rng.integers(low, n)) + 1) for n in copy.shape)
        found = image[turned_back(window, tuple(size), axes, turns)]
        np.testing.assert_array_equal(np.flip(np.rot90(copy[window], -turns, (-2, -1)), axes), found)


def test_many_classes_of_a_volume_are_never_whole_in_memory():
    model = make_model(mode="3d", values=tuple(range(1, 31)))
    image = Image(np.zeros((1, 300, 40, 40), np.uint8), np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]])
    image.array[0, :, 10:30, 10:30] = np.random.default_rng(0).integers(0, 200, (300, 20, 20))
    predictor = Predictor([model], PredictorOptions(backend=mixing, force=True))
    whole = 31 * image.array.size * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpfnet.preprocessing.lazy_volume.RUN", 2**18)
        tracemalloc.start()
        try:
            predictor.predict(image)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < whole / 2

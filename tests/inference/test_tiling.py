import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from cpfnet.errors import NetworkError
from cpfnet.inference import tiling
from cpfnet.inference.sliding_window import predict_array
from cpfnet.planning import LabelClass, Labels
from cpfnet.training.samples.patches import corner, cut
from tests.inference.oracle import make_model, oracle

RNG = np.random.default_rng(0)


def pointwise(plan):
    """Another value for every input value, none saturated, so that any misplaced pixel shows."""

    def backend(x):
        planes = np.arange(plan.labels.outputs, dtype=np.float32).reshape(1, -1, *[1] * (x.ndim - 2))
        middle = plan.spatial.neighbours * len(plan.channels)
        return np.sin(x[:, middle : middle + 1] * (planes + 1)) * 2

    return backend


def expected(plan, array):
    logits = pointwise(plan.model_copy(update={"spatial": plan.spatial.model_copy(update={"neighbours": 0})}))(
        array[None]
    )[0]
    return softmax(logits, axis=0) if plan.labels.exclusive else expit(logits)


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    tile=st.none() | st.tuples(st.integers(32, 50), st.integers(32, 50)),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.8]),
    batch=st.integers(1, 5),
    tta=st.booleans(),
)
def test_tiles_of_an_image_equal_the_whole_for_a_pointwise_network(size, tile, overlap, batch, tta):
    plan = make_model(source="images", inference={"tile": tile, "mirror": ("height", "width")}).plan
    array = np.random.default_rng(1).random((1, *size), dtype=np.float32)
    out = predict_array(pointwise(plan), array, plan, overlap=overlap, batch=batch, tta=tta)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected(plan, array), atol=2e-6)


@pytest.mark.parametrize(
    "spatial",
    [{}, {"mode": "2.5d", "neighbours": 2}, {"mode": "3d", "patch": (32, 40, 36)}],
    ids=["2d", "2.5d", "3d"],
)
@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("shape", [(1, 33, 35), (7, 20, 70), (45, 50, 40)])
def test_volumes_equal_the_whole_too(spatial, exclusive, shape):
    labels = Labels(classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b", values=(2,))), exclusive=exclusive)
    tile = None if spatial.get("mode") == "3d" else (32, 48)
    plan = make_model(labels=labels, channels=2, inference={"tile": tile}, **spatial).plan
    array = RNG.random((2, *shape), dtype=np.float32)
    out = predict_array(pointwise(plan), array, plan, batch=3)
    np.testing.assert_allclose(out, expected(plan, array), atol=2e-6)


def test_stacks_are_slice_major_and_repeat_the_ends():
    plan = make_model(mode="2.5d", neighbours=1, channels=2, inference={"tile": (32, 32)}).plan
    array = RNG.random((2, 4, 40, 40), dtype=np.float32)
    seen = []

    def backend(x):
        seen.append(x.copy())
        return np.zeros((len(x), plan.labels.outputs, *x.shape[2:]), np.float32)

    predict_array(backend, array, plan, batch=100, overlap=0)
    (batch,) = seen
    assert batch.shape == (4 * 4, 6, 32, 32)  # four slices of four tiles
    first, last = batch[0], batch[-1]
    for position, depth in enumerate((0, 0, 1)):
        np.testing.assert_array_equal(first[2 * position : 2 * position + 2], array[:, depth, :32, :32])
    for position, depth in enumerate((2, 3, 3)):
        np.testing.assert_array_equal(last[2 * position : 2 * position + 2], array[:, depth, 8:, 8:])


def test_tta_averages_probabilities_of_every_mirrored_copy():
    plan = make_model(source="images", values=(1,), inference={"mirror": ("height", "width")}).plan
    array = RNG.random((1, 40, 50), dtype=np.float32)
    ramp = np.linspace(-3, 3, 50, dtype=np.float32)

    def backend(x):  # knows left from right
        return np.stack([np.zeros_like(x[:, 0]), x[:, 0] + ramp], axis=1)

    copies = []
    for axes in [(), (1,), (2,), (1, 2)]:
        turned = np.flip(array, axes)
        copies.append(np.flip(softmax(backend(turned[None])[0], axis=0), axes))
    np.testing.assert_allclose(predict_array(backend, array, plan, tta=True), np.mean(copies, axis=0), atol=1e-6)
    np.testing.assert_allclose(predict_array(backend, array, plan), copies[0], atol=1e-6)


@pytest.mark.parametrize(("mirror", "count"), [((), 4), (("width",), 8), (("height", "width"), 8)])
def test_tta_averages_every_symmetry_of_the_square_equally(mirror, count):
    plan = make_model(source="images", values=(1,), inference={"mirror": mirror, "quarter_turns": True}).plan
    array = RNG.random((1, 40, 50), dtype=np.float32)
    seen = []

    def backend(x):  # knows left from right and up from down
        seen.append(x[0, 0].copy())
        ramps = np.linspace(-3, 3, x.shape[2])[:, None] ** 3 + np.linspace(-2, 1, x.shape[3])
        return np.stack([np.zeros_like(x[:, 0]), x[:, 0] + ramps.astype(np.float32)], axis=1)

    found = predict_array(backend, array, plan, tta=True)
    wanted = [np.rot90(turned, turns) for turned in (array[0], array[0].T)[: count // 4] for turns in range(4)]
    seen.sort(key=lambda x: x.tobytes())
    wanted.sort(key=lambda x: x.tobytes())
    assert len(seen) == count
    for one, other in zip(seen, wanted, strict=True):
        np.testing.assert_array_equal(one, other)

    def undone(turns, transposed):
        copy = np.rot90(array.swapaxes(1, 2) if transposed else array, turns, (1, 2))
        planes = np.rot90(softmax(backend(copy[None])[0], axis=0), -turns, (1, 2))
        return planes.swapaxes(1, 2) if transposed else planes

    mean = np.mean([undone(turns, transposed) for transposed in range(count // 4) for turns in range(4)], axis=0)
    np.testing.assert_allclose(found, mean, atol=1e-6)


def test_turned_copies_of_oblong_images_are_seen_whole_and_bare():
    inference = {"mirror": ("height", "width"), "quarter_turns": True}
    plan = make_model(source="images", values=(1,), patch=(64, 96), inference=inference).plan
    seen = set()

    def backend(x):
        seen.add(x.shape[2:])
        return np.stack([x[:, 0], -x[:, 0]], axis=1)

    predict_array(backend, RNG.random((1, 64, 96), dtype=np.float32), plan, tta=True)
    assert seen == {(64, 96), (96, 64)}


def test_turns_of_a_volume_stay_in_its_slices():
    plan = make_model(mode="3d", values=(1,), inference={"quarter_turns": True}).plan
    array = RNG.random((1, 32, 40, 36), dtype=np.float32)
    backend = oracle(make_model(mode="3d", values=(1,)))
    np.testing.assert_allclose(
        predict_array(backend, array, plan, tta=True), predict_array(backend, array, plan), atol=1e-5
    )


def test_tta_mirrors_volumes_in_depth():
    plan = make_model(mode="3d", values=(1,), inference={"mirror": ("depth",)}).plan
    array = RNG.random((1, 32, 33, 34), dtype=np.float32)
    seen = []

    def backend(x):
        seen.append(x[0, 0].copy())
        return oracle(make_model(mode="3d", values=(1,)))(x)

    predict_array(backend, array, plan, tta=True)
    np.testing.assert_array_equal(seen[0][:, :32, :32], seen[len(seen) // 2][::-1, :32, :32])


@settings(deadline=None)
@given(
    size=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    tile=st.tuples(st.integers(20, 64), st.integers(20, 64)),
    overlap=st.floats(0, 0.9),
)
def test_windows_cover_everything_with_positive_weight(size, tile, overlap):
    tile = tuple(map(min, tile, size))
    covered = np.zeros(size)
    for window in tiling.tile_windows(size, tile, overlap):
        assert tuple(s.stop - s.start for s in window) == tile
        covered[window] += tiling.gaussian(tile)
    assert covered.min() >= tiling.LEAST_WEIGHT


def test_windows_overlap_by_what_was_asked():
    starts = [w[0].start for w in tiling.tile_windows((100,), (40,), 0.5)]
    assert starts == [0, 20, 40, 60]
    assert all(b - a <= 20 for a, b in itertools.pairwise(starts))


@pytest.mark.parametrize("tile", [(1,), (2, 7), (32, 33, 64)])
def test_weights_are_symmetric_positive_and_highest_in_the_centre(tile):
    weights = tiling.gaussian(tile)
    assert weights.shape == tile
    assert weights.dtype == np.float32
    assert weights.min() > 0
    for axis in range(weights.ndim):
        np.testing.assert_array_equal(weights, np.flip(weights, axis))
    assert weights[tuple(n // 2 for n in tile)] == weights.max()


def test_tiles_are_whole_slices_or_the_patch_unless_the_plan_says_otherwise():
    images = make_model(source="images").plan
    assert tiling.tile_size(images, (565, 584)) == (565, 584)
    assert tiling.tile_size(images, (20, 9000)) == (32, tiling.WHOLE_SLICE)
    assert tiling.tile_size(make_model(mode="3d", patch=(48, 64, 64)).plan, (20, 100, 50)) == (48, 64, 64)
    assert tiling.tile_size(make_model(inference={"tile": (96, 96)}).plan, (200, 50)) == (96, 50)


@pytest.mark.parametrize("spatial", [{"patch": (64, 96)}, {"mode": "3d", "patch": (32, 64, 96)}], ids=["2d", "3d"])
def test_what_is_smaller_than_the_patch_is_padded_to_it_as_in_training(spatial):
    plan = make_model(**spatial).plan
    array = RNG.random((1, 20, 49, 35), dtype=np.float32)
    seen = []

    def backend(x):
        seen.append(x)
        return pointwise(plan)(x)

    predict_array(backend, array, plan)
    codes = np.ones(array.shape[1:], np.uint8)
    start = corner(codes.shape, (0, 24, 17), plan.spatial, np.random.default_rng(0))
    patch, _ = cut(array, codes, start, plan.spatial)
    np.testing.assert_array_equal(seen[0][0], patch)


def test_a_blend_has_no_seams():
    """A network that shades towards its tile's border: neighbouring pixels of the blend never jump."""
    plan = make_model(source="images", values=(1,), inference={"tile": (64, 64)}).plan

    def backend(x):
        shade = 2 * tiling.gaussian(x.shape[2:])
        return np.stack([np.zeros_like(x[:, 0]), np.broadcast_to(shade, x[:, 0].shape)], axis=1)

    out = predict_array(backend, np.zeros((1, 200, 200), np.float32), plan)[1]
    assert np.abs(np.diff(out, axis=0)).max() < 0.05


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_blend_of_certainty_is_certain_and_no_more(exclusive):
    """Shares of tiles add up to 1 only up to rounding, and a probability above 1 has no logit and no entropy."""
    labels = Labels(classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b", values=(2,))), exclusive=exclusive)
    plan = make_model(source="images", labels=labels, inference={"tile": (32, 32)}).plan

    def backend(x):
        sure = np.full((len(x), plan.labels.outputs, *x.shape[2:]), -200, np.float32)
        sure[:, -1] = 200
        return sure

    out = predict_array(backend, np.zeros((1, 97, 113), np.float32), plan)
    assert out.min() >= 0
    assert out.max() == 1


def test_progress_ends_at_one_and_never_falls():
    plan = make_model(source="images", inference={"tile": (32, 32), "mirror": ("width",)}).plan
    shares = []
    predict_array(pointwise(plan), np.zeros((1, 64, 64), np.float32), plan, tta=True, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_another_output_shape_is_refused_with_both():
    plan = make_model(source="images").plan
    with pytest.raises(NetworkError, match=r"\(1, 2, 40, 40\) where the plan expects \(1, 4, 40, 40\)"):
        predict_array(lambda x: np.zeros((1, 2, 40, 40), np.float32), np.zeros((1, 40, 40), np.float32), plan)


def test_nan_from_the_network_is_never_written():
    plan = make_model(source="images").plan
    with pytest.raises(NetworkError, match="NaN"):
        predict_array(lambda x: pointwise(plan)(x) * np.nan, np.zeros((1, 40, 40), np.float32), plan)


def seen_by(plan, array, **options):
    """Shapes of the batches that a network is given."""
    seen = []

    def backend(x):
        seen.append(x.shape)
        return pointwise(plan)(x)

    predict_array(backend, array, plan, **options)
    return seen


@pytest.mark.parametrize(
    ("spatial", "inference", "shape"),
    [
        ({"patch": (32, 32)}, {"batch": 32}, (300, 200)),
        ({"patch": (96, 96)}, {"batch": 32}, (3000, 2500)),  # a photograph, by a plan for thumbnails
        ({"patch": (64, 32)}, {"batch": 7, "tile": (64, 64)}, (300, 200)),
        ({"patch": (32, 32)}, {"batch": 4, "tile": (256, 256)}, (300, 200)),
    ],
)
def test_no_more_pixels_at_once_than_planned(spatial, inference, shape):
    plan = make_model(source="images", inference=inference, **spatial).plan
    planned = inference["batch"] * np.prod(inference.get("tile", spatial["patch"]))
    seen = seen_by(plan, RNG.random((1, *shape), dtype=np.float32))
    one = max(np.prod(batch[2:]) for batch in seen)
    assert max(batch[0] * np.prod(batch[2:]) for batch in seen) <= max(planned, one)


def test_pieces_as_planned_go_in_the_batches_that_were_planned():
    plan = make_model(slices="axial", inference={"batch": 8}).plan
    assert [batch[0] for batch in seen_by(plan, RNG.random((1, 20, 32, 32), dtype=np.float32))] == [8, 8, 4]
    assert [batch[0] for batch in seen_by(plan, RNG.random((1, 9, 64, 64), dtype=np.float32))] == [2, 2, 2, 2, 1]
    large = RNG.random((1, 9, 128, 128), dtype=np.float32)
    assert [batch[0] for batch in seen_by(plan, large)] == [1] * 9
    assert [batch[0] for batch in seen_by(plan, large, batch=4)] == [4, 4, 1]  # whoever says so
    grid = make_model(source="images", size=(64, 64), inference={"batch": 8, "tile": None}).plan
    assert tiling.batch_size(grid, (64, 64)) == 8  # it was planned for what images are resized to


@pytest.mark.parametrize(
    ("tile", "pieces"), [((32, 32), {(32, 32)}), ((64, 48), {(64, 48)}), ((500, 500), {(100, 90)})]
)
def test_a_tile_that_is_asked_for(tile, pieces):
    plan = make_model(source="images", inference={"batch": 3, "tile": (96, 96)}).plan
    array = RNG.random((1, 100, 90), dtype=np.float32)
    assert {batch[2:] for batch in seen_by(plan, array, tile=tile)} == pieces
    np.testing.assert_allclose(
        predict_array(pointwise(plan), array, plan, tile=tile), predict_array(pointwise(plan), array, plan), atol=1e-5
    )

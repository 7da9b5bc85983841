"""From probabilities to classes, against scipy's activations and scikit-image's removal of small objects."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, softmax
from skimage.morphology import remove_small_objects

from cpfnet.planning import LabelClass, Labels
from cpfnet.preprocessing.postprocess import activate, calibrate, components, decide, drop_small

logits = arrays(np.float32, (3, 4, 5), elements=st.floats(-12, 12, width=32))
temperatures = st.floats(0.4, 10)


def labels(count: int, *, exclusive: bool = True) -> Labels:
    values = [(k,) if exclusive else tuple(range(k, count + 1)) for k in range(1, count + 1)]
    return Labels(classes=[LabelClass(name=f"c{v[0]}", values=v) for v in values], exclusive=exclusive)


class TestActivate:
    @given(arrays(np.float32, (2, 3, 4), elements=st.floats(-1e4, 1e4, width=32)))
    def test_is_scipys(self, z):
        for exclusive, expected in ((True, softmax(z, axis=1)), (False, expit(z))):
            found = activate(z, exclusive=exclusive)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-37)


class TestCalibrate:
    @given(logits, temperatures)
    def test_is_the_softmax_of_divided_logits(self, z, temperature):
        ours = calibrate(softmax(z, axis=0), temperature, exclusive=True)
        np.testing.assert_allclose(ours, softmax(z / np.float32(temperature), axis=0), atol=2e-5)

    @given(arrays(np.float32, (2, 6), elements=st.floats(-9, 9, width=32)), temperatures)
    def test_is_the_sigmoid_of_divided_logits(self, z, temperature):
        ours = calibrate(expit(z), temperature, exclusive=False)
        np.testing.assert_allclose(ours, expit(z / np.float32(temperature)), atol=2e-3)  # 1 − p of float32 near 1

    @given(logits, temperatures, temperatures)
    def test_two_are_one_by_the_product(self, z, first, second):
        p = softmax(z, axis=0)
        twice = calibrate(calibrate(p.copy(), first, exclusive=True), second, exclusive=True)
        np.testing.assert_allclose(twice, calibrate(p, first * second, exclusive=True), atol=1e-4)

    @pytest.mark.parametrize("exclusive", [True, False])
    @pytest.mark.parametrize("temperature", [0.4, 3])
    def test_certainty_stays_and_numbers_stay_numbers(self, exclusive, temperature):
        p = np.array([[0, 1, 1e-38], [1, 0, 1]], dtype=np.float32)
        out = calibrate(p.copy(), temperature, exclusive=exclusive)
        np.testing.assert_allclose(out[:, :2], p[:, :2], atol=0.004)
        assert ((out >= 0) & (out <= 1)).all()

    def test_a_sure_region_softens_with_the_others(self):
        p = expit(np.array([[14, 16, 20, 40]], np.float32))
        out = calibrate(p.copy(), 10, exclusive=False)[0]
        assert (np.diff(out) >= 0).all()
        assert 0.8 < out[0] < out[-1] < 0.9

    def test_memory_is_that_of_the_array(self):
        p = softmax(np.zeros((2, 3), np.float32), axis=0)
        assert calibrate(p, 2.0, exclusive=True) is p


def test_small_pieces_go_as_scikit_image_takes_them():
    rng = np.random.default_rng(0)
    mask = rng.random((40, 50)) > 0.75
    for least in (0, 1, 2, 3, 7, 30):
        ours = drop_small(mask.astype(np.uint8), labels(1), least)
        theirs = remove_small_objects(mask, max_size=least - 1, connectivity=2) if least > 1 else mask
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("exclusive", [True, False])
def test_pieces_of_a_small_structure_take_no_memory_for_the_whole_volume(exclusive):
    classes = np.zeros((50, 200, 200), np.uint8) if exclusive else np.zeros((1, 50, 200, 200), bool)
    mask = classes if exclusive else classes[0]
    mask[20:30, 40:50, 60:70] = mask[31, 51, 71] = 1
    tracemalloc.start()
    drop_small(classes, labels(1, exclusive=exclusive), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (mask.sum(), mask[20:30, 40:50, 60:70].all()) == (1000, True)
    assert peak < mask.size
    assert not drop_small(np.zeros_like(classes), labels(1, exclusive=exclusive), 2).any()


def test_pieces_touch_at_corners_in_volumes_too():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert components(mask).max() == 2


def test_each_class_has_a_size_of_its_own():
    classes = np.array([[1, 1, 0, 2, 0, 1, 0, 2, 2]], np.uint8)
    np.testing.assert_array_equal(drop_small(classes.copy(), labels(2), (2, 3)), [[1, 1, 0, 0, 0, 0, 0, 0, 0]])
    regions = np.stack([classes > 0, classes == 2])
    np.testing.assert_array_equal(
        drop_small(regions, labels(2, exclusive=False), (0, 2)), [classes > 0, [[0] * 7 + [1, 1]]]
    )


def test_regions_and_the_only_class_have_thresholds():
    p = np.array([[0.3, 0.45, 0.7], [0.7, 0.55, 0.3]], np.float32)
    np.testing.assert_array_equal(decide(p, labels(1), 0.6), [1, 0, 0])
    np.testing.assert_array_equal(decide(p, labels(2, exclusive=False), (0.4, 0.6)), [[0, 1, 1], [1, 0, 0]])

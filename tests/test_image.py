import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from cpfnet.errors import FormatError
from cpfnet.image import Assessment, Image, Segmentation, geometry_difference, spacing_of
from cpfnet.planning import LabelClass, Labels


def affine_of(rotation_vector, spacing, origin):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix() * spacing
    affine[:3, 3] = origin
    return affine


affines = st.builds(
    affine_of,
    arrays(float, 3, elements=st.floats(-3, 3)),
    arrays(float, 3, elements=st.floats(0.1, 8)),
    arrays(float, 3, elements=st.floats(-500, 500)),
)


@given(affines)
def test_spacing_is_the_distance_between_neighbours(affine):
    origin = affine @ (0, 0, 0, 1)
    neighbours = [affine @ (1, 0, 0, 1), affine @ (0, 1, 0, 1), affine @ (0, 0, 1, 1)]
    assert spacing_of(affine) == pytest.approx([np.linalg.norm(n - origin) for n in neighbours])


@given(affines, st.integers(0, 3), st.integers(0, 2))
def test_geometry_compares_with_a_tolerance_in_voxels(affine, column, row):
    shape = (5, 6, 7)
    voxel = min(spacing_of(affine))
    almost, moved = affine.copy(), affine.copy()
    almost[row, column] += 1e-6 * voxel
    moved[:3, 3] += 0.01 * affine[:3, 2]  # a hundredth of a voxel along the width
    assert geometry_difference(shape, affine, shape, almost) is None
    message = geometry_difference(shape, affine, shape, moved)
    assert message is not None
    assert "0.01" in message


def test_both_values_are_printed():
    assert geometry_difference((4, 5), None, (4, 6), None) == "size 4×5 against 4×6"
    message = geometry_difference((2, 2, 2), np.eye(4), (2, 2, 2), np.diag([2.0, 1, 1, 1]))
    assert "spacing [1.0, 1.0, 1.0]" in message
    assert "spacing [2.0, 1.0, 1.0]" in message


def test_a_geometry_without_millimetres_agrees_with_its_size():
    assert geometry_difference((2, 2, 2), np.eye(4), (2, 2, 2), None) is None


@pytest.mark.parametrize(
    ("array", "affine", "channels"),
    [
        (np.zeros((4, 4)), None, ()),  # no channel axis
        (np.zeros((1, 4, 4)), np.eye(4), ()),  # an affine on a plain image
        (np.zeros((1, 4, 4, 4)), np.diag([1.0, 1, 0, 1]), ()),  # singular
        (np.zeros((1, 4, 4, 4)), np.full((4, 4), np.nan), ()),
        (np.zeros((1, 4, 4, 4)), np.eye(3), ()),
        (np.zeros((2, 4, 4)), None, ("red",)),
    ],
)
def test_parts_that_do_not_fit_are_refused(array, affine, channels):
    with pytest.raises(FormatError):
        Image(array, affine, channels)


def test_a_segmentation_needs_fitting_probabilities():
    with pytest.raises(FormatError, match=r"probabilities of shape \(2, 4, 5\)"):
        Segmentation(np.zeros((4, 4), np.uint8), probabilities=np.zeros((2, 4, 5)))


def test_each_is_one_line():
    affine = np.diag([5, 0.7, 0.7, 1])
    image = Image(np.zeros((2, 30, 512, 512), np.int16), affine, ("T1", "T2\n"), "mr")
    assert repr(image) == r"Image(30×512×512 int16, 5 × 0.7 × 0.7 mm, 2 channels (T1, T2\n), mr)"
    assert repr(Image(np.zeros((1, 4, 5)))) == "Image(4×5 float64, 1 channel (channel0))"
    labels = Labels(classes=(LabelClass(name="liver", values=(1,)), LabelClass(name="tumour", values=(2,))))
    mask = np.zeros((4, 5), np.uint8)
    full = Segmentation(mask, probabilities=np.zeros((2, 4, 5)), quality=Assessment(0.9, 0.834), labels=labels)
    assert repr(full) == "Segmentation(4×5 uint8, liver 1, tumour 2, with probabilities, estimated Dice 0.83)"
    assert repr(Segmentation(mask)) == "Segmentation(4×5 uint8)"

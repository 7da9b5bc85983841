"""What a first stage found lies on the image, voxel by voxel, however that is stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet import preprocessing
from cpfnet.errors import CpfnetError
from cpfnet.image import Image
from cpfnet.planning import LabelClass, Labels, Plan, Scale
from cpfnet.preprocessing.first_stage import expand, planes
from tests.preprocessing.plans import make_plan
from tests.preprocessing.test_spatial import SLICES, affines, one_hot, shapes

CLASSES = 3


def second_stage(channels: int = 1, **spatial: object) -> Plan:
    """The image as it is stored, and the mask of a first stage."""
    plan = make_plan(mode="3d", classes=CLASSES, channels=channels, intensity=Scale(full=1), **spatial)
    return plan.model_copy(update={"first_stage": True})


@settings(max_examples=60, deadline=None)
@given(
    shape=shapes,
    affine=affines(),
    slices=st.sampled_from(SLICES[:3]),
    spacing=st.none() | st.tuples(*[st.floats(0.5, 3)] * 3),
    seed=st.integers(0, 9),
)
def test_planes_lie_on_the_image(shape, affine, slices, spacing, seed):
    """An image of the very planes comes to the same voxels, on its own way through intensities and resampling."""
    codes = np.random.default_rng(seed).integers(0, CLASSES + 1, shape).astype(np.uint8)
    image = Image(one_hot(codes, CLASSES + 1), affine)
    plan = second_stage(CLASSES + 1, slices=slices, spacing=spacing)
    out, trace = preprocessing.apply(image, plan, first_stage=codes)
    shown = expand(out, plan)
    assert shown.shape == (plan.in_channels, *trace.grid) == (2 * CLASSES + 1, *trace.grid)
    shares, found = out[:-1], shown[CLASSES + 1 :]
    first, second = np.sort(shares, axis=0)[[-1, -2]]
    sure = first > second + 1e-4  # between equal shares a rule decides, not geometry
    np.testing.assert_array_equal(found[:, sure], one_hot(shares.argmax(0), CLASSES + 1)[1:, sure])
    if trace.grid == trace.oriented:
        np.testing.assert_array_equal(found, shares[1:])


def test_regions_overlap():
    labels = Labels(
        exclusive=False, classes=(LabelClass(name="whole", values=(1, 2)), LabelClass(name="core", values=(2,)))
    )
    whole, core = planes(np.array([[[0, 1, 2]]], np.uint8), labels)
    assert whole.ravel().tolist() == [False, True, True]
    assert core.ravel().tolist() == [False, False, True]


def test_without_what_was_found_nothing_is_prepared():
    with pytest.raises(CpfnetError, match="sees what a first stage found, and that was not given"):
        preprocessing.apply(Image(np.zeros((1, 4, 4, 4)), np.eye(4)), second_stage())


def test_a_plan_without_a_first_stage_sees_the_image_alone():
    plan = second_stage().model_copy(update={"first_stage": False})
    assert plan.hash != second_stage().hash
    array, _ = preprocessing.apply(Image(np.zeros((1, 4, 4, 4)), np.eye(4)), plan)
    assert array.shape[0] == plan.in_channels == 1
    assert expand(array, plan) is array


def test_only_3d_has_a_first_stage():
    data = make_plan(mode="2d", patch=(32, 32)).model_dump(mode="json") | {"first_stage": True}
    with pytest.raises(ValueError, match=r"spatial.mode 3d; this is 2d"):
        Plan.model_validate(data)

"""Enhanced multi-frame CT and MR against highdicom, which reads them with code of its own."""

from __future__ import annotations

import highdicom
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cpfnet import formats
from cpfnet.image import geometry_difference
from tests.synthetic import phantom, write_multiframe

STORED = phantom((9, 10, 12))[0].astype(np.int16)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (11, -23, 37), degrees=True).as_matrix()[:, ::-1] * [2.5, 0.7, 0.9]
OBLIQUE[:3, 3] = -40, 12.5, 300


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_frames_in_any_order(tmp_path, shared, modality):
    order = [3, 0, 8, 1, 7, 2, 6, 4, 5]
    path = write_multiframe(tmp_path / "a.dcm", STORED, OBLIQUE, modality=modality, order=order, shared=shared)
    image = formats.read(path)
    volume = highdicom.imread(path).get_volume().flip_spatial(0)  # it stacks against the normal
    np.testing.assert_array_equal(image.array[0], volume.array)
    assert geometry_difference(image.shape, image.affine, volume.array.shape, volume.affine, tolerance=1e-6) is None
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-9)
    assert (image.modality, image.source.details["unit"]) == (("ct", "HU") if modality == "CT" else ("mr", "US"))
    assert image.source.paths == (path,)
    assert len(image.source.details["headers"]) == 1
    assert image.source.details["frames"] == [order.index(index) for index in range(9)]


def test_values_are_rescaled_frame_by_frame(tmp_path):
    def edit(dataset):
        for number, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            frame.PixelValueTransformationSequence[0].RescaleSlope = number + 1

    path = write_multiframe(tmp_path / "a.dcm", STORED, shared=False, edit=edit)
    expected = STORED * np.arange(1, 10)[:, None, None] - 1024
    np.testing.assert_array_equal(formats.read(path).array[0], expected)


def test_several_objects_make_one_volume(tmp_path):
    """Concatenated objects of one series, and frames of their own order in each."""
    paths = []
    for part, order in enumerate(([2, 0, 1, 3], [0, 4, 3, 2, 1])):
        moved = OBLIQUE.copy()
        moved[:3, 3] = OBLIQUE[:3] @ [4 * part, 0, 0, 1]
        stored = STORED[:4] if part == 0 else STORED[4:]

        def edit(dataset, part=part):
            dataset.SOPInstanceUID = f"1.2.{part}"

        paths.append(write_multiframe(tmp_path / f"{part}.dcm", stored, moved, order=order, edit=edit))
    image = formats.read(tmp_path)
    np.testing.assert_array_equal(image.array[0], STORED.astype(int) - 1024)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-9)
    assert image.source.paths == tuple(paths)
    headers, frames = image.source.details["headers"], image.source.details["frames"]
    assert [header.SOPInstanceUID for header in headers] == ["1.2.0"] * 4 + ["1.2.1"] * 5
    assert frames == [1, 2, 0, 3, 0, 4, 3, 2, 1]


def test_one_frame(tmp_path):
    path = write_multiframe(tmp_path / "a.dcm", STORED[:1], OBLIQUE)
    image = formats.read(path)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-9)
    assert image.shape == (1, 10, 12)

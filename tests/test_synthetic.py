"""The tests' own data are what they promise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.synthetic import affine, blobs, make_images_dataset, make_volumes_dataset, orientations, phantom


@pytest.mark.parametrize("shape", [(8, 8), (64, 40), (12, 36, 40)])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_blobs_hold_every_class_and_brightness_tells_them_apart(shape, classes):
    image, mask = blobs(np.random.default_rng(0), shape, classes)
    assert image.shape == mask.shape == shape
    assert set(np.unique(mask)) == set(range(classes + 1))
    means = [image[mask == c].mean() for c in range(classes + 1)]
    assert means == sorted(means)


@pytest.mark.parametrize("shape", [(8, 8, 8), (14, 18, 23), (8, 8), (20, 31)])
def test_phantom_has_no_symmetry(shape):
    for array in phantom(shape):
        turned = (
            array.transpose(axes)[tuple(slice(None, None, flip) for flip in flips)]
            for axes in itertools.permutations(range(len(shape)))
            for flips in itertools.product((1, -1), repeat=len(shape))
        )
        assert sum(t.shape == array.shape and np.array_equal(t, array) for t in turned) == 1
    assert set(np.unique(phantom(shape)[1])) == {0, 1, 2, 3}


def test_affines_cover_48_orientations():
    found = {affine((1, 2, 3), axes=a, signs=s).tobytes() for a, s in orientations()}
    assert len(found) == 48
    oblique = affine((1, 2, 3), degrees=(10, 20, 30))
    assert np.linalg.norm(oblique[:3, :3], axis=0) == pytest.approx([1, 2, 3])


def test_datasets_lie_on_disk(tmp_path):
    images = make_images_dataset(tmp_path / "images", cases=2, roi=True)
    assert sorted(p.relative_to(images).as_posix() for p in images.rglob("*.png")) == [
        f"{folder}/case_0{n}.png" for folder in ("images", "masks", "roi") for n in (0, 1)
    ]
    volumes = make_volumes_dataset(tmp_path / "volumes", cases=2, channels=2)
    assert len(list(volumes.rglob("*.nii.gz"))) == 4

"""The fingerprint finds what was put into the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from cpfnet.data.dataset import load
from cpfnet.data.fingerprint import fingerprint
from cpfnet.data.modality import guess, look_at
from cpfnet.data.structure import measure
from cpfnet.errors import DatasetError
from tests import data


def disc(size: int, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    return (rows - size / 2) ** 2 + (columns - size / 2) ** 2 <= radius**2


def images(root: Path, masks: list[np.ndarray], suffix: str = ".png") -> Path:
    """Grey images with given masks."""
    for number, mask in enumerate(masks):
        picture = np.random.default_rng(number).integers(0, 256, mask.shape[:2]).astype(np.uint8)
        data.write_raster(root / "images" / f"c{number}.png", picture)
        data.write_raster(root / "masks" / f"c{number}{suffix}", mask)
    return root


def test_volumes(tmp_path: Path) -> None:
    root = data.make_volumes_dataset(tmp_path, cases=3, shape=(40, 36, 12), spacing=(0.5, 0.75, 4.0))
    found = fingerprint(load(root))
    assert found.volumes
    assert found.cases == found.patients == 3
    assert found.median_size == (12, 36, 40)
    assert found.median_spacing == (4.0, 0.75, 0.5)
    assert found.values == {"0": 3, "1": 3, "2": 3}
    assert [c.values for c in found.labels.classes] == [(1,), (2,)]
    truth = [data.blobs(np.random.default_rng((0, n)), (12, 36, 40), 2) for n in range(3)]
    pixels = np.array([[(mask == k).sum() for k in (1, 2)] for _, mask in truth])
    np.testing.assert_allclose([c.frequency for c in found.classes], pixels.sum(axis=0) / (3 * 12 * 36 * 40))
    inside = np.concatenate([np.rint(400 * image)[mask > 0] for image, mask in truth])
    expected = np.percentile(inside, (0.5, 5, 50, 95, 99.5))
    assert found.channels[0].labels is not None
    np.testing.assert_allclose(found.channels[0].labels, expected, atol=4)


@pytest.mark.parametrize("number", [0, 7, 21, 30, 47])
def test_sizes_follow_the_patient_however_the_file_is_stored(tmp_path: Path, number: int) -> None:
    axes, signs = list(data.orientations())[number]
    stored = (0.5, 0.75, 4.0)
    affine = data.affine(tuple(stored[a] for a in axes), axes=axes, signs=signs, degrees=(8, -5, 10))
    size = (20, 18, 10)
    root = data.make_volumes_dataset(tmp_path, 1, tuple(size[a] for a in axes), affine_ras=affine)
    found = fingerprint(load(root))
    assert found.median_size == (10, 18, 20)
    assert found.median_spacing == pytest.approx((4.0, 0.75, 0.5), rel=1e-3)


def test_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    dataset = load(data.make_images_dataset(tmp_path, cases=5, size=(200, 190)))
    assert fingerprint(dataset, workers=1) == fingerprint(dataset, workers=4)


def test_test_cases_stay_out_of_it(tmp_path: Path) -> None:
    data.make_images_dataset(tmp_path / "train", cases=3)
    data.make_images_dataset(tmp_path / "test", cases=2, seed=1)
    assert fingerprint(load(tmp_path)).cases == 3


@pytest.mark.parametrize(
    ("values", "classes", "background", "ignore"),
    [
        ([[0, 255]], [(255,)], (0,), ()),
        ([[1, 2]], [(2,)], (1,), ()),
        ([[0, 3, 7]], [(3,), (7,)], (0,), ()),
        ([[0, 1], [0, 255]], [(1, 255)], (0,), ()),
        ([[0, 1], [0, 2]], [(1,), (2,)], (0,), ()),
        ([[0, 1, 2, 255]], [(1,), (2,)], (0,), (255,)),
        ([[0, 1, 5, 255]], [(1,), (5,), (255,)], (0,), ()),
    ],
)
def test_what_label_values_become(
    tmp_path: Path, values: list[list[int]], classes: list, background: tuple, ignore: tuple
) -> None:
    masks = [np.repeat(np.array(v, np.uint8), 20)[None].repeat(40, axis=0) for v in values]
    found = fingerprint(load(images(tmp_path, masks)))
    assert [c.values for c in found.labels.classes] == classes
    assert found.labels.background == background
    assert found.labels.ignore == ignore
    assert found.labels_reason


def test_colours_become_classes(tmp_path: Path) -> None:
    mask = np.zeros((40, 40, 3), np.uint8)
    mask[:10] = (255, 0, 0)
    mask[30:] = (0, 128, 0)
    found = fingerprint(load(images(tmp_path, [mask])))
    assert {c.values for c in found.labels.classes} == {("#ff0000",), ("#008000",)}
    assert found.values == {"0": 1, "#008000": 1, "#ff0000": 1}


def test_soft_masks_get_a_threshold(tmp_path: Path) -> None:
    found = fingerprint(load(images(tmp_path, [np.uint8(255 * disc(64, 20))] * 3, ".jpg")))
    assert found.labels.threshold == 127
    assert len(found.labels.classes) == 1
    assert found.classes[0].frequency == pytest.approx(disc(64, 20).mean(), abs=0.01)


def test_declared_labels_win(tmp_path: Path) -> None:
    images(tmp_path, [np.uint8([0, 1, 2] * 20)[None].repeat(40, axis=0)])
    (tmp_path / "dataset.yaml").write_text("labels: {lesion: [1, 2]}\n")
    found = fingerprint(load(tmp_path))
    assert [(c.name, c.values) for c in found.labels.classes] == [("lesion", (1, 2))]


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ([np.zeros((40, 40), np.uint8)], "every pixel of every label is 0"),
        ([np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)], "different values"),
        ([np.uint8(disc(50, 20))], "50×50"),
    ],
)
def test_what_cannot_be_planned_for(tmp_path: Path, masks: list[np.ndarray], says: str) -> None:
    root = images(tmp_path, masks)
    if says == "50×50":
        data.write_raster(root / "images" / "c0.png", np.zeros((40, 40), np.uint8))
    with pytest.raises(DatasetError, match=says) as caught:
        fingerprint(load(root))
    assert caught.value.mend


@pytest.mark.parametrize(
    "others",
    [np.uint8(disc(64, 20)), np.uint8(disc(64, 20)) + disc(64, 9), np.uint8(127 * disc(64, 20) + disc(64, 9) * 128)],
)
def test_no_threshold_that_erases_other_labels(tmp_path: Path, others: np.ndarray) -> None:
    images(tmp_path, [np.uint8(255 * disc(64, 20))], ".jpg")
    data.write_raster(tmp_path / "images" / "other.png", np.full((64, 64), 9, np.uint8))
    data.write_raster(tmp_path / "masks" / "other.png", others)
    with pytest.raises(DatasetError, match="a threshold at 127 would erase it"):
        fingerprint(load(tmp_path))


def test_a_single_nan_is_found(tmp_path: Path) -> None:
    image, mask = data.blobs(np.random.default_rng(0), (40, 64, 64))
    image[7, 8, 9] = np.nan
    data.write_nifti(tmp_path / "images" / "a.nii.gz", image)
    data.write_nifti(tmp_path / "labels" / "a.nii.gz", mask)
    with pytest.raises(DatasetError, match=r"a\.nii\.gz: holds NaN"):
        fingerprint(load(tmp_path))


def test_nothing_labelled(tmp_path: Path) -> None:
    data.make_images_dataset(tmp_path / "test", cases=2)
    with pytest.raises(DatasetError, match="none of 2 cases has a label"):
        fingerprint(load(tmp_path))


@pytest.mark.parametrize("radius", [5, 12, 30])
def test_a_disc_is_as_thick_as_its_radius_and_no_tube(radius: int) -> None:
    found = measure(disc(96, radius))
    assert found is not None
    assert found.pixels == disc(96, radius).sum()
    assert found.radius == pytest.approx(radius, rel=0.25)
    assert not found.tubular((96, 96))


def test_a_branching_line_is_a_tube() -> None:
    steps = np.cumsum(np.random.default_rng(0).normal(0, 1.2, (2, 300)), axis=1)
    mask = np.zeros((300, 300), bool)
    for offset in steps:
        mask[np.arange(300), np.clip(150 + offset, 0, 299).astype(int)] = True
    mask = ndimage.binary_dilation(mask, iterations=1)
    found = measure(mask)
    assert found is not None
    assert found.tubular(mask.shape)
    assert found.radius < 3


def test_structures_in_3d() -> None:
    grid = np.indices((40, 40, 40)) - 20
    ball = (grid**2).sum(axis=0) <= 100
    found = measure(ball)
    assert found is not None
    assert found.radius == pytest.approx(10, rel=0.3)
    assert not found.tubular(ball.shape)
    rod = (grid[1:] ** 2).sum(axis=0) <= 1
    found = measure(np.pad(rod, ((20, 20), (20, 20), (20, 20))))
    assert found is not None
    assert found.tubular((80, 80, 80))
    assert measure(np.zeros((8, 8, 8), bool)) is None


def test_one_pixel_is_a_structure() -> None:
    mask = np.zeros((32, 32), bool)
    mask[3, 4] = True
    found = measure(mask)
    assert found is not None
    assert (found.pixels, found.tubular((32, 32))) == (1, False)


def picture(kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    grey = ndimage.gaussian_filter(rng.random((300, 400)), 6)
    grey = (grey - grey.min()) / (grey.max() - grey.min())
    rows, columns = np.indices(grey.shape)
    if kind == "fundus":
        inside = (rows - 150) ** 2 + (columns - 200) ** 2 < 145**2
        return np.stack([c * (0.7 + 0.3 * grey) * inside for c in (220, 110, 50)])
    if kind == "dermoscopy":
        lesion = (rows - 150) ** 2 + (columns - 200) ** 2 < 80**2
        return np.stack([c * (0.8 + 0.2 * grey) * np.where(lesion, 0.4, 1) for c in (230, 180, 150)])
    if kind == "ultrasound":
        sector = (np.abs(columns - 200) < rows * 0.8) & (np.hypot(rows, columns - 200) < 290)
        return (200 * grey * sector)[None]
    if kind == "oct":
        return (40 + 60 * grey + 120 * np.exp(-(((rows - 150) / 30) ** 2)))[None]
    return (60 + 150 * grey)[None]  # x-ray


@pytest.mark.parametrize("kind", ["fundus", "dermoscopy", "ultrasound", "oct", "xray"])
def test_modality_of_images(kind: str) -> None:
    assert guess(look_at(picture(kind)), volumes=False, low=0, high=255)[0] == kind


@pytest.mark.parametrize(
    ("low", "high", "kind"), [(-1024, 3071, "ct"), (0, 2252, "mr"), (0, 1, "other"), (-3, 4, "other")]
)
def test_modality_of_volumes(low: float, high: float, kind: str) -> None:
    assert guess(look_at(picture("xray")), volumes=True, low=low, high=high)[0] == kind


@pytest.mark.parametrize(
    ("name", "kind"), [("PH2", "dermoscopy"), ("STARE_10", "fundus"), ("ChestXray", "xray"), ("Hippocampus", "mr")]
)
def test_modality_of_real_data(name: str, kind: str) -> None:
    from cpfnet import formats

    cases = load(data.shared(name)).cases[:8]
    found = [formats.read(case.images).array for case in cases]
    volumes = found[0].ndim == 4
    looks = [look_at(a[:, a.shape[1] // 2] if volumes else a) for a in found]
    low, high = min(float(a.min()) for a in found), max(float(a.max()) for a in found)
    assert guess(type(looks[0]).median(looks), volumes=volumes, low=low, high=high)[0] == kind

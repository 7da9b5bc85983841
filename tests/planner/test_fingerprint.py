"""The fingerprint finds what was put into the data."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import cpfnet
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError
from cpfnet.planner.fingerprint import fingerprint
from cpfnet.planner.modality import Look, guess, look_at
from cpfnet.planner.structure_shape import measure
from tests import synthetic
from tests.planner.pictures import KINDS
from tests.planner.shapes import COMPACT, LONG


def disc(size: int, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    return (rows - size / 2) ** 2 + (columns - size / 2) ** 2 <= radius**2


def images(root: Path, masks: list[np.ndarray], suffix: str = ".png") -> Path:
    """Grey images with given masks."""
    for number, mask in enumerate(masks):
        picture = np.random.default_rng(number).integers(0, 256, mask.shape[:2]).astype(np.uint8)
        synthetic.write_raster(root / "images" / f"c{number}.png", picture)
        synthetic.write_raster(root / "masks" / f"c{number}{suffix}", mask)
    return root


def test_volumes(tmp_path: Path) -> None:
    root = synthetic.make_volumes_dataset(tmp_path, cases=3, shape=(40, 36, 12), spacing=(0.5, 0.75, 4.0))
    found = fingerprint(load(root))
    assert found.volumes
    assert found.cases == found.patients == 3
    assert found.median_size == (12, 36, 40)
    assert found.median_spacing == (4.0, 0.75, 0.5)
    assert found.values == {"0": 3, "1": 3, "2": 3}
    assert [c.values for c in found.labels.classes] == [(1,), (2,)]
    truth = [synthetic.blobs(np.random.default_rng((0, n)), (12, 36, 40), 2) for n in range(3)]
    pixels = np.array([[(mask == k).sum() for k in (1, 2)] for _, mask in truth])
    np.testing.assert_allclose([c.frequency for c in found.classes], pixels.sum(axis=0) / (3 * 12 * 36 * 40))
    inside = np.concatenate([np.rint(400 * image)[mask > 0] for image, mask in truth])
    expected = np.percentile(inside, (0.5, 5, 50, 95, 99.5))
    assert found.channels[0].labels is not None
    np.testing.assert_allclose(found.channels[0].labels, expected, atol=4)


@pytest.mark.parametrize("number", [0, 7, 21, 30, 47])
def test_sizes_follow_the_patient_however_the_file_is_stored(tmp_path: Path, number: int) -> None:
    axes, signs = list(synthetic.orientations())[number]
    stored = (0.5, 0.75, 4.0)
    affine = synthetic.affine(tuple(stored[a] for a in axes), axes=axes, signs=signs, degrees=(8, -5, 10))
    size = (20, 18, 10)
    root = synthetic.make_volumes_dataset(tmp_path, 1, tuple(size[a] for a in axes), affine_ras=affine)
    found = fingerprint(load(root))
    assert found.median_size == (10, 18, 20)
    assert found.median_spacing == pytest.approx((4.0, 0.75, 0.5), rel=1e-3)


def test_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    dataset = load(synthetic.make_images_dataset(tmp_path, cases=5, size=(200, 190)))
    assert fingerprint(dataset, workers=1) == fingerprint(dataset, workers=4)


def test_test_cases_stay_out_of_it(tmp_path: Path) -> None:
    synthetic.make_images_dataset(tmp_path / "train", cases=3)
    synthetic.make_images_dataset(tmp_path / "test", cases=2, seed=1)
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
        synthetic.write_raster(root / "images" / "c0.png", np.zeros((40, 40), np.uint8))
    with pytest.raises(DatasetError, match=says) as caught:
        fingerprint(load(root))
    assert caught.value.fix


@pytest.mark.parametrize(
    "others",
    [np.uint8(disc(64, 20)), np.uint8(disc(64, 20)) + disc(64, 9), np.uint8(127 * disc(64, 20) + disc(64, 9) * 128)],
)
def test_no_threshold_that_erases_other_labels(tmp_path: Path, others: np.ndarray) -> None:
    images(tmp_path, [np.uint8(255 * disc(64, 20))], ".jpg")
    synthetic.write_raster(tmp_path / "images" / "other.png", np.full((64, 64), 9, np.uint8))
    synthetic.write_raster(tmp_path / "masks" / "other.png", others)
    with pytest.raises(DatasetError, match="a threshold at 127 would erase it"):
        fingerprint(load(tmp_path))


def test_a_single_nan_is_found(tmp_path: Path) -> None:
    image, mask = synthetic.blobs(np.random.default_rng(0), (40, 64, 64))
    image[7, 8, 9] = np.nan
    synthetic.write_nifti(tmp_path / "images" / "a.nii.gz", image)
    synthetic.write_nifti(tmp_path / "labels" / "a.nii.gz", mask)
    with pytest.raises(DatasetError, match=r"a\.nii\.gz: holds NaN"):
        fingerprint(load(tmp_path))


def test_nothing_labelled(tmp_path: Path) -> None:
    synthetic.make_images_dataset(tmp_path / "test", cases=2)
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


@pytest.mark.filterwarnings("error")
def test_one_pixel_is_a_structure() -> None:
    mask = np.zeros((32, 32), bool)
    mask[3, 4] = True
    found = measure(mask)
    assert found is not None
    assert (found.pixels, found.tubular((32, 32))) == (1, False)


@pytest.mark.parametrize("name", LONG)
def test_vessels_nerves_and_roads_are_tubes(name: str) -> None:
    masks = [LONG[name](np.random.default_rng(seed)) for seed in range(8)]
    found = [one.tubular(mask.shape) for mask in masks if (one := measure(mask))]
    assert found == [True] * 8


@pytest.mark.parametrize("name", COMPACT)
def test_tumours_of_any_shape_are_no_tubes(name: str) -> None:
    masks = [COMPACT[name](np.random.default_rng(seed)) for seed in range(8)]
    found = [one.tubular(mask.shape) for mask in masks if (one := measure(mask))]
    assert found == [False] * 8


def test_shells_and_spiked_balls_are_no_tubes() -> None:
    grid = np.indices((96, 96, 96)) - 48
    away = np.sqrt((grid**2).sum(axis=0))
    spikes = (np.sort(np.abs(grid), axis=0)[:2] <= 1).all(axis=0) & (away < 40)
    for mask in ((away > 28) & (away < 30), (away < 10) | spikes):
        found = measure(mask)
        assert found is not None
        assert not found.tubular((512, 512, 512))


@pytest.mark.parametrize(
    ("name", "tubular"), [("DRIVE/training/1st_manual", True), ("STARE_10/masks", True), ("PH2/masks", False)]
)
def test_tubes_in_real_labels(name: str, tubular: bool) -> None:
    from PIL import Image

    files = sorted(synthetic.shared(name.split("/")[0]).parent.joinpath(name).iterdir())[:10]
    masks = [np.asarray(Image.open(file).convert("L")) > 127 for file in files]
    found = [one.tubular(mask.shape) for mask in masks if (one := measure(mask))]
    assert (sum(found) > len(found) / 2) == tubular


RECOGNISED = {
    "skin": "dermoscopy",
    "fundus": "fundus",
    "ultrasound": "ultrasound",
    "oct": "oct",
    "chest": "xray",
}
"""All other `KINDS` could well be something else."""


@pytest.mark.parametrize("kind", KINDS)
def test_modality_of_images(kind: str) -> None:
    looks = [look_at(KINDS[kind](np.random.default_rng(seed))) for seed in range(12)]
    thin = kind == "fundus"

    def guessed(look: Look) -> str:
        return guess(look, volumes=False, low=0, high=255, thin=thin)[0]

    truth = RECOGNISED.get(kind, "other")
    assert guessed(Look.median(looks)) == truth
    assert {guessed(look) for look in looks} <= {truth, "other"}


@pytest.mark.parametrize("kind", ["polyp", "polyp_dark_corners", "polyp_cut_corners", "polyp_round", "fundus"])
def test_a_round_picture_without_vessels_is_not_known(kind: str) -> None:
    for seed in range(12):
        look = look_at(KINDS[kind](np.random.default_rng(seed)))
        assert guess(look, volumes=False, low=0, high=255)[0] == "other"


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (-1024, 3071, "ct"),
        (-3024, 3071, "ct"),
        (-4096, 4094, "other"),
        (0, 2252, "mr"),
        (0, 1, "other"),
        (-3, 4, "other"),
    ],
)
def test_modality_of_volumes(low: float, high: float, kind: str) -> None:
    look = look_at(KINDS["body_slice"](np.random.default_rng(0)))
    assert guess(look, volumes=True, low=low, high=high)[0] == kind


def test_volumes_that_are_no_mr() -> None:
    """Without negative numbers as MR, but PET of standardised uptake values × 1000, and CT counted from 0."""
    look = look_at(KINDS["body_slice"](np.random.default_rng(0)))
    for body in ((400.0, 500.0, 900.0, 4000.0, 15000.0), (78.0, 89.0, 1020.0, 1213.0, 1744.0)):
        assert guess(look, volumes=True, low=0, high=body[-1], body=body)[0] == "other"


def test_volumes_of_mr_may_differ_in_scale(tmp_path: Path) -> None:
    """Units of several scanners: over all volumes together, few values are far brighter than the rest, and in none."""
    root = synthetic.make_volumes_dataset(tmp_path, cases=6, shape=(20, 18, 8))
    for number, path in enumerate(sorted((root / "images").iterdir())):
        volume = nibabel.load(path)
        array = np.abs(np.asarray(volume.dataobj, dtype=np.float32)) * (5000 if number == 5 else 1)
        nibabel.save(nibabel.Nifti1Image(array + array.max() / 2, volume.affine), path)
    assert cpfnet.plan(root).modality == "mr"


@pytest.mark.parametrize(
    ("name", "kind"), [("PH2", "dermoscopy"), ("STARE_10", "fundus"), ("ChestXray", "xray"), ("Hippocampus", "mr")]
)
def test_modality_of_real_data(name: str, kind: str) -> None:
    from cpfnet import formats

    cases = load(synthetic.shared(name)).cases[:8]
    found = [formats.read(case.images).array for case in cases]
    volumes = found[0].ndim == 4
    looks = [look_at(a[:, a.shape[1] // 2] if volumes else a) for a in found]
    low, high = min(float(a.min()) for a in found), max(float(a.max()) for a in found)
    assert guess(Look.median(looks), volumes=volumes, low=low, high=high, thin=kind == "fundus")[0] == kind

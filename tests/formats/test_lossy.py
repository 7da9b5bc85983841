"""Class numbers in JPEG are refused wherever a label is read; soft masks and lossless class numbers are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import cpfnet
from cpfnet import formats
from cpfnet.data.checks.check import check
from cpfnet.errors import CpfnetError
from cpfnet.formats.lossy import LossyLabelError
from tests.synthetic import blobs, make_images_dataset, shared


def numbers(classes: int, size: tuple[int, int] = (96, 112)) -> np.ndarray:
    return blobs(np.random.default_rng(classes), size, classes)[1]


CONTAINERS: dict[str, dict[str, object]] = {
    "mask.jpg": {"quality": 75},
    "best.jpg": {"quality": 100},
    "mask.jpeg": {"quality": 75, "progressive": True},
    "called.png": {"format": "JPEG", "quality": 90},
    "mask.tif": {"compression": "jpeg"},
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("classes", [1, 2, 5, 20])
@pytest.mark.parametrize("colour", [False, True])
def test_numbers_in_jpeg_are_refused(tmp_path: Path, name: str, classes: int, colour: bool) -> None:
    picture = Pillow.fromarray(numbers(classes))
    (picture.convert("RGB") if colour else picture).save(tmp_path / name, **CONTAINERS[name])  # type: ignore[arg-type]
    with pytest.raises(LossyLabelError, match="class numbers") as error:
        formats.read_label(tmp_path / name)
    assert "PNG" in str(error.value.fix)


@pytest.mark.parametrize("classes", [3, 8])
def test_numbers_beside_255_are_numbers(tmp_path: Path, classes: int) -> None:
    """As of data sets that write 255 where nothing was annotated: a threshold would erase every class."""
    label = numbers(classes)
    label[:, -25:] = 255
    Pillow.fromarray(label).save(tmp_path / "mask.jpg")
    with pytest.raises(LossyLabelError):
        formats.read_label(tmp_path / "mask.jpg")


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("white", [255, 128, 200])
def test_soft_masks_in_jpeg_are_read(tmp_path: Path, white: int, quality: int) -> None:
    truth = numbers(1) * np.uint8(white)
    Pillow.fromarray(truth).save(tmp_path / "mask.jpg", quality=quality)
    got = formats.read_label(tmp_path / "mask.jpg").array[0]
    np.testing.assert_array_equal(got, np.array(Pillow.open(tmp_path / "mask.jpg")))
    Pillow.fromarray(truth * 0).save(tmp_path / "empty.jpg", quality=quality)
    assert not formats.read_label(tmp_path / "empty.jpg").array.any()


@pytest.mark.parametrize("name", ["mask.png", "mask.tif", "mask.bmp", "mask.gif"])
def test_numbers_without_loss_are_read(tmp_path: Path, name: str) -> None:
    Pillow.fromarray(numbers(5)).save(tmp_path / name)
    np.testing.assert_array_equal(formats.read_label(tmp_path / name).array[0], numbers(5))


def test_check_plan_and_evaluate_say_it(tmp_path: Path) -> None:
    root = make_images_dataset(tmp_path / "set", cases=5, size=(64, 72), classes=2)
    (tmp_path / "predictions").mkdir()
    for path in sorted((root / "masks").iterdir()):
        label = np.unique(np.array(Pillow.open(path)), return_inverse=True)[1].reshape(64, 72).astype(np.uint8)
        Pillow.fromarray(label).save(path)
        Pillow.fromarray(label).save(tmp_path / "predictions" / f"{path.stem}.jpg")
    assert check(root) == []
    with pytest.raises(CpfnetError, match="class numbers"):
        cpfnet.evaluate(root, tmp_path / "predictions")
    for path in sorted((root / "masks").iterdir()):
        (tmp_path / "predictions" / f"{path.stem}.jpg").replace(path.with_suffix(".jpg"))
        path.unlink()
    found = [f for f in check(root) if f.severity == "error"]
    assert [f.kind for f in found] == ["lossy-label"] * 5
    assert all(f.fix.startswith("take the original drawing") for f in found)
    with pytest.raises(CpfnetError, match="class numbers"):
        cpfnet.plan(root)


def jpegs(root: Path, values: tuple[int, ...], quality: int) -> Path:
    make_images_dataset(root, cases=5, size=(192, 224), classes=len(values) - 1)
    for path in sorted((root / "masks").iterdir()):
        label = np.unique(np.array(Pillow.open(path)), return_inverse=True)[1].reshape(192, 224)
        Pillow.fromarray(np.array(values, np.uint8)[label]).save(path.with_suffix(".jpg"), quality=quality)
        path.unlink()
    return root


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("quality", [97, 98, 99, 100])
def test_the_best_jpeg_of_a_mask_holds_one_class(tmp_path: Path, quality: int, again: bool) -> None:
    """It leaves 1 and 254 near 0 and 255, scattered along the edges: no classes, not even after conversion to PNG."""
    root = jpegs(tmp_path, (0, 255), quality)
    for path in sorted((root / "masks").iterdir()):
        values = np.unique(np.array(Pillow.open(path)))
        assert len(values) > 3
        assert np.minimum(values, 255 - values).max() < 16
        if again:
            Pillow.open(path).save(path.with_suffix(".png"))
            path.unlink()
    assert [f.kind for f in check(root)] == ["soft-label"]
    labels = cpfnet.plan(root).labels
    assert (len(labels.classes), labels.threshold) == (1, 127)


@pytest.mark.parametrize("quality", [60, 90, 100])
@pytest.mark.parametrize("values", [(0, 127, 255), (0, 60, 120, 180, 240), (0, 100, 200)])
def test_classes_in_jpeg_are_not_merged_by_a_threshold(tmp_path: Path, values: tuple[int, ...], quality: int) -> None:
    root = jpegs(tmp_path, values, quality)
    assert {f.severity for f in check(root) if f.kind in ("soft-label", "label-values", "lossy-label")} == {"error"}
    with pytest.raises(CpfnetError, match=r"several classes in JPEG|class numbers"):
        cpfnet.plan(root)


def test_masks_of_radiographs_are_soft() -> None:
    for path in sorted((shared("ChestXray") / "masks").iterdir()):
        formats.read_label(path)

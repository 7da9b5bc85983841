"""The cache holds what preprocessing gives, whole or not at all, and says clearly what went wrong."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cpfnet import formats, preprocessing
from cpfnet.data.case import Dataset
from cpfnet.errors import CpfnetError, OutputError, TrainingError
from cpfnet.labels import IGNORED, OUTSIDE, encode
from cpfnet.preprocessing.intensity import levels
from cpfnet.training.samples import cache
from tests import synthetic
from tests.training.conftest import full_disk, images_plan, volumes_plan


@pytest.mark.parametrize("workers", [0, 2])
def test_arrays_are_those_of_preprocessing(volumes: Dataset, tmp_path: Path, workers: int) -> None:
    plan = volumes_plan(workers=workers)
    cached = cache.build(volumes.cases, plan, tmp_path / "cache")
    assert [c.id for c in cached] == [c.id for c in volumes.cases]
    for case, found in zip(volumes.cases, cached, strict=True):
        array, trace = preprocessing.apply(formats.read(case.images), plan)
        codes = preprocessing.apply_codes(encode(formats.read_label(case.labels["label"]), plan.labels), trace)
        assert isinstance(found.image().numbers, np.memmap)
        np.testing.assert_array_equal(np.asarray(found.image()).view(np.uint32), array.view(np.uint32))
        np.testing.assert_array_equal(found.codes(), codes[None])
        assert found.spacing == (2.0, 1.0, 1.0)
        voxels = formats.read(case.images).array[0].size
        assert found.pixel_volume * found.codes()[0].size == pytest.approx(
            2.0 * voxels
        )  # mm³, of voxels of 1 × 1 × 2 mm
        assert found.levels == tuple(
            levels(x, c.intensity) for x, c in zip(formats.read(case.images).array, plan.channels, strict=True)
        )


def test_what_the_disk_would_not_hold_is_rounded_aloud(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plan = images_plan().with_settings(["spatial.size=[40, 48]"])
    exact = cache.build(images.cases, plan, tmp_path / "exact")
    assert not caplog.records
    wanted = len(images.cases) * 40 * 48 * (3 * 4 + 1)
    for share, said in ((1.01, False), (0.99, True)):
        monkeypatch.setattr(cache, "FILL", share * wanted / shutil.disk_usage(tmp_path).free)
        again = cache.build(images.cases, plan, tmp_path / str(share))
        assert any("1/131,070" in message for message in caplog.messages) is said
        for one, other in zip(exact, again, strict=True):
            assert one.image().table is None
            assert other.digest == one.digest  # of the same data: --resume goes on
            values, near = np.asarray(one.image()), np.asarray(other.image())
            assert np.array_equal(near, values) is not said
            np.testing.assert_allclose(near, values, rtol=0, atol=1.01 * np.ptp(values, axis=(1, 2)).max() / 131_070)
    (file,) = cache.build(images.cases[:1], images_plan(), tmp_path / "files")  # as tight, and exact all the same
    array, _ = preprocessing.apply(formats.read(images.cases[0].images), images_plan())
    np.testing.assert_array_equal(file.image(), array)
    assert file.image().numbers.dtype == np.uint8


def test_outside_the_region_of_interest_nothing_counts(images: Dataset, tmp_path: Path) -> None:
    (found,) = cache.build(images.cases[:1], images_plan(), tmp_path)
    roi = formats.read_label(images.cases[0].roi).array[0] > 0
    assert 0 < roi.mean() < 1
    np.testing.assert_array_equal(found.codes()[0] == IGNORED, ~roi)


def test_the_empty_surroundings_of_a_picture_are_background(images: Dataset, tmp_path: Path) -> None:
    """As around a fundus photograph: were they ignored, the network might predict anything there."""
    roi = formats.read_label(images.cases[0].roi).array[0] > 0
    photograph = formats.read(images.cases[0].images).array.copy()
    photograph[:, ~roi] = np.random.default_rng(0).integers(0, 5, (3, (~roi).sum()))
    speck = tuple(np.argwhere(~roi)[0])
    photograph[:, *speck] = 250
    synthetic.write_raster(tmp_path / "a.png", np.moveaxis(photograph, 0, -1))
    case = replace(images.cases[0], images=(tmp_path / "a.png",))
    (found,) = cache.build([case], images_plan(), tmp_path / "cache")
    expected = np.where(roi, found.codes()[0], OUTSIDE)
    expected[speck] = IGNORED
    np.testing.assert_array_equal(found.codes()[0], expected)
    assert (found.codes()[0][roi] < OUTSIDE).all()


def test_a_structure_outside_the_region_of_interest_does_not_count(images: Dataset, tmp_path: Path) -> None:
    roi = formats.read_label(images.cases[0].roi).array[0] > 0
    photograph = formats.read(images.cases[0].images).array * roi
    synthetic.write_raster(tmp_path / "a.png", np.moveaxis(photograph, 0, -1))
    synthetic.write_raster(tmp_path / "m.png", np.full(roi.shape, 255, np.uint8))
    case = replace(images.cases[0], images=(tmp_path / "a.png",), labels={"label": tmp_path / "m.png"})
    (found,) = cache.build([case], images_plan(), tmp_path / "cache")
    np.testing.assert_array_equal(found.codes()[0], np.where(roi, 1, IGNORED))


def test_positions_point_at_their_codes(volumes: Dataset, images: Dataset, tmp_path: Path) -> None:
    cached = cache.build(volumes.cases, volumes_plan(), tmp_path)
    cached += cache.build(images.cases, images_plan(), tmp_path)
    for case in cached:
        codes = case.codes()
        named = {code for _, code, _, _ in case.positions}
        assert named == {c for c in np.unique(codes) if 0 < c < IGNORED} | ({0} if (codes == IGNORED).any() else set())
        for reader, code, start, stop in case.positions:
            values = codes[reader].reshape(-1)[[case.position(i) for i in (start, (start + stop) // 2, stop - 1)]]
            assert (values != IGNORED).all() if code == cache.ANNOTATED else (values == code).all()


def test_readers_are_kept_apart(images: Dataset, tmp_path: Path) -> None:
    first, second = images.cases[0].labels["label"], images.cases[1].labels["label"]
    case = replace(images.cases[0], labels={"anna": first, "ben": second}, roi=None)
    (found,) = cache.build([case], images_plan(), tmp_path)
    assert found.readers == ("anna", "ben")
    for plane, path in zip(found.codes(), (first, second), strict=True):
        np.testing.assert_array_equal(plane, formats.read_label(path).array[0] > 0)


def test_it_is_used_again_until_the_data_or_their_preparation_change(images: Dataset, tmp_path: Path) -> None:
    case = images.cases[0]
    label = tmp_path / "label.png"
    label.write_bytes(case.labels["label"].read_bytes())
    case = replace(case, labels={"label": label})
    folder = tmp_path / "cache"

    def made() -> dict[str, int]:
        return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/image.npy")}

    (before,) = cache.build([case], images_plan(), folder)
    times = made()
    (again,) = cache.build([case], images_plan(epochs=50, batch=1), folder)
    assert again == before
    assert made() == times
    cache.build([case], images_plan().with_settings(["spatial.size=[40, 40]"]), folder)
    assert len(made()) == 2
    synthetic.write_raster(label, np.zeros((64, 64), np.uint8))
    (changed,) = cache.build([case], images_plan(), folder)
    assert len(made()) == 3
    assert changed.digest != before.digest


def test_equal_content_has_an_equal_digest_elsewhere(images: Dataset, tmp_path: Path) -> None:
    (one,) = cache.build(images.cases[:1], images_plan(), tmp_path / "a")
    (other,) = cache.build(images.cases[:1], images_plan(), tmp_path / "b")
    assert one.digest == other.digest


def test_a_half_made_case_is_made_anew(images: Dataset, tmp_path: Path) -> None:
    (whole,) = cache.build(images.cases[:1], images_plan(), tmp_path)
    (whole.folder / "meta.json").unlink()  # written last
    (again,) = cache.build(images.cases[:1], images_plan(), tmp_path)
    assert again == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_cases_are_named(images: Dataset, tmp_path: Path, workers: int) -> None:
    plan = images_plan(workers=workers)
    small = synthetic.write_raster(tmp_path / "small.png", np.zeros((32, 64), np.uint8))
    alien = synthetic.write_raster(tmp_path / "alien.png", np.full((64, 64), 7, np.uint8))
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    gone = tmp_path / "gone.png"
    for path, said in ((small, "64×64 against 32×64"), (alien, "label values 7"), (text, "text.png"), (gone, "gone")):
        case = replace(images.cases[0], labels={"label": path})
        with pytest.raises(CpfnetError, match=said) as caught:
            cache.build([images.cases[1], case, images.cases[2]], plan, tmp_path / "cache")
        assert path.name in str(caught.value)
        assert caught.value.fix


@pytest.mark.parametrize("workers", [0, 2])
def test_a_full_disk_ends_in_a_message(images: Dataset, tmp_path: Path, workers: int) -> None:
    with full_disk(20_000), pytest.raises(OutputError, match=r"cannot be written: .* GiB free"):
        cache.build(images.cases, images_plan(workers=workers), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_ends_in_a_message(images: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        cache.build(images.cases[:1], images_plan(), tmp_path / "file" / "cache")


def _dies(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_ends_in_a_message(images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_make", _dies)
    with pytest.raises(TrainingError, match="killed") as caught:
        cache.build(images.cases, images_plan(workers=2), tmp_path)
    assert "training.workers" in str(caught.value)

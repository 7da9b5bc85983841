"""`--resume`: what an earlier run made is left alone only where it would be made the same again.

Nothing else is lost, or replaced without a word.
"""

import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from cpfnet.inference.batch import records
from cpfnet.inference.batch.run import Outcome
from tests import synthetic
from tests.inference.batch import test_dicom_inputs as dicom
from tests.inference.batch.test_run import images_model, picture, tree
from tests.inference.oracle import bright, make_model
from tests.predicting import predict_files


def write_photo(folder: Path, name: str, roll: int) -> Path:
    return synthetic.write_raster(folder / f"{name}.png", picture(roll)[0])


def write_volume(folder: Path, name: str, roll: int) -> Path:
    mask = np.roll(synthetic.phantom((5, 34, 36))[1], roll, axis=2)
    return synthetic.write_nifti(folder / f"{name}.nii.gz", bright(mask, 3))


def write_study(folder: Path, name: str, roll: int) -> Path:
    shutil.rmtree(folder / name, ignore_errors=True)
    patient = name.encode("ascii", "backslashreplace").decode()
    dicom.ct(folder / name, dicom.phantom(roll), patient=f"{patient} {roll}")
    return folder / name


def found(path: Path) -> np.ndarray:
    """The pixels of a mask, by libraries of others."""
    if path.name.endswith(".png"):
        return np.asarray(Pillow.open(path))
    if path.name.endswith(".nii.gz"):
        return np.asarray(nibabel.load(path).dataobj)
    import pydicom

    return pydicom.dcmread(path).pixel_array


@dataclass
class Kind:
    """Inputs of a kind, with a Model for them."""

    model: object
    write: object
    suffix: str
    folder: Path
    said: list[str] = field(default_factory=list)

    def put(self, name: str, roll: int = 0) -> Path:
        return self.write(self.folder / "in", name, roll)

    def mask(self, name: str) -> Path:
        return self.folder / "out" / f"{name}{self.suffix}"

    def run(self, **options) -> list[Outcome]:
        options = {"resume": True, "device": "cpu", "listen": self.said.append} | options
        return predict_files([options.pop("model", self.model)], [self.folder / "in"], self.folder / "out", **options)

    def fresh(self) -> dict[str, np.ndarray]:
        """What a run into an empty folder makes."""
        out = self.folder / "fresh"
        shutil.rmtree(out, ignore_errors=True)
        predict_files([self.model], [self.folder / "in"], out, device="cpu")
        return {name: found(out / name) for name in tree(out) if name != "quality.csv"}

    def check(self) -> None:
        for name, pixels in self.fresh().items():
            np.testing.assert_array_equal(found(self.folder / "out" / name), pixels)


KINDS = {
    "photographs": (images_model, write_photo, ".png"),
    "volumes": (lambda: make_model(slices="axial"), write_volume, ".nii.gz"),
    "studies": (dicom.model, write_study, ".seg.dcm"),
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path) -> Kind:
    make, write, suffix = KINDS[request.param]
    return Kind(make(), write, suffix, tmp_path)


def test_what_is_done_is_left_alone(kind):
    kind.put("a")
    kind.put("b", 3)
    first = kind.run()
    before = {name: (kind.folder / "out" / name).stat().st_mtime_ns for name in tree(kind.folder / "out")}
    again = kind.run()
    assert [(o.status, o.already_done, o.output) for o in again] == [("done", True, o.output) for o in first]
    assert [o.quality for o in again] == [o.quality for o in first]
    assert {name: (kind.folder / "out" / name).stat().st_mtime_ns for name in before} == before
    assert kind.said == []


def test_another_patient_in_another_folder_of_the_same_parent(kind):
    """The outer folder has no part in the name."""
    place = kind.put("A")
    kind.run()
    shutil.move(place, kind.folder / place.name)
    kind.put("B", 5)
    (outcome,) = kind.run()
    assert (outcome.already_done, outcome.output) == (False, kind.mask("B"))
    assert tree(kind.folder / "out") == [f"A{kind.suffix}", f"B{kind.suffix}"]
    kind.check()


def test_another_input_under_the_same_name_is_done_again_and_said(kind):
    kind.put("a")
    kind.put("b")
    kind.run()
    kind.put("a", 5)
    a, b = sorted(kind.run(), key=lambda outcome: outcome.path.name)
    assert [(o.status, o.already_done, o.again) for o in (a, b)] == [
        ("done", False, "its input was another one"),
        ("done", True, ""),
    ]
    assert kind.said == ["Made again: a: its input was another one"]
    kind.check()


def test_two_inputs_that_changed_places(kind):
    a, b = kind.put("a"), kind.put("b", 5)
    kind.run()
    a.rename(kind.folder / "kept"), b.rename(a), (kind.folder / "kept").rename(b)
    assert [o.already_done for o in kind.run()] == [False, False]
    kind.check()


def test_the_same_content_under_the_same_name_is_the_same_input(kind):
    """Copied anew: other inodes, other times."""
    place = kind.put("a")
    kind.run()
    if place.is_dir():
        shutil.copytree(place, kind.folder / "copy")
        shutil.rmtree(place)
    else:
        shutil.copy(place, kind.folder / "copy")
        place.unlink()
    (kind.folder / "copy").rename(place)
    assert [o.already_done for o in kind.run()] == [True]


def test_the_same_content_under_another_name_is_another_result(kind):
    place = kind.put("a")
    kind.run()
    place.rename(place.with_name(place.name.replace("a", "c", 1)))
    (outcome,) = kind.run()
    assert (outcome.already_done, outcome.output) == (False, kind.mask("c"))
    np.testing.assert_array_equal(found(kind.mask("c")), found(kind.mask("a")))


def test_another_model_is_said(kind):
    kind.put("a")
    kind.run()
    other = KINDS[next(name for name, made in KINDS.items() if made[2] == kind.suffix)][0]()
    other.state = {"sharpness": torch.tensor([900.0])}
    (outcome,) = kind.run(model=other)
    assert outcome.again == "another Model made it"
    assert kind.said == ["Made again: a: another Model made it"]
    assert [o.already_done for o in kind.run(model=other)] == [True]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"tta": True}, "it was made with tta off, not on"),
        ({"overlap": 0.0}, "it was made with overlap as planned, not 0.0"),
        ({"format": "tiff"}, ""),
    ],
)
def test_other_options_are_said(tmp_path, options, reason):
    kind = Kind(images_model(inference={"mirror": ["width"]}), write_photo, ".png", tmp_path)
    kind.put("a")
    kind.run()
    (outcome,) = kind.run(**options)
    assert outcome.already_done is False
    assert reason in outcome.again
    (outcome,) = kind.run(**options)
    assert outcome.already_done is True


def test_another_way_to_write_the_same_suffix(tmp_path):
    kind = Kind(dicom.model(), write_study, ".seg.dcm", tmp_path)
    kind.put("a")
    kind.run(format="dicom-seg")
    (outcome,) = kind.run(format="dicom-labelmap")
    assert outcome.again == "it was made with format dicom-seg, not dicom-labelmap"


def test_what_is_asked_for_in_addition_is_made_without_a_word(kind):
    kind.put("a")
    kind.run()
    (outcome,) = kind.run(overlays=True)
    assert (outcome.already_done, outcome.again, kind.said) == (False, "", [])
    assert "overlays/a.png" in tree(kind.folder / "out")
    assert (
        [o.already_done for o in kind.run(overlays=True)] == [o.already_done for o in kind.run()] == [True]
    )  # less is there, too


def test_force_counts_only_where_it_was_needed(tmp_path):
    kind = Kind(images_model(), write_photo, ".png", tmp_path)
    kind.put("a")
    synthetic.write_raster(tmp_path / "in" / "black.png", np.zeros((40, 40), np.uint8))
    assert [o.status for o in kind.run()] == ["done", "refused"]
    assert [(o.status, o.already_done) for o in kind.run(force=True)] == [("done", True), ("done", False)]
    assert [(o.status, o.already_done) for o in kind.run(force=True)] == [("done", True), ("done", True)]
    assert [(o.status, o.already_done) for o in kind.run()] == [("done", True), ("refused", False)]


@pytest.mark.parametrize("left", [0, 0.2, 0.7])
def test_a_mask_cut_short_is_made_again_and_said(kind, left):
    kind.put("a")
    kind.run()
    whole = kind.mask("a").read_bytes()
    kind.mask("a").write_bytes(whole[: int(left * len(whole))])
    (outcome,) = kind.run()
    assert (outcome.status, outcome.already_done) == ("done", False)
    assert kind.said == [f"Made again: a: its mask was {'damaged' if left else 'empty'}"]
    kind.check()


@pytest.mark.parametrize("format", ["rtstruct", "dicom-labelmap"])
def test_objects_of_dicom_cut_short_are_made_again(tmp_path, format):
    kind = Kind(dicom.model(), write_study, ".rtstruct.dcm" if format == "rtstruct" else ".seg.dcm", tmp_path)
    kind.put("a")
    kind.run(format=format, probabilities=True)
    for path in (kind.mask("a"), tmp_path / "out" / "probabilities" / "a.seg.dcm"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        (outcome,) = kind.run(format=format, probabilities=True)
        assert "was damaged" in outcome.again
        assert abs(path.stat().st_size - len(whole)) < 100


def test_a_mask_that_somebody_changed_is_kept_and_said(kind):
    kind.put("a")
    kind.put("b")
    kind.run()
    replaced = kind.mask("b").read_bytes()
    kind.put("b", 4)
    kind.run()
    newer = kind.mask("b").read_bytes()
    kind.mask("b").write_bytes(replaced)  # whole, and not what was made at last
    assert replaced != newer
    a, b = sorted(kind.run(), key=lambda outcome: outcome.path.name)
    assert (a.status, a.already_done, b.status) == ("done", True, "failed")
    assert "was changed after it was made" in b.message
    assert "--overwrite" in b.message
    assert kind.mask("b").read_bytes() == replaced
    a, b = sorted(kind.run(overwrite=True), key=lambda outcome: outcome.path.name)
    assert (a.already_done, b.status, b.again) == (True, "done", "its mask was changed after it was made")
    kind.check()


def test_a_mask_that_somebody_changed_is_kept_when_its_input_changed_too(kind):
    kind.put("a")
    kind.put("z", 4)
    kind.run()
    shutil.copy(kind.mask("z"), kind.mask("a"))
    edited = kind.mask("a").read_bytes()
    kind.put("a", 6)
    assert sorted(o.status for o in kind.run()) == ["done", "failed"]
    assert kind.mask("a").read_bytes() == edited


def test_a_mask_without_a_record_is_nobodys(kind):
    kind.put("a")
    kind.run()
    records.path_of(kind.folder / "out", "a").unlink()
    before = kind.mask("a").read_bytes()
    (outcome,) = kind.run()
    assert outcome.status == "failed"
    assert "no record tells what it was made from" in outcome.message
    assert kind.mask("a").read_bytes() == before
    (outcome,) = kind.run(overwrite=True)
    assert (outcome.status, outcome.already_done) == ("done", False)
    assert [o.already_done for o in kind.run()] == [True]


def test_an_empty_mask_without_a_record_holds_nothing_to_lose(kind):
    kind.put("a")
    kind.mask("a").parent.mkdir()
    kind.mask("a").touch()
    (outcome,) = kind.run()
    assert (outcome.status, outcome.again) == ("done", "its mask was empty")
    kind.check()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "another key", "bytes"])
def test_a_damaged_record_is_not_done_and_said(kind, damage):
    kind.put("a")
    kind.run()
    path = records.path_of(kind.folder / "out", "a")
    whole = path.read_bytes()
    other = json.dumps(json.loads(whole) | {"more": 1}).encode()
    path.write_bytes(
        {"cut": whole[:50], "empty": b"", "text": b"done", "another key": other, "bytes": b"\xff\0"}[damage]
    )
    (outcome,) = kind.run()
    assert (outcome.status, outcome.already_done) == ("done", False)
    assert kind.said == ["Made again: a: the record of how it was made was damaged"]
    assert [o.already_done for o in kind.run()] == [True]


def test_the_record_and_mask_of_another_patient_are_not_taken(kind):
    """A folder copied over another one, records and all."""
    kind.put("a")
    kind.put("b", 5)
    kind.run()
    for path in (kind.mask("{}"), records.path_of(kind.folder / "out", "{}")):
        shutil.copy(str(path).format("b"), str(path).format("a"))
    a, b = sorted(kind.run(), key=lambda outcome: outcome.path.name)
    assert (a.already_done, a.again, b.already_done) == (False, "its input was another one", True)
    kind.check()


def test_maps_of_an_earlier_input_do_not_stay_beside_the_new_mask(tmp_path):
    kind = Kind(images_model(), write_photo, ".png", tmp_path)
    kind.put("a")
    kind.put("b")
    kind.run(probabilities=True, overlays=True)
    (tmp_path / "out" / "overlays" / "a.png").write_bytes(b"my own")
    kind.put("a", 5)
    kind.run()
    assert tree(tmp_path / "out") == ["a.png", "b.png", "overlays/a.png", "overlays/b.png", "probabilities/b.tif"]
    assert [o.already_done for o in kind.run(probabilities=True)] == [False, True]


class TestWithoutOverwriting:
    """A run that is to replace nothing takes nothing away."""

    def test_masks_of_another_format_stay(self, tmp_path):
        kind = Kind(images_model(), write_photo, ".png", tmp_path)
        kind.put("a")
        kind.run(resume=False)
        kind.run(resume=False, format="tiff", probabilities=True)
        kind.run(format="nifti")
        assert tree(tmp_path / "out") == ["a.nii.gz", "a.png", "a.tif", "probabilities/a.tif"]
        kind.check()

    @pytest.mark.parametrize("change", ["input", "model"])
    def test_what_would_be_taken_away_is_refused(self, tmp_path, change):
        kind = Kind(images_model(), write_photo, ".png", tmp_path)
        kind.put("a")
        kind.run(resume=False)
        mask = found(kind.mask("a"))
        other = images_model(values=(1, 2, 3)) if change == "model" else kind.model
        kind.put("a", 0 if change == "model" else 5)
        (outcome,) = kind.run(resume=False, format="tiff", model=other)
        assert (outcome.status, tree(tmp_path / "out")) == ("failed", ["a.png"])
        assert "cannot stay beside the new result" in outcome.message
        np.testing.assert_array_equal(found(kind.mask("a")), mask)
        (outcome,) = kind.run(resume=False, overwrite=True, format="tiff", model=other)
        assert (outcome.status, tree(tmp_path / "out")) == ("done", ["a.tif"])


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": False, "overwrite": True}])
def test_a_folder_where_a_result_belongs(tmp_path, options):
    kind = Kind(images_model(), write_photo, ".png", tmp_path)
    kind.put("a")
    kind.put("b")
    kind.run()
    kind.mask("a").unlink()
    synthetic.write_raster(kind.mask("a") / "mine.png", np.zeros((4, 4), np.uint8))
    a, b = kind.run(**options)
    assert (a.status, b.status) == ("failed", "done")
    assert a.message.startswith(f"{kind.mask('a')}: is a folder")
    assert (kind.mask("a") / "mine.png").exists()


@pytest.mark.parametrize("files", [{}, {"overlays/*.png": "0"}, {"../../mine*": None}, {"*.png/../../mine": None}])
def test_a_record_that_somebody_wrote_leads_nowhere_else(tmp_path, files):
    kind = Kind(images_model(), write_photo, ".png", tmp_path)
    kind.put("a")
    kind.run()
    for name in ("mine", "minea"):
        (tmp_path / name).write_bytes(b"mine")
    digest = records.sha256_now(tmp_path / "mine")
    path = records.path_of(tmp_path / "out", "a")
    files = {pattern: digest if value is None else value for pattern, value in files.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"input": "0", "files": files, "quality": {}}))
    kind.put("b")
    kind.run(overwrite=True, uncertainty=True)
    kind.check()
    assert (tmp_path / "mine").exists()
    assert (tmp_path / "minea").exists()


class TestSeries:
    @pytest.fixture
    def kind(self, tmp_path) -> Kind:
        return Kind(dicom.model(), write_study, ".seg.dcm", tmp_path)

    def test_one_slice_replaced(self, kind):
        place = kind.put("a")
        kind.run()
        files = sorted(place.iterdir())
        other = dicom.ct(kind.folder / "other", dicom.phantom(9), patient="a 0")  # the same UIDs
        assert files[2].read_bytes() != other[2].read_bytes()
        shutil.copy(other[2], files[2])
        (outcome,) = kind.run()
        assert outcome.again == "its input was another one", outcome
        kind.check()

    def test_one_slice_less(self, kind):
        place = kind.put("a")
        kind.run()
        max(place.iterdir()).unlink()
        (outcome,) = kind.run()
        assert outcome.again == "its input was another one"
        kind.check()

    def test_slices_under_other_names_and_other_objects_beside_them_are_the_same_series(self, kind):
        place = kind.put("a")
        kind.run()
        for number, file in enumerate(sorted(place.iterdir())):
            file.rename(place / f"{9 - number}.ima")
        (place / "notes.txt").write_text("seen")
        synthetic.write_photograph(place / "dose", np.zeros((8, 9), np.uint8), SOPClassUID=dicom.DOSE)
        assert [o.already_done for o in kind.run()] == [True]

    def test_an_archive(self, kind):
        place = kind.put("a")
        archive = dicom.zipped(kind.folder / "in" / "b.zip", place)
        shutil.rmtree(place)
        kind.run()
        assert [o.already_done for o in kind.run()] == [True]
        dicom.zipped(archive, dicom.ct(kind.folder / "other", dicom.phantom(9), patient="a 0")[0].parent)
        assert [o.again for o in kind.run()] == ["its input was another one"]


def test_channels_in_another_order_are_another_input(tmp_path):
    model = make_model(channels=2, slices="axial")
    kind = Kind(model, write_volume, ".nii.gz", tmp_path)
    first, second = kind.put("a_0000"), kind.put("a_0001", 3)
    kind.run()
    first.rename(tmp_path / "kept.nii.gz"), second.rename(first), (tmp_path / "kept.nii.gz").rename(second)
    assert [o.again for o in kind.run()] == ["its input was another one"]


def test_a_record_holds_nothing_of_the_patient_and_no_names(tmp_path):
    kind = Kind(dicom.model(), write_study, ".seg.dcm", tmp_path)
    kind.put("Muster_Erika")
    kind.run()
    text = records.path_of(tmp_path / "out", "Muster_Erika").read_text()
    for word in ("Muster", "Erika", synthetic.dicom_uid("Muster_Erika 0", "study", "series"), str(tmp_path)):
        assert word not in text


def test_an_input_that_changes_while_it_is_read_is_not_recorded_as_another(tmp_path, monkeypatch):
    from cpfnet import formats

    kind = Kind(images_model(), write_photo, ".png", tmp_path)
    kind.put("a")
    real = formats.read

    def read(path):
        image = real(path)
        kind.put("a", 7)
        return image

    monkeypatch.setattr(formats, "read", read)
    (outcome,) = kind.run()
    assert outcome.status == "failed"
    assert "changed while it was read" in outcome.message
    assert tree(tmp_path / "out") == []


def test_a_name_that_is_not_utf_8_is_a_name_like_others(tmp_path):
    bad = os.fsdecode(b"caf\xe9")
    for make, write, suffix in KINDS.values():
        kind = Kind(make(), write, suffix, tmp_path / suffix)
        kind.put(bad)
        kind.put("good", 2)
        options = {"overlays": True, "probabilities": True, "uncertainty": True}
        assert [o.status for o in kind.run(**options)] == ["done", "done"]
        assert kind.mask(bad).exists()
        assert [o.already_done for o in kind.run(**options)] == [True, True]
        listed = (tmp_path / suffix / "out" / "quality.csv").read_text("utf-8")
        assert f"caf\\xe9{suffix}" in listed
        kind.put(bad, 4)
        assert sorted(o.already_done for o in kind.run(**options)) == [False, True]
        assert all(text.isascii() for text in kind.said)

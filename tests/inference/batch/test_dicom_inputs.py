"""DICOM in: which series the inputs mean, what their results are called, and that they line up."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

import cpfnet
from cpfnet import formats
from cpfnet.cli.app import app
from cpfnet.data.dataset import load
from cpfnet.errors import DatasetError
from cpfnet.inference.batch.inputs import collect
from cpfnet.inference.batch.item import Item
from cpfnet.inference.batch.run import Outcome
from cpfnet.inference.dataset_predictions import load_predictions
from tests import synthetic
from tests.data.dicom_studies import scan, write_rtstruct
from tests.inference.batch.test_run import tree
from tests.inference.oracle import bright, make_model
from tests.predicting import predict_files

DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
EMPTY = np.zeros((3, 8, 9), np.uint16)


def model(**more):
    return make_model(values=(1, 2, 3), slices="axial", modality="ct", **more)


def ct(folder: Path, mask: np.ndarray, **options) -> list[Path]:
    """A series that the oracle finds ``mask`` in."""
    return synthetic.write_series(folder, bright(mask, 3).astype(np.uint16) + 1024, **options)


def phantom(roll: int = 0) -> np.ndarray:
    return np.roll(synthetic.phantom((9, 34, 36))[1], roll, axis=2)


def zipped(path: Path, folder: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def digest(uid: str) -> str:
    import hashlib

    return hashlib.sha256(uid.encode()).hexdigest()[:8]


class TestCollect:
    def names(self, *inputs: Path | str, modality: str = "ct") -> list[str]:
        items = collect(inputs, channels=1, modality=modality)
        assert all(item.error is None for item in items), items
        return [item.name for item in items]

    def test_a_folder_is_its_series_and_gives_it_its_name(self, tmp_path):
        synthetic.write_series(tmp_path / "pat_7", EMPTY)
        (item,) = collect([tmp_path / "pat_7"], channels=1)
        assert item == Item((tmp_path / "pat_7",), "pat_7", None, tmp_path / "pat_7", "ct")

    def test_a_folder_of_studies_is_every_series_called_after_its_folders(self, tmp_path):
        for patient in "ab":
            for series in "12":
                folder = tmp_path / f"pat_{patient}" / "CT" / f"s{series}"
                synthetic.write_series(folder, EMPTY, patient=patient, series=series)
        synthetic.write_series(tmp_path / "pat_c" / "deep" / "down", EMPTY, patient="c")
        expected = [*(f"pat_{patient}/CT/s{number}" for patient in "ab" for number in "12"), "pat_c/deep/down"]
        assert self.names(tmp_path) == expected
        shell = [*expected[:4], "deep/down"]  # where names repeat, the folders that tell them apart are kept
        assert self.names(*sorted(tmp_path.iterdir())) == shell  # as a shell would pass them
        assert self.names(tmp_path / "*") == shell
        assert self.names(tmp_path / "pat_c" / "deep" / "down") == ["down"]
        assert self.names(tmp_path / "pat_c", tmp_path / "pat_a" / "CT") == ["deep/down", "s1", "s2"]
        synthetic.write_series(tmp_path / "pat_c" / "mr", EMPTY, patient="c", series="mr", modality="MR")
        assert self.names(tmp_path / "pat_c") == ["deep/down", "mr-MR"]

    def test_links_are_called_as_the_user_calls_them(self, tmp_path):
        for number in "12":
            synthetic.write_series(tmp_path / "archive" / f"MUSTER_{number}", EMPTY, patient=number)
            (tmp_path / "data").mkdir(exist_ok=True)
            (tmp_path / "data" / f"pat_{number}").symlink_to(tmp_path / "archive" / f"MUSTER_{number}")
        assert self.names(tmp_path / "data") == ["pat_1", "pat_2"]
        assert self.names(tmp_path / "data" / "pat_1") == ["pat_1"]

    def test_series_in_one_folder_are_told_apart_by_digests_of_their_uids(self, tmp_path):
        for series in "12":
            synthetic.write_series(tmp_path / "pat", EMPTY, series=series, names=f"{series}_{{}}")
        uids = [synthetic.dicom_uid("P-0815", "study", series) for series in "12"]
        assert sorted(self.names(tmp_path / "pat")) == sorted(f"pat-{digest(uid)}" for uid in uids)
        one = tmp_path / "pat" / f"series={uids[1]}"
        assert self.names(one) == [f"pat-{digest(uids[1])}"]
        assert self.names(one.with_name(f"series={uids[1][-9:]}")) == [f"pat-{digest(uids[1])}"]

    def test_series_of_other_modalities_do_not_change_the_names(self, tmp_path):
        for patient in "ab":
            synthetic.write_series(tmp_path / patient, EMPTY, patient=patient)
            synthetic.write_series(
                tmp_path / patient, EMPTY, patient=patient, series="mr", modality="MR", names="mr_{}"
            )
        items = {item.name: item.modality for item in collect([tmp_path], channels=1, modality="ct")}
        assert items == {"a": "ct", "b": "ct", "a-MR": "mr", "b-MR": "mr"}
        uids = [synthetic.dicom_uid(patient, "study", series) for patient in "ab" for series in ("series", "mr")]
        expected = sorted(f"{patient}-{digest(uid)}" for patient, uid in zip("aabb", uids, strict=True))
        assert sorted(self.names(tmp_path, modality="other")) == expected

    def test_lone_files_of_one_series_come_together_whatever_lies_between(self, tmp_path):
        files = synthetic.write_series(tmp_path / "pat", EMPTY, names="{}")
        synthetic.write_series(tmp_path / "pat", EMPTY, series="other", names="other_{}")
        dose = synthetic.write_photograph(tmp_path / "pat" / "dose", np.zeros((8, 9), np.uint8), SOPClassUID=DOSE)
        (item,) = collect([files[2], dose, files[0]], channels=1)
        assert item.files == (files[0], files[2])
        assert item.path == tmp_path / "pat"
        assert item.name == "pat"

    @pytest.mark.parametrize("modality", ["CR", "XC", "OP"])
    def test_pictures_are_an_image_each_even_of_one_series(self, tmp_path, modality):
        files = [
            synthetic.write_photograph(
                tmp_path / "views" / f"{name}.dcm",
                EMPTY[0].astype(np.uint8),
                modality=modality,
                series="s",
                SOPInstanceUID=synthetic.dicom_uid(name),
            )
            for name in ("ap", "lateral")
        ]
        assert self.names(tmp_path / "views", modality="other") == ["ap", "lateral"]
        assert self.names(*files, modality="other") == ["ap", "lateral"]
        assert self.names(files[0], modality="other") == ["ap"]

    def test_archives_alone_and_in_folders(self, tmp_path):
        for patient in "ab":
            synthetic.write_series(tmp_path / patient, EMPTY, patient=patient)
            zipped(tmp_path / "zips" / f"pat_{patient}.zip", tmp_path / patient)
        synthetic.write_series(tmp_path / "zips" / "pat_c", EMPTY, patient="c")
        with zipfile.ZipFile(tmp_path / "zips" / "notes.zip", "w") as archive:
            archive.writestr("notes.txt", "nothing to see")
        assert self.names(tmp_path / "zips") == ["pat_c", "pat_a", "pat_b"]
        (item,) = collect([tmp_path / "zips" / "pat_a.zip"], channels=1)
        assert (item.name, item.path) == ("pat_a", tmp_path / "zips" / "pat_a.zip")
        (item,) = collect([tmp_path / "zips" / "notes.zip"], channels=1)
        assert "holds no DICOM image" in str(item.error)

    def test_a_folder_of_everything(self, tmp_path):
        synthetic.write_series(tmp_path / "pat", EMPTY)
        synthetic.write_raster(tmp_path / "photo.png", np.zeros((8, 9), np.uint8))
        synthetic.write_photograph(tmp_path / "photo.dcm", np.zeros((8, 9), np.uint8))
        (tmp_path / "notes.txt").write_text("nothing to see")
        assert self.names(tmp_path, modality="other") == ["photo_png", "pat", "photo_dcm"]

    def test_one_series_named_twice_is_one_input(self, tmp_path):
        files = synthetic.write_series(tmp_path / "pat", EMPTY)
        assert self.names(tmp_path / "pat", *files, tmp_path) == ["pat"]

    def test_what_is_damaged_is_an_error_of_its_own(self, tmp_path):
        synthetic.write_series(tmp_path / "good", EMPTY)
        synthetic.write_series(tmp_path / "soon", EMPTY, patient="other")
        (tmp_path / "soon" / "text.dcm").write_text("no DICOM at all")  # the series says so when it is read
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "text.dcm").write_text("no DICOM at all")
        items = collect([tmp_path], channels=1)
        assert [(item.name, item.error is None) for item in items] == [
            ("good", True),
            ("soon", True),
            ("text.dcm", False),
        ]

    def test_an_unknown_series_is_told_which_there_are(self, tmp_path):
        synthetic.write_series(tmp_path / "pat", EMPTY)
        (item,) = collect([tmp_path / "pat" / "series=1.2.3"], channels=1)
        assert "no image series with a UID that ends in '1.2.3'" in str(item.error)


def run(inputs: list[Path | str], out: Path, *, said: list[str] | None = None, **options) -> list[Outcome]:
    say = pytest.fail if said is None else said.append
    return predict_files([options.pop("model", None) or model()], inputs, out, device="cpu", listen=say, **options)


class TestPredict:
    def test_a_series_comes_back_as_a_segmentation_of_itself(self, tmp_path):
        mask = phantom()
        files = ct(tmp_path / "pat_1", mask)
        (outcome,) = run([tmp_path / "pat_1"], tmp_path / "out")
        assert outcome.status == "done", outcome.message
        assert outcome.path == tmp_path / "pat_1"
        assert outcome.output == tmp_path / "out" / "pat_1.seg.dcm"
        written = pydicom.dcmread(outcome.output)
        assert [s.SegmentLabel for s in written.SegmentSequence] == ["class 1", "class 2", "class 3"]
        assert written.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
        assert written.StudyInstanceUID == pydicom.dcmread(files[0]).StudyInstanceUID
        back = cpfnet.read(tmp_path / "pat_1")
        from cpfnet.formats import read_label

        label = read_label(outcome.output, back)
        for number in (1, 2, 3):
            named = [f"class {number}" in meaning for meaning in label.meanings]
            np.testing.assert_array_equal(np.array(named)[label.array[0]], mask == number)

    def test_nifti_from_dicom_lies_where_the_patient_does(self, tmp_path):
        mask = phantom()
        affine = np.array([[0, 0, 0.7, -10], [0, 0.8, 0, 20], [3, 0, 0, 30], [0, 0, 0, 1.0]])
        ct(tmp_path / "pat_1", mask, affine_lps=affine)
        (outcome,) = run([tmp_path / "pat_1"], tmp_path / "out", format="nifti")
        written = nibabel.load(outcome.output)
        values = np.asarray(written.dataobj)
        for number in (1, 2, 3):
            ras = nibabel.affines.apply_affine(written.affine, np.argwhere(values == number)) * (-1, -1, 1)
            expected = nibabel.affines.apply_affine(affine, np.argwhere(mask == number))
            np.testing.assert_allclose(sorted(ras.tolist()), sorted(expected.tolist()), atol=1e-3)

    def test_lone_files_an_archive_and_a_reference_give_what_the_folder_gives(self, tmp_path):
        files = ct(tmp_path / "pat" / "a", phantom())
        ct(tmp_path / "pat" / "b", phantom(3), series="other")
        archive = zipped(tmp_path / "pat.zip", tmp_path / "pat" / "a")
        named = tmp_path / "pat" / f"series={synthetic.dicom_uid('P-0815', 'study', 'series')}"
        found = []
        for number, inputs in enumerate(([tmp_path / "pat" / "a"], files[::-1], [archive], [named])):
            (outcome,) = run(inputs, tmp_path / f"out{number}", format="nifti")
            assert outcome.status == "done", outcome.message
            found.append(np.asarray(nibabel.load(outcome.output).dataobj))
        for other in found[1:]:
            np.testing.assert_array_equal(other, found[0])

    def test_series_that_do_not_fit_are_refused_and_the_others_done(self, tmp_path):
        ct(tmp_path / "data" / "a" / "ct", phantom())
        synthetic.write_series(tmp_path / "data" / "a" / "mr", EMPTY, modality="MR", study="other", series="mr")
        files = ct(tmp_path / "data" / "b", phantom(), patient="b")
        files[4].unlink()
        synthetic.write_photograph(tmp_path / "data" / "c" / "photo.dcm", np.zeros((40, 40), np.uint8), modality="OT")
        outcomes = run([tmp_path / "data"], tmp_path / "out")
        assert {o.path.name: o.status for o in outcomes} == {
            "ct": "done",
            "mr": "refused",
            "b": "failed",
            "photo.dcm": "skipped",  # of the same study as a
        }
        messages = {o.path.name: o.message for o in outcomes}
        assert "modality mr, and the model was fitted for ct" in messages["mr"]
        assert "slice_003.dcm" in messages["b"]  # the slices beside the gap
        assert tree(tmp_path / "out") == ["a/ct.seg.dcm"]

    def test_another_modality_beside_a_series_that_fits_is_skipped(self, tmp_path):
        """The rest of a study is no failure; what was named, or is all of a study, is."""
        for patient in "ab":
            place = tmp_path / "data" / patient
            synthetic.write_series(place / "mr", EMPTY, patient=patient, modality="MR", series="mr")
        ct(tmp_path / "data" / "a" / "ct", phantom(), patient="a")
        for number, (inputs, expected) in enumerate(
            [
                (["data/a"], ["done", "skipped"]),
                (["data"], ["done", "skipped", "refused"]),
                (["data/a/ct", "data/a/mr"], ["done", "refused"]),
                (["data/b"], ["refused"]),
            ]
        ):
            outcomes = run([tmp_path / one for one in inputs], tmp_path / f"out{number}")
            assert [o.status for o in outcomes] == expected
        saved = model().save(tmp_path / "model")
        command = ["predict", str(saved), str(tmp_path / "data" / "a"), "-o", str(tmp_path / "out"), "--device", "cpu"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        assert "1 of 2 done, 1 skipped" in done.output

    @pytest.mark.parametrize("several", [False, True])
    @pytest.mark.parametrize("zipping", [False, True])
    def test_screenshots_beside_a_series_that_fits_are_skipped(self, tmp_path, several, zipping):
        """Scanners say CT of them, too; a Model for volumes of one channel cannot be meant."""
        place = tmp_path / "data" / "pat_1"
        ct(place / "ct", phantom())
        for number in range(1 + several):
            screen = {
                "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
                "SOPInstanceUID": synthetic.dicom_uid("screen", number),
            }
            shot = np.full((8, 9, 3), number, np.uint8)
            synthetic.write_photograph(place / f"screen_{number}", shot, modality="CT", series="screens", **screen)
        synthetic.write_photograph(place / "grey", np.zeros((8, 9), np.uint8), modality="CT", series="grey")
        given = zipped(tmp_path / "zips" / "pat_1.zip", place) if zipping else place
        outcomes = run([given], tmp_path / "out")
        assert [o.status for o in outcomes] == ["done", "skipped", "skipped"]
        assert tree(tmp_path / "out") == ["pat_1.seg.dcm" if zipping else "ct.seg.dcm"]
        messages = " ".join(o.message for o in outcomes)
        assert "in colours, and the model was fitted for 1 channel; another series of its study fits" in messages
        assert "a picture without position, and the model was fitted for volumes; another" in messages
        assert "--force" not in messages
        if not zipping:
            assert [o.status for o in run([place / "grey"], tmp_path / "named")] == ["refused"]

    def test_pet_is_no_ct(self, tmp_path):
        """Whatever its values: what DICOM calls PT is not of an unknown modality."""
        ct(tmp_path / "a" / "ct", phantom())
        ct(tmp_path / "a" / "pet", phantom(), series="pet", edit=lambda _, header: setattr(header, "Modality", "PT"))
        assert [o.status for o in run([tmp_path / "a"], tmp_path / "out")] == ["done", "skipped"]
        assert [o.status for o in run([tmp_path / "a" / "pet"], tmp_path / "out2")] == ["refused"]

    def test_an_unknown_modality_may_be_any(self, tmp_path):
        ct(tmp_path / "a", phantom(), edit=lambda _, header: setattr(header, "Modality", ""))
        assert [o.status for o in run([tmp_path / "a"], tmp_path / "out")] == ["done"]
        assert formats.read_header(tmp_path / "a").modality is None

    def test_force_goes_on_with_another_modality(self, tmp_path):
        synthetic.write_series(tmp_path / "mr", bright(phantom(), 3).astype(np.uint16), modality="MR")
        (outcome,) = run([tmp_path / "mr"], tmp_path / "out", force=True)
        assert outcome.status == "done", outcome.message

    def test_what_was_assumed_is_said_once_an_input(self, tmp_path):
        def unnamed(_, header):
            header.SpecificCharacterSet = ""

        ct(tmp_path / "data" / "a", phantom(), edit=unnamed)
        ct(tmp_path / "data" / "b", phantom(), patient="b")
        said: list[str] = []
        outcomes = run([tmp_path / "data"], tmp_path / "out", said=said)
        assert len(said) == 1
        assert said[0].startswith("a: SpecificCharacterSet is empty")
        assert [len(o.warnings) for o in outcomes] == [1, 0]

    def test_overlay_of_a_series(self, tmp_path):
        ct(tmp_path / "pat_1", phantom())
        run([tmp_path / "pat_1"], tmp_path / "out", overlays=True)
        assert (tmp_path / "out" / "overlays" / "pat_1.png").stat().st_size > 0

    def test_a_notebook_predicts_a_folder(self, tmp_path):
        mask = phantom()
        ct(tmp_path / "pat_1", mask)
        segmentation = cpfnet.predict(model(), tmp_path / "pat_1", cpfnet.PredictorOptions(device="cpu"))
        np.testing.assert_array_equal(segmentation.array, mask)
        assert segmentation.algorithm is not None


class TestFound:
    """Masks are found again for the cases of a data set, whatever place they were predicted from."""

    def study(self, folder: Path, patient: str = "a", labelled: bool = True) -> None:
        files = scan(folder / "CT", patient=patient)
        scan(folder / "CT", patient=patient, series="second", names="second_{}.dcm")
        synthetic.write_series(folder / "MR", EMPTY, patient=patient, series="mr", modality="MR")
        if labelled:
            write_rtstruct(folder / "rs.dcm", files)

    def masks(self, out: Path, *inputs: Path) -> Path:
        for item in collect(inputs, channels=1, modality="ct"):
            if item.modality == "ct":
                (out / f"{item.name}.seg.dcm").parent.mkdir(parents=True, exist_ok=True)
                (out / f"{item.name}.seg.dcm").touch()
        return out

    def test_predicted_from_the_root_or_from_each_folder(self, tmp_path):
        for patient in "abc":
            self.study(tmp_path / "data" / f"pat_{patient}", patient)
        dataset = load(tmp_path / "data")
        assert [case.id for case in dataset.cases] == ["pat_a", "pat_b", "pat_c"]
        whole = self.masks(tmp_path / "whole", tmp_path / "data")
        uids = [synthetic.dicom_uid(patient, "study", "series") for patient in "abc"]
        expected = [f"-{digest(uid)}.seg.dcm" for uid in uids]
        assert len(list(whole.rglob("*.seg.dcm"))) == 6
        for item, end in zip(load_predictions(dataset, dataset.cases, whole)[0], expected, strict=True):
            assert item.prediction.name.endswith(end)
            assert item.prediction.relative_to(whole).as_posix().startswith(item.case)

    def test_one_case_predicted_from_a_folder_above_it(self, tmp_path):
        files = scan(tmp_path / "data" / "pat_a" / "CT")
        write_rtstruct(tmp_path / "data" / "pat_a" / "rs.dcm", files)
        dataset = load(tmp_path / "data")
        for place in ("data", "data/pat_a", "data/pat_a/CT"):
            out = self.masks(tmp_path / place.replace("/", "_"), tmp_path / place)
            ((item,), _) = load_predictions(dataset, dataset.cases, out)
            assert [item.prediction] == list(out.rglob("*.seg.dcm"))

    @pytest.mark.parametrize(
        ("names", "shared"),
        [
            (["{p}/CT-{d}.seg.dcm"], True),
            (["data/{p}/CT-{d}.nii.gz"], True),
            (["CT-{d}.seg.dcm"], True),
            (["any-{d}.nii.gz"], True),
            (["{p}.seg.dcm"], True),
            (["{p}/CT.seg.dcm"], False),
            (["data/{p}/CT.seg.dcm"], False),
            (["{p}.rtstruct.dcm"], False),
        ],
    )
    def test_masks_by_the_folders_of_their_series(self, tmp_path, names, shared):
        """With the digest of its series where that shares its folder, from whatever folder above."""
        for patient in "abc":
            place = tmp_path / "data" / f"pat_{patient}"
            if shared:
                self.study(place, patient)
            else:
                write_rtstruct(place / "rs.dcm", scan(place / "CT", patient=patient))
        dataset = load(tmp_path / "data")
        wanted = {}
        for patient in "abc":
            own = {"p": f"pat_{patient}", "d": digest(synthetic.dicom_uid(patient, "study", "series"))}
            wanted[f"pat_{patient}"] = tmp_path / "out" / names[0].format(**own)
            wanted[f"pat_{patient}"].parent.mkdir(parents=True, exist_ok=True)
            wanted[f"pat_{patient}"].touch()
        items, warnings = load_predictions(dataset, dataset.cases, tmp_path / "out")
        assert {item.case: item.prediction for item in items} == wanted
        assert warnings == []

    def test_one_folder_name_of_several_patients_is_nobodys(self, tmp_path):
        for patient in "ab":
            place = tmp_path / "data" / f"pat_{patient}"
            write_rtstruct(place / "rs.dcm", scan(place / "CT", patient=patient))
        dataset = load(tmp_path / "data")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "CT.seg.dcm").touch()
        with pytest.raises(DatasetError, match=r"CT.seg.dcm could be the prediction of 2 cases \(pat_a, pat_b\)"):
            load_predictions(dataset, dataset.cases, tmp_path / "out")

"""Files in, files out."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageOps

from cpfnet.errors import CpfnetError, OutputError
from cpfnet.inference.batch.inputs import collect
from tests import synthetic
from tests.inference.oracle import bright, make_model
from tests.predicting import predict_files


def images_model(**more):
    more.setdefault("values", (80, 160, 255))
    return make_model(source="images", **more)


def picture(seed: int = 0, shape=(40, 48)) -> tuple[np.ndarray, np.ndarray]:
    """An image and the label map that the oracle finds in it."""
    _, mask = synthetic.phantom(shape)
    mask = np.roll(mask, seed, axis=1)
    return bright(mask, 3), np.array([0, 80, 160, 255], np.uint8)[mask]


def run(model, inputs, out, **options):
    options.setdefault("listen", pytest.fail)
    return predict_files([model], inputs, out, device="cpu", **options)


def read(path) -> np.ndarray:
    with Pillow.open(path) as image:
        return np.asarray(image)


def tree(folder: Path) -> list[str]:
    """Files of the user; the records beside them have tests of their own."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".cpfnet" not in p.parts)


class TestOneInput:
    @pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".gif"])
    def test_each_lossless_format_comes_back_in_its_own(self, tmp_path, suffix):
        image, expected = picture()
        file = synthetic.write_raster(tmp_path / f"scan.v2{suffix}", image)
        (outcome,) = run(images_model(), [file], tmp_path / "out")
        assert outcome.status == "done", outcome.message
        assert outcome.path == file
        assert outcome.output == tmp_path / "out" / f"scan.v2{suffix}"
        assert outcome.seconds > 0
        written = read(outcome.output) if suffix != ".gif" else np.asarray(Pillow.open(outcome.output).convert("L"))
        np.testing.assert_array_equal(written, expected)

    def test_a_jpeg_becomes_a_png(self, tmp_path):
        image, expected = picture()
        file = synthetic.write_raster(tmp_path / "scan.JPG", image, quality=100)
        (outcome,) = run(images_model(), [file], tmp_path / "out")
        assert outcome.output == tmp_path / "out" / "scan.png"
        assert (read(outcome.output) == expected).mean() > 0.97

    @pytest.mark.parametrize("tag", range(1, 9))
    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_masks_of_turned_photographs_lie_as_viewers_show_them(self, tmp_path, suffix, tag):
        image, expected = picture()
        exif = Pillow.Exif()
        exif[274] = tag
        Pillow.fromarray(image).save(tmp_path / f"scan{suffix}", exif=exif)
        turned = Pillow.fromarray(expected)
        turned.getexif()[274] = tag
        said = []
        (outcome,) = run(
            images_model(), [tmp_path / f"scan{suffix}"], tmp_path / "out", probabilities=True, listen=said.append
        )
        np.testing.assert_array_equal(read(outcome.output), np.asarray(ImageOps.exif_transpose(turned)))
        assert tifffile.imread(tmp_path / "out" / "probabilities" / "scan.tif").shape[1:] == read(outcome.output).shape
        assert [f"tag {tag}" in sentence for sentence in said] == [True] * (tag > 1)

    @pytest.mark.parametrize(("format", "name"), [("png", "scan.png"), ("tiff", "scan.tif"), ("nifti", "scan.nii.gz")])
    def test_the_format_asked_for(self, tmp_path, format, name):
        image, expected = picture()
        file = synthetic.write_raster(tmp_path / "scan.bmp", image)
        (outcome,) = run(images_model(), [str(file)], tmp_path / "out", format=format)
        assert outcome.output == tmp_path / "out" / name
        if format != "nifti":
            np.testing.assert_array_equal(read(outcome.output), expected)
        else:
            assert set(np.unique(nibabel.load(outcome.output).get_fdata())) == set(np.unique(expected))

    @pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
    def test_a_volume(self, tmp_path, suffix):
        _, mask = synthetic.phantom((9, 34, 36))
        file = synthetic.write_nifti(tmp_path / f"scan{suffix}", bright(mask, 3), spacing=(0.7, 0.8, 3.0))
        (outcome,) = run(make_model(values=(1, 2, 3), slices="axial"), [file], tmp_path / "out", batch=4)
        assert outcome.output == tmp_path / "out" / f"scan{suffix}"
        result = nibabel.load(outcome.output)
        np.testing.assert_array_equal(np.asarray(result.dataobj).transpose(2, 1, 0), mask)
        np.testing.assert_allclose(result.header.get_zooms(), (0.7, 0.8, 3.0), rtol=1e-6)


def test_one_bad_input_does_not_stop_the_others(tmp_path):
    source = tmp_path / "in"
    image, expected = picture()
    synthetic.write_raster(source / "a.png", image)
    (source / "b.png").write_text("this is text")
    synthetic.write_raster(source / "c.png", np.stack([image] * 3, -1))
    synthetic.write_raster(source / "d.png", np.zeros((40, 40), np.uint8))
    synthetic.write_raster(source / "e.png", image)
    (source / "notes.txt").write_text("not an image")
    outcomes = run(images_model(), [source, tmp_path / "none.png", str(tmp_path / "*.tif"), tmp_path], tmp_path / "out")
    status = [(o.path.name, o.status) for o in outcomes]
    assert status == [
        ("a.png", "done"),
        ("b.png", "failed"),
        ("c.png", "refused"),
        ("d.png", "refused"),
        ("e.png", "done"),
        ("none.png", "failed"),
        ("*.tif", "failed"),
    ]
    messages = {o.path.name: o.message for o in outcomes}
    assert "text" in messages["b.png"]
    assert "has 3" in messages["c.png"]
    assert "values 0 … 0" in messages["d.png"]
    assert "no such file" in messages["none.png"]
    assert "no image file matches" in messages["*.tif"]
    for name, message in messages.items():
        assert bool(message) == (name not in ("a.png", "e.png"))
        assert not message or name in message
    assert tree(tmp_path / "out") == ["a.png", "e.png"]
    np.testing.assert_array_equal(read(tmp_path / "out" / "e.png"), expected)


def test_force_goes_on_where_the_values_are_unusual(tmp_path):
    file = synthetic.write_raster(tmp_path / "black.png", np.zeros((40, 40), np.uint8))
    (outcome,) = run(images_model(), [file], tmp_path / "out", force=True)
    assert outcome.status == "done"
    assert not read(outcome.output).any()


class TestNothingIsLost:
    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that nobody may write to")
    def test_a_folder_that_cannot_be_written_is_said_before_anything_is_predicted(self, tmp_path):
        file = synthetic.write_raster(tmp_path / "scan.png", picture()[0])
        with pytest.raises(OutputError, match="cannot be written") as caught:
            run(images_model(), [file], Path("/proc/self"))
        assert caught.value.where == "/proc/self"

    def test_results_are_kept_unless_overwriting_is_asked_for(self, tmp_path):
        image, expected = picture()
        file = synthetic.write_raster(tmp_path / "scan.png", image)
        out = tmp_path / "out"
        out.mkdir()
        (out / "scan.png").write_text("mine")
        (outcome,) = run(images_model(), [file], out)
        assert (outcome.status, "exists already" in outcome.message) == ("failed", True)
        assert (out / "scan.png").read_text() == "mine"
        (outcome,) = run(images_model(), [file], out, overwrite=True)
        assert outcome.status == "done"
        np.testing.assert_array_equal(read(out / "scan.png"), expected)

    def test_an_input_is_never_replaced(self, tmp_path):
        image, _ = picture()
        file = synthetic.write_raster(tmp_path / "scan.png", image)
        other = synthetic.write_raster(tmp_path / "photo.jpg", image)
        before = file.read_bytes()
        outcomes = run(images_model(), [file, other], tmp_path, overwrite=True)
        assert [o.status for o in outcomes] == ["failed", "done"]
        assert "would replace an input" in outcomes[0].message
        assert file.read_bytes() == before

    def test_a_jpeg_does_not_replace_a_png_that_is_an_input_too(self, tmp_path):
        image, _ = picture()
        files = [synthetic.write_raster(tmp_path / name, image) for name in ("scan.png", "scan.jpg")]
        run(images_model(), files, tmp_path, overwrite=True)
        np.testing.assert_array_equal(read(files[0]), image)

    def test_an_output_folder_that_is_a_file(self, tmp_path):
        file = synthetic.write_raster(tmp_path / "scan.png", picture()[0])
        with pytest.raises(OutputError, match="cannot be written"):
            run(images_model(), [file], file)


def test_mirroring_that_the_plan_rules_out_is_said(tmp_path):
    file, said = synthetic.write_raster(tmp_path / "scan.png", picture()[0]), []
    run(images_model(), [file], tmp_path / "none", tta=True, listen=said.append)
    assert len(said) == 1
    assert "inference.mirror is empty" in said[0]
    for allowed in ({"mirror": ["width"]}, {"quarter_turns": True}):
        run(images_model(inference=allowed), [file], tmp_path / next(iter(allowed)), tta=True, listen=said.append)
    assert len(said) == 1


class TestWhatElseIsWritten:
    def test_probabilities_of_a_volume(self, tmp_path):
        _, mask = synthetic.phantom((9, 34, 36))
        affine = synthetic.affine((1, 2, 3), degrees=(5, 6, 7))
        file = synthetic.write_nifti(tmp_path / "scan.nii.gz", bright(mask, 3), affine)
        run(make_model(slices="coronal"), [file], tmp_path / "out", probabilities=True)
        assert tree(tmp_path / "out") == ["probabilities/scan.nii.gz", "scan.nii.gz"]
        maps = nibabel.load(tmp_path / "out/probabilities/scan.nii.gz")
        np.testing.assert_allclose(maps.affine, affine, atol=1e-5)
        np.testing.assert_array_equal(maps.get_fdata().argmax(-1).transpose(2, 1, 0), mask)
        np.testing.assert_allclose(maps.get_fdata().sum(-1), 1, atol=1e-5)

    def test_probabilities_of_an_image_are_a_tiff(self, tmp_path):
        image, expected = picture()
        file = synthetic.write_raster(tmp_path / "scan.png", image)
        run(images_model(), [file], tmp_path / "out", probabilities=True)
        assert tree(tmp_path / "out") == ["probabilities/scan.tif", "scan.png"]
        maps = tifffile.imread(tmp_path / "out/probabilities/scan.tif")
        assert maps.dtype == np.float32
        np.testing.assert_array_equal(np.array([0, 80, 160, 255])[maps.argmax(0)], expected)

    def test_overlay_of_an_image_draws_lines_round_each_class_and_nothing_else(self, tmp_path):
        image, expected = picture(shape=(400, 420))
        file = synthetic.write_raster(tmp_path / "scan.png", image)
        run(images_model(), [file], tmp_path / "out", overlays=True)
        assert tree(tmp_path / "out") == ["overlays/scan.png", "scan.png"]
        drawn = read(tmp_path / "out/overlays/scan.png")
        assert drawn.shape == (400, 420, 3)
        coloured = drawn.max(-1) != drawn.min(-1)
        for value in (80, 160, 255):
            assert coloured[expected == value].any()
        assert not coloured[expected == 0].any()

    def test_overlay_of_a_colour_photograph_keeps_its_colours(self, tmp_path):
        rng = np.random.default_rng(0)
        photo = np.zeros((400, 400, 3), np.uint8)
        photo[..., 1:] = rng.integers(0, 200, (400, 400, 2))
        photo[50:90, 60:100, 0] = 200
        file = synthetic.write_raster(tmp_path / "photo.png", photo)
        fitted = {"channels": [{"name": f"channel{i}", "low": 0, "high": 200} for i in range(3)]}
        (outcome,) = run(
            images_model(channels=3, values=(255,), fitted=fitted), [file], tmp_path / "out", overlays=True
        )
        assert outcome.status == "done", outcome.message
        drawn = read(tmp_path / "out/overlays/photo.png")
        np.testing.assert_array_equal(drawn[100:, 110:], photo[100:, 110:])
        assert (drawn[50, 60:100] != photo[50, 60:100]).any()

    def test_overlay_of_a_volume_shows_three_slices_with_square_pixels(self, tmp_path):
        _, mask = synthetic.phantom((12, 34, 36))
        file = synthetic.write_nifti(tmp_path / "scan.nii.gz", bright(mask, 3), spacing=(1, 1, 4))
        run(make_model(slices="sagittal"), [file], tmp_path / "out", overlays=True)
        height, width, _ = read(tmp_path / "out/overlays/scan.png").shape
        assert height / (width / 3) == pytest.approx(12 * 4 / 34, rel=0.05)

    def test_overlay_of_nothing_found(self, tmp_path):
        file = synthetic.write_nifti(tmp_path / "scan.nii.gz", np.zeros((5, 34, 36), np.uint8))
        (outcome,) = run(make_model(slices="axial"), [file], tmp_path / "out", overlays=True, force=True)
        assert outcome.status == "done", outcome.message


def test_progress_bar_shows_each_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    for name in "ab":
        synthetic.write_raster(tmp_path / "in" / f"{name}.png", picture()[0])
    run(images_model(), [tmp_path / "in"], tmp_path / "out", progress=True)
    assert "2/2" in capsys.readouterr().err


def test_no_input_at_all(tmp_path):
    with pytest.raises(CpfnetError, match="no input"):
        run(images_model(), [], tmp_path / "out")


def test_an_unknown_format(tmp_path):
    with pytest.raises(OutputError, match="unknown format 'jpeg'"):
        run(images_model(), [tmp_path], tmp_path / "out", format="jpeg")


class TestCollect:
    """Which images a list of inputs means, and what their results are called."""

    @staticmethod
    def touch(root: Path, *names: str) -> None:
        for name in names:
            if name.endswith(".png"):
                synthetic.write_raster(root / name, np.zeros((4, 4), np.uint8))
            else:
                synthetic.write_nifti(root / name, np.zeros((2, 3, 4), np.int16))

    def names(self, *inputs, channels=1, out=None) -> list[tuple[str, list[str]]]:
        return [(item.name, [f.name for f in item.files]) for item in collect(inputs, channels=channels, out=out)]

    def test_a_folders_own_images_in_natural_order(self, tmp_path):
        self.touch(tmp_path, "case_10.png", "case_2.png", "case_2.nii.gz.png", "deeper/x.png", ".hidden.png", "²/².png")
        (tmp_path / "dataset.json").write_text("{}")
        assert [name for name, _ in self.names(tmp_path)] == ["case_2.nii.gz", "case_2", "case_10"]

    @pytest.mark.parametrize("name", ["images", "imagesTs"])
    def test_a_data_set_means_its_images(self, tmp_path, name):
        self.touch(tmp_path, f"{name}/a.png", f"{name}/b.png", "masks/a.png", "labelsTr/b.png")
        assert self.names(tmp_path) == [("a", ["a.png"]), ("b", ["b.png"])]

    def test_a_data_set_in_parts_means_the_images_of_each(self, tmp_path):
        self.touch(tmp_path, "train/images/a.png", "train/1st_manual/a.png", "test/images/b.png", "test/masks/b.png")
        assert sorted(self.names(tmp_path)) == [("test/images/b", ["b.png"]), ("train/images/a", ["a.png"])]

    def test_a_folder_of_folders_without_labels_and_results(self, tmp_path):
        self.touch(tmp_path, "p1/scan.nii.gz", "p2/scan.nii.gz", "p1/masks/scan.nii.gz", "out/p1/scan.nii.gz")
        found = self.names(tmp_path, out=tmp_path / "out")
        assert found == [("p1/scan", ["scan.nii.gz"]), ("p2/scan", ["scan.nii.gz"])]

    def test_patterns_and_repeated_files(self, tmp_path):
        self.touch(tmp_path, "a/x1.png", "a/x2.png", "b/y.png", "a/readme.png.nii")
        found = self.names(str(tmp_path / "**" / "*.png"), tmp_path / "a" / "x1.png")
        assert sorted(name for name, _ in found) == ["x1", "x2", "y"]

    def test_brackets_in_an_existing_name_are_no_pattern(self, tmp_path):
        self.touch(tmp_path, "scan [1].png")
        assert self.names(tmp_path / "scan [1].png") == [("scan [1]", ["scan [1].png"])]

    def test_one_name_in_two_folders_keeps_the_folders_that_tell_them_apart(self, tmp_path):
        self.touch(tmp_path, "a/day1/scan.png", "b/scan.png", "b/other.png")
        assert [n for n, _ in self.names(tmp_path / "a" / "day1", tmp_path / "b")] == ["day1/scan", "other", "b/scan"]

    def test_one_name_in_two_formats_keeps_the_formats(self, tmp_path):
        self.touch(tmp_path, "scan.png", "scan.nii.gz", "other.png")
        assert sorted(n for n, _ in self.names(tmp_path)) == ["other", "scan_nii_gz", "scan_png"]

    def test_channel_files_make_one_image(self, tmp_path):
        self.touch(tmp_path, *(f"case_{c}_000{i}.nii.gz" for c in (1, 2) for i in (0, 1)))
        assert self.names(tmp_path, channels=2) == [
            ("case_1", ["case_1_0000.nii.gz", "case_1_0001.nii.gz"]),
            ("case_2", ["case_2_0000.nii.gz", "case_2_0001.nii.gz"]),
        ]
        assert len(self.names(tmp_path, channels=1)) == 4

    def test_a_single_channel_file_loses_its_number(self, tmp_path):
        self.touch(tmp_path, "case_1_0000.nii.gz", "case_2_0000.nii.gz")
        assert [name for name, _ in self.names(tmp_path)] == ["case_1", "case_2"]

    def test_numbered_photographs_stay_apart(self, tmp_path):
        for number in range(3):
            synthetic.write_raster(tmp_path / f"IMG_000{number}.png", np.zeros((4, 4, 3), np.uint8))
        assert [name for name, _ in self.names(tmp_path, channels=3)] == ["IMG_0000", "IMG_0001", "IMG_0002"]

    def test_an_incomplete_series_stays_apart(self, tmp_path):
        self.touch(tmp_path, "case_0001.nii.gz", "case_0002.nii.gz")
        assert [name for name, _ in self.names(tmp_path, channels=2)] == ["case_0001", "case_0002"]

    def test_channel_files_are_predicted_together(self, tmp_path):
        _, mask = synthetic.phantom((5, 34, 36))
        for channel, image in enumerate((bright(mask, 3), 7 + bright(mask, 3) // 2)):
            synthetic.write_nifti(tmp_path / "in" / f"case_000{channel}.nii.gz", image)
        (outcome,) = run(make_model(channels=2, slices="axial"), [tmp_path / "in"], tmp_path / "out")
        assert outcome.status == "done", outcome.message
        assert outcome.output == tmp_path / "out" / "case.nii.gz"
        np.testing.assert_array_equal(np.asarray(nibabel.load(outcome.output).dataobj).transpose(2, 1, 0), mask)

    def test_an_empty_folder_is_an_error_of_its_own(self, tmp_path):
        self.touch(tmp_path, "a.png")
        (tmp_path / "empty").mkdir()
        items = collect([tmp_path / "empty", tmp_path / "a.png"], channels=1)
        assert [(item.name, item.error is None) for item in items] == [("a", True), ("empty", False)]
        assert "holds no image file" in str(items[1].error)


class TestLists:
    def test_a_list_names_inputs_beside_it(self, tmp_path):
        image, expected = picture()
        for name in ("a.png", "b.png", "sub/c.png", "sub/d.png", "e f.png"):
            synthetic.write_raster(tmp_path / "in" / name, image)
        lines = ["# chosen by hand", "", "b.png", "sub", "  e f.png  ", str(tmp_path / "in" / "a.png"), "none.png"]
        (tmp_path / "in" / "list.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
        outcomes = run(images_model(), [tmp_path / "in" / "list.txt"], tmp_path / "out")
        names = ["b.png", "c.png", "d.png", "e f.png", "a.png"]
        assert [o.output.name for o in outcomes if o.status == "done"] == names
        assert [o.path.name for o in outcomes if o.status == "failed"] == ["none.png"]
        np.testing.assert_array_equal(read(tmp_path / "out" / "e f.png"), expected)

    def test_a_list_in_a_folder_is_no_input(self, tmp_path):
        synthetic.write_raster(tmp_path / "in" / "a.png", picture()[0])
        (tmp_path / "in" / "list.txt").write_text("nothing.png\n")
        assert [o.path.name for o in run(images_model(), [tmp_path / "in"], tmp_path / "out")] == ["a.png"]

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            (None, "cannot be read: No such file"),
            (b"\n# only this\n", "lists nothing"),
            ("a.png".encode("utf-16"), "UTF-16"),
        ],
    )
    def test_a_list_that_says_nothing_is_refused(self, tmp_path, content, found):
        file = tmp_path / "list.txt"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(CpfnetError, match=found) as caught:
            run(images_model(), [file], tmp_path / "out")
        assert str(file) in caught.value.where
        assert not (tmp_path / "out").exists()

"""Maps of uncertainty, the list of what to look at first, and its table, from files in to files out."""

import csv

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from scipy.stats import entropy
from typer.testing import CliRunner

import cpfnet
from cpfnet.cli.app import app
from cpfnet.errors import OutputError
from cpfnet.image import Assessment
from cpfnet.inference.quality.review_list import summary
from tests import synthetic
from tests.inference.batch.test_run import tree
from tests.inference.oracle import FULL, bright, make_model
from tests.predicting import predict_files

QUALITY = {"cases": 12, "lowest": 0.8, "found": ["class 255"], "factor": 2.0, "error": 0.05}


def model(*, quality=QUALITY, sharpness=4.0, **more):
    """Sure where a pixel has a class's brightness, and the less, the farther it is from that."""
    made = make_model(source="images", values=(255,), fitted={"quality": quality}, **more)
    made.state = {"sharpness": torch.tensor([sharpness])}
    return made


def folder_of(tmp_path, **tops):
    """Pictures of a square, each as bright as said: at FULL the network is sure of it, at half of that it is not."""
    for name, top in tops.items():
        picture = np.zeros((40, 48), np.uint8)
        picture[10:30, 10:30] = top * FULL
        synthetic.write_raster(tmp_path / "in" / f"{name}.png", picture)
    return tmp_path / "in"


def run(models, inputs, out, **options):
    return predict_files(models, [inputs], out, device="cpu", listen=pytest.fail, **options)


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class TestMaps:
    def test_entropy_of_the_probabilities_beside_it(self, tmp_path):
        inputs = folder_of(tmp_path, a=0.7)
        run([model()], inputs, tmp_path / "out", uncertainty=True, probabilities=True)
        planes = tifffile.imread(tmp_path / "out/probabilities/a.tif")
        found = tifffile.imread(tmp_path / "out/uncertainty/a.tif")
        assert found.dtype == np.float32
        assert 0.3 < found[20, 20] < 0.99
        np.testing.assert_allclose(found, entropy(planes, base=2), atol=1e-5)

    def test_is_not_written_unasked(self, tmp_path):
        (outcome,) = run([model(quality=None)], folder_of(tmp_path, a=1), tmp_path / "out")
        assert tree(tmp_path / "out") == ["a.png"]
        assert (outcome.quality.dice, outcome.quality.look) == (None, "")
        assert outcome.quality.confidence > 0.9

    def test_of_an_ensemble_is_that_of_its_mean(self, tmp_path):
        inputs, mirror = folder_of(tmp_path, a=0.7) / "a.png", {"inference": {"mirror": ["width"]}}
        both, soft, sharp = (
            cpfnet.predict(
                models, inputs, cpfnet.PredictorOptions(device="cpu", tta=True), uncertainty=True, probabilities=True
            )
            for models in (
                [model(**mirror), model(sharpness=9.0, **mirror)],
                model(**mirror),
                model(sharpness=9.0, **mirror),
            )
        )
        np.testing.assert_allclose(both.uncertainty, entropy(both.probabilities, base=2), atol=1e-5)
        assert sharp.uncertainty[20, 20] < both.uncertainty[20, 20] < soft.uncertainty[20, 20]

    def test_without_keeping_probabilities_on_another_grid(self, tmp_path):
        inputs = folder_of(tmp_path, a=0.7) / "a.png"
        small = model(size=(32, 32))
        kept = cpfnet.predict(
            small, inputs, cpfnet.PredictorOptions(device="cpu"), uncertainty=True, probabilities=True
        )
        lean = cpfnet.predict(small, inputs, cpfnet.PredictorOptions(device="cpu"), uncertainty=True)
        assert lean.probabilities is None
        assert lean.uncertainty.shape == lean.array.shape == (40, 48)
        np.testing.assert_array_equal(lean.uncertainty, kept.uncertainty)
        assert cpfnet.predict(small, inputs, cpfnet.PredictorOptions(device="cpu")).uncertainty is None

    def test_of_dicom_is_a_volume_on_its_grid(self, tmp_path):
        _, mask = synthetic.phantom((5, 32, 34))
        synthetic.write_series(tmp_path / "in", bright(mask > 0, 1).astype(np.uint16) + 1024)
        ct = make_model(values=(1,), slices="axial", modality="ct")
        (outcome,) = run([ct], tmp_path / "in", tmp_path / "out", uncertainty=True)
        assert outcome.status == "done", outcome.message
        written = nibabel.load(next((tmp_path / "out/uncertainty").iterdir()))
        assert sorted(written.shape) == sorted(mask.shape)
        assert outcome.output.name.endswith(".seg.dcm")

    def test_an_existing_map_is_kept(self, tmp_path):
        inputs = folder_of(tmp_path, a=1)
        run([model()], inputs, tmp_path / "out", uncertainty=True)
        (tmp_path / "out/a.png").unlink()
        (outcome,) = run([model()], inputs, tmp_path / "out", uncertainty=True)
        assert outcome.status == "failed"
        assert "uncertainty/a.tif: exists already" in outcome.message
        assert not (tmp_path / "out/a.png").exists()


class TestList:
    def test_what_to_look_at_comes_first(self, tmp_path):
        outcomes = run([model()], folder_of(tmp_path, good=1, unsure=0.6, empty=0.2), tmp_path / "out")
        looks = {outcome.path.stem: outcome.quality.look for outcome in outcomes}
        assert looks["good"] == ""
        assert looks["empty"] == "no class 255 found, and all 12 validation cases had it"
        assert "less sure than 9 in 10 of 12 validation cases" in looks["unsure"]
        listed = rows(tmp_path / "out/quality.csv")
        assert [row["mask"] for row in listed] == ["empty.png", "unsure.png", "good.png"]
        assert [row["look"] for row in listed] == [looks["empty"], looks["unsure"], ""]
        good = listed[-1]
        assert float(good["estimated_dice"]) == pytest.approx(1 - 2 * (1 - float(good["confidence"])), abs=2e-4)
        assert float(good["estimate_error"]) == 0.05

    def test_an_image_darker_than_any_of_training_is_listed_by_a_model_that_knows_no_more(self, tmp_path):
        made = model(quality=None)
        seen = made.fitted.channels[0].model_copy(update={"levels": ((195, 200),) * 3})
        made.fitted = made.fitted.model_copy(update={"cases": 20, "channels": (seen,)})
        run([made], folder_of(tmp_path, dim=0.8, usual=1), tmp_path / "out")
        dim, usual = rows(tmp_path / "out/quality.csv")
        assert (dim["mask"], usual["look"]) == ("dim.png", "")
        assert "darker than in any training image: 0.5 % quantile 160, training 195 … 200" in dim["look"]

    def test_of_an_image_darker_than_any_of_training_no_dice_is_estimated(self, tmp_path):
        made = model()
        seen = made.fitted.channels[0].model_copy(update={"levels": ((195, 200),) * 3})
        made.fitted = made.fitted.model_copy(update={"cases": 20, "channels": (seen,)})
        run([made], folder_of(tmp_path, dim=0.8, usual=1), tmp_path / "out")
        dim, usual = rows(tmp_path / "out/quality.csv")
        assert (dim["mask"], dim["estimated_dice"], dim["estimate_error"]) == ("dim.png", "", "")
        assert float(dim["confidence"]) > 0.5
        assert float(usual["estimated_dice"]) > 0.5

    def test_earlier_rows_stay_and_new_ones_replace_their_own(self, tmp_path):
        inputs = folder_of(tmp_path, a=1, b=0.6)
        run([model()], inputs / "a.png", tmp_path / "out")
        run([model()], inputs / "b.png", tmp_path / "out")
        assert [row["mask"] for row in rows(tmp_path / "out/quality.csv")] == ["b.png", "a.png"]
        folder_of(tmp_path, b=1)
        run([model()], inputs / "b.png", tmp_path / "out", overwrite=True)
        assert [row["look"] for row in rows(tmp_path / "out/quality.csv")] == ["", ""]

    def test_no_name_is_a_formula_and_earlier_rows_are_found_again(self, tmp_path):
        evil = "=cmd|' !A0"
        inputs = folder_of(tmp_path, **{evil: 1, "-2": 0.6, "+x\x1b": 1, "'=y": 1})
        run([model()], inputs, tmp_path / "out")
        expected = {"'=cmd|' !A0.png", "'-2.png", "'+x\\x1b.png", "''=y.png"}
        assert {row["mask"] for row in rows(tmp_path / "out/quality.csv")} == expected
        run([model()], inputs, tmp_path / "out", overwrite=True)
        listed = rows(tmp_path / "out/quality.csv")
        assert next(row["mask"] for row in listed) == "'-2.png"
        assert {row["mask"] for row in listed} == expected
        assert len(listed) == 4

    @pytest.mark.parametrize(
        "content",
        [
            b"mask,dice\na,1\n",
            b"\xff\xfe\x00",
            b"",
            b"mask,look,estimated_dice,estimate_error,confidence\nz.png,,good,0.1,0.9\n",
            b"mask,look,estimated_dice,estimate_error,confidence\nz.png,,0.8,0.1,0.9,seen by me\n",
            b"mask,look,estimated_dice,estimate_error,confidence\nz.png,,0.8\n",
        ],
    )
    def test_a_file_of_the_users_is_left_alone(self, tmp_path, content):
        inputs = folder_of(tmp_path, a=1)
        (tmp_path / "out").mkdir()
        (tmp_path / "out/quality.csv").write_bytes(content)
        with pytest.raises(OutputError, match="is not a list that predict wrote"):
            run([model()], inputs, tmp_path / "out", overwrite=True)
        assert (tmp_path / "out/quality.csv").read_bytes() == content
        assert not (tmp_path / "out/a.png").exists()

    def test_refused_inputs_are_not_in_it(self, tmp_path):
        inputs = folder_of(tmp_path, a=1)
        (inputs / "b.png").write_bytes(b"no picture")
        outcomes = run([model()], inputs, tmp_path / "out")
        assert [outcome.quality is None for outcome in outcomes] == [False, True]
        assert [row["mask"] for row in rows(tmp_path / "out/quality.csv")] == ["a.png"]

    def test_without_validation_cases_it_holds_confidences_if_asked(self, tmp_path):
        run([model(quality=None)], folder_of(tmp_path, a=1, b=0.6), tmp_path / "out", uncertainty=True)
        listed = rows(tmp_path / "out/quality.csv")
        assert [row["mask"] for row in listed] == ["b.png", "a.png"]
        assert {row["estimated_dice"] for row in listed} == {""}


class TestTable:
    def run(self, tmp_path, made, inputs):
        made.save(tmp_path / "model")
        arguments = ["predict", str(tmp_path / "model"), str(inputs), "-o", str(tmp_path / "out"), "--device", "cpu"]
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
        assert result.exit_code == 0, result.output
        return result.output

    def test_names_what_to_look_at_worst_first(self, tmp_path):
        said = self.run(tmp_path, model(), folder_of(tmp_path, good=1, unsure=0.6, empty=0.2))
        assert "Look at these first" in said
        assert said.index("empty.png") < said.index("unsure.png")
        assert "good.png" not in said
        assert said.count("errs by 0.05") == 1  # not of the empty mask

    def test_masks_of_one_name_in_several_folders_are_all_there(self, tmp_path):
        said = self.run(tmp_path, model(), folder_of(tmp_path, **{"p1/scan": 0.6, "p2/scan": 0.5, "p3/scan": 1}))
        named = [line.split()[0] for line in said.splitlines() if "scan.png" in line]
        assert named == ["p2/scan.png", "p1/scan.png"]

    def test_no_name_begins_a_line_of_its_own(self, tmp_path):
        said = self.run(tmp_path, model(), folder_of(tmp_path, **{"a\n9 of 9 done": 0.6}))
        assert "a\\n9 of 9 done.png" in said
        assert not [line for line in said.splitlines() if line.startswith("9 of 9")]

    def test_an_estimate_that_is_not_known_is_called_so(self, tmp_path):
        few = QUALITY | {"cases": 5, "factor": None, "error": None}
        assert "not known" in self.run(tmp_path, model(quality=few), folder_of(tmp_path, unsure=0.6))

    def test_why_nothing_is_compared_is_said_once(self, tmp_path):
        made = model(quality=None)
        made.metrics["fitting"] = {"quality": "not known: 2 validation cases"}
        said = self.run(tmp_path, made, folder_of(tmp_path, good=1, unsure=0.6))
        assert said.count("Masks are not compared with validation cases: 2 validation cases") == 1

    def test_nothing_to_look_at_is_no_table(self, tmp_path):
        assert "Look at" not in self.run(tmp_path, model(), folder_of(tmp_path, good=1))

    def test_one_line_for_a_reason_that_many_share(self, tmp_path):
        levels = {f"case{k:02}": 0.55 + 0.005 * k for k in range(9)}
        said = self.run(tmp_path, model(), folder_of(tmp_path, good=1, empty=0.2, **levels))
        (line,) = [line for line in said.splitlines() if "case" in line and "masks:" in line]
        assert line.startswith("case00.png, case01.png, case02.png and 6 more")
        assert "9 masks: less sure than" in line
        assert "confidence 0." not in line
        low, high = (self.estimate(tmp_path, name) for name in ("case00.png", "case08.png"))
        assert f"{low:.2f} … {high:.2f}, errs by 0.05" in line
        assert [line.split()[0] for line in said.splitlines() if line.startswith("empty")] == ["empty.png"]
        assert "Each of the 10, with its figures:" in said
        assert "10 of 11 is more than half" in said

    def estimate(self, tmp_path, mask):
        return next(float(row["estimated_dice"]) for row in rows(tmp_path / "out/quality.csv") if row["mask"] == mask)

    def test_different_reasons_are_told_apart(self):
        judged = {
            f"dark{k}": Assessment(0.9, look=f"channel 'red': darkest parts darker: 0.5 % quantile {k}")
            for k in range(5)
        }
        judged |= {f"bright{k}": Assessment(0.9, look=f"channel 'red': brighter: median {k}") for k in range(4)}
        judged |= {
            f"both{k}": Assessment(0.9, look=f"channel 'red': brighter: median {k}; nothing was found")
            for k in range(2)
        }
        found = summary(judged | {"fine": Assessment(0.9)})
        assert [(row[0], row[2].split(":")[0]) for row in found if " and " in row[0]] == [
            ("dark0, dark1, dark2 and 2 more", "5 masks"),
            ("bright0, bright1, bright2 and 1 more", "4 masks"),
        ]
        assert [row[0] for row in found if " and " not in row[0]] == ["both0", "both1"]
        assert "fine" not in str(found)

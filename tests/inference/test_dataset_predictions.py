"""Which cases of a dataset are scored, and that their labels are looked at before anything is predicted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cpfnet
from cpfnet.data import dataset, splits
from cpfnet.errors import CpfnetError
from cpfnet.evaluation.scores import Scores
from cpfnet.model import Model
from tests import synthetic
from tests.inference.oracle import bright, make_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve photographs of nine patients, all labelled, that name no split."""
    for number in range(12):
        _, mask = synthetic.blobs(np.random.default_rng(number), (40, 44))
        synthetic.write_raster(tmp_path / "data/images" / f"p{number % 9}_{number}.png", bright(mask, 1))
        synthetic.write_raster(tmp_path / "data/masks" / f"p{number % 9}_{number}.png", mask)
    declare(tmp_path / "data", "")
    return tmp_path / "data"


def declare(root: Path, split: str) -> None:
    lines = [f"{name}: {folder}/{{case}}.png" for name, folder in (("image", "images"), ("label", "masks"))]
    text = "\n".join([*lines, "labels: {'class 1': 1}", "patient: '^(p.)_'", split])
    (root / "dataset.yaml").write_text(text, encoding="utf-8")


def trained(root: Path, fold: int | None) -> Model:
    """Knows its cases as a Model of this fold does."""
    model = make_model(source="images", values=(1,))
    parts = splits.split(dataset.load(root), model.plan, fold)[:2]
    ids = [[case.id for case in cases] for cases in parts]
    model.metrics = {"cases": dict(zip(("train", "validation"), ids, strict=True))}
    return model


def scored(root: Path, models: Model | list[Model], **options: object) -> tuple[list[str], Scores]:
    scores = cpfnet.evaluate(root, models, cpfnet.PredictorOptions(device="cpu"), **options)
    return list(dict.fromkeys(row["case"] for row in scores.rows)), scores


class TestSplits:
    @pytest.mark.parametrize("fold", range(5))
    @pytest.mark.parametrize("split", ["", "split: {val: [p0_0], test: [p1_1]}"], ids=["no split", "its own"])
    def test_val_is_what_validated_the_model_whatever_the_dataset_calls_so(self, root, fold, split):
        """A fold's cases, none of which it was trained on; the dataset's own val trained it, but for one fold."""
        declare(root, split)
        model = trained(root, fold)
        cases, scores = scored(root, model, split="val")
        assert sorted(cases) == sorted(model.metrics["cases"]["validation"])
        assert not set(cases) & set(model.metrics["cases"]["train"])
        assert scores.protocol["chosen"] == f"{len(cases)} cases that validated the model"
        assert not any("trained on" in warning for warning in scores.warnings)

    def test_the_folds_together_score_each_case_once(self, root):
        found = [case for fold in range(5) for case in scored(root, trained(root, fold), split="val")[0]]
        assert sorted(found) == sorted(case.id for case in dataset.load(root).cases)

    def test_the_datasets_own_val_counts_where_the_model_has_none_of_its_cases(self, root):
        declare(root, "split: {val: [p0_0, p0_9]}")
        elsewhere, unsaid = trained(root, None), make_model(source="images", values=(1,))
        elsewhere.metrics = {"cases": {"train": ["x"], "validation": ["y"]}}
        assert scored(root, trained(root, None), split="val")[0] == ["p0_0", "p0_9"]
        assert scored(root, elsewhere, split="val")[0] == ["p0_0", "p0_9"]
        cases, scores = scored(root, unsaid, split="val")
        assert cases == ["p0_0", "p0_9"]
        assert scores.protocol["chosen"] == "the val split (the model does not say which cases validated it)"

    def test_cases_that_are_gone_are_named(self, root):
        model = trained(root, 1)
        first, *rest = model.metrics["cases"]["validation"]
        (root / "masks" / f"{first}.png").unlink()
        cases, scores = scored(root, model, split="val")
        assert sorted(cases) == sorted(rest)
        assert f"without {first}, which this dataset has no label of" in scores.protocol["chosen"]

    def test_where_they_are_not_known_it_is_said_and_training_cases_are_not_advised(self, root):
        unsaid, elsewhere = make_model(source="images", values=(1,)), make_model(source="images", values=(1,))
        elsewhere.metrics = {"cases": {"train": ["x"], "validation": ["y", "z"]}}
        for split, fix in (("", "dataset.yaml"), ("split: {test: [p1_1]}", "choose --split test")):
            declare(root, split)
            for model, said in ((unsaid, "the model does not say which"), (elsewhere, r"none of them .* 2 .*\(y, z\)")):
                with pytest.raises(CpfnetError, match=said) as caught:
                    cpfnet.evaluate(root, model, split="val")
                assert fix in caught.value.fix
                assert "all" not in caught.value.fix
                assert "train" not in caught.value.fix

    def test_other_splits_point_to_val(self, root):
        with pytest.raises(CpfnetError, match="no labelled case in split 'test'") as caught:
            cpfnet.evaluate(root, trained(root, 2), split="test")
        assert caught.value.fix == "choose --split val"

    def test_models_of_several_folds_are_scored_out_of_fold(self, root):
        models = [trained(root, fold) for fold in (0, 1)]
        cases, scores = scored(root, models, split="val")
        assert sorted(cases) == sorted(case for model in models for case in model.metrics["cases"]["validation"])
        assert not any("was trained on:" in warning for warning in scores.warnings)
        with pytest.raises(CpfnetError, match="2 models were validated on different cases"):
            cpfnet.evaluate(root, models, threshold_on="val")
        same = [trained(root, 1), trained(root, 1)]
        assert sorted(scored(root, same, split="val")[0]) == sorted(same[0].metrics["cases"]["validation"])

    def test_a_threshold_is_chosen_on_what_validated_the_model(self, root):
        declare(root, "split: {test: [p1_1, p2_2]}")
        model = trained(root, 1)
        count = len(model.metrics["cases"]["validation"])
        _, scores = scored(root, model, threshold_on="val")
        assert f"over the {count} cases of the val split" in scores.protocol["threshold"]
        with pytest.raises(CpfnetError, match="to score are of the val split"):
            cpfnet.evaluate(root, model, split="val", threshold_on="val")


class TestLabelsFirst:
    """What is wrong with a label is said before anything is predicted, of all cases at once."""

    @staticmethod
    def refused(root: Path, *said: str, **options: object) -> None:
        with pytest.raises(CpfnetError) as caught:
            cpfnet.evaluate(
                root, trained(root, None), cpfnet.PredictorOptions(device="cpu"), out=root.parent / "out", **options
            )
        assert not (root.parent / "out").exists()
        for words in said:
            assert words in str(caught.value)

    def test_values_that_mean_nothing(self, root):
        for name in ("p0_0", "p3_3"):
            synthetic.write_raster(root / "masks" / f"{name}.png", np.full((40, 44), 7, np.uint8))
        self.refused(root, "2 of 12 cases cannot be scored", "p0_0.png: unexpected label values 7", "p3_3.png")

    def test_a_label_on_another_grid_than_its_image(self, root):
        synthetic.write_raster(root / "masks" / "p0_0.png", np.ones((40, 45), np.uint8))
        self.refused(root, "label and image do not lie on one grid: size 40×45 against 40×44")

    def test_a_label_that_is_cut_off(self, root):
        whole = (root / "masks" / "p0_0.png").read_bytes()
        (root / "masks" / "p0_0.png").write_bytes(whole[: len(whole) // 2])
        self.refused(root, "p0_0.png")

    def test_the_labels_that_shall_choose_a_threshold(self, root):
        declare(root, "split: {val: [p0_0], test: [p1_1]}")
        synthetic.write_raster(root / "masks" / "p0_0.png", np.full((40, 44), 7, np.uint8))
        self.refused(root, "p0_0.png: unexpected label values 7", threshold_on="val")

    def test_a_region_of_interest_without_a_pixel(self, root):
        for case in dataset.load(root).cases:
            synthetic.write_raster(root / "roi" / f"{case.id}.png", np.full((40, 44), int(case.id != "p0_0"), np.uint8))
        declare(root, "roi: roi/{case}.png")
        self.refused(root, "no pixel counts", "p0_0")

    def test_what_cannot_be_asked_for(self, root):
        self.refused(root, "the tolerance is nan", tolerance=float("nan"))
        self.refused(root, "the batch of pooled cases is 0", guide_batch=0)

    def test_scores_in_the_way(self, root):
        (root.parent / "out").mkdir()
        (root.parent / "out" / "scores.json").touch()
        with pytest.raises(CpfnetError, match=r"scores.json: exists already"):
            cpfnet.evaluate(root, trained(root, None), cpfnet.PredictorOptions(device="cpu"), out=root.parent / "out")


def test_what_an_error_of_the_dataset_left_out_is_said_with_the_scores(tmp_path: Path) -> None:
    """Two rows of one id: the second is left out, and the mean is not that of all rows."""
    lines = ["image,label"]
    for number in range(2):
        mask = np.zeros((40, 48), np.uint8)
        mask[8:16, 8:16] = 255
        synthetic.write_raster(tmp_path / f"case{number}" / "image.png", mask)
        synthetic.write_raster(tmp_path / f"case{number}" / "label.png", mask)
        lines.append(f"case{number}/image.png,case{number}/label.png")
    synthetic.write_raster(tmp_path / "out" / "image.png", mask)
    (tmp_path / "cases.csv").write_text("\n".join(lines))
    scores = cpfnet.evaluate(tmp_path / "cases.csv", tmp_path / "out", split="all")
    assert {row["case"] for row in scores.rows} == {"image"}
    assert any("cases.csv: case image is listed twice" in line for line in scores.warnings)

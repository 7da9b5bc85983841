"""evaluate, from files on disk to rows, aggregates and files."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from sklearn.metrics import f1_score, roc_auc_score

from cpfnet.errors import CpfnetError, DatasetError, OutputError
from cpfnet.evaluation.case_masks import Item
from cpfnet.evaluation.evaluate import evaluate
from cpfnet.evaluation.metrics.calibration import near_boundary
from cpfnet.evaluation.scores import ALL_READERS, BACKGROUND, MEAN, MEAN_WITH_BACKGROUND, PREDICTION, Scores
from cpfnet.image import Segmentation
from cpfnet.planning import LabelClass, Labels
from tests import synthetic

VESSEL = Labels(classes=(LabelClass(name="vessel", values=(255,), tubular=True),), ignore=(128,))
TWO = Labels(classes=(LabelClass(name="a", values=(1,)), LabelClass(name="b", values=(2,))))


def mask(seed: int, shape: tuple[int, ...] = (24, 31), classes: int = 1, value: int = 255) -> np.ndarray:
    drawn = synthetic.blobs(np.random.default_rng(seed), shape, classes)[1]
    return drawn * np.uint8(value) if classes == 1 else drawn


def png(path: Path, array: np.ndarray) -> Path:
    return synthetic.write_raster(path, array)


def make_items(folder: Path, count: int = 4, **shared: object) -> list[Item]:
    return [
        Item(
            f"c{i}",
            png(folder / f"p{i}.png", np.roll(mask(i), 1 + i % 2)),
            {"label": png(folder / f"t{i}.png", mask(i))},
            **shared,
        )
        for i in range(count)
    ]


def row(scores, case: str, label: str, **where: str) -> dict:
    wanted = {"case": case, "class": label, "prediction": PREDICTION} | where
    (found,) = [r for r in scores.rows if all(r[k] == v for k, v in wanted.items())]
    return found


def test_scores_are_scikit_learns(tmp_path):
    items = make_items(tmp_path)
    scores = evaluate(items, VESSEL)
    expected = [f1_score((mask(i) > 0).ravel(), np.roll(mask(i) > 0, 1 + i % 2).ravel()) for i in range(4)]
    assert [row(scores, f"c{i}", "vessel")["dice"] for i in range(4)] == pytest.approx(expected)
    assert scores.of("dice")["mean"] == pytest.approx(np.mean(expected))
    assert scores.of("dice")["sd"] == pytest.approx(np.std(expected, ddof=1))
    assert scores.of("dice")["count"] == 4
    assert scores.of("dice", BACKGROUND)["mean"] > 0.5
    both = (scores.of("dice")["mean"] + scores.of("dice", BACKGROUND)["mean"]) / 2
    assert scores.of("dice", MEAN_WITH_BACKGROUND)["mean"] == pytest.approx(both)
    assert scores.of("auc") is None
    assert 0 <= scores.of("cldice")["mean"] <= 1
    assert scores.protocol["distance unit"] == "pixels"


def test_neither_ignored_pixels_nor_those_outside_the_region_count(tmp_path):
    truth, prediction, roi = mask(1), mask(51), np.zeros((24, 31), np.uint8)
    roi[3:20, 5:25] = 1  # any value but zero
    truth[8:12, 10:14] = 128
    noisy = np.where((roi == 0) | (truth == 128), 255 - prediction, prediction)
    base = {"truth": {"label": png(tmp_path / "t.png", truth)}, "roi": png(tmp_path / "roi.png", roi)}
    found = [
        evaluate([Item("c", png(tmp_path / f"p{i}.png", p), **base)], VESSEL) for i, p in enumerate((prediction, noisy))
    ]
    inside = {k: v for k, v in row(found[0], "c", "vessel").items() if isinstance(v, float)}
    assert inside == {k: v for k, v in row(found[1], "c", "vessel").items() if isinstance(v, float)}
    valid = (roi > 0) & (truth != 128)
    assert inside["dice"] == pytest.approx(f1_score(truth[valid] == 255, prediction[valid] == 255))
    assert sum(row(found[0], "c", "vessel")[k] for k in ("tp", "fp", "fn", "tn")) == valid.sum()
    whole, region = ({g["region"]: g["guide_dice"] for g in f.guide} for f in found)
    assert whole["region of interest"] == region["region of interest"]
    assert "region of interest" in found[0].protocol["region"]


def test_a_missed_structure_worsens_every_aggregate(tmp_path):
    items = make_items(tmp_path, 3)
    before = evaluate(items, VESSEL)
    missed = Item("m", png(tmp_path / "pm.png", np.zeros((24, 31), np.uint8)), items[0].truth)
    after = evaluate([*items, missed], VESSEL)
    for metric in ("dice", "iou", "sensitivity", "precision", "mcc", "nsd", "cldice"):
        for statistic in ("mean", "low", "median"):
            assert after.of(metric)[statistic] <= before.of(metric)[statistic], (metric, statistic)
        assert after.of(metric)["mean"] < before.of(metric)["mean"]
    for metric in ("hd95", "assd"):
        entry = after.of(metric, "vessel")
        assert entry["mean"] == entry["high"] == math.inf
        assert (entry["infinite"], entry["count"]) == (1, 4)
        assert entry["finite_mean"] == pytest.approx(before.of(metric)["mean"])
        assert entry["median"] >= before.of(metric)["median"]
    assert (after.of("dice")["missed"], after.of("dice")["present"]) == (1, 4)
    assert any("missed in 1 of 4" in warning for warning in after.warnings)


def test_nothing_to_find_and_nothing_found_is_not_counted(tmp_path):
    items = make_items(tmp_path, 2)
    nothing = png(tmp_path / "nothing.png", np.zeros((24, 31), np.uint8))
    scores = evaluate([*items, Item("e", nothing, {"label": nothing})], VESSEL)
    assert math.isnan(row(scores, "e", "vessel")["dice"])
    entry = scores.of("dice")
    assert (entry["count"], entry["undefined"], entry["present"]) == (2, 1, 2)
    assert entry["mean"] == pytest.approx(evaluate(items, VESSEL).of("dice")["mean"])


def test_volumes_in_millimetres_and_means_over_classes(tmp_path):
    shape, spacing = (7, 16, 15), (0.5, 0.75, 3.0)
    truth, prediction = mask(3, shape, 2), np.roll(mask(3, shape, 2), 1, axis=0)
    item = Item(
        "v",
        synthetic.write_nifti(tmp_path / "p.nii.gz", prediction, spacing=spacing),
        {"label": synthetic.write_nifti(tmp_path / "t.nii.gz", truth, spacing=spacing)},
    )
    scores = evaluate([item], TWO, tolerance=2.9)
    a, b, mean = (row(scores, "v", label) for label in ("a", "b", MEAN))
    assert scores.protocol["distance unit"] == "mm"
    assert a["hd95"] == pytest.approx(3.0, abs=1.0)  # one slice of 3 mm
    assert mean["dice"] == pytest.approx((a["dice"] + b["dice"]) / 2)
    assert evaluate([item], TWO, tolerance=3.0).of("nsd")["mean"] > scores.of("nsd")["mean"]
    assert math.isnan(scores.of("dice")["low"])  # one case has no interval


def test_the_guides_dice_is_its_own_code(tmp_path):
    """Against the guide's ``calculate_metrics``, written out on the pooled pixels of each batch."""
    shape = (3, 9, 10)
    pairs = [(mask(i + 20, shape, 2), mask(i, shape, 2)) for i in range(3)]
    items = [
        Item(
            f"c{i}",
            Segmentation(p, np.eye(4)),
            {"label": synthetic.write_nifti(tmp_path / f"t{i}.nii", t)},
        )
        for i, (p, t) in enumerate(pairs)
    ]

    def calculate_metrics(pred, target):
        dice, iou = [], []
        for cls in range(3):
            pred_mask, target_mask = pred == cls, target == cls
            intersection = (pred_mask & target_mask).sum()
            dice.append(2.0 * intersection / (pred_mask.sum() + target_mask.sum() + 1e-8))
            iou.append(intersection / ((pred_mask | target_mask).sum() + 1e-8))
        return np.mean(dice), np.mean(iou)

    batches = [pairs[:2], pairs[2:]]
    expected = np.mean([calculate_metrics(*map(np.stack, zip(*batch, strict=True))) for batch in batches], axis=0)
    scores = evaluate([Item(i.case, _raw(i), i.truth) for i in items], TWO, guide_batch=2)
    (entry,) = scores.guide
    assert (entry["guide_dice"], entry["guide_iou"]) == pytest.approx(tuple(expected))
    assert (entry["batch"], entry["batches"], entry["cases"]) == (2, 2, 3)


def _raw(item: Item) -> Segmentation:
    """In memory, without geometry: agrees with any label of its size."""
    assert isinstance(item.prediction, Segmentation)
    return Segmentation(item.prediction.array)


def test_probabilities_give_an_auc(tmp_path):
    truth = mask(5)
    p = np.clip(truth / 255 * 0.3 + np.random.default_rng(0).random(truth.shape), 0, 1).astype(np.float32)
    label = {"label": png(tmp_path / "t.png", truth)}
    binary = np.where(p > 0.6, 255, 0).astype(np.uint8)
    expected = roc_auc_score((truth > 0).ravel(), p.ravel())
    for planes in (np.stack([1 - p, p]), p[None]):
        scores = evaluate([Item("c", Segmentation(binary, probabilities=planes), label)], VESSEL)
        assert scores.of("auc")["mean"] == pytest.approx(expected)
    with pytest.raises(DatasetError, match="3×24×31"):
        evaluate([Item("c", Segmentation(binary, probabilities=np.stack([p, p, p])), label)], VESSEL)


def test_calibration_is_of_the_pixels_of_all_cases_and_near_their_boundaries(tmp_path):
    """Ignored pixels count nowhere; of two readers each counts half."""
    rng, items, planes, truths = np.random.default_rng(4), [], [], []
    for k, readers in enumerate(([1], [2, 3])):
        drawn = [mask(reader) for reader in readers]
        for one in drawn:
            one[:2] = 128
        p = rng.random(drawn[0].shape).astype(np.float32)
        label = {f"r{n}": png(tmp_path / f"{k}-{n}.png", one) for n, one in enumerate(drawn)}
        items.append(
            Item(f"c{k}", Segmentation(np.where(p > 0.5, 255, 0).astype(np.uint8), probabilities=p[None]), label)
        )
        planes += [p] * len(readers)
        truths += drawn
    scores = evaluate(items, VESSEL)
    figures, weights = scores.calibration["vessel"], (1, 0.5, 0.5)
    errors = [((p - (t == 255)) ** 2)[t != 128] for p, t in zip(planes, truths, strict=True)]
    assert figures["brier"] == pytest.approx(np.average([e.mean() for e in errors], weights=weights))
    near = [near_boundary(t == 255, t != 128, None) for t in truths]
    squares = [(((p - (t == 255)) ** 2)[b], w) for p, t, b, w in zip(planes, truths, near, weights, strict=True)]
    expected = sum(w * e.sum() for e, w in squares) / sum(w * e.size for e, w in squares)
    assert figures["brier_band"] == pytest.approx(expected)
    assert sum(figures["band"]["pixels"]) == pytest.approx(sum(w * e.size for e, w in squares))
    scores.save(tmp_path / "out")
    assert Scores.load(tmp_path / "out").calibration == scores.calibration


def test_calibration_of_a_class_that_is_nowhere_has_no_band(tmp_path):
    label = {"label": png(tmp_path / "t.png", np.zeros((24, 31), np.uint8))}
    missed = Item("d", None, {"label": png(tmp_path / "u.png", mask(1))})
    items = [
        Item(
            "c", Segmentation(np.zeros((24, 31), np.uint8), probabilities=np.full((1, 24, 31), 0.25, np.float32)), label
        ),
        missed,
    ]
    scores = evaluate(items, VESSEL, allow_missing=True)
    figures = scores.calibration["vessel"]
    assert (figures["cases"], figures["brier"], figures["brier_band"]) == (1, 0.0625, None)
    scores.save(tmp_path / "out")
    assert Scores.load(tmp_path / "out").calibration == scores.calibration


def test_without_probabilities_there_is_no_calibration(tmp_path):
    assert evaluate(make_items(tmp_path), VESSEL).calibration == {}


def test_several_readers(tmp_path):
    readers = {f"r{k}": png(tmp_path / f"r{k}.png", mask(k)) for k in (1, 2)}
    scores = evaluate([Item("c", png(tmp_path / "p.png", mask(60)), readers)], VESSEL)
    one, two = (row(scores, "c", "vessel", reader=r)["dice"] for r in ("r1", "r2"))
    assert row(scores, "c", "vessel", reader=ALL_READERS)["dice"] == pytest.approx((one + two) / 2)
    human = row(scores, "c", "vessel", prediction="r2", reader="r1")
    assert human["dice"] == pytest.approx(f1_score((mask(1) > 0).ravel(), (mask(2) > 0).ravel()))
    assert scores.reader == ALL_READERS
    assert scores.of("dice")["mean"] == pytest.approx((one + two) / 2)


def test_overlapping_regions(tmp_path):
    regions = Labels(
        classes=(LabelClass(name="whole", values=(1, 2)), LabelClass(name="core", values=(2,))), exclusive=False
    )
    truth = mask(7, (20, 20), 2)
    prediction = truth.copy()
    prediction[prediction == 2] = 1  # the core is missed, the whole is perfect
    item = Item("c", Segmentation(prediction), {"label": png(tmp_path / "t.png", truth)})
    scores = evaluate([item], regions)
    assert row(scores, "c", "whole")["dice"] == 1
    assert row(scores, "c", "core")["dice"] == 0
    assert row(scores, "c", "core")["missed"] == 1
    assert scores.of("dice")["mean"] == 0.5


def test_patients_are_resampled_whole(tmp_path):
    each = make_items(tmp_path, 4)
    grouped = [Item(i.case, i.prediction, i.truth, patient="one" if n < 2 else "two") for n, i in enumerate(each)]
    assert evaluate(grouped, VESSEL).of("dice")["groups"] == 2
    assert evaluate(each, VESSEL).of("dice")["groups"] == 4


def test_threads_change_nothing(tmp_path):
    items = make_items(tmp_path, 6)
    assert evaluate(items, VESSEL, workers=1).as_dict() == evaluate(items, VESSEL, workers=4).as_dict()


def test_files(tmp_path):
    items = make_items(tmp_path, 2)
    nothing = png(tmp_path / "nothing.png", np.zeros((24, 31), np.uint8))
    items += [Item("missed", nothing, items[0].truth), Item("empty", nothing, {"label": nothing})]
    scores = evaluate(items, VESSEL)
    table, everything = scores.save(tmp_path / "out")
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == len(scores.rows) == 4 * 4
    by_key = {(r["case"], r["class"]): r for r in rows}
    assert float(by_key["c0", "vessel"]["dice"]) == row(scores, "c0", "vessel")["dice"]
    assert float(by_key["missed", "vessel"]["hd95"]) == math.inf
    assert by_key["empty", "vessel"]["dice"] == ""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads(everything.read_text(), parse_constant=refuse)
    assert read == scores.as_dict()
    (hd95,) = [a for a in read["aggregates"] if (a["class"], a["metric"]) == ("vessel", "hd95")]
    assert (hd95["mean"], hd95["infinite"]) == ("inf", 1)
    with pytest.raises(OutputError, match="exists already"):
        scores.save(tmp_path / "out")
    scores.save(tmp_path / "out", overwrite=True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scores.csv", "scores.json"}


def test_scores_are_one_line(tmp_path):
    scores = evaluate(make_items(tmp_path, 3), VESSEL)
    mean = float(np.mean([row(scores, f"c{i}", "vessel")["dice"] for i in range(3)]))
    assert re.fullmatch(
        rf"Scores\(3 cases, 1 class \(vessel\), mean Dice {mean:.3f} \(0\.\d+ … 0\.\d+\)\)", repr(scores)
    )
    assert repr(Scores([])) == "Scores(0 cases, 0 classes ())"


def test_no_text_in_the_table_is_a_formula(tmp_path):
    names = ["=HYPERLINK(0)", "-c", "-0.5", "c\x1b"]
    items = [replace(item, case=name) for item, name in zip(make_items(tmp_path, 4), names, strict=True)]
    table, everything = evaluate(items, VESSEL).save(tmp_path / "out")
    rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
    assert list(dict.fromkeys(row["case"] for row in rows)) == ["'=HYPERLINK(0)", "'-c", "-0.5", "c\\x1b"]
    mcc = {row["mcc"] for row in rows} - {""}
    assert all(float(value) <= 1 for value in mcc)  # numbers stay numbers
    assert "\x1b" not in everything.read_text()
    assert {row["case"] for row in Scores.load(tmp_path / "out").rows} == set(names)


def test_a_missing_prediction_is_an_error_unless_allowed(tmp_path):
    items = make_items(tmp_path, 2)
    items.append(Item("gone", tmp_path / "gone.png", items[0].truth))
    items.append(Item("none", None, items[0].truth))
    with pytest.raises(DatasetError) as caught:
        evaluate(items, VESSEL)
    assert "2 of 4 cases" in str(caught.value)
    assert "gone" in str(caught.value)
    assert "none" in str(caught.value)
    scores = evaluate(items, VESSEL, allow_missing=True)
    assert row(scores, "gone", "vessel")["dice"] == 0
    assert scores.of("dice")["missed"] == 2
    assert any("no prediction" in warning for warning in scores.warnings)


def test_bad_input_is_refused_with_both_values(tmp_path):
    good = make_items(tmp_path, 1)[0]
    other = png(tmp_path / "small.png", mask(9, (24, 30)))
    cases = {
        r"24×30 against 24×31": Item("c", other, good.truth),
        r"region of interest.*24×30 against 24×31": Item("c", good.prediction, good.truth, roi=other),
        r"reader 'b'.*24×30 against 24×31": Item("c", good.prediction, good.truth | {"b": other}),
        r"unexpected label values 7": Item("c", png(tmp_path / "odd.png", np.full((24, 31), 7, np.uint8)), good.truth),
        r"no label": Item("c", good.prediction, {}),
        r"no pixel counts": Item(
            "c", good.prediction, {"label": png(tmp_path / "ig.png", np.full((24, 31), 128, np.uint8))}
        ),
    }
    for message, item in cases.items():
        with pytest.raises(CpfnetError, match=message):
            evaluate([item], VESSEL)
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    with pytest.raises(CpfnetError, match=r"text\.png"):
        evaluate([Item("c", text, good.truth)], VESSEL)
    shifted = np.eye(4)
    shifted[:3, 3] = 5
    volume = synthetic.write_nifti(tmp_path / "t.nii", mask(3, (4, 9, 9), 2))
    with pytest.raises(DatasetError, match="affines differ"):
        evaluate([Item("c", Segmentation(mask(3, (4, 9, 9), 2), shifted), {"label": volume})], TWO)
    with pytest.raises(DatasetError, match="repeat: c0"):
        evaluate([good, good], VESSEL)
    with pytest.raises(DatasetError, match="nothing to evaluate"):
        evaluate([], VESSEL)
    with pytest.raises(DatasetError, match="tolerance is -1"):
        evaluate([good], VESSEL, tolerance=-1)


def test_the_room_imports_without_torch():
    code = (
        "import sys, cpfnet.evaluation.evaluate, cpfnet.evaluation.report as r; "
        "print({'torch', 'monai'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_palette_label_files(tmp_path):
    truth = Pillow.fromarray((mask(1) > 0).astype(np.uint8), mode="P")
    truth.putpalette([0, 0, 0, 255, 255, 255])
    truth.save(tmp_path / "t.gif")
    scores = evaluate([Item("c", png(tmp_path / "p.png", mask(1)), {"label": tmp_path / "t.gif"})], VESSEL)
    assert scores.of("dice")["mean"] == 1


@pytest.mark.parametrize(("reader", "name"), [("prediction", "vessel"), ("(all readers)", "vessel"), ("ann", "(mean)")])
def test_names_that_rows_have_are_refused(tmp_path, reader, name):
    (item,) = make_items(tmp_path, 1)
    item = replace(item, truth={reader: next(iter(item.truth.values()))})
    with pytest.raises(DatasetError, match="as a row of the scores"):
        evaluate([item], Labels(classes=(LabelClass(name=name, values=(1,)),)))


def test_cases_of_one_reader_count_beside_those_of_several(tmp_path):
    items = make_items(tmp_path, 3)
    items[0] = replace(items[0], truth=items[0].truth | {"second": items[1].truth["label"]})
    scores = evaluate(items, VESSEL)
    assert scores.reader == ALL_READERS
    assert scores.of("dice")["count"] == 3
    one = row(scores, "c1", "vessel", reader="label")["dice"]
    assert row(scores, "c1", "vessel", reader=ALL_READERS)["dice"] == one

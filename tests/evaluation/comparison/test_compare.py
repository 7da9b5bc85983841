"""compare: what is paired with what, what is refused, and what is said of the difference."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cpfnet.errors import CpfnetError, DatasetError, FormatError, OutputError
from cpfnet.evaluation.comparison.compare import compare
from cpfnet.evaluation.comparison.load_runs import load_runs
from cpfnet.evaluation.comparison.paired_tests import holm
from cpfnet.evaluation.comparison.report import console_table, sentence, write_report
from cpfnet.evaluation.scores import MEAN, Scores
from tests.evaluation.comparison.hand_made import scores

RNG = np.random.default_rng(0)
BASE = RNG.uniform(0.5, 0.8, 20)
GOOD = BASE + RNG.uniform(0.01, 0.1, 20)
OTHER = BASE + RNG.normal(0, 0.05, 20)


def test_a_clear_difference_is_said_and_an_unclear_one_is_not():
    found = compare({"base": [scores(BASE)], "good": [scores(GOOD)], "other": [scores(OTHER)]})
    assert found.methods == ["base", "good", "other"]
    good, other = found.of("dice"), found.of("dice", method="other")
    assert (good.verdict, other.verdict) == ("better", "no difference shown")
    assert good.difference == pytest.approx(np.mean(GOOD - BASE))
    assert good.p == pytest.approx(stats.wilcoxon(GOOD - BASE, method="exact").pvalue)
    assert (good.better, good.equal, good.worse, good.patients) == (20, 0, 0, 20)
    assert [d.p_holm for d in found.differences] == pytest.approx(holm([d.p for d in found.differences]))
    assert "all 4 comparisons" in found.protocol["correction"]  # two methods, Dice and NSD
    assert sentence(good).startswith("better (n = 20, interval +0.0")
    assert sentence(other).startswith("no difference shown (n = 20, interval −0.0")
    assert found.warnings == []


def test_less_is_better_for_distances():
    found = compare({"a": [scores(BASE, hd95=BASE + 1)], "b": [scores(BASE, hd95=BASE)]})
    assert found.of("hd95").verdict == "better"
    assert (found.of("hd95").better, found.of("hd95").worse, found.of("hd95").difference) == (20, 0, pytest.approx(-1))


def test_the_reference_can_be_chosen_and_turns_the_sign():
    runs = {"a": [scores(BASE)], "b": [scores(GOOD)]}
    there, back = compare(runs).of("dice"), compare(runs, against="b").of("dice")
    assert (back.method, back.verdict) == ("a", "worse")
    assert (back.difference, back.low, back.high) == pytest.approx((-there.difference, -there.high, -there.low))
    with pytest.raises(DatasetError, match="no evaluation is called 'c'"):
        compare(runs, against="c")


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), min_size=1, max_size=25))
def test_the_same_evaluation_shows_no_difference(values):
    found = compare({"a": [scores(values)], "b": [scores(values)]})
    assert {d.verdict for d in found.differences} == {"no difference shown"}


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_patients_are_said_to_be_so(n):
    found = compare({"a": [scores(BASE[:n])], "b": [scores(GOOD[:n])]})
    assert found.of("dice").verdict == "no difference shown"
    assert f"n = {n}: no test can show one with fewer than 6 patients" in sentence(found.of("dice"))
    assert f"{n} patient{'s' * (n > 1)}: no test can show a difference" in found.warnings[0]


def test_too_many_comparisons_for_the_patients_are_said_to_be_so():
    def found(n):
        return compare({"a": [scores(BASE[:n])], "b": [scores(GOOD[:n])]})

    assert found(6).of("dice").verdict == "no difference shown"  # 2 comparisons × 2 / 2⁶ > 0.05
    assert "corrected p of 0.062" in found(6).warnings[0]
    assert found(7).of("dice").verdict == "better"
    assert found(7).warnings == []


def test_equal_methods_are_rarely_called_different():
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(100):
        a = rng.uniform(0.5, 0.9, 12)
        found = compare({"a": [scores(a)], "b": [scores(a + rng.normal(0, 0.03, 12))]})
        wrong += any(d.verdict != "no difference shown" for d in found.differences)
    assert wrong <= 10  # at most 5 % expected; more than 10 of 100 would come by chance once in 90 times


def test_several_classes_lead_with_their_mean():
    found = compare({"a": [scores(BASE, second=BASE)], "b": [scores(BASE, second=GOOD)]})
    assert found.headline == MEAN
    assert [found.of("dice", label).verdict for label in ("lesion", "vessel")] == ["no difference shown", "better"]
    assert found.of("dice").difference == pytest.approx(found.of("dice", "vessel").difference / 2)


def test_runs_of_one_method_are_averaged_case_by_case():
    seeds = [BASE + shift for shift in (0.01, 0.03, 0.08)]
    found = compare({"base": [scores(BASE)], "ours": [scores(s) for s in seeds]})
    assert found.of("dice").difference == pytest.approx(0.04)
    (entry,) = [e for e in found.runs if e["metric"] == "dice"]
    assert entry["means"] == pytest.approx([BASE.mean() + s for s in (0.01, 0.03, 0.08)])
    assert entry["sd"] == pytest.approx(np.std([0.01, 0.03, 0.08], ddof=1))
    assert "ours: 3 runs" in found.protocol["runs"]
    assert "another seed" in found.protocol["what it covers"]
    both = compare({"a": [scores(BASE), scores(GOOD)], "b": [scores(GOOD), scores(GOOD)]})
    assert "another seed" not in both.protocol["what it covers"]


def test_folds_of_one_method_are_joined():
    cases = {f"c{i}": float(x) for i, x in enumerate(BASE)}
    folds = [scores({c: x + 0.02 for c, x in list(cases.items())[k::2]}) for k in range(2)]
    found = compare({"a": [scores(cases)], "b": folds})
    assert found.of("dice").difference == pytest.approx(0.02)
    assert found.of("dice").cases == 20
    assert (found.runs, "b: 2 folds" in found.protocol["runs"]) == ([], True)
    with pytest.raises(DatasetError, match=r"run 1 of b and run 3 of b share 10 cases, but .* in one only"):
        compare({"a": [scores(cases)], "b": [*folds, scores(cases)]})
    with pytest.raises(DatasetError, match="scored in fewer runs than the other cases"):
        compare({"a": [scores(cases)], "b": [*folds, folds[0]]})


def test_every_reader_counts_through_their_mean():
    readers = ("one", "two")
    found = compare({"a": [scores(BASE, readers=readers)], "b": [scores(GOOD, readers=readers)]})
    assert found.of("dice").cases == 20
    assert found.protocol["reader"] == "all readers"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (scores({f"c{i}": 0.5 for i in range(1, 4)}), "1 only in a \\(c0\\)"),
        (scores({"c0": 0.5, "c1": 0.5, "c2": 0.5, "x": 0.1}), "1 only in a \\(c3\\); 1 only in b \\(x\\)"),
        (scores([0.5] * 4, protocol={"distance unit": "pixels"}), "distance unit of a: mm; of b: pixels"),
        (scores([0.5] * 4, protocol={"surface": "NSD tolerance 2 mm"}), "NSD tolerance 1 mm; of b: NSD tolerance 2 mm"),
        (scores([0.5] * 4, protocol={"ignored": "pixels not annotated"}), "ignored of a: none; of b"),
        (scores([0.5] * 4, second=[0.5] * 4), "classes of a: lesion; of b: lesion, vessel"),
        (scores([0.5] * 4, readers=["other"]), "reader of a: label; of b: other"),
        (scores([0.5] * 4, pixels=900), "100 of the 1,000 pixels that count; for b .* 100 of the 900"),
        (scores([0.5] * 3 + [math.nan]), "100 of the 1,000 pixels that count; for b .* 0 of the 1,000"),
        (scores([0.5] * 4, patients=["p"] * 4), "is of patient c0 .* is of patient p"),
    ],
)
def test_what_was_not_scored_alike_is_refused_with_what_differs(other, message):
    reference = scores([0.5] * 4)
    with pytest.raises(DatasetError, match=message) as caught:
        compare({"a": [reference], "b": [other]})
    assert caught.value.fix


def test_readers_that_only_one_evaluation_has_are_named():
    two = scores([0.5] * 3, readers=("one", "two"))
    three = scores([0.5] * 3, readers=("one", "two", "three"))
    with pytest.raises(DatasetError, match="for a it has none; for b it is of patient c0") as caught:
        compare({"a": [two], "b": [three]})
    assert caught.value.where == "c0, reader three, class lesion"


def test_what_may_differ_is_noted():
    cases = "20, of 20 patients; 2 without a prediction, counted as empty"
    recorded = scores(
        GOOD, protocol={"cases": cases, "threshold": "0.4, chosen on train", "trained on": "3 of these cases"}
    )
    found = compare({"a": [scores(BASE, hd95=BASE)], "b": [recorded]})
    assert "the protocols differ in 'threshold': a: predictions as written; b: 0.4, chosen on train" in found.warnings
    assert "b: 2 without a prediction, counted as empty" in found.warnings
    assert "b was trained on 3 of these cases: its scores are optimistic" in found.warnings
    assert "HD95 is not compared where b was scored without it" in found.warnings
    assert found.of("hd95") is None


def test_what_each_model_was_fitted_to_is_no_other_protocol():
    runs = [scores(BASE, protocol={"threshold": "the model's own", "fitted": f"vessel above {t}"}) for t in (0.3, 0.6)]
    found = compare({"a": [runs[0]], "b": [runs[1]]})
    assert not [note for note in found.warnings if "protocols differ" in note]


def test_a_structure_found_where_there_is_none_is_not_hidden():
    rest, empty = BASE[:8].tolist(), scores([*BASE[:8], math.nan])
    spurious = scores([*rest, math.nan])
    for row in spurious.rows:
        if row["case"] == "c8":
            row["dice"] = row["nsd"] = 0.0
    found = compare({"a": [empty], "b": [spurious]})
    assert found.of("dice").undefined_reference == 1
    assert "lesion: in 1 case without the structure b finds some where a rightly finds none" in " ".join(found.warnings)


def test_a_missed_structure_cannot_be_called_better():
    near, far = BASE.tolist(), (BASE + 5).tolist()
    missing = [math.inf] * 12 + near[12:]
    found = compare({"a": [scores(BASE, hd95=far)], "b": [scores(BASE, hd95=missing)]}).of("hd95")
    assert found.finite_difference == pytest.approx(-5)
    assert (found.verdict, found.infinite_method) == ("no difference shown", 12)
    all_but_one = [math.inf] * 19 + near[19:]
    assert compare({"a": [scores(BASE, hd95=far)], "b": [scores(BASE, hd95=all_but_one)]}).of("hd95").verdict == "worse"


def test_files_say_what_was_found(tmp_path):
    missing = [math.inf, *BASE[1:]]
    found = compare({"a": [scores(BASE, hd95=BASE)], "b <i>": [scores(GOOD, hd95=missing)] * 2})
    for _ in range(2):
        found.save(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="exists already"):
        found.save(tmp_path)
    saved = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert [d["verdict"] for d in saved["differences"]] == [d.verdict for d in found.differences]
    assert saved["differences"][0]["difference"] == found.of("dice").difference
    assert saved["protocol"] == found.protocol
    with (tmp_path / "comparison.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["reference"], row["method"], row["class"], row["metric"]) for row in table] == [
        ("a", "b <i>", "lesion", metric) for metric in ("dice", "nsd", "hd95")
    ]
    assert table[2]["method_mean"] == "inf"
    html = write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "b &lt;i&gt; against a" in html
    assert html.count("data:image/svg") == 1
    assert sentence(found.of("dice")).replace("<", "&lt;") in html
    assert found.protocol["correction"] in html


def test_the_table_holds_every_difference():
    methods = {"a": [scores(BASE, second=BASE)], "b": [scores(GOOD, second=BASE)], "c": [scores(OTHER, second=BASE)]}
    found = compare(methods)
    columns, rows, styles = console_table(found, "b")
    assert columns[:4] == ["class", "metric", "a", "b"]
    assert [row[:2] for row in rows[:3]] == [["mean", "Dice"], ["mean", "NSD"], ["lesion", "Dice"]]
    assert [row[-1] for row in rows] == [d.verdict for d in found.differences if d.method == "b"]
    assert styles == ["green"] * 4 + [""] * 2


def test_evaluations_are_called_as_their_folders_or_as_said(tmp_path):
    for name in ("one", "two", "deep/two"):
        scores(BASE).save(tmp_path / name)
    one, two, deep = (tmp_path / name for name in ("one", "two", "deep/two"))
    assert list(load_runs([one, str(two) + "/"])) == ["one", "two"]
    assert list(load_runs([one / "scores.json", f"x={deep}"])) == ["one", "x"]
    runs = load_runs([f"x={one}", f"y={two}", f"y={deep}"])
    assert {name: len(found) for name, found in runs.items()} == {"x": 1, "y": 2}
    given = load_runs({"x": one, "y": [two, Scores.load(deep)]})
    assert {name: len(found) for name, found in given.items()} == {"x": 1, "y": 2}
    for reports, message in (
        ([one, one], "given twice, as one and one"),
        ([one, f"x={one / 'scores.json'}"], "given twice, as one and x"),
        ([two, deep], "two evaluations are called 'two'"),
        ([f"two={one}", two], "two evaluations are called 'two'"),
    ):
        with pytest.raises(DatasetError, match=message):
            load_runs(reports)
    with pytest.raises(DatasetError, match="only one to compare"):
        compare(load_runs([one]))


def test_scores_are_read_back_as_they_were(tmp_path):
    made = scores([0.5, math.nan, 0.25], hd95=[1.5, math.nan, math.inf])
    made.save(tmp_path)
    read = Scores.load(tmp_path)
    assert read.as_dict() == made.as_dict()
    assert read.of("hd95")["mean"] == math.inf
    assert Scores.load(tmp_path / "scores.json").rows[0] == made.rows[0]


ROW = {
    "case": "c",
    "patient": "p",
    "prediction": "prediction",
    "reader": "r",
    "class": "a",
    "dice": 0.5,
} | dict.fromkeys(("present", "missed", "spurious"), 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no scores.json"),
        ("", "is not JSON"),
        ('{"rows": [', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        ("[]", "no rows and protocol"),
        ('{"rows": {}, "protocol": {}}', "no rows and protocol"),
        ([], "no row of a prediction"),
        ([3], "row 1 has no patient"),
        ([ROW, ROW | {"case": None}], "row 2 has no case"),
        ([ROW | {"dice": "0.5"}], "dice of row 1 is no number"),
        ([ROW | {"missed": None}], "row 1 does not have all of present, missed, spurious"),
        ([ROW | {"tp": 3}], "row 1 does not have all of"),
        ([ROW, ROW], "two rows for c, prediction, r, a"),
        ([ROW | {"prediction": "second"}], "no row of a prediction"),
    ],
)
def test_damaged_scores_are_refused(tmp_path, text, message):
    if isinstance(text, list):
        text = json.dumps({"rows": text, "protocol": {}})
    if text is not None:
        (tmp_path / "scores.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError, match=message) as caught:
        Scores.load(tmp_path)
    assert "cpfnet evaluate" in caught.value.fix


def test_no_common_metric_is_an_error():
    bare = scores([0.5] * 3)
    for row in bare.rows:
        del row["dice"], row["nsd"]
    with pytest.raises(CpfnetError, match="no metric"):
        compare({"a": [bare], "b": [scores([0.5] * 3)]})

"""compare as a command and as a verb."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import cpfnet
from cpfnet.cli.app import main
from cpfnet.errors import OutputError
from tests.evaluation.comparison.hand_made import scores

BASE = np.random.default_rng(0).uniform(0.5, 0.8, 12)


@pytest.fixture
def reports(tmp_path, monkeypatch):
    """Evaluations to compare, in the current folder."""
    scores(BASE, hd95=BASE).save(tmp_path / "base")
    for run in range(2):
        scores(BASE + 0.01 * (run + 1), hd95=BASE).save(tmp_path / f"ours{run}")
    scores(BASE, protocol={"distance unit": "pixels"}).save(tmp_path / "pixels")
    scores(BASE[:9]).save(tmp_path / "fewer")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/scores.json").write_text((tmp_path / "base/scores.json").read_text()[:-200])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["cpfnet", "compare", *arguments])
    main()


def test_the_command_prints_and_writes_what_the_verb_finds(reports, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "base", "ours=ours0", "ours=ours1", "-o", "out")
    assert not ended.value.code
    printed = capsys.readouterr()
    assert "ours against base" in printed.out
    assert "+0.0150" in printed.out
    assert "better" in printed.out
    assert "no difference shown" in printed.out
    assert "Holm, over all 3 comparisons" in printed.err
    assert sorted(path.name for path in (reports / "out").iterdir()) == [
        "comparison.csv",
        "comparison.json",
        "report.html",
    ]
    found = cpfnet.compare({"base": "base", "ours": ["ours0", "ours1"]})
    assert json.loads((reports / "out/comparison.json").read_text(encoding="utf-8")) == found.as_dict()
    assert (found.of("dice").verdict, found.of("hd95").verdict) == ("better", "no difference shown")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base"], "only base to compare"),
        (["base", "nowhere"], "nowhere: no such folder or file"),
        (["base", "empty"], "empty: holds no scores.json"),
        (["base", "broken"], "broken/scores.json: is not JSON"),
        (["base", "base/"], "is given twice"),
        (["base", "again=base/scores.json"], "is given twice, as base and again"),
        (["base", "pixels"], "distance unit of base: mm; of pixels: pixels"),
        (["base", "fewer"], "3 only in base (c10, c11, c9)"),
        (["base", "ours0", "--against", "other"], "choose one of: base, ours0"),
        (["base", "ours0", "-o", "full"], "exists already"),
        (["base", "ours0", "-o", "base/scores.json/out"], "cannot be written"),
    ],
)
def test_what_cannot_be_compared_ends_in_one_message(reports, monkeypatch, capsys, arguments, message):
    (reports / "full").mkdir()
    (reports / "full/report.html").write_text("mine")
    before = sorted(reports.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, *arguments)
    assert ended.value.code == 1
    output = "".join(capsys.readouterr())
    assert message in output
    assert "Traceback" not in output
    assert sorted(reports.rglob("*")) == before
    assert (reports / "full/report.html").read_text() == "mine"


def test_the_report_of_an_evaluation_is_never_replaced(reports):
    (reports / "base/report.html").write_text("of the evaluation")
    with pytest.raises(OutputError, match="holds an evaluation"):
        cpfnet.compare(["base", "ours0"], out="base", overwrite=True)
    assert (reports / "base/report.html").read_text() == "of the evaluation"

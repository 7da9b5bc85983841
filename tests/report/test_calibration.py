"""The section on calibration: what it claims, and what it leaves out where nothing is known."""

import base64

import numpy as np
import pytest

from cpfnet.evaluation.metrics.calibration import Tally, figures
from cpfnet.report.calibration import calibration_section
from cpfnet.report.page import Figure, Section, Table, Text
from cpfnet.training.report import validation_calibration as of_training


def calibrated(power: float) -> dict:
    rng = np.random.default_rng(0)
    truth = rng.random(3000)
    tally = Tally.of(
        (truth**power / (truth**power + (1 - truth) ** power)).astype(np.float32), rng.random(3000) < truth
    )
    return figures(tally, tally)


def blocks(sections: list[Section]) -> dict:
    (section,) = sections
    assert section.title == "Calibration"
    return {type(block): block for block in section.blocks}


def test_before_and_after_stand_side_by_side():
    training = {"cases": 4, "temperature": 2.0, "before": {"lesion": calibrated(2)}, "after": {"lesion": calibrated(1)}}
    found = blocks(of_training(training, "pixels"))
    before, after = found[Table].rows
    assert (before[0], after[0]) == ("lesion, before", "lesion, after")
    assert float(after[1]) < float(before[1]) / 2
    (note,) = found[Text].paragraphs
    assert "4 validation cases" in note
    assert "at most 3 pixels from it" in note
    assert "each case stands after it at the temperature that the others gave" in note
    svg = base64.b64decode(found[Figure].uri.split(",")[1]).decode()
    assert svg.count("<!-- before -->") == svg.count("<!-- after -->") == 1


def test_without_a_temperature_there_is_no_after():
    found = blocks(
        of_training({"cases": 1, "temperature": 1.0, "before": {"a": calibrated(1), "b": calibrated(2)}}, "mm")
    )
    assert [row[0] for row in found[Table].rows] == ["a", "b"]
    assert "No temperature was fitted" in found[Text].paragraphs[0]
    assert "1 validation case together" in found[Text].paragraphs[0]
    assert "after the temperature" not in found[Figure].caption


def test_what_is_not_known_is_not_shown():
    assert of_training({}, "mm") == []
    assert calibration_section({"as predicted": {}}, unit="mm", pixels="all pixels") == []
    nothing = Tally.of(np.zeros(0, np.float32), np.zeros(0, bool))
    found = blocks(calibration_section({"before": {"a": figures(nothing, nothing)}}, unit="mm", pixels="no pixels"))
    assert found[Table].rows == [["a", "–", "–", "–", "–"]]
    assert Figure not in found


@pytest.mark.parametrize(("count", "words"), [(6, ""), (9, "The first 6 of 9 classes.")])
def test_many_classes(count, words):
    moments = {"before": {f"class {k}": calibrated(1) for k in range(count)}}
    found = blocks(calibration_section(moments, unit="mm", pixels="the pixels of 3 cases"))
    assert len(found[Table].rows) == count
    assert found[Figure].caption.endswith(words)

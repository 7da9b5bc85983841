"""How good a prediction is taken to be: worked by hand, and on validation cases made to obey the rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.inference.quality import estimate as quality
from cpfnet.model import Quality
from cpfnet.planning import LabelClass, Labels

ONE = Labels(classes=(LabelClass(name="lesion", values=(1,)),))
TWO = Labels(classes=(LabelClass(name="liver", values=(1,)), LabelClass(name="tumour", values=(2,))))
REGIONS = Labels(
    classes=(LabelClass(name="whole", values=(1, 2)), LabelClass(name="core", values=(2,))), exclusive=False
)
KNOWN = Quality(cases=20, lowest=0.8, found=("liver",), factor=2.0, error=0.05)


def obeying(count: int, factor: float = 2.0, noise: float = 0.0) -> tuple[list[tuple[float]], list[float]]:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.7, 0.98, count)
    y = 1 - factor * (1 - x) * np.exp(noise * rng.normal(size=count))
    return [(value,) for value in x.tolist()], y.tolist()


class TestConfidences:
    def test_exclusive(self):
        probabilities = np.array([[0.1, 0.2, 0.9, 0.5], [0.8, 0.7, 0.1, 0.1], [0.1, 0.1, 0.0, 0.4]])
        assert quality.confidences(probabilities, np.array([1, 1, 0, 0]), TWO) == (pytest.approx(0.75), None)

    def test_regions_have_no_background(self):
        probabilities = np.array([[0.9, 0.6, 0.1], [0.7, 0.2, 0.1]])
        found = quality.confidences(probabilities, probabilities > 0.5, REGIONS)
        assert found == (pytest.approx(0.75), pytest.approx(0.7))


class TestFit:
    def test_cases_that_obey_give_their_factor(self):
        fitted, note = quality.fit(*obeying(12, 1.7), ONE)
        assert (fitted.cases, fitted.found) == (12, ("lesion",))
        assert fitted.factor == pytest.approx(1.7)
        assert fitted.error == pytest.approx(0, abs=1e-9)
        assert "12 cases left out in turn" in note

    def test_the_error_is_that_of_cases_left_out(self):
        cases, dices = obeying(11, noise=0.3)
        fitted, _ = quality.fit(cases, dices, ONE)
        errors = []
        for k in range(11):
            rest, _ = quality.fit(cases[:k] + cases[k + 1 :], dices[:k] + dices[k + 1 :], ONE)
            errors.append(abs(quality.assess(cases[k], [rest], ONE).dice - dices[k]))
        assert fitted.error == pytest.approx(np.mean(errors))

    @pytest.mark.parametrize(
        ("count", "some", "said"),
        [(0, False, "0 validation cases"), (3, False, "3 val"), (4, True, "4 val"), (9, True, "9 val")],
    )
    def test_too_few_cases_and_why(self, count, some, said):
        fitted, note = quality.fit(*obeying(count), ONE)
        assert (fitted is not None) == some
        assert fitted is None or (fitted.factor is None and fitted.error is None)
        assert said in note
        assert str(quality.LEAST_CASES) in note

    def test_what_tells_no_more_than_the_mean_is_left_out(self):
        """Confidence that has nothing to do with Dice."""
        cases, _ = obeying(16)
        fitted, note = quality.fit(cases, [0.8, 0.81] * 8, ONE)
        assert fitted.factor is None
        assert "no more than their mean" in note

    def test_cases_without_structure_or_prediction_do_not_count(self):
        cases, dices = obeying(12)
        fitted, _ = quality.fit([*cases, (None,), (0.9,)], [*dices, 0.0, None], ONE)
        assert fitted.cases == 12
        assert fitted.found == ()  # once it was not found
        assert fitted.factor == pytest.approx(2)

    def test_the_least_sure_tenth_is_to_be_looked_at(self):
        cases = [(0.5 + k / 100,) for k in range(31)]
        fitted, _ = quality.fit(cases, [case[0] for case in cases], ONE)
        flagged = [bool(quality.assess(case, [fitted], ONE).look) for case in cases]
        assert flagged == [True] * 3 + [False] * 28

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=4, max_size=20),
        st.floats(0, 1),
    )
    def test_whatever_the_cases_estimates_are_dices(self, pairs, confidence):
        fitted, _ = quality.fit([(x,) for x, _ in pairs], [y for _, y in pairs], ONE)
        told = quality.assess((confidence,), [fitted], ONE)
        assert told.dice is None or 0 <= told.dice <= 1
        assert Quality.model_validate(fitted.model_dump()) == fitted


class TestAssess:
    def test_by_hand(self):
        told = quality.assess((0.95, 0.85), [KNOWN], TWO)
        assert (told.confidence, told.dice, told.error) == pytest.approx((0.9, 0.8, 0.05))
        assert told.look == ""

    def test_unsure(self):
        told = quality.assess((0.7, None), [KNOWN], TWO)
        assert told.dice == pytest.approx(0.4)
        assert told.look == "less sure than 9 in 10 of 20 validation cases: confidence 0.700, theirs 0.800 or more"

    def test_one_in_ten_of_ten_or_fewer_is_less_than_all(self):
        few = KNOWN.model_copy(update={"cases": 10})
        assert quality.assess((0.7, None), [few], TWO).look.startswith("less sure than all 10 validation cases")

    def test_figures_that_are_nearly_equal_are_told_apart(self):
        known = KNOWN.model_copy(update={"lowest": 0.99706})
        assert "confidence 0.9969, theirs 0.9971 or more" in quality.assess((0.99692, None), [known], TWO).look

    def test_a_case_as_unsure_as_the_least_sure_is_not_less_sure(self):
        """The validation case itself, computed with other threads."""
        known = Quality(cases=4, lowest=0.54282884, found=())
        assert quality.assess((0.54282882, None), [known], TWO).look == ""
        assert quality.assess((0.5428, None), [known], TWO).look.startswith("less sure than all 4 validation cases")

    def test_a_structure_that_was_always_there_is_missing(self):
        told = quality.assess((None, 0.9), [KNOWN], TWO)
        assert told.look == "no liver found, and all 20 validation cases had it"
        assert (told.confidence, told.dice) == (pytest.approx(0.45), 0)
        nothing = quality.assess((None, None), [KNOWN], TWO)
        assert (nothing.dice, nothing.error) == (
            0,
            None,
        )  # by how much an estimate errs was measured where something was found

    def test_a_structure_that_may_be_absent_is_no_reason(self):
        assert quality.assess((0.9, None), [KNOWN], TWO).look == ""
        nothing = quality.assess((None, None), [KNOWN.model_copy(update={"found": ()})], TWO)
        assert (nothing.confidence, nothing.dice, nothing.look) == (None, None, "")

    def test_models_without_what_validation_told(self):
        told = quality.assess((0.3, None), [KNOWN, None], TWO)
        assert (told.confidence, told.dice, told.look) == (0.3, None, "")
        assert quality.assess((None, None), [None], TWO).look == "nothing was found"

    def test_several_models_take_means(self):
        other = Quality(cases=12, lowest=0.9, found=("liver", "tumour"), factor=1.0, error=0.03)
        told = quality.assess((0.86, 0.86), [KNOWN, other], TWO)
        assert (told.dice, told.error, told.look) == (pytest.approx(1 - 1.5 * 0.14), pytest.approx(0.04), "")
        assert "12 validation cases" in quality.assess((0.84, 0.84), [KNOWN, other], TWO).look
        assert quality.assess((0.9, None), [KNOWN, other], TWO).look == ""  # one never knew it always there
        unknown = other.model_copy(update={"factor": None, "error": None})
        assert quality.assess((0.9, 0.9), [KNOWN, unknown], TWO).dice is None

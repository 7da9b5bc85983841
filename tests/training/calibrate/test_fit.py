"""What is fitted on validation cases.

Against scipy's minimum over all pixels, scikit-learn's F1, and cases made to be fitted.
"""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.metrics import f1_score

from cpfnet.evaluation.metrics.calibration import Tally
from cpfnet.inference.quality.estimate import assess
from cpfnet.inference.threshold_search import NEUTRAL, THRESHOLDS
from cpfnet.labels import IGNORED, OUTSIDE
from cpfnet.planning import LabelClass, Labels, Plan
from cpfnet.training.calibrate import fit as fitting
from cpfnet.training.calibrate import temperature, thresholds
from cpfnet.training.calibrate.fit import Findings, _Second
from cpfnet.training.calibrate.thresholds import Components
from cpfnet.training.samples.cache import Cached
from tests.training.conftest import images_plan

THREE = Labels(classes=[LabelClass(name=n, values=(k,)) for k, n in enumerate("abc", start=1)])
REGIONS = Labels(
    classes=[LabelClass(name="whole", values=(1, 2)), LabelClass(name="core", values=(2,))], exclusive=False
)


def fit(segment: Callable[[np.ndarray], np.ndarray], cases: Sequence[Cached], *more: Any, **options: Any) -> Findings:
    """Of one network, which sees the image of a case."""
    return fitting.fit(lambda case: segment(np.asarray(case.image())), cases, *more, **options)


def draw(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """One class a pixel, as often as the softmax says."""
    p = softmax(logits, axis=0)
    return (rng.random(p.shape[1:]) > p.cumsum(axis=0)).sum(axis=0).clip(max=len(p) - 1).astype(np.uint8)


class TestTemperature:
    @pytest.mark.parametrize("factor", [0.6, 1.0, 2.5, 6.0])
    def test_softmax(self, factor: float) -> None:
        rng = np.random.default_rng(0)
        true = rng.normal(0, 2, (4, 60, 70)).astype(np.float32)
        codes, logits = draw(rng, true), true * factor
        codes[0, :9], codes[1, :9] = IGNORED, OUTSIDE
        counted = codes < OUTSIDE

        def direct(t: float) -> float:
            return -np.take_along_axis(log_softmax(logits / t, axis=0), codes[None] % 4, 0)[0][counted].mean()

        curve = temperature.curve(softmax(logits, axis=0), codes[None], THREE)
        assert curve is not None
        found = minimize_scalar(direct, bounds=(0.4, 16), method="bounded", options={"xatol": 1e-6}).x
        assert temperature.best(curve[None]) == pytest.approx(found, rel=5e-3)
        assert found == pytest.approx(factor, rel=0.05)
        for t in (0.47, 1.3, 7.7):
            assert temperature.loss(curve, t) == pytest.approx(direct(t), rel=1e-3)

    def test_regions_of_two_readers(self) -> None:
        rng = np.random.default_rng(1)
        true = rng.normal(0, 2, (2, 90, 90)).astype(np.float32)
        codes = np.stack([(rng.random(true.shape[1:]) < expit(true[0])) * 1 for _ in range(2)]).astype(np.uint8)
        codes[codes == 1] += rng.random((codes == 1).sum()) < 0.5
        logits = 2 * true
        members = np.stack([codes > 0, codes == 2], axis=1)

        def direct(t: float) -> float:
            return -np.where(members, log_expit(logits / t), log_expit(-logits / t)).mean()

        curve = temperature.curve(expit(logits), codes, REGIONS)
        assert curve is not None
        assert temperature.loss(curve, 1.9) == pytest.approx(direct(1.9), rel=1e-3)
        found = minimize_scalar(direct, bounds=(0.4, 16), method="bounded", options={"xatol": 1e-6}).x
        assert temperature.best(curve[None]) == pytest.approx(found, rel=5e-3)

    @pytest.mark.parametrize("labels", [THREE, REGIONS])
    def test_a_sample_of_pixels_tells_what_all_do(self, labels: Labels, monkeypatch: pytest.MonkeyPatch) -> None:
        """A large structure, and within it one of three in ten thousand pixels; unsure near their boundaries alone."""
        monkeypatch.setattr(temperature, "SAMPLE", 2**14)
        rng = np.random.default_rng(3)
        depth, row, column = np.indices((20, 90, 90), dtype=np.float32)
        organ = 22 - np.hypot(row - 40, column - 50)
        lesion = 3.5 - np.sqrt((depth - 10) ** 2 + (row - 40) ** 2 + (column - 60) ** 2)
        if labels.exclusive:
            true = np.stack([-organ, organ, 2 * organ.clip(-9, 4) + 2 * lesion, np.full_like(organ, -9)]).clip(-9, 9)
            codes, given = draw(rng, true), softmax(1.7 * true, axis=0)
        else:
            true = np.stack([organ, 2 * lesion]).clip(-9, 9)
            whole, core = rng.random(true.shape) < expit(true)
            codes, given = (whole * (1 + core)).astype(np.uint8), expit(1.7 * true)
        codes[:2] = OUTSIDE
        assert 100 < (codes == 2).sum() < 1000

        def direct(t: float) -> float:
            scaled, own = 1.7 * true[:, 2:] / t, codes[2:]
            if labels.exclusive:
                return -np.take_along_axis(log_softmax(scaled, axis=0), own[None].astype(int), 0).mean()
            members = np.stack([own > 0, own == 2])
            return -np.where(members, log_expit(scaled), log_expit(-scaled)).mean()

        curve = temperature.curve(given, codes[None], labels)
        assert curve is not None
        found = minimize_scalar(direct, bounds=(0.4, 16), method="bounded", options={"xatol": 1e-6}).x
        assert temperature.best(curve[None]) == pytest.approx(found, rel=0.01)
        assert temperature.loss(curve, found) == pytest.approx(direct(found), rel=0.02)
        np.testing.assert_array_equal(temperature.curve(given, codes[None], labels), curve)

    def test_nothing_counts(self) -> None:
        nothing = np.full((1, 4, 4), IGNORED, np.uint8)
        assert temperature.curve(np.full((4, 4, 4), 0.25, np.float32), nothing, THREE) is None

    def test_sure_mistakes_cost_much_and_not_everything(self) -> None:
        p = np.array([[0, 1], [1, 0]], np.float32)[:, None]
        curve = temperature.curve(p, np.array([[[0, 1]]], np.uint8), Labels(classes=[THREE.classes[0]]))
        assert curve is not None
        assert np.isfinite(curve).all()
        assert temperature.best(curve[None]) == pytest.approx(16, rel=1e-3)


class TestChoices:
    @pytest.mark.parametrize("value", [0.7, 1.0, 3.0])
    def test_dice_at_thresholds_is_f1_of_calibrated_probabilities(self, value: float) -> None:
        rng = np.random.default_rng(2)
        logits = rng.normal(-1, 3, 3000).astype(np.float32)
        truth = rng.random(3000) < expit(logits / 2)
        table = thresholds.dice_at_thresholds(thresholds.histogram(expit(logits), truth), value)
        for limit, ours in zip(THRESHOLDS, table, strict=True):
            assert ours == pytest.approx(f1_score(truth, expit(logits / value) > limit), abs=0.003)

    def test_a_large_volume_is_counted_in_parts(self) -> None:
        rng = np.random.default_rng(0)
        probability, truth = rng.random(2_000_003, dtype=np.float32), rng.random(2_000_003) < 0.1
        tracemalloc.start()
        whole = thresholds.histogram(probability, truth)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(
            whole, sum(thresholds.histogram(probability[part::7], truth[part::7]) for part in range(7))
        )
        assert peak < 4 * probability.size  # bytes; a bin's index alone is 8 a pixel

    def test_certain_probabilities_are_counted(self) -> None:
        counted = thresholds.histogram(np.array([0, 1, 1, 0.2], np.float32), np.array([False, True, False, True]))
        table = dict(zip(THRESHOLDS, thresholds.dice_at_thresholds(counted, 1.0), strict=True))
        assert (table[0.5], table[0.1]) == pytest.approx((1 / 2, 4 / 5))

    def test_an_absent_class_scores_by_what_is_found(self) -> None:
        nowhere = np.zeros(4, bool)
        for probability, expected in ((0.3, 1), (0.7, 0)):
            counted = thresholds.histogram(np.full(4, probability, np.float32), nowhere)
            assert thresholds.dice_at_thresholds(counted, 1.0)[NEUTRAL] == expected

    def test_components_by_hand(self) -> None:
        mask = np.array([[1, 1, 1, 0, 1, 0, 1, 1]], bool)
        truth = np.array([[1, 1, 0, 0, 0, 0, 0, 1]], bool)
        counted = np.array([[1, 1, 1, 1, 1, 1, 0, 0]], bool)
        found = Components.of(mask, truth, counted, pixel=2.5)
        assert found.spurious.tolist() == [2.5]
        assert found.truth * found.pixel == 5
        # All; without the single pixel; without what does not count either; without anything.
        np.testing.assert_allclose(found.dice_without([0, 3, 6, 8]), [2 * 2 / (4 + 2), 4 / 5, 4 / 5, 0])
        assert thresholds.sizes_to_try([found])[0] == [0]  # a quarter of the five that are there is less than two

    def test_no_size_is_tried_that_would_drop_a_small_structure_whole(self) -> None:
        """Of 100 pixels or more in each case a quarter may go, however large the spurious pieces are.

        Of a class that is nowhere nothing.
        """
        mask, truth = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
        mask[:20, :20], truth[30:, 30:] = True, True
        found = Components.of(mask, truth, np.ones_like(mask), pixel=1.0)
        assert found.spurious.tolist() == [400]
        assert thresholds.sizes_to_try([found])[0][-1] == 25
        assert thresholds.sizes_to_try([found])[1] == 25
        assert thresholds.sizes_to_try([Components.of(mask, mask, np.ones_like(mask), pixel=1.0)]) == ([0], None)
        larger = Components.of(mask, ~mask, np.ones_like(mask), pixel=1.0)
        assert thresholds.sizes_to_try([larger])[0][-1] == 300  # of 1,200
        assert thresholds.sizes_to_try([larger, found])[0][-1] == 25
        none = Components.of(mask, np.zeros_like(mask), np.ones_like(mask), pixel=1.0)
        assert thresholds.sizes_to_try([none])[0] == [0]
        assert thresholds.sizes_to_try([none, found])[0][-1] == 25
        coarse = Components.of(mask, truth, np.ones_like(mask), pixel=4.0)
        assert thresholds.sizes_to_try([coarse])[0][-1] == 100  # of the file's 400

    def test_few_cases_choose_nothing(self) -> None:
        index, why = thresholds.choose(np.array([[0.5, 0.9], [0.5, 0.9]]), neutral=0)
        assert (index, why) == (0, "2 validation cases of at least 3")

    def test_what_one_case_gains_is_not_taken_for_all(self) -> None:
        table = np.array([[0.5, 0.9, 0.49], [0.8, 0.79, 0.8], [0.8, 0.79, 0.8], [0.8, 0.79, 0.8]])
        index, why = thresholds.choose(table, neutral=0)
        assert index == 0
        assert why.startswith("no real gain: Dice 0.7250 → 0.8175; -0.0")

    def test_what_all_gain_is_taken(self) -> None:
        index, why = thresholds.choose(np.array([[0.5, 0.5, 0.6]] * 3), neutral=0)
        assert (index, why) == (2, "Dice 0.5000 → 0.6000; +0.1000 on cases left out in turn")


@pytest.fixture
def make(tmp_path: Path):
    """Cases whose images are the logits that the truth was drawn from."""

    def make(count: int, labels: Labels, *, shape: tuple[int, ...] = (48, 52), shift: float = 0.0) -> list[Cached]:
        cases = []
        for number in range(count):
            rng = np.random.default_rng(number)
            true = rng.normal(0, 1.5, (labels.outputs, *shape)).astype(np.float32)
            true[0] += shift
            folder = tmp_path / f"{number}"
            folder.mkdir()
            np.save(folder / "image.npy", true)
            np.save(folder / "codes.npy", draw(rng, true)[None])
            cases.append(Cached(f"case {number}", folder, ("reader",), (), ((0, 1),), (None,), None, None, "digest"))
        return cases

    return make


def draw_again(case: Cached, codes: np.ndarray, margin: np.ndarray) -> None:
    """Another truth, and how far the one class is ahead of the background in each pixel's logits."""
    np.save(case.folder / "codes.npy", codes)
    np.save(case.folder / "image.npy", np.stack([np.zeros_like(margin), margin]).astype(np.float32))


def plan_for(labels: Labels) -> Plan:
    return images_plan().model_copy(update={"labels": labels})


def overconfident(array: np.ndarray) -> np.ndarray:
    return softmax(2 * array, axis=0)


class TestFit:
    def test_overconfidence_is_found_and_judged_on_cases_left_out(self, make) -> None:
        found = fit(overconfident, make(4, THREE), plan_for(THREE))
        assert found.values["temperature"] == pytest.approx(2, rel=0.03)
        assert "4 cases left out in turn" in found.notes["temperature"]
        assert "threshold" not in found.notes  # the most probable class is taken
        assert found.values["threshold"] == (0.5,)
        told = found.calibration
        for name in "abc":
            before, after = told["before"][name], told["after"][name]
            assert after["ece"] < before["ece"] / 3
            assert after["brier"] < before["brier"]
            assert sum(after["everywhere"]["pixels"]) == 4 * 48 * 52

    def test_the_figures_are_those_of_all_pixels(self, make) -> None:
        cases = make(3, THREE)
        found = fit(overconfident, cases, plan_for(THREE))
        planes = np.concatenate([overconfident(np.asarray(c.image()))[2].ravel() for c in cases])
        truth = np.concatenate([c.codes().ravel() == 2 for c in cases])
        tally = Tally.of(planes, truth)
        assert found.calibration["before"]["b"]["ece"] == pytest.approx(tally.ece)
        assert found.calibration["before"]["b"]["brier"] == pytest.approx(tally.brier)

    def test_a_temperature_that_helps_background_alone_is_not_kept(self, make) -> None:
        """Far from the boundary the network is right and too unsure of it, near it too sure.

        Sharpened it gains over all pixels, and loses there.
        """
        one = Labels(classes=[THREE.classes[0]])
        cases, calls = make(4, one), []
        for number, case in enumerate(cases):
            rng = np.random.default_rng(number)
            codes = np.zeros((1, 48, 52), np.uint8)
            codes[0, 14:34, 15:37] = 1
            drawn = np.roll(codes[0], rng.integers(-3, 4, 2), (0, 1))
            margin = np.where(drawn == 1, 1.0, -1.0) * 0.8
            draw_again(case, codes, margin)
        found = fit(lambda array: softmax(array, axis=0), cases, plan_for(one))
        assert found.values["temperature"] == 1
        assert found.notes["temperature"].startswith("1, since near the boundary the Brier score would go from 0.")
        assert "after" not in found.calibration
        unsharpened = fit(
            lambda array: softmax(array, axis=0), cases, plan_for(one), lambda done, total: calls.append((done, total))
        )
        assert unsharpened.values == found.values
        assert calls == [*((n, 8) for n in range(8)), *((n, 12) for n in range(8, 12))]
        assert (
            temperature.best(
                np.array([temperature.curve(softmax(np.asarray(c.image()), axis=0), c.codes(), one) for c in cases])
            )
            < 0.6
        )

    def test_the_end_of_the_range_is_called_so(self, make) -> None:
        cases = make(3, THREE)
        found = fit(lambda array: softmax(0.2 * array, axis=0), cases, plan_for(THREE))
        assert found.values["temperature"] == pytest.approx(0.4, rel=0.01)
        assert found.notes["temperature"].endswith("; the end of what is tried")

    def test_a_gain_on_which_cases_disagree_is_none(self, make) -> None:
        """One overconfident case among calibrated ones: their mean would gain a little, and most of them lose."""
        cases = make(6, THREE)
        np.save(cases[0].folder / "image.npy", 6 * np.asarray(cases[0].image()))
        found = fit(lambda array: softmax(array, axis=0), cases, plan_for(THREE))
        assert found.values["temperature"] == 1
        assert "is not shown to be better" in found.notes["temperature"]
        assert "after" not in found.calibration

    def test_calibrated_probabilities_are_left_alone(self, make) -> None:
        found = fit(lambda array: softmax(array, axis=0), make(4, THREE), plan_for(THREE))
        assert found.values["temperature"] == pytest.approx(1, abs=0.03)

    def test_one_case_fits_nothing_and_says_so(self, make) -> None:
        found = fit(overconfident, make(1, THREE), plan_for(THREE))
        assert found.values == {"temperature": 1.0, "threshold": (0.5,), "min_component_size": (0,), "quality": None}
        assert found.notes["temperature"].startswith("1: one validation case")
        assert "after" not in found.calibration

    def test_a_rare_class_gets_a_lower_threshold(self, make) -> None:
        one = Labels(classes=[THREE.classes[0]])
        found = fit(overconfident, make(4, one, shift=3.0), plan_for(one))
        (limit,) = found.values["threshold"]
        assert 0.15 < limit < 0.35  # half of the best F1 (Lipton et al. 2014): some 0.24 here
        assert "on cases left out in turn" in found.notes["threshold"]

    def test_cases_where_nothing_counts_are_left_out(self, make) -> None:
        cases = make(4, THREE)
        np.save(cases[1].folder / "codes.npy", np.full((1, 48, 52), IGNORED, np.uint8))
        assert fit(overconfident, cases, plan_for(THREE)).calibration["cases"] == 3
        np.save(cases[0].folder / "codes.npy", np.full((1, 48, 52), IGNORED, np.uint8))
        nothing = fit(overconfident, cases[:2], plan_for(THREE))
        assert nothing.calibration == {}
        assert nothing.notes["temperature"].startswith("none: no pixel")
        assert nothing.values["temperature"] == 1

    def test_specks_go_where_that_helps(self, make) -> None:
        one = Labels(classes=[THREE.classes[0]])
        cases = make(4, one)
        for number, case in enumerate(cases):
            rng = np.random.default_rng(number)
            codes = np.zeros((1, 48, 52), np.uint8)
            codes[0, 10:30, 10:30] = 1
            margin = np.where(codes[0] == 1, 3.0, -3.0)
            for row, column in rng.integers(34, 46, (12, 2)):
                margin[row, column] = 3.0  # as sure as of the square: no threshold tells them apart
            draw_again(case, codes, margin)
        found = fit(lambda array: softmax(array, axis=0), cases, plan_for(one))
        (size,) = found.values["min_component_size"]
        assert 2 <= size <= 30
        assert "+" in found.notes["min_component_size"]

    @staticmethod
    def with_specks(cases: list[Cached], pixel_volume: list[float | None]) -> list[Cached]:
        """A square of 400 pixels that is found, and beside it two specks of 8 mm³ that are not there."""
        out = []
        for case, volume in zip(cases, pixel_volume, strict=True):
            codes = np.zeros((1, 48, 52), np.uint8)
            codes[0, 5:25, 10:30] = 1
            margin = np.where(codes[0] == 1, 3.0, -3.0)
            side = round((8 / (volume or 2)) ** 0.5)
            margin[30 : 30 + side, 5 : 5 + side] = margin[30 : 30 + side, 40 : 40 + side] = 3.0
            draw_again(case, codes, margin)
            out.append(replace(case, pixel_volume=volume))
        return out

    def test_the_least_component_is_in_mm3_whatever_the_spacing(self, make) -> None:
        """Specks of 4 and of 16 pixels are the same 8 mm³."""
        one = Labels(classes=[THREE.classes[0]])
        cases = self.with_specks(make(4, one), [2.0, 0.5, 2.0, 0.5])
        found = fit(lambda array: softmax(array, axis=0), cases, plan_for(one))
        (size,) = found.values["min_component_size"]
        assert 8 < size <= 8 + 2
        assert found.notes["min_component_size"].startswith(f"{size:g} mm³ (Dice 0.9")

    def test_mixed_units_fit_no_size(self, make) -> None:
        one = Labels(classes=[THREE.classes[0]])
        cases = self.with_specks(make(4, one), [2.0, 2.0, 2.0, None])
        for held_out, training in ((cases, ()), (cases[:3], cases[3:])):
            found = fit(lambda array: softmax(array, axis=0), held_out, plan_for(one), training=training)
            assert found.values["min_component_size"] == (0.0,)
            assert "some cases have millimetres and some have none" in found.notes["min_component_size"]

    def test_a_size_that_the_plan_says_is_not_fitted(self, make) -> None:
        one = Labels(classes=[THREE.classes[0]])
        cases = self.with_specks(make(4, one), [None] * 4)
        for size, mean in ((3, 2 * 400 / (400 + 408)), (5, 1.0)):
            plan = plan_for(one).with_settings([f"inference.min_component_size={size}"])
            found = fit(lambda array: softmax(array, axis=0), cases, plan)
            assert found.values["min_component_size"] == (0.0,)
            assert "the plan says it" in found.notes["min_component_size"]
            second = _Second(plan, 1.0, [0.5])
            second.add(softmax(np.asarray(cases[0].image()), axis=0), cases[0], 1.0)
            assert second.as_written((size,))[1] == [pytest.approx(mean)]

    def test_quality_is_that_of_the_masks_as_written(self, make) -> None:
        """Half of the cases have nothing but a speck, which is dropped.

        An empty mask is nothing to look at, and scores are those without specks.
        """
        one = Labels(classes=[THREE.classes[0]])
        cases = make(12, one)
        for number, case in enumerate(cases):
            rng = np.random.default_rng(number)
            codes = np.zeros((1, 48, 52), np.uint8)
            if number % 2:
                codes[0, 10:30, 10:30] = 1
            found = np.roll(codes[0], rng.integers(-2, 3, 2), (0, 1)) == 1
            found[40:43, 40:43] = True
            margin = np.where(found, 3.0, -3.0)
            draw_again(case, codes, margin)
        values = fit(lambda array: softmax(array, axis=0), cases, plan_for(one)).values
        assert 9 < values["min_component_size"][0] <= 100
        quality = values["quality"]
        assert (quality.cases, quality.found) == (6, ())
        assert assess((None,), [quality], one).look == ""

    def test_quality_is_that_of_the_calibrated_network(self, make) -> None:
        one = Labels(classes=[THREE.classes[0]])
        found = fit(overconfident, make(12, one), plan_for(one))
        quality = found.values["quality"]
        assert quality.cases == 12
        assert quality.found == ("a",)
        assert 0.6 < quality.lowest < 0.85  # uncalibrated it would be above 0.9
        assert "12" in found.notes["quality"]

    def test_volumes_of_overlapping_regions(self, make) -> None:
        cases = [
            replace(case, spacing=(3.0, 1.0, 1.0), pixel_volume=3.0) for case in make(4, REGIONS, shape=(5, 24, 26))
        ]
        for case in cases:
            rng = np.random.default_rng(5)
            whole, core = rng.random((2, 5, 24, 26)) < expit(np.asarray(case.image()))
            np.save(case.folder / "codes.npy", (whole * (1 + core)).astype(np.uint8)[None])
        found = fit(lambda array: expit(2 * array), cases, plan_for(REGIONS))
        assert found.values["temperature"] > 1.3
        assert len(found.values["threshold"]) in (1, 2)
        assert list(found.calibration["after"]) == ["whole", "core"]

    def test_the_probabilities_of_one_case_are_held_at_a_time(self, make) -> None:
        made: list[weakref.ref[np.ndarray]] = []

        def segment(array: np.ndarray) -> np.ndarray:
            assert not any(earlier() is not None for earlier in made)
            out = overconfident(array)
            made.append(weakref.ref(out))
            return out

        fit(segment, make(3, THREE), plan_for(THREE))
        assert len(made) == 6

    def test_it_may_be_stopped(self, make) -> None:
        def stop(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit(overconfident, make(2, THREE), plan_for(THREE), stop)


def test_what_was_fitted_is_one_line() -> None:
    notes = {
        "temperature": "1, since near the boundary the Brier score would go from 0.166 to 0.1946 (else 0.4: … on 4 "
        "cases left out in turn)",
        "threshold": "liver 0.69 (Dice 0.9095 → 0.9204; +0.0083 on cases left out in turn); 0.5 for the other 2",
        "smallest_thing": "0 (nothing is better)",
        "quality": "no estimate of Dice: 4 validation cases, and it takes 10; predictions are compared with them",
    }
    assert Findings(notes=notes).brief() == (
        "Fitted temperature 1; threshold liver 0.69, 0.5 for the other 2; smallest thing 0; quality no estimate of "
        "Dice (why: report.html)"
    )
    many = {"threshold": "; ".join(f"structure{k} 0.{k} (Dice 0.1 → 0.2)" for k in range(1, 9)), "quality": "none: x"}
    assert len(Findings(notes=many).brief()) < 140
    assert Findings.none("the validation cases are the training cases").brief() == (
        "Fitted nothing: the validation cases are the training cases"
    )

"""Images darker or brighter than those of training are named, with both figures."""

import numpy as np
import pytest

from cpfnet.image import Image
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.inference.quality.brightness import FEWEST, departure, unusual
from cpfnet.planning import MinMax, Percentiles, Scale, Window, ZScore
from tests.inference.oracle import make_model, oracle

RNG = np.random.default_rng(0)
LEVELS = ((10, 40), (95, 180), (200, 250))
_FROM_EDGE = np.minimum(np.arange(40), np.arange(39, -1, -1))
PICTURE = np.empty((1, 40, 40))
PICTURE.flat[np.argsort(np.minimum.outer(_FROM_EDGE, _FROM_EDGE), axis=None)] = np.linspace(225, 25, 1600)
"""Bright at its edges, so that none of it is taken for air: 0.5 % quantile 26, median 125, 99.5 % quantile 224."""


def model(*, levels=LEVELS, cases=40, intensity=None, **more):
    seen = {"name": "channel0", "low": 10, "high": 250, "levels": levels}
    return make_model(
        source="images",
        values=(1,),
        intensity=intensity or Scale(),
        fitted={"cases": cases, "channels": [seen], **more},
    )


class TestDeparture:
    @pytest.mark.parametrize(("value", "far"), [(100, 0), (95, 0), (180, 0), (86.5, 0), (188.5, 0)])
    def test_within_four_mean_gaps_between_training_images(self, value, far):
        assert departure(value, (95, 180), 40, 240) == far

    def test_beyond_it_counts_in_margins(self):
        assert departure(95 - 17, (95, 180), 40, 240) == pytest.approx(2)
        assert departure(180 + 17, (95, 180), 40, 240) == pytest.approx(2)

    def test_few_images_leave_more_room(self):
        assert departure(78, (95, 180), 16, 240) == 0
        assert departure(78, (95, 180), 64, 240) == pytest.approx(3.2)

    def test_where_all_are_alike_rounding_does_not_count(self):
        assert departure(4, (0, 0), 40, 240) == 0
        assert departure(6, (0, 0), 40, 240) > 1
        assert departure(6, (0, 0), 40, 0) == 0


class TestUnusual:
    def test_an_image_like_those_of_training(self):
        assert unusual(Image(PICTURE), [model()]) == ""

    @pytest.mark.parametrize(
        ("figures", "said"),
        [
            ((25, 75, 225), "darker than any training image: median 75.03, training 95 … 180"),
            ((25, 200, 225), "brighter than any training image: median 200, training 95 … 180"),
            (
                (80, 125, 225),
                "darkest parts brighter than in any training image: 0.5 % quantile 80.45, training 10 … 40",
            ),
            (
                (25, 125, 160),
                "brightest parts darker than in any training image: 99.5 % quantile 159.6, training 200 … 250",
            ),
        ],
    )
    def test_what_stands_out_most_with_both_figures(self, figures, said):
        assert unusual(Image(np.interp(PICTURE, (25, 125, 225), figures)), [model()]) == said

    def test_the_channel_is_named_where_there_are_several(self):
        seen = [{"name": f"channel{k}", "low": 10, "high": 250, "levels": LEVELS} for k in range(3)]
        one = make_model(
            source="images", values=(1,), channels=3, intensity=Scale(), fitted={"cases": 40, "channels": seen}
        )
        found = unusual(Image(np.concatenate([PICTURE, PICTURE * 0.5, PICTURE])), [one])
        assert found.startswith(
            "channel 'channel1': brightest parts darker than in any training image: 99.5 % quantile 112"
        )

    @pytest.mark.parametrize("intensity", [ZScore(), MinMax(), Percentiles()], ids=lambda i: i.kind)
    def test_brightness_does_not_matter_where_the_intensity_adapts(self, intensity):
        assert unusual(Image(PICTURE / 3), [model(intensity=intensity)]) == ""

    @pytest.mark.parametrize("more", [{"levels": None}, {"cases": FEWEST - 1}])
    def test_what_is_not_known_is_not_asked(self, more):
        assert unusual(Image(PICTURE / 3), [model(**more)]) == ""

    def test_beyond_a_window_nothing_differs(self):
        ct = RNG.normal(0, 30, (1, 6, 40, 40))
        seen = {"name": "channel0", "low": -1000, "high": 1200, "levels": ((-100, -60), (-10, 10), (60, 100))}
        one = make_model(values=(1,), intensity=Window(low=-100, high=100), fitted={"cases": 40, "channels": [seen]})
        metal = ct.copy()
        metal[:, 2:4, 16:24, 16:24] = 1150
        assert unusual(Image(ct, np.eye(4)), [one]) == unusual(Image(metal, np.eye(4)), [one]) == ""
        assert "brighter than any training image: median " in unusual(Image(ct + 40, np.eye(4)), [one])


def predict(array, **quality):
    known = {"cases": 12, "lowest": 0.5, "found": [], "factor": None, "error": None} | quality
    return Predictor([model(quality=known)], PredictorOptions(backend=oracle)).predict(Image(array)).quality.look


def test_it_is_a_reason_to_look_and_no_refusal():
    assert predict(PICTURE) == ""
    dark = np.interp(PICTURE, (25, 125, 225), (25, 75, 225))
    assert predict(dark) == "darker than any training image: median 75.03, training 95 … 180"


def test_it_stands_beside_other_reasons():
    dim = np.interp(PICTURE, (25, 125, 225), (25, 75, 120))
    look = predict(dim, found=["class 1"])
    assert look.startswith("brightest parts darker than in any training image")
    assert look.endswith("; no class 1 found, and all 12 validation cases had it")

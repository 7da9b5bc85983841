"""Options of inference: checked when they are made, and the error for a keyword in the wrong place."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

import cpfnet
from cpfnet import CpfnetError, OutputOptions, PredictorOptions
from cpfnet.errors import NetworkError, OutputError
from cpfnet.inference.batch.records import Recipe
from tests.inference.oracle import make_model


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({"overlap": 1.0}, CpfnetError, "overlap 1.0 is not possible"),
        ({"overlap": -0.1}, CpfnetError, "overlap -0.1 is not possible"),
        ({"overlap": float("nan")}, CpfnetError, "overlap nan is not possible"),
        ({"batch": 0}, CpfnetError, "batch 0 is not possible"),
        ({"tile": 0}, CpfnetError, "tile 0 is not possible"),
        ({"tile": [512, -8]}, CpfnetError, r"tile \[512, -8\] is not possible"),
        ({"tile": (0, 64)}, CpfnetError, r"tile \(0, 64\) is not possible"),
        ({"tile": "512"}, CpfnetError, "tile '512' is not possible"),
        ({"tile": 1.5}, CpfnetError, "tile 1.5 is not possible"),
        ({"tile": ()}, CpfnetError, "is not possible"),
        ({"batch": 1.5}, CpfnetError, "batch 1.5 is not possible"),
        ({"overlap": "x"}, CpfnetError, "overlap 'x' is not possible"),
        ({"overlap": 0.96}, CpfnetError, "overlap 0.96 is not possible"),
        ({"backend": "tensorrt"}, NetworkError, "unknown backend 'tensorrt'"),
    ],
)
def test_how_to_predict_is_checked_at_once(values, kind, words):
    with pytest.raises(kind, match=words) as caught:
        PredictorOptions(**values)
    assert caught.value.fix


def test_an_unknown_format_names_those_there_are():
    with pytest.raises(OutputError, match="unknown format 'jpeg'") as caught:
        OutputOptions(format="jpeg")
    assert "dicom-labelmap" in caught.value.fix


def test_options_do_not_change_and_travel():
    options = PredictorOptions(tile=[64, 96], overlap=0)
    assert options.tile == (64, 96)
    assert pickle.loads(pickle.dumps(options)) == options
    assert {options: 1}[PredictorOptions(tile=(64, 96), overlap=0)] == 1
    with pytest.raises(FrozenInstanceError):
        options.tta = True


def test_one_tile_size_for_all_axes_makes_the_same_as_each_of_it():
    model = make_model()
    one, each = (Recipe.of([model], PredictorOptions(tile=tile), OutputOptions()) for tile in (64, (64, 64)))
    assert one == each
    assert Recipe.of([model], PredictorOptions(tile=(64, 96)), OutputOptions()).options["tile"] == "64x96"


@pytest.mark.parametrize(
    ("verb", "keywords", "words"),
    [
        (
            cpfnet.predict,
            {"tta": True},
            r"predict\(\) takes 'tta' in its options: options=cpfnet.PredictorOptions\(tta=True\)",
        ),
        (cpfnet.evaluate, {"device": "cpu"}, r"options=cpfnet.PredictorOptions\(device='cpu'\)"),
        (cpfnet.predict_files, {"overlays": True}, r"output=cpfnet.OutputOptions\(overlays=True\)"),
        (cpfnet.predict_files, {"batch": 2}, r"options=cpfnet.PredictorOptions\(batch=2\)"),
        (cpfnet.predict, {"overlays": True}, "unexpected keyword argument 'overlays'"),
        (cpfnet.predict, {"colour": True}, "unexpected keyword argument 'colour'"),
    ],
)
def test_a_keyword_that_belongs_into_the_options_names_them(verb, keywords, words):
    with pytest.raises(TypeError, match=words):
        verb("model", ["scan.png"], **({"out": "masks"} if verb is cpfnet.predict_files else {}), **keywords)


def test_functions_that_make_backends_are_told_apart_in_records():
    recipes = [Recipe.of([make_model()], PredictorOptions(backend=one), OutputOptions()) for one in (make_model, len)]
    assert recipes[0] != recipes[1]

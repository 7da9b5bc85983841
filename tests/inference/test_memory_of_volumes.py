"""Volumes run by run of slices: the same as all at once, to the last bit.

Memory does not grow with what a network makes of them.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpfnet.image import Image
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.planning import LabelClass, Labels, MinMax, Percentiles, Window, ZScore
from cpfnet.preprocessing import lazy_volume
from cpfnet.preprocessing.intensity import extent
from tests import synthetic
from tests.inference.batch.test_run import images_model, picture, run, tree
from tests.inference.oracle import make_model
from tests.predicting import predict_files

REGIONS = Labels(
    classes=(LabelClass(name="organ", values=(1, 2)), LabelClass(name="tumour", values=(2,))), exclusive=False
)


def mixing(model):
    """Every input channel counts, each in its own way, so that a slice with a wrong neighbour shows."""

    def backend(x: np.ndarray) -> np.ndarray:
        weights = np.cos(np.arange(x.shape[1], dtype=np.float32)).reshape(1, -1, *[1] * (x.ndim - 2))
        mixed = (x * weights).sum(axis=1, keepdims=True)
        planes = np.arange(model.plan.labels.outputs, dtype=np.float32).reshape(1, -1, *[1] * (x.ndim - 2))
        return 3 * np.sin(mixed * (planes + 1) + planes)

    return backend


def volume(shape, seed: int, spacing=(1.5, 0.8, 0.9)) -> Image:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing, 1
    return Image(np.random.default_rng(seed).integers(-100, 400, shape).astype(np.int16)[None], affine)


def predicted(models, image, length: int, **options):
    """With about this many numbers in a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_volume, "RUN", length)
        predictor = Predictor(models, PredictorOptions(backend=mixing, force=True, **options))
        return predictor.predict(image, keep_probabilities=True, uncertainty=True)


def assert_same(one, other):
    np.testing.assert_array_equal(one.array, other.array)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)
    np.testing.assert_array_equal(one.uncertainty, other.uncertainty)
    assert one.quality.confidence == pytest.approx(other.quality.confidence, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 13), st.integers(1, 20), st.integers(1, 20)),
    neighbours=st.integers(0, 2),
    plane=st.sampled_from(["axial", "coronal", "sagittal", "stored"]),
    spacing=st.none() | st.tuples(*[st.sampled_from([0.5, 0.8, 1.3, 3.0])] * 3),
    regions=st.booleans(),
    intensity=st.sampled_from([Window(low=-50, high=300), ZScore(), MinMax(), Percentiles()]),
    length=st.integers(1, 3000),
    batch=st.integers(1, 5),
    tta=st.booleans(),
    seed=st.integers(0, 99),
)
def test_runs_equal_the_whole(shape, neighbours, plane, spacing, regions, intensity, length, batch, tta, seed):
    model = make_model(
        mode="2.5d" if neighbours else "2d",
        neighbours=neighbours,
        slices=plane,
        spacing=spacing,
        labels=REGIONS if regions else None,
        intensity=intensity,
        inference={"mirror": ("width",), "quarter_turns": spacing is None or spacing[1] == spacing[2]},
        fitted={"temperature": 1.3, "min_component_size": 3},
    )
    image = volume(shape, seed)
    assert_same(
        predicted([model], image, length, batch=batch, tta=tta), predicted([model], image, 2**40, batch=batch, tta=tta)
    )


@pytest.mark.parametrize("planes", [("axial", "axial"), ("axial", "coronal")], ids=["one order", "two orders"])
@pytest.mark.parametrize("mode", ["2d", "3d"])
def test_runs_of_several_grids_equal_the_whole(planes, mode):
    models = [
        make_model(slices=plane, spacing=spacing, mode=mode)
        for plane, spacing in zip(planes, (None, (2.0, 0.7, 1.1)), strict=True)
    ]
    image = volume((11, 17, 19), 1)
    assert_same(predicted(models, image, 700), predicted(models, image, 2**40))


@pytest.mark.parametrize("size", [None, (50, 41)])
def test_runs_of_a_picture_equal_the_whole(size):
    image = Image(np.random.default_rng(0).integers(0, 200, (1, 45, 40)).astype(np.uint8))
    model = make_model(source="images", size=size)
    assert_same(predicted([model], image, 100), predicted([model], image, 2**40))


def test_each_slice_goes_through_the_network_once():
    seen = []

    def counting(model):
        backend = mixing(model)

        def counted(x):
            seen.append(len(x))
            return backend(x)

        return counted

    model = make_model(mode="2.5d", neighbours=1, slices="axial", spacing=(1.0, 0.8, 0.9))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy_volume, "RUN", 5000)
        Predictor([model], PredictorOptions(backend=counting, batch=4, force=True)).predict(volume((20, 16, 16), 0))
    assert sum(seen) == 30
    assert seen[:-1] == [4] * 7  # batches are full


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.uint8, np.int8, np.int16, np.uint16, np.int32]))
def test_quantiles_of_integers_are_numpys(seed, dtype):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, rng.integers(1, 4)))
    x = rng.integers(*(max(-32000, np.iinfo(dtype).min), min(32000, np.iinfo(dtype).max)), shape).astype(dtype)
    assert extent(x) == tuple(np.percentile(x.astype(np.float64), (0.5, 99.5)))


class TestFilesBesideTheNetwork:
    def test_order_and_errors_are_those_of_the_inputs(self, tmp_path):
        files = []
        for number in range(12):
            files.append(synthetic.write_raster(tmp_path / "in" / f"{number:02d}.png", picture(number)[0]))
            if number % 3 == 1:
                files[-1].write_bytes(b"no image")
        outcomes = run(images_model(), files, tmp_path / "out")
        assert [outcome.path for outcome in outcomes] == files
        assert [outcome.status for outcome in outcomes] == ["done", "failed", "done"] * 4
        assert tree(tmp_path / "out") == [f"{n:02d}.png" for n in range(12) if n % 3 != 1]

    def test_what_was_predicted_before_an_interruption_is_written_and_listed(self, tmp_path):
        files = [synthetic.write_raster(tmp_path / "in" / f"{n}.png", picture(n)[0]) for n in range(6)]

        calls, said = [], []

        def backend(model):
            inner = mixing(model)

            def one(x):
                calls.append(1)
                if len(calls) == 3:
                    raise KeyboardInterrupt
                return inner(x)

            return one

        with pytest.raises(KeyboardInterrupt):
            predict_files(
                [images_model()],
                files,
                tmp_path / "out",
                uncertainty=True,
                device="cpu",
                backend=backend,
                listen=said.append,
            )
        assert said == [f"Stopped: 2 of 6 done, in {tmp_path / 'out'}; the same command with --resume goes on"]
        listed = (tmp_path / "out" / "quality.csv").read_text()
        assert [name for name in ("0.png", "1.png", "2.png") if name in listed] == ["0.png", "1.png"]
        assert (tmp_path / "out" / "1.png").exists()


PEAK = """
import json, resource, sys
from pathlib import Path
from tests.predicting import predict_files
from tests.inference.oracle import make_model
from cpfnet.planning import Window
model = make_model(mode="2.5d", neighbours=1, slices="axial", intensity=Window(low=-200, high=300), values=(1, 2),
                   fitted={"channels": [{"name": "channel0", "low": -1000, "high": 500}], "min_component_size": 5})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(outcome,) = predict_files([model], [sys.argv[1]], Path(sys.argv[2]), device="cpu", batch=4, force=True)
assert outcome.status == "done", outcome.message
print(json.dumps(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_a_large_volume_takes_its_own_size_and_little_more(tmp_path, kind):
    depth = 200
    mask = synthetic.phantom((64, 512, 512))[1][np.arange(depth) * 64 // depth].astype(np.int16) % 3
    array = np.where(mask > 0, mask * 60, -1000) + np.random.default_rng(0).integers(-20, 20, mask.shape[1:], np.int16)
    if kind == "nifti":
        place = synthetic.write_nifti(tmp_path / "scan.nii", array, spacing=(0.8, 0.8, 1.0))
    else:
        place = synthetic.write_series(tmp_path / "scan", array, RescaleIntercept=0)[0].parent
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(place), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    # The image (2 bytes a voxel), its label map as classes, values and codes (1 each), what a run of slices takes, and
    # the libraries.
    # All probabilities at once would be 12 bytes a voxel, and the preprocessed image 4.
    assert json.loads(done.stdout) < 6 * array.size + 600 * 2**20

"""How time and memory grow with the work: python -m benchmarks growth

Each point is a process of its own, so that its peak of memory is its own too. Predictions are timed from file to file
after a first, unheeded one, so that loading the Model and compiling its graph, which take the same whatever comes, are
not in the seconds (their memory is in the peak): CPFNet with random weights, in OpenVINO in float32. Data sets are of
photographs of 128² with one disc each, and train a small U-Net for an epoch of as many samples as there are
photographs.

The slope of the straight line through the points in log–log axes is the power by which cost grows: 1 is proportional to
the work.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.measure import save

SIDES = 256, 512, 1024, 2048
SLICES = 10, 60, 400
CLASSES = 2, 8, 32
CASES = 25, 100, 400, 1600


@dataclass(frozen=True)
class Curve:
    """What work costs as it grows.

    Attributes:
        title: what is done.
        unit: what grows.
        work: how much of it, ascending.
        seconds: medians over the rounds.
        mib: peak of resident memory of the process, medians over the rounds.
        rounds: how many.
    """

    title: str
    unit: str
    work: Sequence[int]
    seconds: Sequence[float]
    mib: Sequence[float]
    rounds: int

    def slope(self, cost: Sequence[float]) -> float:
        """Of the line of least squares through the logarithms."""
        return float(np.polyfit(np.log(self.work), np.log(cost), 1)[0])

    def last(self, cost: Sequence[float]) -> float:
        """The same of the last two points, where what does not grow weighs least."""
        return float(np.log(cost[-1] / cost[-2]) / np.log(self.work[-1] / self.work[-2]))


def table(curves: Sequence[Curve]) -> str:
    """Markdown."""
    lines = [
        "| | what grows | seconds | slope (its end) | MiB | slope (its end) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for curve in curves:
        costs = [
            f"{cost[0]:{form}} … {cost[-1]:{form}} | {curve.slope(cost):.2f} ({curve.last(cost):.2f})"
            for cost, form in ((curve.seconds, ".2g"), (curve.mib, ".0f"))
        ]
        lines.append(
            f"| {curve.title} | {curve.work[0]:,} … {curve.work[-1]:,} {curve.unit} | {costs[0]} | {costs[1]} |"
        )
    return "\n".join(lines)


def predict(model: Path, source: Path, out: Path) -> float:
    """Seconds from file to file, of a second prediction."""
    import cpfnet
    from cpfnet.inference.predictor import Predictor

    predictor = Predictor([cpfnet.Model.load(model)], cpfnet.PredictorOptions(backend="openvino", force=True))
    image = cpfnet.read(source)
    if image.array.ndim == 4:
        image = replace(image, array=image.array[:, : SLICES[0]])
    predictor.predict(image)
    del image
    start = time.perf_counter()
    cpfnet.write(predictor.predict(cpfnet.read(source)), out / f"mask{''.join(source.suffixes)}")
    return time.perf_counter() - start


def check(data: Path, out: Path) -> float:
    import cpfnet

    start = time.perf_counter()
    cpfnet.check(data)
    return time.perf_counter() - start


def plan(data: Path, out: Path) -> float:
    import cpfnet

    start = time.perf_counter()
    cpfnet.plan(data, out=out / "plan.yaml", network="unet", weights="none")
    return time.perf_counter() - start


def train(data: Path, out: Path) -> float:
    import cpfnet

    count = len(list((data / "images").iterdir()))
    small = {"widths": [4, 4, 8, 8, 8]}
    settings = ["training.epochs=1", f"training.samples={count}", "training.batch=8", "training.workers=0"]
    settings += ["spatial.patch=[64, 64]", f"network.options={json.dumps(small)}"]
    start = time.perf_counter()
    cpfnet.train(data, out / "model", network="unet", weights="none", settings=settings, device="cpu")
    return time.perf_counter() - start


WORK: Mapping[str, Callable[..., float]] = {"predict": predict, "check": check, "plan": plan, "train": train}


def peak() -> float:
    """MiB that this process has held at most. Not `resource.getrusage`, which begins with what the parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measured(title: str, unit: str, jobs: Mapping[int, Sequence[Path]], rounds: int, work: str = "predict") -> Curve:
    """Run each job, from how much it is to what it takes, in a process of its own, all in turns."""
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in jobs}
    for _ in range(rounds):
        for size, paths in jobs.items():
            with tempfile.TemporaryDirectory() as out:
                command = [sys.executable, "-m", "benchmarks.growth", "--child", work, *map(str, paths), out]
                done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{command}:\n{done.stdout}{done.stderr}")
            found[size].append(json.loads(done.stdout.splitlines()[-1]))
    seconds, mib = ([float(np.median([one[n] for one in found[size]])) for size in jobs] for n in (0, 1))
    return Curve(title, unit, list(jobs), seconds, mib, rounds)


def exported(folder: Path, *, volumes: bool = False, classes: int = 2) -> Path:
    from benchmarks.predict import make_model

    model = make_model(folder, volumes=volumes, structures=classes - 1, patch=256)
    subprocess.run([Path(sys.executable).with_name("cpfnet"), "export", model, "--to", "onnx"], check=True)
    return model


def predictions(folder: Path, rounds: int) -> list[Curve]:
    from benchmarks.predict import make_images
    from tests.synthetic import write_nifti

    models = {classes: exported(folder / f"model-{classes}", classes=classes) for classes in CLASSES}
    images = {side: make_images(folder / f"images-{side}", 1, side) / "0000.png" for side in SIDES}
    rng = np.random.default_rng(0)
    noise = rng.integers(-100, 200, (max(SLICES), 256, 256), np.int16)
    stacks = {count: write_nifti(folder / f"stack-{count}.nii.gz", noise[:count]) for count in SLICES}
    grey = exported(folder / "model-volumes", volumes=True)
    return [
        measured(
            "predict one image",
            "pixels",
            {side**2: [models[CLASSES[0]], image] for side, image in images.items()},
            rounds,
        ),
        measured(
            "predict a volume of 256²", "slices", {count: [grey, stack] for count, stack in stacks.items()}, rounds
        ),
        measured(
            "predict an image of 512²",
            "classes",
            {classes: [model, images[512]] for classes, model in models.items()},
            rounds,
        ),
    ]


def datasets(folder: Path, rounds: int) -> list[Curve]:
    from benchmarks.check import make

    jobs = {}
    for count in CASES:
        make(folder / f"{count}", count, 128)
        jobs[count] = [folder / f"{count}"]
    titles = {"check": "check a data set", "plan": "plan for it", "train": "train on it for an epoch"}
    return [measured(title, "images", jobs, rounds, work) for work, title in titles.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--child", nargs="+", metavar=("WORK", "PATH"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        work, *paths = options.child
        seconds = WORK[work](*map(Path, paths))
        print(json.dumps([seconds, peak()]))
        return
    with tempfile.TemporaryDirectory() as folder:
        curves = [*predictions(Path(folder), options.rounds), *datasets(Path(folder), options.rounds)]
    print(f"\n{table(curves)}")
    save("growth", {}, curves=[vars(curve) for curve in curves])


if __name__ == "__main__":
    main()

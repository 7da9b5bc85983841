"""One epoch on data of the size of BraTS, made here: seconds that each part of a training takes: python -m benchmarks
gpu_epoch

Four channels of 240 × 240 × 155 (int16, 1 mm), three nested structures, under the plan that `cpfnet plan` proposes for
the GPU, but for the number of epochs and steps. It says nothing of accuracy.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

import cpfnet
from benchmarks.accuracy.machine import hardware, versions
from benchmarks.gpu import add, rows
from cpfnet.cli.app import fail
from cpfnet.errors import CpfnetError
from cpfnet.inference.torch_backend.network import pick_device
from cpfnet.planning import Plan

SHAPE, SMALL = (240, 240, 155), (32, 32, 24)
PARTS = ("preparing", "training", "validating", "fitting", "report")
COLUMNS = ("network", "cases", "voxels", "steps", "batch", *PARTS, "device", "torch")


def make(folder: Path, count: int, shape: tuple[int, ...]) -> Path:
    """``imagesTr``, ``labelsTr`` and ``dataset.json``; what is there is not made again."""
    if (folder / "dataset.json").is_file():
        return folder
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    for number in range(count):
        rng = np.random.default_rng(number)
        centre, radius = rng.uniform(0.4, 0.6, 3), rng.uniform(0.12, 0.2)
        distance = sum(((axis / n - c) / radius) ** 2 for axis, n, c in zip(axes, shape, centre, strict=True))
        label = sum(distance < limit for limit in (1.0, 0.5, 0.2)).astype(np.uint8)
        brain = sum(((axis / n - 0.5) / 0.45) ** 2 for axis, n in zip(axes, shape, strict=True)) < 1
        for channel in range(4):
            values = rng.normal(800, 120, shape) + (60 + 40 * channel) * label
            image = nib.Nifti1Image((values * brain).astype(np.int16), np.eye(4))
            nib.save(image, folder / "imagesTr" / f"case_{number:02d}_{channel:04d}.nii")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"case_{number:02d}.nii")
    content = {
        "channel_names": dict(zip("0123", ("FLAIR", "T1w", "T1gd", "T2w"), strict=True)),
        "labels": {"background": 0, "oedema": 1, "core": 2, "enhancing": 3},
        "numTraining": count,
        "file_ending": ".nii",
    }
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


class _Moments(logging.Handler):
    """When the run said that it begins to train, and that it is done."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        for word in ("Training ", "Done:"):
            if record.getMessage().startswith(word):
                self.at.setdefault(word, time.monotonic())


def run(data: Path, out: Path, network: str, plan: Plan, device: str) -> dict[str, Any]:
    """Train, and what each part took; without an epoch's end there is no figure."""
    logger, moments = logging.getLogger("cpfnet"), _Moments()
    logger.addHandler(moments)
    logger.setLevel(logging.INFO)
    start = time.monotonic()
    try:
        model = cpfnet.train(data, out, plan=plan, device=device)
    finally:
        logger.removeHandler(moments)
    end = time.monotonic()
    history = model.metrics["history"]
    seconds = sum(epoch["seconds"] for epoch in history)
    samples = plan.training.epochs * plan.training.samples
    training = samples / history[-1]["images_per_second"]
    begun, done = moments.at["Training "], moments.at["Done:"]
    spent = (begun - start, training, seconds - training, done - begun - seconds, end - done)
    batch = plan.training.batch * plan.training.accumulate
    return {
        "network": network,
        "steps": samples // batch,
        "batch": f"{batch} x {'x'.join(map(str, plan.spatial.patch))}",
        **{part: round(value, 2) for part, value in zip(PARTS, spent, strict=True)},
        "device": hardware(str(pick_device(device))),
        "torch": versions()["torch"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["dynunet", "cpfnet"])
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--small", action="store_true", help="a rehearsal: small volumes")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu/epoch"))
    parser.add_argument("--csv", type=Path, default=Path("runs/gpu/epoch.csv"))
    options = parser.parse_args()
    shape = SMALL if options.small else SHAPE
    there = {row["network"] for row in rows(options.csv)}
    try:
        pick_device(options.device)
        for network in options.networks:
            if network in there:
                continue
            data = make(options.work / "data", options.cases, shape)
            plan = cpfnet.plan(data, network=network, weights="none", device=options.device)
            group = plan.training.batch * plan.training.accumulate
            settings = ["training.epochs=1", f"training.samples={options.steps * group}"]
            if options.small:
                settings += ["network.options={widths: [4, 4, 8, 8]}"] if network == "dynunet" else []
            out = options.work / network
            shutil.rmtree(out, ignore_errors=True)  # times of an interrupted run are no figures
            row = run(data, out, network, plan.with_settings(settings), options.device)
            add(options.csv, COLUMNS, row | {"cases": options.cases, "voxels": "x".join(map(str, shape))})
            print(row, flush=True)
    except CpfnetError as error:
        fail(error)


if __name__ == "__main__":
    main()

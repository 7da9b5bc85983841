"""Optimiser steps on a GPU, launched one by one and replayed as CUDA graphs: python -m benchmarks gpu

4 crops of 256² a step from photographs of 512², under the plan that `cpfnet plan` proposes but for batch and patch. The
first steps warm up. Figures are in gpu.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import cpfnet
from benchmarks.accuracy.machine import hardware, versions
from benchmarks.check import make
from cpfnet.cli.app import fail
from cpfnet.data.dataset import load
from cpfnet.errors import NetworkError
from cpfnet.inference.torch_backend.network import pick_device
from cpfnet.planning import Plan
from cpfnet.training.hardware.precision import choose_precision, fabric_for
from cpfnet.training.initial_weights import first_network
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.patches import Patches, batches
from cpfnet.training.train_step import Task

WARMING = 10


def steps(plan: Plan, cached: list[cache.Cached], *, recorded: bool) -> tuple[float, list[float]]:
    """Median seconds of a step, data included, and the losses of all."""
    device = pick_device("cuda")
    network = first_network(plan, init=None, random=True, progress=False)
    task = Task(network, plan, fabric_for(device, choose_precision(plan.training, device)))
    if recorded:
        task.record(plan.training.batch)
    patches = Patches(cached, plan, Augmenter(plan))
    stream, seconds, losses = iter(batches(patches, 0, pin_memory=True)), [], []
    for number in range(0, task.schedule.samples, plan.training.batch):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        losses.append(task.step([next(stream)], number, patches))
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[WARMING:])), losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["cpfnet", "cpfnet-hr", "unet", "resnet34-unet"])
    parser.add_argument("--precisions", nargs="+", default=["bf16"])
    parser.add_argument("--steps", type=int, default=50, help="after warming up")
    options = parser.parse_args()
    try:
        print(hardware(str(pick_device("cuda"))), versions())
    except NetworkError as error:
        fail(error)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "data", 40, 512)
        for name in options.networks:
            settings = [
                *("training.batch=4", "training.accumulate=1", f"training.samples={4 * (WARMING + options.steps)}"),
                *("training.epochs=1", "spatial.size=null", "spatial.patch=[256, 256]", "network.options={}"),
            ]
            plan = cpfnet.plan(Path(folder) / "data", network=name, weights="none")
            plan = plan.with_settings(settings)
            cached = cache.build(load(Path(folder) / "data").cases, plan, Path(folder) / name)
            for precision in options.precisions:
                plan = plan.with_settings([f"training.precision={precision}"])
                eager, replayed = (steps(plan, cached, recorded=mode) for mode in (False, True))
                print(
                    f"{name}, {precision}: {1e3 * eager[0]:.1f} ms a step, replayed {1e3 * replayed[0]:.1f} ms; "
                    f"last loss {eager[1][-1]:.4f} and {replayed[1][-1]:.4f}"
                )


if __name__ == "__main__":
    main()

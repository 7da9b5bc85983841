"""Optimiser steps on a GPU: time and memory of each network, precision and layout: python -m benchmarks gpu

Launched one by one and replayed as CUDA graphs, on random images that lie on the device: 8 × 512² in 2-D, 2 × 128³ in
3-D. The first steps warm up. Each figure is a row of a CSV; what stands there is not measured again. Memory stands
beside what `cpfnet plan` reckons with (`cpfnet.planner.costs`). Figures are in gpu.md.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch

from benchmarks.accuracy.machine import hardware, versions
from cpfnet.cli.app import fail
from cpfnet.errors import CpfnetError
from cpfnet.inference.torch_backend.network import pick_device
from cpfnet.network import zoo
from cpfnet.planner.costs import FIXED_BYTES, GIB, patch_bytes
from cpfnet.planning import Plan
from cpfnet.training.hardware.precision import fabric_for
from cpfnet.training.initial_weights import first_network
from cpfnet.training.samples.patches import Patches, Sample
from cpfnet.training.train_step import Task

WARMING = 10
SIZES = {2: (8, (512, 512)), 3: (2, (128, 128, 128))}
SMALL = {2: (2, (64, 64)), 3: (2, (32, 32, 32))}
"""Batch and patch of a rehearsal."""

PRECISIONS = ("bf16", "fp16", "fp32")
LAYOUTS = {
    "planned": {},
    "channels first": {2: torch.contiguous_format, 3: torch.contiguous_format},
    "channels last": {2: torch.channels_last, 3: torch.channels_last_3d},
}
MODES = ("eager", "replayed")
KEY = ("network", "dims", "precision", "layout", "mode")
COLUMNS = (*KEY, "batch", "ms", "peak_gib", "planned_gib", "first_loss", "last_loss", "not_run", "device", "torch")


def plan_of(network: str, dims: int, precision: str, count: int, *, small: bool) -> Plan:
    batch, patch = (SMALL if small else SIZES)[dims]
    return Plan.model_validate(
        {
            "name": "steps",
            "source": "images" if dims == 2 else "volumes",
            "channels": [{"name": "grey", "intensity": {"kind": "zscore"}}],
            "labels": {"classes": [{"name": "blob", "values": [1]}]},
            "spatial": {"mode": f"{dims}d", "patch": patch},
            "network": {"name": network, "weights": "none"},
            "training": {
                "epochs": 1,
                "samples": batch * count,
                "batch": batch,
                "accumulate": 1,
                "precision": precision,
                "workers": 0,
            },
        }
    )


def measure(plan: Plan, device: torch.device, layout: str, *, recorded: bool, warming: int) -> dict[str, Any]:
    """Median time of a step in ms, peak of memory in GiB, and the first and last loss."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    task = Task(
        first_network(plan, init=None, random=True, progress=False), plan, fabric_for(device, plan.training.precision)
    )
    if recorded:
        task.record(plan.training.batch)
        if not task.replays:
            return {"not_run": "memory does not hold what would be replayed"}
    torch.manual_seed(0)
    batch, dims = plan.training.batch, plan.spatial.dims
    sample = Sample(
        image=torch.randn(batch, 1, *plan.spatial.patch),
        codes=torch.randint(0, 2, (batch, *plan.spatial.patch), dtype=torch.uint8),
        number=torch.arange(batch),
    )
    form = LAYOUTS[layout].get(dims) or torch.preserve_format
    sample["image"] = sample["image"].to(device).to(memory_format=form)
    sample["codes"] = sample["codes"].to(device)
    seconds, losses = [], []
    for number in range(0, task.schedule.samples, batch):
        if cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        losses.append(task.step([sample], number, cast(Patches, None)))
        if cuda:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return {
        "ms": round(1e3 * float(np.median(seconds[warming:])), 2),
        "peak_gib": round(torch.cuda.max_memory_allocated(device) / GIB, 2) if cuda else None,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def why_not(device: torch.device, precision: str, mode: str) -> str | None:
    """What cannot be run here."""
    if device.type == "cuda":
        return None
    if mode == "replayed":
        return "no GPU: CUDA graphs"
    return "no GPU: fp16" if precision == "fp16" else None


def rows(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def add(file: Path, columns: tuple[str, ...], row: dict[str, Any]) -> None:
    """One row more; it is there, whatever ends the process then."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = not file.is_file()
    with file.open("a", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _one(options: argparse.Namespace, device: torch.device, key: dict[str, Any]) -> dict[str, Any]:
    warming = 0 if options.small else WARMING
    plan = plan_of(key["network"], key["dims"], key["precision"], warming + options.steps, small=options.small)
    batch, patch = plan.training.batch, plan.spatial.patch
    kept = batch * patch_bytes(key["network"], patch, 2, half=key["precision"] != "fp32")
    row = {
        "batch": f"{batch} x {'x'.join(map(str, patch))}",
        "planned_gib": round((FIXED_BYTES + kept) / GIB, 2),
        "device": hardware(str(device)),
        "torch": versions()["torch"],
    }
    if (why := why_not(device, key["precision"], key["mode"])) is not None:
        return row | {"not_run": why}
    with ExitStack() as changed:
        if (form := LAYOUTS[key["layout"]].get(key["dims"])) is not None:
            for place in ("train_step", "hardware.cuda_graphs"):
                name = f"cpfnet.training.{place}.memory_layout"
                changed.enter_context(mock.patch(name, return_value=form))
        try:
            return row | measure(plan, device, key["layout"], recorded=key["mode"] == "replayed", warming=warming)
        except (CpfnetError, RuntimeError) as error:
            return row | {"not_run": f"{type(error).__name__}: {error}".split("\n")[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(zoo.SHIPPED))
    parser.add_argument("--dims", nargs="+", type=int, choices=(2, 3), default=[2, 3])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--layouts", nargs="+", choices=list(LAYOUTS), default=list(LAYOUTS))
    parser.add_argument("--steps", type=int, default=30, help="after warming up")
    parser.add_argument("--small", action="store_true", help="a rehearsal: small images, no warming up")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--csv", type=Path, default=Path("runs/gpu/steps.csv"))
    options = parser.parse_args()
    try:
        device = pick_device(options.device)
    except CpfnetError as error:
        fail(error)
    there = {tuple(row[name] for name in KEY) for row in rows(options.csv)}
    for values in itertools.product(options.networks, options.dims, options.precisions, options.layouts, MODES):
        if tuple(map(str, values)) in there:
            continue
        key = dict(zip(KEY, values, strict=True))
        row = key | _one(options, device, key)
        add(options.csv, COLUMNS, row)
        print(", ".join(map(str, values)), row.get("ms") or row["not_run"], flush=True)
        if key["mode"] == "replayed" and device.type == "cuda" and "TrainingError" in (row.get("not_run") or ""):
            sys.exit(3)  # after such a failure this process cannot be trusted; another one goes on


if __name__ == "__main__":
    main()

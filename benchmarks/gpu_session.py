"""All that waits for a GPU, in commands of a few minutes: python -m benchmarks gpu_session --data FOLDER --out FOLDER

1. the tests of CUDA graphs and backends; time and memory of each network, precision and layout (`benchmarks.gpu`)
2. accuracy: Hippocampus 3,000 steps, DRIVE 8,000, ChestXray 4,000, PH2 4,000; cpfnet-hr, cpfnet, dynunet with and
   without deep supervision, several at once (`benchmarks.accuracy`)
3. what only a GPU decides (batch 2 or 12, rates, 2-D or 3-D), and an epoch on data of the size of BraTS
   (`benchmarks.gpu_epoch`)

Each command works on what is not done yet, in this order, and stops by itself; the same command goes on. Data sets that
do not lie in --data are left for a later command. Everything is kept in --work; --out gets a CSV of each kind, each
time. With `--steps 2 --device cpu` it is a rehearsal.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.accuracy.kept import pack
from benchmarks.accuracy.variants import DECISIONS, SUPERVISED
from cpfnet.network import zoo

TESTS = ("tests/training/hardware", "tests/inference/torch_backend", "tests/network/test_recordable.py")
STEPS = {"hippocampus": 3000, "drive": 8000, "chestxray": 4000, "ph2": 4000}
"""Optimiser steps of each training."""

FOLDERS = {"hippocampus": "Hippocampus", "drive": "DRIVE", "chestxray": "ChestXray", "ph2": "PH2"}
VARIANTS = ("cpfnet-hr", "cpfnet", "dynunet", SUPERVISED.name)
MEMORY = "24GiB"
"""Of the GPU that plans are made for: a user's, whatever this one has."""

ENDING = 20.0
"""Seconds in which a training that is stopped writes its checkpoint."""


@dataclass(frozen=True)
class Job:
    """One process.

    Attributes:
        part: 1 … 3.
        name: of what it leaves: NAME.log, and NAME.done where it succeeded.
        command: of Python, without the interpreter.
        alone: it measures time.
    """

    part: int
    name: str
    command: tuple[str, ...]
    alone: bool = True


def jobs(options: argparse.Namespace) -> list[Job]:
    """All of them, in order."""
    small = () if options.steps is None else ("--small", "--steps", str(options.steps))
    device = ("--device", options.device)
    files = options.work
    found = [Job(1, "tests", ("-m", "pytest", "-q", *TESTS))]
    for network in options.networks:
        for dims in ("2", "3"):
            command = ("-m", "benchmarks.gpu", "--networks", network, "--dims", dims, *device, *small)
            found.append(Job(1, f"steps-{network}-{dims}d", (*command, "--csv", str(files / "steps.csv"))))
    for part in (2, 3):
        for name, steps in STEPS.items():
            variants = VARIANTS if part == 2 else [variant.name for variant in DECISIONS.get(name, ())]
            data = options.data / FOLDERS[name]
            found += [
                Job(part, f"{name}-{variant}", _training(options, name, data, variant, steps), alone=False)
                for variant in (variants if data.is_dir() else ())
            ]
    for network in ("dynunet", "cpfnet"):
        command = ("-m", "benchmarks.gpu_epoch", "--networks", network, *device, *small)
        command += ("--cases", "4") if small else ()
        places = ("--work", str(files / "epoch"), "--csv", str(files / "epoch.csv"))
        found.append(Job(3, f"epoch-{network}", (*command, *places)))
    return [job for job in found if job.part in options.parts]


def _training(options: argparse.Namespace, name: str, data: Path, variant: str, steps: int) -> tuple[str, ...]:
    wanted = str(options.steps or steps)
    command = ("-m", "benchmarks.accuracy", name, "--data", str(data), "--networks", variant, "--steps", wanted)
    memory = () if options.device == "cpu" else ("--memory", MEMORY)
    return (*command, "--seeds", "0", "--device", options.device, *memory, "--out", str(options.work / "accuracy"))


def work_off(todo: Sequence[Job], folder: Path, *, seconds: float, at_once: int) -> list[Job]:
    """Run what is not done, until it is or the time is over; what runs then is stopped, and goes on another time.

    Args:
        todo: in order; one that is `alone` waits until nothing else runs, and nothing begins beside it.
        folder: for logs and marks.
        seconds: until the last one has ended.
        at_once: how many of the others run together.

    Returns:
        Those that failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + seconds - ENDING
    waiting = [job for job in todo if not (folder / f"{job.name}.done").exists()]
    running: dict[Job, subprocess.Popen[bytes]] = {}
    failed = []
    try:
        while (waiting or running) and time.monotonic() < end:
            for job, process in list(running.items()):
                if process.poll() is not None:
                    del running[job]
                    print(
                        f"{job.name}: {'done' if process.returncode == 0 else f'failed, see {job.name}.log'}",
                        flush=True,
                    )
                    if process.returncode == 0:
                        (folder / f"{job.name}.done").touch()
                    else:
                        failed.append(job)
            while waiting and len(running) < at_once and not any(job.alone for job in running):
                if waiting[0].alone and running:
                    break
                job = waiting.pop(0)
                with (folder / f"{job.name}.log").open("ab") as log:
                    running[job] = subprocess.Popen([sys.executable, *job.command], stdout=log, stderr=log)
            time.sleep(0.05)
    finally:
        for process in running.values():
            process.terminate()
        for job, process in running.items():
            try:
                process.wait(ENDING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            print(f"{job.name}: stopped; the same command goes on", flush=True)
    return failed


def collect(work: Path, out: Path) -> None:
    """The compact results: a CSV of each kind, and of the tests the last line."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("steps.csv", "epoch.csv"):
        if (work / name).is_file():
            shutil.copyfile(work / name, out / name)
    if (work / "accuracy").is_dir():
        pack(work / "accuracy", out / "accuracy")
    log = work / "jobs" / "tests.log"
    if log.is_file():
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        (out / "tests.txt").write_text("\n".join(lines[-20:]) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder of {', '.join(FOLDERS.values())}, or of some")
    parser.add_argument("--out", type=Path, required=True, help="for the CSVs")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--parts", type=int, nargs="+", choices=(1, 2, 3), default=[1, 2, 3])
    parser.add_argument("--networks", nargs="+", default=sorted(zoo.SHIPPED), help="whose steps are timed")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, help="a rehearsal: so many of each training, small images")
    parser.add_argument("--minutes", type=float, default=9, help="after which the command has ended")
    parser.add_argument("--at-once", type=int, default=4, help="trainings that share the device")
    options = parser.parse_args(arguments)
    todo = jobs(options)
    failed = work_off(todo, options.work / "jobs", seconds=60 * options.minutes, at_once=options.at_once)
    collect(options.work, options.out)
    left = [job.name for job in todo if not (options.work / "jobs" / f"{job.name}.done").exists()]
    absent = [folder for folder in FOLDERS.values() if not (options.data / folder).is_dir()]
    print(f"{len(todo) - len(left)} of {len(todo)} done" + (f"; left: {', '.join(left)}" if left else ""))
    if absent:
        print(f"Not there, so nothing was trained on: {', '.join(absent)}")
    if options.device == "cpu":
        print("No GPU: CUDA graphs, fp16, TF32 and the GPU's memory were not run (not_run in steps.csv says where)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

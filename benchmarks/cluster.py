"""`cpfnet predict --engine ray` from shell to files: python -m benchmarks cluster

Photographs of 256² through CPFNet (random weights, OpenVINO in float32): one process, and clusters of one and of two
workers, all on this machine. A worker, and the one process, have one core each, which is how two cores can show
anything; the command that hands out the work shares the first. What an input costs beside its network is measured with
small ones, as the difference between many and few: what the command itself computes, what it keeps in memory, what it
asks of the file system (where strace is installed). docs/how-to/cluster.md reckons with these. Runs are taken again
where other programs took more than a tenth of a core.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import compared, save
from benchmarks.predict import make_images, make_model

CPFNET = Path(sys.executable).with_name("cpfnet")
FEW, MANY = 100, 1100
"""Small inputs that are predicted."""

LISTED = (5_000, 45_000)
"""Inputs that are done already."""

DISTURBED = 0.1
"""Cores that other programs may use in the mean, …"""

PATIENCE = 12
"""… and how often that is tried."""


def made(folder: Path, side: int) -> Path:
    """A Model for images of this size, with its graph."""
    subprocess.run([CPFNET, "export", make_model(folder, volumes=False, patch=side), "--to", "onnx"], check=True)
    return folder


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started within runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    yield
    os.sched_setaffinity(0, before)


@contextmanager
def cluster(workers: int) -> Iterator[str]:
    """The address of a Ray cluster with one core a worker."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # no nicer than the one process
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        os.environ["RAY_TMPDIR"] = folder
        small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        with on_core(0):
            made = Cluster(initialize_head=True, head_node_args=small)
        for core in range(1, workers):
            with on_core(core):
                made.add_node(**small)
        yield made.address
        made.shutdown()


def run(command: Sequence[Any]) -> tuple[float, int]:
    """Seconds of CPU and most bytes of memory that the command used, which must do all."""
    # Through a small process: what is started by a large one is said to have been as large.
    text = (
        "import resource, subprocess as s, sys; s.run(sys.argv[1:], check=True, stdout=s.DEVNULL, stderr=s.DEVNULL)\n"
    )
    text += "u = resource.getrusage(resource.RUSAGE_CHILDREN); print(u.ru_utime + u.ru_stime, u.ru_maxrss * 1024)"
    done = subprocess.run([sys.executable, "-c", text, *map(str, command)], capture_output=True, text=True, check=True)
    cpu, memory = done.stdout.split()
    return float(cpu), int(memory)


def timed(command: Sequence[Any], out: Path) -> tuple[float, float, float]:
    """Seconds in all, seconds to the first result, and results a minute after it.

    The measurement is repeated if other programs used part of the cores.
    """
    for _ in range(PATIENCE):
        shutil.rmtree(out, ignore_errors=True)
        before, start, clock = others(), time.time(), time.perf_counter()
        run(command)
        seconds = time.perf_counter() - clock
        if sum(used - before.get(number, 0.0) for number, used in others().items()) < DISTURBED * seconds:
            written = sorted(file.stat().st_mtime for file in out.glob("*.png"))
            return seconds, written[0] - start, 60 * (len(written) - 1) / (written[-1] - written[0])
    raise SystemExit(f"other programs kept this machine busy {PATIENCE} times: end them first")


def others() -> dict[int, float]:
    """Seconds of CPU that processes other than ours have used."""
    ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    times = {process.pid: process.info["cpu_times"] for process in psutil.process_iter(["cpu_times"])}
    return {number: used.user + used.system for number, used in times.items() if used and number not in ours}


def speeds(
    folder: Path, addresses: dict[int, str], *, count: int, rounds: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ways beside each other, and what else they tell."""
    model, images, out = made(folder / "model", 256), make_images(folder / "images", count, 256), folder / "out"
    base = [CPFNET, "predict", model, images, "-o", out, "--backend", "openvino", "--force"]
    ways = {"one process, one core": ["taskset", "-c", "1", *base]}
    ways |= {
        f"{number} worker{'s' * (number > 1)}, one core each": [*base, "--engine", "ray", "--address", address]
        for number, address in addresses.items()
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    first: dict[str, list[float]] = {name: [] for name in ways}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, command in ways.items():
            found = timed(command, out)
            if number:  # the first round warms up
                for kept, value in zip((taken, first, rates), found, strict=True):
                    kept[name].append(value)
    files = {"read": images, "written": out}
    sizes = {name: sum(file.stat().st_size for file in place.glob("*.png")) / count for name, place in files.items()}

    def middle(values: dict[str, list[float]]) -> dict[str, float]:
        return {name: round(sorted(some)[len(some) // 2], 2) for name, some in values.items()}

    tables = {
        f"{count} images of 256², PNG to PNG, float32": compared(taken),
        "the same from the first result on, without starting": compared(
            {name: [60 * (count - 1) / rate for rate in some] for name, some in rates.items()}
        ),
    }
    return tables, {
        "seconds to the first result": middle(first),
        "results a minute from then on": middle(rates),
        "bytes a study": {name: round(size) for name, size in sizes.items()},
    }


def costs(folder: Path, address: str) -> dict[str, Any]:
    """What an input costs the command, by the difference between many and few."""
    model = made(folder / "small", 64)
    engine = ["--backend", "openvino", "--force", "--engine", "ray", "--address", address]
    cpu = []
    for count in (FEW, MANY):
        images = make_images(folder / f"small-{count}", count, 64)
        cpu.append(run([CPFNET, "predict", model, images, "-o", folder / f"small-out-{count}", *engine])[0])
    found: dict[str, Any] = {"seconds of the command's CPU a study": (cpu[1] - cpu[0]) / (MANY - FEW)}
    memory, seconds = [], []
    for count in LISTED:
        images, out = folder / f"listed-{count}", folder / f"listed-out-{count}"
        for place in (images, out):
            place.mkdir()
            for number in range(count):
                (place / f"{number:07d}.png").touch()
        start = time.perf_counter()
        memory.append(run([CPFNET, "predict", model, images, "-o", out, "--resume", *engine])[1])
        seconds.append(time.perf_counter() - start)
    many = LISTED[1] - LISTED[0]
    found["bytes of the command's memory a study"] = round((memory[1] - memory[0]) / many)
    found["seconds to find a study and see that it is done"] = (seconds[1] - seconds[0]) / many
    if shutil.which("strace"):
        calls = [traced(model, make_images(folder / f"traced-{count}", count, 64)) for count in (5, 25)]
        found["calls to the file system that name a study's file"] = (calls[1] - calls[0]) / 20
    return found


def traced(model: Path, images: Path) -> int:
    """Calls to the file system that name one of the images or their results."""
    trace, out = images.with_suffix(".trace"), images.with_suffix(".out")
    strace = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", trace]
    run([*strace, CPFNET, "predict", model, images, "-o", out, "--backend", "openvino", "--force"])
    lines = trace.read_text(errors="replace").splitlines()
    return sum(f"{images}/" in line or f"{out}/" in line for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, cluster(1) as one, cluster(2) as two:
        folder = Path(name)
        tables, more = speeds(folder, {1: one, 2: two}, count=options.count, rounds=options.rounds)
        more |= costs(folder, two)
    save("cluster", tables, **more)


if __name__ == "__main__":
    main()

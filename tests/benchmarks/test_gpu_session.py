"""What waits for a GPU is rehearsed: its commands stop in time, go on where they stopped, and leave their figures."""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_session
from benchmarks.accuracy.variants import DECISIONS, NETWORKS, SUPERVISED
from benchmarks.gpu_session import Job, collect, jobs, work_off
from cpfnet.network import zoo
from tests.synthetic import make_images_dataset


def options(tmp_path: Path, *, steps: int | None = 2) -> argparse.Namespace:
    return argparse.Namespace(
        data=tmp_path / "data",
        out=tmp_path / "out",
        work=tmp_path / "work",
        parts=[1, 2, 3],
        networks=["unet"],
        device="cpu",
        steps=steps,
    )


def test_jobs_come_in_order_and_only_for_data_that_are_there(tmp_path: Path) -> None:
    make_images_dataset(tmp_path / "data" / "PH2", cases=2, size=(32, 32))
    names = [job.name for job in jobs(options(tmp_path))]
    assert names[:3] == ["tests", "steps-unet-2d", "steps-unet-3d"]
    assert names[3:7] == ["ph2-cpfnet-hr", "ph2-cpfnet", "ph2-dynunet", f"ph2-{SUPERVISED.name}"]
    assert names[7:] == ["epoch-dynunet", "epoch-cpfnet"]
    (tmp_path / "data" / "DRIVE").mkdir()
    found = {job.name: job for job in jobs(options(tmp_path, steps=None))}
    assert {f"drive-{variant.name}" for variant in DECISIONS["drive"]} < {*found}
    command = " ".join(found["drive-dynunet"].command)
    assert "drive --data" in command
    assert "--steps 8000" in command
    assert "--memory" not in command  # this machine's, by its CPU
    assert set(gpu_session.VARIANTS) <= {variant.name for variant in (*NETWORKS, SUPERVISED)}
    for part, first in ((1, "tests"), (2, "drive-cpfnet-hr"), (3, "drive-cpfnet-hr-batch-2")):
        assert next(job.name for job in jobs(options(tmp_path)) if job.part == part) == first


def test_it_stops_in_time_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_session, "ENDING", 1.0)
    mark = "from pathlib import Path; import sys, time; p = Path(sys.argv[1]); p.write_text(p.read_text() + 'x'); "
    for name in "abcd":
        (tmp_path / name).write_text("")

    def job(name: str, then: str, *, alone: bool) -> Job:
        return Job(1, name, ("-c", mark + then, str(tmp_path / name)), alone)

    first, slow = job("a", "", alone=True), job("b", "time.sleep(60)", alone=False)
    beside, bad = job("c", "", alone=False), job("d", "sys.exit(2)", alone=False)
    began = time.monotonic()
    failed = work_off([first, slow, beside, bad], tmp_path / "jobs", seconds=6.0, at_once=2)
    assert time.monotonic() - began < 20
    assert failed == [bad]
    assert {path.name for path in (tmp_path / "jobs").glob("*.done")} == {"a.done", "c.done"}
    quick = job("b", "", alone=False)
    assert not work_off([first, quick, beside], tmp_path / "jobs", seconds=30.0, at_once=2)
    assert [(tmp_path / name).read_text() for name in "abc"] == ["x", "xx", "x"]  # what was done is not done again
    collect(tmp_path, tmp_path / "out")  # nothing of it measured anything
    assert not list((tmp_path / "out").iterdir())


def test_steps_are_measured_once_and_what_cannot_be_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "steps.csv"
    narrow = ["--networks", "resnet34-unet", "--dims", "2", "--precisions", "fp32", "fp16", "--layouts", "planned"]
    command = ["gpu", *narrow, "--steps", "2", "--small", "--device", "cpu", "--csv", str(file)]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", command)
        gpu.main()
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["precision"], row["mode"], row["not_run"]) for row in rows] == [
        ("fp32", "eager", ""),
        ("fp32", "replayed", "no GPU: CUDA graphs"),
        ("fp16", "eager", "no GPU: fp16"),
        ("fp16", "replayed", "no GPU: CUDA graphs"),
    ]
    assert float(rows[0]["ms"]) > 0
    assert float(rows[0]["last_loss"]) != float(rows[0]["first_loss"])
    assert float(rows[0]["planned_gib"]) > 2
    assert {row["network"] for row in rows} <= zoo.SHIPPED

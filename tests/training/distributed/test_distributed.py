"""Several processes learn what one would have learned, count every case once, and end together."""

from __future__ import annotations

import csv
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

import cpfnet
from cpfnet.data.case import Dataset
from cpfnet.errors import DatasetError, NetworkError, PlanError, TrainingError
from cpfnet.model import Model
from cpfnet.network import zoo
from cpfnet.planning import Plan
from cpfnet.training import checkpoint
from cpfnet.training.distributed.launch import start
from cpfnet.training.distributed.process_group import SINGLE_PROCESS, ProcessGroup, backend, check_devices, find_group
from cpfnet.training.hardware.precision import fabric_for
from cpfnet.training.options import TrainOptions
from cpfnet.training.run import train
from cpfnet.training.samples import cache
from cpfnet.training.samples.augment import Augmenter
from cpfnet.training.samples.patches import Batches, Patches, batches, check_shares
from cpfnet.training.train_step import Task
from tests.training.conftest import images_plan


@given(size=st.integers(1, 4), batch=st.integers(1, 4), count=st.integers(1, 7), rest=st.integers(0, 3))
def test_shares_make_up_the_batches_of_one_process(size: int, batch: int, count: int, rest: int) -> None:
    training = images_plan(batch=batch * size, samples=count * batch * size + min(rest, batch - 1) * size).training
    check_shares(training, size)
    shares = [list(Batches(training, 0, ProcessGroup(rank, size))) for rank in range(size)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == list(Batches(training))
    assert all(len({len(part) for part in parts}) == 1 for parts in zip(*shares, strict=True))


@pytest.mark.parametrize(
    ("batch", "samples", "size", "said", "fix"),
    [
        (4, 8, 3, "a batch has 4 samples", r"\(1, 2, 4\).* such as 6 and 12"),
        (4, 10, 4, "a batch has 4 samples and the last one of an epoch has 2", r"\(1, 2\).* such as 4 and 12"),
        (6, 7, 2, "a batch has 6 samples and the last one of an epoch has 1", r"\(1\).* such as 6 and 12"),
        (1, 3, 2, "a batch has 1 sample", r"\(1\).* such as 2 and 4"),
        (8, 6, 4, "a batch has 6 samples", r"\(1, 2, 3, 6\).* such as 8 and 8"),
    ],
)
def test_uneven_shares_are_refused(batch: int, samples: int, size: int, said: str, fix: str) -> None:
    with pytest.raises(PlanError) as caught:
        check_shares(images_plan(batch=batch, samples=samples).training, size)
    assert caught.value.what == f"{size} devices cannot share it evenly: {said}"
    assert re.search(fix, caught.value.fix or "")


class TestPlaces:
    """Who this process is, as torchrun and SLURM say it."""

    @pytest.fixture(autouse=True)
    def nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        announced = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
        for name in [*announced, *(name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_")))]:
            monkeypatch.setenv(name, "")  # so that what is announced goes with the test
            monkeypatch.delenv(name)

    def test_alone(self) -> None:
        assert find_group(1, 1) == find_group(4, 1) == SINGLE_PROCESS
        with pytest.raises(TrainingError, match="nothing says which of the 2 machines") as caught:
            find_group(4, 2)
        assert "srun --nodes=2 --ntasks-per-node=4" in (caught.value.fix or "")
        with pytest.raises(TrainingError, match="0 devices"):
            TrainOptions(devices=0)

    def test_torchrun(self, monkeypatch: pytest.MonkeyPatch) -> None:
        places = {
            "TORCHELASTIC_RUN_ID": "x",
            "RANK": "3",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "2",
        }
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        assert find_group(1, 1) == find_group(2, 2) == ProcessGroup(3, 4, 1, 2)
        with pytest.raises(TrainingError, match="torchrun started 4 processes, 2 of them here; --devices 3"):
            find_group(3, 1)

    def test_slurm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        places = {
            "SLURM_JOB_ID": "71234",
            "SLURM_NTASKS": "4",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_PROCID": "3",
            "SLURM_LOCALID": "1",
            "SLURM_NODEID": "1",
            "SLURM_NODELIST": "gpu[5-6]",
        }
        for name, value in places.items():
            monkeypatch.setenv(name, value)
        assert find_group(4, 1) == SINGLE_PROCESS  # a batch script without srun
        monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
        monkeypatch.setenv("SLURM_STEP_NUM_NODES", "2")
        assert find_group(2, 2) == ProcessGroup(3, 4, 1, 2)
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("gpu5", "16234")
        assert find_group(1, 1) == SINGLE_PROCESS  # so many trainings, each for itself
        with pytest.raises(TrainingError, match="srun started 4 tasks on 2 machines; --devices 4 --nodes 1"):
            find_group(4, 1)


def test_what_cannot_be_is_refused_before_anything_starts(images: Dataset, out: Path) -> None:
    plan = images_plan(batch=4, samples=8)
    with pytest.raises(PlanError, match="3 devices cannot share it evenly"):
        cpfnet.train(images.root, out, plan=plan, device="cpu", devices=3)
    with pytest.raises(TrainingError, match="cpu:0 is one device, --devices 2 are several"):
        check_devices("cpu:0", 2)
    if not torch.cuda.is_available():
        with pytest.raises(NetworkError, match="0 CUDA devices found"):
            check_devices("cuda", 2)
    else:
        count = torch.cuda.device_count()
        with pytest.raises(TrainingError, match=f"{count + 1} devices are asked for, and {count} GPU"):
            check_devices("cuda", count + 1)
    assert not out.exists()


def test_the_package_is_a_command() -> None:
    done = subprocess.run([sys.executable, "-m", "cpfnet", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cpfnet ")


def plan() -> Plan:
    # SGD: where gradients are zero but for rounding (biases before a normalisation), AdamW's steps have full size.
    made = images_plan(epochs=3, samples=10, batch=4, accumulate=2, ema=0.9, workers=1, optimiser="sgd", momentum=0.9)
    return made.with_settings(["folds.count=2"])  # three cases validate, which two processes cannot deal out evenly


class _Layers(nn.Module):
    """What looks at, or draws for, a whole batch."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout2d(0.3),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8, momentum=None),
            nn.Dropout(0.5),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, classes, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class _Exact(nn.Module):
    """Computes in float64, where rounding hides no mistake."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.double())


def _paper() -> nn.Module:
    network = zoo.build("cpfnet", 3, 2, spatial_dims=2)
    for name, value in network.state_dict().items():
        if name.endswith("bn2.weight"):  # from zero, most of the encoder would have no gradient
            value.fill_(0.3)
    return _Exact(network)


def _supervised() -> nn.Module:
    return _Exact(zoo.build("dynunet", 3, 2, patch=[32, 32], widths=[4, 4, 8, 8], deep_supervision=True))


def _exact_layers() -> nn.Module:
    return _Exact(_Layers())


SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "layers, clipped": (_Layers, {"optimiser": "sgd", "momentum": 0.9, "clip": 0.5, "ema": 0.9}),
    "layers, exact": (_exact_layers, {"optimiser": "adamw", "clip": 1.0, "ema": 0.9}),
    "deeply supervised, exact": (_supervised, {"optimiser": "sgd", "momentum": 0.9}),
    "Dice over the batch, exact": (
        _exact_layers,
        {"optimiser": "sgd", "accumulate": 1, "loss": {"name": "dice+ce", "options": {"pooled": True}}},
    ),
    "paper, exact": (_paper, {"optimiser": "sgd", "samples": 4, "epochs": 1}),  # more than one of DDP's buckets
}


def learn(cases: list[cache.Cached], setting: str, group: ProcessGroup = SINGLE_PROCESS) -> dict[str, Any]:
    """Ten samples an epoch, where nothing else is said: a group of 4 + 4, and a partial one of 2."""
    build, settings = SETTINGS[setting]
    plan = images_plan(**{"samples": 10, "batch": 4, "accumulate": 2, "epochs": 2, **settings})
    torch.manual_seed(group.rank)  # the first one's weights will be everybody's
    patches = Patches(cases, plan, Augmenter(plan))
    task = Task(build(), plan, fabric_for(torch.device("cpu"), "fp32", group))
    first = {name: p.detach().clone() for name, p in task.network.named_parameters()}
    stream, number, losses = iter(batches(patches, 0, group=group)), 0, []
    while number < task.schedule.samples:
        size = task.schedule.group_size(number)
        losses.append(task.step(islice(stream, -(-size // 4)), number, patches))
        number += size
    best = task.best.state_dict()
    return {"losses": losses, "first": first, "weights": task.network.state_dict(), "best": best}


def together(dataset: Dataset, cases: list[cache.Cached], folder: Path, *, group: ProcessGroup) -> None:
    """What each of two processes does."""
    for name in SETTINGS:
        torch.save(learn(cases, name, group), folder / f"{name} {group.rank}.pt")
    train(dataset, plan(), folder / "out", TrainOptions(device="cpu"), group)
    assert group.gather(group.rank) == [0, 1]
    assert group.any(group.rank == 1)
    assert not group.any(False)
    assert group.run_on_main(lambda: f"from {group.rank}") == "from 0"

    def read() -> None:
        if group.rank == 1:
            raise DatasetError("cannot be read", where="case_1", fix="fix it")

    group.run_on_all(read)


def talk(*, group: ProcessGroup) -> None:
    """Log at all levels, and beside another's logger."""
    logger = logging.getLogger("cpfnet.some.module")
    logger.debug("a detail")
    logger.info(f"a message of process {group.rank}")
    logger.warning("a doubt about %s", Path("x"))
    try:
        raise ValueError("a cause")
    except ValueError:
        logger.exception("a fault")


@pytest.mark.slow
def test_what_the_first_process_logs_comes_home(caplog: pytest.LogCaptureFixture) -> None:
    start(talk, 2, device="cpu")
    ours = [record for record in caplog.records if record.name == "cpfnet.some.module"]
    assert [(record.levelname, record.message.split("\n")[0]) for record in ours] == [
        ("INFO", "a message of process 0"),
        ("WARNING", "a doubt about x"),
        ("ERROR", "a fault"),
    ]
    assert "ValueError: a cause" in caplog.text
    with caplog.at_level(logging.WARNING, "cpfnet"):
        caplog.clear()
        start(talk, 2, device="cpu")
    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_handler_that_fails_holds_nobody_up() -> None:
    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError("a handler's own fault")

    handler, logger = Failing(), logging.getLogger("cpfnet.some")
    logger.addHandler(handler)
    try:
        start(talk, 2, device="cpu")
    finally:
        logger.removeHandler(handler)


@pytest.fixture(scope="module")
def both(images: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes left what they learned, and the second one its error to the first, which the caller hears."""
    folder = tmp_path_factory.mktemp("both")
    cases = cache.build(images.cases, images_plan(), folder / "cache")
    with pytest.raises(DatasetError, match="cannot be read") as caught:
        start(partial(together, images, cases, folder), 2, device="cpu")
    assert (caught.value.where, caught.value.fix) == ("case_1", "fix it")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_learn_what_one_learns(images: Dataset, both: Path, name: str) -> None:
    one = learn(cache.build(images.cases, images_plan(), both / "cache"), name)
    first, second = (torch.load(both / f"{name} {rank}.pt") for rank in range(2))
    exact = "exact" in name
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(one["losses"], rel=1e-6 if exact else 1e-5)
    for part in ("first", "weights", "best"):
        for key, value in one[part].items():
            assert torch.equal(first[part][key], second[part][key]), key
            apart = (first[part][key] - value).double().norm() / value.double().norm().clamp(min=1e-3)
            assert apart < (1e-7 if exact else 1e-5), (part, key)
    moved = [(one["weights"][key] - value).abs().max() for key, value in one["first"].items()]
    assert max(moved) > 1e-3


def rows(out: Path) -> list[dict[str, float]]:
    with (out / "logs" / "history.csv").open() as file:
        return [
            {key: float(value) for key, value in row.items() if key not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_a_run_of_two_is_a_run_of_one(images: Dataset, both: Path, tmp_path: Path) -> None:
    one, two = train(images, plan(), tmp_path / "one", TrainOptions(device="cpu")), Model.load(both / "out")
    for of_one, of_two in zip(rows(tmp_path / "one"), rows(both / "out"), strict=True):
        assert of_two == pytest.approx(of_one, rel=1e-4)
    validated = two.metrics["validation"]["cases"]
    assert list(validated) == list(one.metrics["validation"]["cases"]) == two.metrics["cases"]["validation"]
    assert len(validated) == 3
    for case, dice in one.metrics["validation"]["cases"].items():
        assert validated[case] == pytest.approx(dice, rel=1e-4)
    first, second = (load_file(folder / "weights.safetensors") for folder in (tmp_path / "one", both / "out"))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-4, atol=1e-6)
    assert len(list((both / "out" / "logs" / "tensorboard").glob("events.*"))) == 1  # the first process writes
    assert not (both / "out" / ".work" / "cache").exists()


def killed(dataset: Dataset, out: Path, *, group: ProcessGroup) -> None:
    """Train until the first checkpoint in mid-epoch; then the second process is killed."""
    last = out / ".work" / "last.ckpt"

    def kill() -> None:
        while not last.exists() or checkpoint.load(last)["number"] % plan().training.samples == 0:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    if not group.is_main_process:
        threading.Thread(target=kill, daemon=True).start()
    train(dataset, plan(), out, TrainOptions(device="cpu", checkpoint_every=0.0), group)


@pytest.mark.slow
def test_a_killed_process_ends_all_and_the_run_goes_on(
    images: Dataset, both: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=r"^process 1 of 2 was killed \(SIGKILL\)") as caught:
        start(partial(killed, images, out), 2, device="cpu")
    assert "go on with --resume" in (caught.value.fix or "")
    assert 0 < checkpoint.load(out / ".work" / "last.ckpt")["number"] < 30
    shutil.copytree(out, tmp_path / "alone")

    train(images, plan(), tmp_path / "alone", TrainOptions(device="cpu", resume=True))
    assert any("began on 2 devices and goes on on 1" in line for line in caplog.messages)
    for before, after in zip(rows(both / "out"), rows(tmp_path / "alone"), strict=True):
        assert after == pytest.approx(before, rel=1e-4)

    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "cpfnet"]
    command = [*torchrun, "train", str(images.root), "-o", str(out), "--device=cpu", "--resume"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for line in ("Going on after step", "epoch 3/3", "Fitted ", "Done:", "Report:"):
        assert done.stderr.count(line) == 1, done.stderr  # the first process speaks
    assert (out / "weights.safetensors").read_bytes() == (both / "out" / "weights.safetensors").read_bytes()
    assert rows(out) == rows(both / "out")


PARTING = """
import sys
from pathlib import Path

import torch
from cpfnet.training.distributed.process_group import find_group, joined

group = find_group(1, 1)
with joined(group, "cpu"):
    layer = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
    layer(torch.ones(2, 3)).sum().backward()
    layer.own = layer  # a circle, as Fabric's modules have them
    del layer
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
sys.exit(" ".join(name for name in names if "gloo" in name) or 0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system does not tell the names of threads")
def test_who_has_parted_leaves_no_threads_behind(tmp_path: Path) -> None:
    script = tmp_path / "parting.py"
    script.write_text(PARTING)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(torchrun, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


WAITING = """
import os
import signal
import sys
import time

from cpfnet.training.distributed import heartbeat
from cpfnet.training.distributed.process_group import find_group, joined

heartbeat.BEAT, heartbeat.SILENCE = 0.1, 50
group = find_group(1, 1)
with joined(group, "cpu"):
    if sys.argv[1] == "work":
        group.run_on_main(lambda: time.sleep(7))
        sys.exit(0)
    if group.rank == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGSTOP)
    group.gather(group.rank)
"""


def _started(folder: Path, argument: str) -> list[subprocess.Popen[str]]:
    """Two processes, as torchrun starts them; none of them ends the other."""
    script = folder / "waiting.py"
    script.write_text(WAITING)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    places = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    return [
        subprocess.Popen(
            [sys.executable, str(script), argument],
            env=os.environ | places | {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": str(port)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])  # the first one holds what all are heard by
def test_a_process_that_is_gone_without_a_word_is_missed(tmp_path: Path, stopped: int) -> None:
    both = _started(tmp_path, str(stopped))
    try:
        said = both[1 - stopped].communicate(timeout=120)[1]
        assert both[stopped].poll() is None  # stopped, its connections open
    finally:
        for process in both:
            process.kill()
            process.wait()
    assert both[1 - stopped].returncode == 1
    assert f"process {stopped} of 2 did not answer for minutes (noticed by process {1 - stopped})" in said
    assert "--resume" in said


@pytest.mark.slow
def test_one_that_works_alone_for_long_is_not_missed(tmp_path: Path) -> None:
    for process in _started(tmp_path, "work"):
        said = process.communicate(timeout=120)[1]
        assert process.returncode == 0, said


def test_windows_has_no_nccl() -> None:
    assert backend("cuda", "win32") == backend("cpu", "win32") == backend("cpu", "linux") == "gloo"
    assert backend("cuda", "linux") == "cpu:gloo,cuda:nccl"

"""Batches from other processes fit into what /dev/shm has."""

import logging
import pickle
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpfnet.data.case import Dataset
from cpfnet.training.distributed.process_group import ProcessGroup
from cpfnet.training.samples import cache
from cpfnet.training.samples.patches import Patches, batches
from cpfnet.training.samples.shared_memory import workers_that_fit
from tests.training.conftest import images_plan

Usage = namedtuple("Usage", "total used free")


def fitting(free: int, *args: int, **keywords: int) -> tuple[int, int | None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: Usage(free, 0, free))
        return workers_that_fit(*args, folder=Path("/"), **keywords)


@given(workers=st.integers(0, 64), free=st.integers(0, 2**36), batch=st.integers(1, 2**30), processes=st.integers(1, 8))
def test_what_is_on_the_way_fits(workers: int, free: int, batch: int, processes: int) -> None:
    fit, ahead = fitting(free, workers, batch, processes=processes)
    assert 0 <= fit <= workers
    assert (ahead is None) == (fit == 0)
    if fit:
        assert processes * batch * (fit * (ahead or 0) + 2) <= free


def test_with_room_nothing_changes_and_with_little_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "cpfnet")
    assert fitting(2**36, 4, 67_000_000) == (4, 2)
    assert fitting(600_000_000, 4, 67_000_000) == (4, 1)
    assert not caplog.messages
    assert fitting(300_000_000, 4, 67_000_000) == (1, 1)
    assert fitting(64_000_000, 4, 67_000_000) == (0, None)
    assert caplog.messages[-1] == (
        "Samples are prepared by 0 processes instead of 4, which is slower: / has 64 MB free, and a batch takes 67 MB; "
        "give it more (docker run --shm-size=8g)"
    )


def test_elsewhere_than_on_linux_nothing_limits_it(tmp_path: Path) -> None:
    assert workers_that_fit(4, 2**40, folder=tmp_path / "none") == (4, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /dev/shm")
def test_processes_on_other_machines_take_nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = Patches([], images_plan(workers=1, batch=8))
    room = 6 * patches.sample_bytes  # for one process here, with a sample in each batch
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(room, 0, room))
    assert batches(patches, 0, group=ProcessGroup(0, 8, 0, 1)).num_workers == 1


def with_small_memory(*command: str) -> subprocess.CompletedProcess[str]:
    """Run where /dev/shm has 16 MiB, in a mount namespace of its own."""
    mount = 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$@"'
    return subprocess.run(["unshare", "-m", "sh", "-c", mount, "sh", *command], capture_output=True, text=True)


READ = """
import pickle, sys
from pathlib import Path
from cpfnet.training.samples.patches import batches
patches = pickle.loads(Path(sys.argv[1]).read_bytes())
stream = batches(patches, 0)
print(stream.num_workers, sum(len(batch["number"]) for batch in stream))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has /dev/shm")
def test_a_container_with_little_shared_memory_trains(images: Dataset, tmp_path: Path) -> None:
    try:
        if with_small_memory("true").returncode:
            pytest.skip("no mount is allowed here")
    except FileNotFoundError:
        pytest.skip("no unshare is installed")
    plan = images_plan(workers=2)
    plan = plan.model_copy(update={"spatial": plan.spatial.model_copy(update={"patch": (512, 512)})})
    patches = Patches(cache.build(images.cases, plan, tmp_path / "cache"), plan)
    (tmp_path / "patches").write_bytes(pickle.dumps(patches))
    done = with_small_memory(sys.executable, "-c", READ, str(tmp_path / "patches"))
    assert done.stdout.split() == ["0", "14"], done.stderr
    assert "/dev/shm has 17 MB free, and a batch takes 7 MB" in done.stderr

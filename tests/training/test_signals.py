"""Processes that help leave signals to the one that they help, and never outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from cpfnet.training.signals import leave_signals

_PARENT = """
import multiprocessing, sys, time
from concurrent.futures import ProcessPoolExecutor
from cpfnet.training.signals import leave_signals
if __name__ == "__main__":
    with ProcessPoolExecutor(2, initializer=leave_signals) as pool:
        done = [pool.submit(time.sleep, 0.1) for _ in range(4)]
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(600)
"""


def _helper(connection) -> None:
    leave_signals()
    connection.send("ready")
    connection.send(connection.recv())
    time.sleep(600)


@pytest.fixture
def helper():
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_helper, args=(theirs,))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == "ready"
    yield process, ours
    process.kill()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the sender of a signal is not known")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_from_elsewhere_do_not_end_a_helper(helper, number):
    process, connection = helper
    subprocess.run([sys.executable, "-c", f"import os; os.kill({process.pid}, {int(number)})"], check=True)
    connection.send("still here")
    assert connection.poll(60)
    assert connection.recv() == "still here"


def test_the_parent_can_end_a_helper(helper):
    process, _ = helper
    process.terminate()
    process.join(60)
    assert process.exitcode is not None


def test_helpers_end_with_their_parent():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    helpers = [int(word) for word in parent.stdout.readline().split()]
    assert len(helpers) == 2
    parent.kill()
    parent.communicate()  # … until no helper holds its end of the pipe any more

    def alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    end = time.monotonic() + 60
    while any(map(alive, helpers)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in helpers if alive(pid)]

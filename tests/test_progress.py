"""The bar: drawn on a terminal, and without a trace elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

PROGRAM = (
    "from cpfnet.progress import Bar\n"
    "with Bar(show={}) as bar: found = [*bar.track('abc', description='Work')]\n"
    "print(*found)"
)


def test_off_a_terminal_nothing_is_written():
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(True)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("a b c\n", "")


@pytest.mark.parametrize("show", [True, False])
def test_on_a_terminal_there_is_a_bar_if_wanted(show):
    ours, theirs = pty.openpty()
    run = [sys.executable, "-c", PROGRAM.format(show)]
    done = subprocess.run(run, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"}, check=True)
    os.write(theirs, b"end")
    written = os.read(ours, 10_000)
    os.close(ours)
    os.close(theirs)
    assert done.stdout == b"a b c\n"  # bars go to standard error
    assert (b"Work" in written) == show
    assert show or written == b"end"

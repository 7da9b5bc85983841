"""What the C library does with memory that was freed, told by the pages that the kernel had to clear."""

import ctypes
import resource
import sys
from pathlib import Path

import pytest
import torch

from cpfnet.training.allocation import kept_memory

PAGES = 64 * 2**20 // resource.getpagesize()


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc keeps memory")
def test_memory_is_kept_until_the_end_and_then_given_back():
    with kept_memory():
        assert min(faults() for _ in range(9)) < PAGES / 100
        held = resident()
    assert resident() < held - PAGES / 2
    assert faults() > PAGES / 1000  # new memory again; in huge pages 32 of them

"""What the C library does with memory that was freed, told by the pages that the kernel had to clear."""

import ctypes
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from cpfnet.training.hardware.malloc import kept_memory

PAGES = 64 * 2**20 // resource.getpagesize()


def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def figures() -> tuple[list[int], int, int, int]:
    """Faults of each block in kept memory, resident pages at its end and after it, faults of one more block."""
    with kept_memory():
        each, held = [faults() for _ in range(20)], resident()
    return each, held, resident(), faults()


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc keeps memory")
def test_memory_is_kept_until_the_end_and_then_given_back():
    # A process of its own: one in which an allocation failed, as tests of lacking memory ask for, has left the heap.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        each, held, after, one_more = process.submit(figures).result()
    assert max(each[-5:]) < PAGES / 100
    assert after < held - PAGES / 2
    assert one_more > PAGES / 1000  # new memory again; in huge pages 32 of them

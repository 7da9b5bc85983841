"""How many batches may be on their way from the processes that prepare them: Linux passes them on through /dev/shm.

A container has 64 MB there unless told otherwise, and a process that finds no room dies of a bus error.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")

AHEAD = 2
"""Batches that each process prepares ahead, at most; PyTorch's own default."""

SHARE = 0.75
"""Of what is free there: others use it, too."""


def workers_that_fit(workers: int, batch: int, *, processes: int = 1, folder: Path = FOLDER) -> tuple[int, int | None]:
    """How many processes may prepare batches, and how many batches ahead each.

    Beside those that are prepared ahead, one is in use and one on its way to the device.

    Args:
        workers: wanted, 0 or more.
        batch: bytes of one.
        processes: that train on this machine, each with as many workers.
        folder: where shared memory is; elsewhere than on Linux it does not exist, and nothing limits it.

    Returns:
        Workers and their batches ahead, as `torch.utils.data.DataLoader` takes them; fewer than wanted are said.
    """
    if not workers or not folder.is_dir():
        return workers, AHEAD if workers else None
    free = shutil.disk_usage(folder).free
    room = int(SHARE * free / processes / batch) - 2
    if room >= workers * AHEAD:
        return workers, AHEAD
    fitting, ahead = (workers, 1) if room >= workers else (max(room, 0), 1 if room > 0 else None)
    if fitting < workers:
        logger.warning(
            "Samples are prepared by %d processes instead of %d, which is slower: %s has %.0f MB free, and a batch "
            "takes %.0f MB; give it more (docker run --shm-size=8g)",
            fitting,
            workers,
            folder,
            free / 1e6,
            batch / 1e6,
        )
    return fitting, ahead

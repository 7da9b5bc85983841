"""What works on another machine of a cluster: holds the Models, and takes one job after the other to its end. It needs nothing of Ray."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.files import check_writable
from cpfnet.inference.batch.job import Job, Order, is_light, place, read, segment, write
from cpfnet.inference.batch.resume import recall
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model

AHEAD = 2
"""Jobs that a worker has at a time: it reads or writes one while its network has the other."""


@dataclass(frozen=True)
class Setting:
    """What a worker is told once: paths as they were given, and the folder that relative ones start from."""

    models: tuple[Path, ...]
    options: Mapping[str, Any]
    order: Order
    folder: Path
    mark: Path


class Worker:
    """Runs on another machine and holds the Models, loaded once."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.network = ThreadPoolExecutor(1)  # one image at a time goes through it, always in the same thread

    def start(self, setting: Setting) -> str | CpfnetError:
        """Load the Models.

        Returns:
            Its version of this package, or why it cannot work.
        """
        host = socket.gethostname()
        try:
            with contextlib.suppress(OSError):  # what is relative is then not found, and said
                os.chdir(setting.folder)
            for path in (*setting.models, setting.mark):
                _see(path, host)
            check_writable(setting.order.out)
            self.order = setting.order
            self.predictor = Predictor(
                [Model.load(folder) for folder in setting.models], say=self.said.append, **setting.options
            )
        except CpfnetError as error:
            return error
        return cpfnet.__version__

    def do(self, job: Job, again: bool) -> tuple[Job, list[str]] | CpfnetError:
        """Take a job to its end; called in several threads.

        Args:
            job: that nothing stands in the way of, as far as can be told without reading.
            again: another worker was lost over it: what that one had done is left alone, and what it had begun is made again.

        Returns:
            The job without its pixels, and what is to be said; or what cannot be seen from here.
        """
        try:
            for file in job.item.files:
                _see(place(file), socket.gethostname())
        except CpfnetError as error:
            return error
        plan = self.predictor.models[0].plan
        order = self.order
        if again and not order.overwrite:
            order = replace(order, resume=True)
        job.do(recall, order)
        network = (segment, order, self.predictor, self.said.append, None)
        if is_light(job.item):
            job.do(read)
            self.network.submit(job.do, *network).result()
            job.do(write, order, plan)
        else:  # no two large ones in memory
            for step in ((read,), network, (write, order, plan)):
                self.network.submit(job.do, *step).result()
        said, self.said = self.said, []
        return job, said


def _see(path: Path, host: str) -> None:
    if not os.path.exists(path):  # noqa: PTH110 (False, too, where it may not be looked at)
        raise CpfnetError(
            f"cannot be seen from {host}",
            where=path,
            fix="put Models, inputs and results where all machines of the cluster have them under the same path",
        )

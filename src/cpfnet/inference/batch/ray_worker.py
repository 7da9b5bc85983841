"""What works on another machine of a cluster: holds the Models, and takes one job after the other to its end.

It needs nothing of Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from pathlib import Path
from queue import Empty, SimpleQueue

import cpfnet
from cpfnet.errors import CpfnetError
from cpfnet.files import check_writable
from cpfnet.formats.file_types import place_of
from cpfnet.inference.batch.job import Job, Order, is_light, read, segment, write
from cpfnet.inference.batch.resume import recall
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Fitted, Model

AHEAD = 2
"""Jobs that a worker has at a time: it reads or writes one while its network has the other."""


@dataclass(frozen=True)
class Setting:
    """What a worker needs to begin.

    Attributes:
        models: folders of the Models, as they were given.
        fitted: what each of them decides with, which need not be what its folder says (folds, a chosen threshold).
        order: what to make of every input.
        folder: that relative paths start from.
        mark: a file that whoever sees the same folders finds.
        level: from which on messages are wanted.
    """

    models: tuple[Path, ...]
    fitted: tuple[Fitted, ...]
    order: Order
    folder: Path
    mark: Path
    level: int


class Worker:
    """Runs on another machine and holds the Models, loaded once."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1)  # one image at a time goes through the network, always in the same thread
        self.messages: SimpleQueue[logging.LogRecord] = SimpleQueue()

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
            logger = logging.getLogger("cpfnet")
            logger.addHandler(QueueHandler(self.messages))
            logger.setLevel(setting.level)
            logger.propagate = False  # they are shown where the command was given
            models = [
                replace(Model.load(folder), fitted=fitted)
                for folder, fitted in zip(setting.models, setting.fitted, strict=True)
            ]
            self.predictor = Predictor(models, setting.order.options)
        except CpfnetError as error:
            return error
        return cpfnet.__version__

    def do(self, job: Job, again: bool) -> tuple[Job, list[logging.LogRecord]] | CpfnetError:
        """Take a job to its end; called in several threads.

        Args:
            job: that nothing stands in the way of, as far as can be told without reading.
            again: another worker was lost over it: what that one had done is left alone, and what it had begun is made
                again.

        Returns:
            The job without its pixels, and what was logged; or what cannot be seen from here.
        """
        try:
            for file in job.item.files:
                _see(place_of(file), socket.gethostname())
        except CpfnetError as error:
            return error
        plan = self.predictor.models[0].plan
        order = self.order
        if again and not order.output.overwrite:
            order = replace(order, output=replace(order.output, resume=True))
        job.do(recall, order)
        network = (segment, order, self.predictor, None)
        if is_light(job.item):
            job.do(read)
            self.executor.submit(job.do, *network).result()
            job.do(write, order, plan)
        else:  # no two large ones in memory
            for step in ((read,), network, (write, order, plan)):
                self.executor.submit(job.do, *step).result()
        messages = []
        with contextlib.suppress(Empty):
            while True:
                messages.append(self.messages.get_nowait())
        return job, messages


def _see(path: Path, host: str) -> None:
    if not os.path.exists(path):  # noqa: PTH110 (False, too, where it may not be looked at)
        raise CpfnetError(
            f"cannot be seen from {host}",
            where=path,
            fix="put Models, inputs and results where all machines of the cluster have them under the same path",
        )

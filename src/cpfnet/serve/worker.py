"""One process with one Model, loaded once: takes a job after the other while its server lives.

``python -m cpfnet.serve.worker``; its server writes a `Setting` to its standard input, and then a line for each new
job. The end of that input is the end of the server, and of the worker.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy.exc import DBAPIError

from cpfnet.errors import CodeError, CpfnetError, is_out_of_memory, redacted_message, require_extras
from cpfnet.inference.model_arguments import open_models
from cpfnet.inference.options import PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.model import Model
from cpfnet.planning import content_hash
from cpfnet.serve.jobs.job import Claim, Ending
from cpfnet.serve.own_stdout import own_stdout
from cpfnet.serve.segment import segment
from cpfnet.serve.store import Store, StoreOptions

logger = logging.getLogger(__name__)

IDLE = 1.0
"""Seconds after which a worker looks for jobs that nobody told it of: those that another one lost."""

SHOWN = 0.5
"""Seconds between two records of the progress."""


@dataclass(frozen=True)
class Setting:
    """What a worker needs to begin.

    Attributes:
        name: of the worker, in the job store.
        model: folder of the Model, or of an ensemble.
        digest: of the Model (`digest_of`), as the server knows it.
        store: where jobs and files are.
        device, backend: see `PredictorOptions`.
        most_voxels: an image of more is not read.
    """

    name: str
    model: Path
    digest: str
    store: StoreOptions
    device: str
    backend: str
    most_voxels: int

    def to_json(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Setting:
        values: dict[str, Any] = json.loads(text)
        store = values.pop("store")
        options = StoreOptions(**store | {"folder": Path(store["folder"])})
        return cls(**values | {"model": Path(values["model"]), "store": options})


class LeaseLost(BaseException):
    """The job was taken back; no `Exception`, so that no step takes it for its own failure."""


class Heartbeat:
    """Renews the lease of a job and records its progress while it is worked on."""

    def __init__(self, store: Store, claim: Claim):
        self.store, self.claim, self.progress, self.lost = store, claim, 0.0, False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def show(self, share: float) -> None:
        """Note the progress.

        Raises:
            LeaseLost: the job is no longer ours.
        """
        self.progress = share
        if self.lost:
            raise LeaseLost

    def _beat(self) -> None:
        shown, renewed = 0.0, time.monotonic()
        while not self.lost and not self._end.wait(min(SHOWN, self.store.jobs.lease / 3)):
            if self.progress == shown and time.monotonic() - renewed < self.store.jobs.lease / 3:
                continue
            try:
                shown = self.progress
                self.lost = not self.store.jobs.renew(self.claim, shown)
                renewed = time.monotonic()
            except DBAPIError as error:
                logger.warning("the job store does not answer: %s", redacted_message(error))


def digest_of(models: Sequence[Model]) -> str:
    """Of the Models that decide together; of one, its own."""
    return models[0].digest if len(models) == 1 else content_hash([model.digest for model in models])


def run(setting: Setting, wake: threading.Event, ready: TextIO) -> None:
    """Load the Model, say so, and work for ever.

    Raises:
        CpfnetError: it cannot work here.
    """
    models = open_models(setting.model)
    if digest_of(models) != setting.digest:
        raise CpfnetError("was changed while it was served", where=setting.model, fix="start the server again")
    try:
        predictor = Predictor(models, PredictorOptions(device=setting.device, backend=setting.backend))
    except CodeError as error:  # its advice is for commands, which may be allowed to import
        fix = "a server imports no code: export the Model (cpfnet export), or install a package with its network"
        raise CpfnetError(error.what, where=error.where, fix=fix) from None
    store = Store(setting.store)
    print(json.dumps({"ready": True}), file=ready, flush=True)
    while True:
        wake.clear()
        try:
            claim = store.jobs.claim(setting.digest, setting.name)
        except DBAPIError as error:
            logger.warning("the job store does not answer: %s", redacted_message(error))
            claim = None
        if claim is None:
            wake.wait(IDLE)
            continue
        try:
            with Heartbeat(store, claim) as heartbeat:
                _finish(store, claim, _work(claim, store, predictor, setting.most_voxels, heartbeat))
        except LeaseLost:
            logger.info("job %s was taken back", claim.job.id)


def _work(claim: Claim, store: Store, predictor: Predictor, most_voxels: int, heartbeat: Heartbeat) -> Ending:
    try:
        return segment(claim, store, predictor, most_voxels=most_voxels, progress=heartbeat.show)
    except Exception as error:
        what = "it does not fit into memory" if is_out_of_memory(error) else f"unexpected {type(error).__name__}"
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            what = "the disk of the server is full\n  → free space on it, then send the image again"
        logger.error("job %s: %s: %s", claim.job.id, what, redacted_message(error))
        return Ending("failed", what)


def _finish(store: Store, claim: Claim, ending: Ending) -> None:
    """Record the end, however long the database takes to come back; if it takes too long, the lease is lost."""
    while True:
        try:
            store.jobs.finish(claim, ending)
            return
        except DBAPIError as error:
            logger.warning("the job store does not answer: %s", redacted_message(error))
            time.sleep(1)


def _listen(wake: threading.Event) -> None:
    for _ in sys.stdin:
        wake.set()
    os._exit(0)  # whatever it is at: the server is gone, and what is not recorded is done again


def main() -> None:
    channel = own_stdout()
    logging.basicConfig(format="worker %(process)d: %(message)s", level=logging.WARNING)
    setting, wake = Setting.from_json(sys.stdin.readline()), threading.Event()
    threading.Thread(target=_listen, args=(wake,), daemon=True).start()
    try:
        with require_extras():
            run(setting, wake, channel)
    except CpfnetError as error:
        print(json.dumps({"error": str(error)}), file=channel, flush=True)
        os._exit(1)


if __name__ == "__main__":
    main()

"""One job in the hands of a worker: from its files in the store to results in the store.

The steps are those of `cpfnet predict` (`cpfnet.inference.batch`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from cpfnet import formats
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.inference.batch import job as steps
from cpfnet.inference.batch.item import Item
from cpfnet.inference.predictor import Predictor
from cpfnet.serve import label_maps
from cpfnet.serve.job_files import only_image, readable, unpacked
from cpfnet.serve.jobs.job import LABELS, Claim, Ending, Result
from cpfnet.serve.jobs.options import JobOptions
from cpfnet.serve.store import Store

RESULTS = Path(".results")
"""Where they are written first, beside the input's files."""

_KINDS = {"overlays": "overlay"}
"""Folders of results that are called otherwise in the API."""


def segment(
    claim: Claim, store: Store, predictor: Predictor, *, most_voxels: int, progress: Callable[[float], None]
) -> Ending:
    """Take a job to its end, all but recording it; its results are safe in the store.

    Args:
        claim: the job.
        store: its files.
        predictor: of its Model; its options become the job's.
        most_voxels: an image of more is not read.
        progress: called with the share of the work done, 0…1; what it raises that is no `Exception` comes through.
    """
    request = claim.job.request
    options = JobOptions(**request.options)
    predictor.options = options.predictor(predictor.options)
    plan, files = predictor.models[0].plan, store.files
    with _listening() as warnings, unpacked(request.input, files, store.work):
        try:
            item = only_image(plan)
            _check_size(item, most_voxels)
        except CpfnetError as error:
            return Ending("failed", str(error), {"warnings": warnings})
        order = steps.Order(RESULTS, predictor.options, options.output())
        job = steps.Job(item)
        job.do(steps.precheck, order, plan, ())
        job.do(steps.read)
        job.do(steps.segment, order, predictor, progress)
        job.do(_keep_labels)
        job.do(steps.write, order, plan)
        outcome = job.outcome
        report = {
            "warnings": warnings,
            "seconds": round(outcome.seconds, 3),
            "quality": None if outcome.quality is None else asdict(outcome.quality),
        }
        if outcome.status != "done":
            return Ending("refused" if outcome.status == "refused" else "failed", outcome.message, report)
        results = {LABELS: Result(label_maps.KEPT.name, files.add(label_maps.KEPT))}
        for pattern, path in job.wanted.items():
            kind = pattern.partition("/")[0] if "/" in pattern else "mask"
            results[_KINDS.get(kind, kind)] = Result(path.name, files.add(path))
        return Ending("done", report=report, results=results)


def _keep_labels(job: steps.Job) -> None:
    assert job.segmentation is not None  # made before
    label_maps.keep(job.segmentation)


def _check_size(item: Item, most: int) -> None:
    """Raises: FormatError: more voxels than the server takes, by the header: before memory is taken for them."""
    header = formats.read_header(readable(item))
    voxels = math.prod(header.shape) * len(header.channels)
    if voxels > most:
        raise FormatError(
            f"has {voxels} voxels, and this server takes up to {most}",
            where=item.path,
            fix="send a part of it, or predict it with `cpfnet predict`",
        )


@contextmanager
def _listening() -> Iterator[list[str]]:
    """The warnings of a job go to its user, and into no log: they name files."""
    messages: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("cpfnet"), Listener(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate

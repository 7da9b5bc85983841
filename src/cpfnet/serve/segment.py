"""One job in the hands of a worker: from its files in the store to results in the store.

The steps are those of `cpfnet predict` (`cpfnet.inference.batch`).
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from cpfnet import formats
from cpfnet.errors import CpfnetError, FormatError
from cpfnet.formats import OutputFormat
from cpfnet.image import Segmentation
from cpfnet.inference.batch import job as steps
from cpfnet.inference.batch.inputs import collect
from cpfnet.inference.batch.item import Item
from cpfnet.inference.predictor import Predictor
from cpfnet.planning import Plan
from cpfnet.serve.files import read_manifest
from cpfnet.serve.jobs.job import LABELS, Claim, Ending, Job, Result
from cpfnet.serve.jobs.options import JobOptions
from cpfnet.serve.store import Store
from cpfnet.text import brief

RESULTS = Path(".results")
"""Where they are written first, beside the input's files."""

_LABELS = Path(".labels.npz")

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
    options = JobOptions(**claim.job.request.options)
    predictor.options = options.predictor(predictor.options)
    plan = predictor.models[0].plan
    with _listening() as warnings, _unpacked(claim.job, store):
        try:
            item = _only(plan)
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
        results = {LABELS: Result(_LABELS.name, store.files.add(_LABELS))}
        for pattern, path in job.wanted.items():
            kind = pattern.partition("/")[0] if "/" in pattern else "mask"
            results[_KINDS.get(kind, kind)] = Result(path.name, store.files.add(path))
        return Ending("done", report=report, results=results)


def rewrite(job: Job, format: OutputFormat, store: Store, plan: Plan) -> Result:
    """The mask of a job that is done in another format, without asking the network again.

    Args:
        job: with its `LABELS`.
        format: but ``"same"``.
        store: its files.
        plan: of its Model.

    Raises:
        CpfnetError: the format cannot hold it.
    """
    with _unpacked(job, store):
        files = _only(plan).files
        image = formats.read(files if len(files) > 1 else files[0])
        with np.load(store.files.path(job.results[LABELS].digest).absolute()) as kept:
            name, version = kept["algorithm"].tolist()
            segmentation = Segmentation(
                kept["array"],
                kept.get("affine"),
                image.source,
                labels=plan.labels,
                algorithm=(name, version),
            )
        path = formats.write(segmentation, RESULTS / formats.stem(job.results["mask"].name), format=format)
        return Result(path.name, store.files.add(path))


def _keep_labels(job: steps.Job) -> None:
    """What the mask says, whatever format it is written in."""
    assert job.segmentation is not None  # made before
    found = job.segmentation
    arrays = {"array": found.array, "algorithm": np.array(found.algorithm or ("", ""))}
    if found.affine is not None:
        arrays["affine"] = found.affine
    np.savez_compressed(_LABELS, **arrays)  # type: ignore[arg-type]


@contextmanager
def _unpacked(job: Job, store: Store) -> Iterator[None]:
    """Work in a folder of its own with the input's files under their names, so that messages name nothing else."""
    before, files = Path.cwd(), store.files
    folder = Path(mkdtemp(dir=store.work)).absolute()
    try:
        for name, digest in read_manifest(files.path(job.request.input)).items():
            place = folder / name
            place.parent.mkdir(exist_ok=True)
            os.link(files.path(digest), place)
        os.chdir(folder)
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def _only(plan: Plan) -> Item:
    """The one image that a job is about; series beside it that the Model is not for do not count.

    Raises:
        CpfnetError: there is none, there are several, or a file cannot be read.
    """
    items = collect(["."], channels=len(plan.channels), modality=plan.modality, source=plan.source)
    wanted = [item for item in items if not item.skipped]
    for item in wanted:
        if item.error is not None:
            raise item.error
    if len(wanted) > 1:
        names = brief([item.name for item in wanted])
        raise FormatError(f"{len(wanted)} images were sent: {names}", fix="send each one as a job of its own")
    if not wanted:
        raise FormatError("no image was sent", fix=f"known are DICOM and {' '.join(formats.IMAGE_SUFFIXES)}")
    return wanted[0]


def _check_size(item: Item, most: int) -> None:
    """Raises: FormatError: more voxels than the server takes, by the header: before memory is taken for them."""
    header = formats.read_header(item.files if len(item.files) > 1 else item.files[0])
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

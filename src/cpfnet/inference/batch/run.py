"""Files in, files out: `predict` on anything a shell can name; one bad input does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from cpfnet.errors import CpfnetError
from cpfnet.files import check_writable, sweep
from cpfnet.inference.batch import records
from cpfnet.inference.batch.inputs import collect
from cpfnet.inference.batch.job import Job, Order, Outcome, is_light, precheck, read, segment, write
from cpfnet.inference.batch.records import Recipe
from cpfnet.inference.batch.result_names import BESIDE_MASKS
from cpfnet.inference.batch.resume import recall
from cpfnet.inference.batch.sharding import Shard
from cpfnet.inference.batch.signals import Ended, end, ending, telling
from cpfnet.inference.options import OutputOptions, PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.inference.quality.review_list import read_list, write_list
from cpfnet.model import Model
from cpfnet.text import printable

logger = logging.getLogger(__name__)

EngineName = Literal["local", "ray"]

Engine = Callable[[Sequence[Job], Order, Collection[Path], "Show"], None]
"""Takes every job to its end, and shows how far it is; resolved files of all inputs are given, too."""

Show = Callable[[str, float], None]
"""Called with what is being done, and how many inputs are done, a part of one counted as such."""


def predict_files(
    models: Sequence[Model],
    inputs: Sequence[str | Path],
    out: Path,
    options: PredictorOptions | None = None,
    output: OutputOptions | None = None,
    *,
    shard: str | None = None,
    engine: EngineName = "local",
    address: str | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Segment files, folders and globs, as `cpfnet.predict_files` says.

    What each result was made from stands in ``out/.cpfnet/records`` (`records`). Where a Model knows how its validation
    cases did or how bright its training images were, or with ``uncertainty``, ``out/quality.csv`` lists all label maps
    of this and other runs (`quality.review_list`).

    Raises:
        CpfnetError: as `cpfnet.predict_files`.
        KeyboardInterrupt, Ended: a signal came.
    """
    options, output = options or PredictorOptions(), output or OutputOptions()
    part = None if shard is None else Shard.parse(shard)
    recipe = Recipe.of(models, options, output)
    with ending(), ExitStack() as cleanup, _engine(engine, address, models, options) as work:
        plan = models[0].plan
        items = collect(inputs, channels=len(plan.channels), modality=plan.modality, source=plan.source, out=out)
        if not items:
            raise CpfnetError("no input was given", fix="give image files, a folder or a pattern")
        check_writable(out)
        order = Order(out, options, output, recipe)
        compares = any(model.fitted.quality or any(c.levels for c in model.fitted.channels) for model in models)
        listed = out / "quality.csv" if output.uncertainty or compares else None
        if listed is not None:
            read_list(listed)  # before the long work, not after it
        inputs_taken = {file.resolve() for item in items for file in item.files}
        jobs = [Job(item) for item in (items if part is None else part.of(items))]
        if order.replaces:
            _sweep(out, jobs)

        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        from cpfnet.progress import Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        if engine != "local":  # a worker that was lost may have been in the middle of a file
            cleanup.callback(_sweep, out, jobs)
        try:
            with Bar(*columns, show=progress) as bar:
                task = bar.add_task("predict", total=len(jobs))
                work(
                    jobs,
                    order,
                    inputs_taken,
                    lambda name, count: bar.update(task, description=printable(name), completed=count),
                )
        except BaseException as error:  # what was done before an interruption is listed, too
            if (unlisted := _finish(jobs, listed)) is not None:
                logger.warning("%s", unlisted)
            if isinstance(error, (KeyboardInterrupt, Ended)):
                done = sum(job.status == "done" for job in jobs)
                logger.warning(
                    "Stopped: %d of %d done, in %s; the same command with --resume goes on", done, len(jobs), out
                )
            raise
        unlisted = _finish(jobs, listed)
    outcomes = [job.outcome for job in jobs]
    if unlisted is not None and all(outcome.status in ("done", "skipped") for outcome in outcomes):
        raise unlisted
    if unlisted is not None:  # it must not hide which inputs failed
        logger.warning("%s", unlisted)
    return outcomes


def _finish(jobs: Sequence[Job], listed: Path | None) -> CpfnetError | None:
    """Log what was made again, and list what is done, whatever signal comes meanwhile.

    Returns:
        Why the list cannot be written.
    """
    unlisted: CpfnetError | None = None
    signals: list[int] = []
    with telling(signals.append):
        _log_made_again(jobs)
        try:
            if listed is not None:
                write_list(listed)
        except CpfnetError as error:
            unlisted = error
    if signals:
        end(signals[0])
    return unlisted


def _sweep(out: Path, jobs: Sequence[Job]) -> None:
    """Take away what killed processes left of files that they were writing."""
    names = {Path(job.item.name).parent for job in jobs if job.item.error is None}
    for place in (".", records.FOLDER, *BESIDE_MASKS):
        for folder in names:
            sweep(out / place / folder)


def _log_made_again(jobs: Sequence[Job]) -> None:
    """What was made again, a line a reason: of thousands it is mostly the same one."""
    reasons: dict[str, list[str]] = {}
    for job in jobs:
        if job.status == "done" and job.again:
            reasons.setdefault(job.again, []).append(printable(job.item.name))
    for reason, names in reasons.items():
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        logger.info("Made again: %s%s: %s", ", ".join(names[:6]), more, reason)


@contextmanager
def _engine(
    name: EngineName, address: str | None, models: Sequence[Model], options: PredictorOptions
) -> Iterator[Engine]:
    """Ready to work; what it takes is there."""
    if name == "local":
        if address is not None:
            raise CpfnetError("an address was given, and no engine that has one", fix="add --engine ray")
        yield partial(_predict_here, Predictor(models, options))
    elif name == "ray":
        from cpfnet.inference.batch.ray_cluster import connected, spread

        with connected(address):
            yield partial(spread, models)
    else:
        raise CpfnetError(f"unknown engine {name!r}", fix="choose local or ray")


def _predict_here(
    predictor: Predictor, jobs: Sequence[Job], order: Order, inputs: Collection[Path], show: Show
) -> None:
    """Take all jobs to their end in this process.

    One thread reads the next input and writes the last result while the network works: one thing at a time, so that no
    more than three inputs are in memory; of large ones just one.
    """
    plan = predictor.models[0].plan

    def begin(job: Job) -> None:
        job.do(precheck, order, plan, inputs)
        job.do(recall, order)
        job.do(read)

    ahead: Future[None] | None = None
    with ThreadPoolExecutor(1) as files:
        try:
            for number, job in enumerate(jobs):
                show(job.item.name, number)
                (ahead or files.submit(begin, job)).result()
                light = number + 1 < len(jobs) and all(is_light(one.item) for one in jobs[number : number + 2])
                ahead = files.submit(begin, jobs[number + 1]) if light else None
                job.do(segment, order, predictor, lambda share, at=(job.item.name, number): show(at[0], at[1] + share))
                written = files.submit(job.do, write, order, plan)
                if ahead is None:
                    written.result()
                show(job.item.name, number + 1)
        finally:  # what was predicted is still written
            if ahead is not None:
                ahead.cancel()

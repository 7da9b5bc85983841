"""Files in, files out: `predict` on anything a shell can name; one bad input does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from cpfnet.errors import CpfnetError, OutputError
from cpfnet.files import check_writable, sweep
from cpfnet.formats import OutputFormat
from cpfnet.inference.batch import records
from cpfnet.inference.batch.inputs import collect
from cpfnet.inference.batch.job import SUFFIXES, Job, Order, Outcome, is_light, look, read, segment, write
from cpfnet.inference.batch.records import Option, Recipe
from cpfnet.inference.batch.result_names import BESIDE_MASKS
from cpfnet.inference.batch.resume import recall
from cpfnet.inference.batch.sharding import Shard
from cpfnet.inference.batch.signals import Ended, end, ending, telling
from cpfnet.inference.predictor import Predictor
from cpfnet.inference.quality.review_list import read_list, write_list
from cpfnet.model import Model
from cpfnet.text import printable

Engine = Callable[[Sequence[Job], Order, Collection[Path], "Show"], None]
"""Takes every job to its end, and shows how far it is; resolved files of all inputs are given, too."""

Show = Callable[[str, float], None]
"""Told what is being done, and how many inputs are done, a part of one counted as such."""


def predict_files(
    models: Sequence[Model],
    inputs: Sequence[str | Path],
    out: Path,
    *,
    format: OutputFormat = "same",
    probabilities: bool = False,
    uncertainty: bool = False,
    overlays: bool = False,
    tta: bool = False,
    overlap: float | None = None,
    tile: int | Sequence[int] | None = None,
    batch: int | None = None,
    force: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    shard: Shard | None = None,
    engine: str = "local",
    address: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    progress: bool = False,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Segment files, folders and globs.

    See `inputs.collect` for what folders mean, how channel files come together and how results are called.

    Args:
        models: several average their probabilities.
        inputs: as a shell would pass them, patterns too.
        out: folder for the label maps; made if need be.
        format: of the label maps; ``same``: as the input (PNG for a JPEG; a DICOM segmentation for DICOM).
        probabilities: write them to ``out/probabilities``, too.
        uncertainty: write maps of it to ``out/uncertainty``, too.
        overlays: write pictures with boundary lines to ``out/overlays``, too.
        tta, overlap, tile, batch, backend, device: see `Predictor`.
        force: go on with inputs outside what a Model was fitted for.
        overwrite: replace existing results; inputs are never replaced.
        resume: go on with an interrupted run: what an earlier run made from the same content with the same Models and options, and is still as it
            was made, is done; what differs or is damaged is made again, and said. What somebody else made or changed is refused, unless ``overwrite``.
        shard: do this part of the inputs only.
        engine: ``"local"``: this process; ``"ray"``: workers on all machines of a cluster (`cluster`).
        address: of the cluster.
        progress: show a bar.
        say: told what the user should know.

    What each result was made from stands in ``out/.cpfnet/records`` (`records`). Where a Model knows how its validation cases did or how bright its
    training images were, or with ``uncertainty``, ``out/quality.csv`` lists all label maps of this and other runs, those to look at first on top (`triage`).
    SIGTERM and SIGHUP end the run as Ctrl-C does: what is done is listed and said.

    Returns:
        One Outcome an image, in order.

    Raises:
        CpfnetError: no input at all, Models that do not belong together, no such cluster, or ``out`` cannot be written; all is done, and only
            ``quality.csv`` cannot be written.
        KeyboardInterrupt, Ended: a signal came.
    """
    if format not in SUFFIXES:
        raise OutputError(f"unknown format {format!r}", fix=f"choose {', '.join(SUFFIXES)}")
    options = {"device": device, "backend": backend, "tta": tta, "overlap": overlap, "tile": tile, "batch": batch}
    with ending(), ExitStack() as cleanup, _engine(engine, address, models, options, say) as work:
        plan = models[0].plan
        items = collect(
            inputs, channels=len(plan.channels), modality=plan.modality, source=plan.source, out=out, say=say
        )
        if not items:
            raise CpfnetError("no input was given", fix="give image files, a folder or a pattern")
        check_writable(out)
        recipe = Recipe(tuple(sorted(model.digest for model in models)), _that_count(format, options))
        order = Order(out, format, probabilities, uncertainty, overlays, force, overwrite, resume, recipe)
        compares = any(model.fitted.quality or any(c.levels for c in model.fitted.channels) for model in models)
        listed = out / "quality.csv" if uncertainty or compares else None
        if listed is not None:
            read_list(listed)  # before the long work, not after it
        inputs_taken = {file.resolve() for item in items for file in item.files}
        jobs = [Job(item) for item in (items if shard is None else shard.of(items))]
        if resume or overwrite:
            _sweep(out, jobs)

        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

        from cpfnet.progress import Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        if engine != "local":  # a worker that was lost may have been in the middle of a file
            cleanup.callback(_sweep, out, jobs)
        finish = partial(_finish, jobs, listed, say)
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
            if (unlisted := finish()) is not None:
                say(str(unlisted))
            if isinstance(error, (KeyboardInterrupt, Ended)):
                done = sum(job.status == "done" for job in jobs)
                say(f"Stopped: {done} of {len(jobs)} done, in {out}; the same command with --resume goes on")
            raise
        unlisted = finish()
    outcomes = [job.outcome for job in jobs]
    if unlisted is not None and all(outcome.status in ("done", "skipped") for outcome in outcomes):
        raise unlisted
    if unlisted is not None:  # it must not hide which inputs failed
        say(str(unlisted))
    return outcomes


def _finish(jobs: Sequence[Job], listed: Path | None, say: Callable[[str], None]) -> CpfnetError | None:
    """Tell what was made again, and list what is done, whatever signal comes meanwhile; why the list cannot be written."""
    unlisted: CpfnetError | None = None
    signals: list[int] = []
    with telling(signals.append):
        _say_again(jobs, say)
        try:
            if listed is not None:
                write_list(listed)
        except CpfnetError as error:
            unlisted = error
    if signals:
        end(signals[0])
    return unlisted


_EXACT = ("auto", "torch", "onnx", "openvino")
"""Backends that decide as float32 does: the same masks, whichever runs."""


def _that_count(format: str, options: Mapping[str, Any]) -> dict[str, Option]:
    """The options that change what is written, as records tell them."""
    backend = options["backend"] if isinstance(options["backend"], str) else "given"
    tile = options["tile"]
    sizes = (
        (tile,) if tile is None or isinstance(tile, int) else tuple(dict.fromkeys(tile) if len({*tile}) == 1 else tile)
    )
    return {
        "format": format,
        "backend": "float32" if backend in _EXACT else backend,
        "tta": options["tta"],
        "overlap": options["overlap"],
        "tile": None if tile is None else "x".join(map(str, sizes)),
    }


def _sweep(out: Path, jobs: Sequence[Job]) -> None:
    """Take away what killed processes left of files that they were writing."""
    names = {Path(job.item.name).parent for job in jobs if job.item.error is None}
    for place in (".", records.FOLDER, *BESIDE_MASKS):
        for folder in names:
            sweep(out / place / folder)


def _say_again(jobs: Sequence[Job], say: Callable[[str], None]) -> None:
    """What was made again, a line a reason: of thousands it is mostly the same one."""
    reasons: dict[str, list[str]] = {}
    for job in jobs:
        if job.status == "done" and job.again:
            reasons.setdefault(job.again, []).append(printable(job.item.name))
    for reason, names in reasons.items():
        say(f"Made again: {', '.join(names[:6])}{f' and {len(names) - 6} more' if len(names) > 6 else ''}: {reason}")


@contextmanager
def _engine(
    name: str, address: str | None, models: Sequence[Model], options: dict[str, Any], say: Callable[[str], None]
) -> Iterator[Engine]:
    """Ready to work; what it takes is there."""
    if name == "local":
        if address is not None:
            raise CpfnetError("an address was given, and no engine that has one", fix="add --engine ray")
        predictor = Predictor(models, say=say, **options)
        yield partial(_here, predictor, say)
    elif name == "ray":
        from cpfnet.inference.batch.ray_cluster import connected, spread

        with connected(address):
            yield partial(spread, models, options, say)
    else:
        raise CpfnetError(f"unknown engine {name!r}", fix="choose local or ray")


def _here(
    predictor: Predictor,
    say: Callable[[str], None],
    jobs: Sequence[Job],
    order: Order,
    inputs: Collection[Path],
    show: Show,
) -> None:
    """All in this process. One thread reads the next input and writes the last result while the network works: one thing at a time, so
    that no more than three inputs are in memory; of large ones just one."""
    plan = predictor.models[0].plan

    def begin(job: Job) -> None:
        job.do(look, order, plan, inputs)
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
                job.do(
                    segment, order, predictor, say, lambda share, at=(job.item.name, number): show(at[0], at[1] + share)
                )
                written = files.submit(job.do, write, order, plan)
                if ahead is None:
                    written.result()
                show(job.item.name, number + 1)
        finally:  # what was predicted is still written
            if ahead is not None:
                ahead.cancel()

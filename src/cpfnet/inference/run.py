"""Files in, files out: `predict` on anything a shell can name; one bad input does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpfnet import formats
from cpfnet.errors import CpfnetError, InputRefused, OutputError, complaint
from cpfnet.files import check_writable
from cpfnet.formats import OutputFormat
from cpfnet.formats.files import SERIES
from cpfnet.image import Assessment, Image, Segmentation
from cpfnet.inference.inputs import Item, collect
from cpfnet.inference.predictor import Predictor, refusal, unfit
from cpfnet.inference.sharding import Shard
from cpfnet.inference.triage import read_list, write_list
from cpfnet.model import Model

LIGHT = 128 * 2**20
"""Bytes on disk up to which inputs are read ahead, while others are predicted."""


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: the input: a file (of several channel files the first), or the folder, archive or reference of a DICOM series.
        status: ``skipped``: a DICOM series that the Models are not for, found beside one of the same study that fits; ``refused``:
            outside what the Model was fitted for; ``failed``: unreadable, or the result unwritable.
        message: what is wrong and how to mend it; empty when done.
        output: the label map written.
        seconds: reading, predicting and writing.
        notes: what was repaired or assumed while reading.
        quality: what the prediction tells of itself, and why to look at it first; None unless done in this run.
    """

    path: Path
    status: Literal["done", "skipped", "refused", "failed"]
    message: str = ""
    output: Path | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    quality: Assessment | None = None


class _Job:
    """What is known of one input on its way: read, segmented, written. A step that fails is its last one."""

    def __init__(self, item: Item):
        self.item = item
        self.status: Literal["done", "skipped", "refused", "failed"] | None = None
        self.message, self.seconds = "", 0.0
        self.targets: tuple[Path, ...] = ()
        self.image: Image | None = None
        self.segmentation: Segmentation | None = None
        self.output: Path | None = None
        self.notes: tuple[str, ...] = ()
        self.quality: Assessment | None = None

    def end(self, status: Literal["done", "skipped", "refused", "failed"], message: str = "") -> None:
        self.status, self.message = status, message
        self.image = self.segmentation = None

    def do(self, step: Callable[..., None], *more: object) -> None:
        """Take a step, unless all is said already."""
        if self.status is not None:
            return
        start = time.perf_counter()
        try:
            step(self, *more)
        except CpfnetError as error:
            self.end("refused" if isinstance(error, InputRefused) else "failed", str(error))
        except MemoryError:
            self.end(
                "failed", f"{self.item.path}: does not fit into memory\n  → free memory, or cut the image into parts"
            )
        except Exception as error:  # whatever is wrong with this one, the others are still to be done
            self.end("failed", f"{self.item.path}: unexpected {type(error).__name__}: {complaint(error)}")
        self.seconds += time.perf_counter() - start

    def find_targets(self, out: Path, format: OutputFormat) -> tuple[Path, ...]:
        self.targets = _targets(self.item, out, format)
        return self.targets

    @property
    def outcome(self) -> Outcome:
        assert self.status is not None  # the last step says so
        done = self.status == "done"
        output = self.output if done else None
        return Outcome(self.item.path, self.status, self.message, output, self.seconds, self.notes, self.quality)


_SUFFIXES = {
    "same": "",
    "nifti": ".nii.gz",
    "png": ".png",
    "tiff": ".tif",
    "dicom-seg": ".seg.dcm",
    "dicom-labelmap": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
}


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
    batch: int | None = None,
    force: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    shard: Shard | None = None,
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
        tta, overlap, batch, backend, device: see `Predictor`.
        force: go on with inputs outside what a Model was fitted for.
        overwrite: replace existing results; inputs are never replaced.
        resume: go on with an interrupted run: an input all of whose results are there is done, and where only some are, they are made again.
        shard: do this part of the inputs only.
        progress: show a bar.
        say: told what the user should know.

    Where a Model knows how its validation cases did or how bright its training images were, or with ``uncertainty``, ``out/quality.csv`` lists the label maps, those to look at
    first on top (`triage`); rows of earlier runs stay. A part of a job writes a list of its own, ``quality-i-of-n.csv``.

    Returns:
        One Outcome an image, in order.

    Raises:
        CpfnetError: no input at all, Models that do not belong together, or ``out`` cannot be written.
    """
    if format not in _SUFFIXES:
        raise OutputError(f"unknown format {format!r}", mend=f"choose {', '.join(_SUFFIXES)}")
    predictor = Predictor(models, device=device, backend=backend, tta=tta, overlap=overlap, batch=batch, say=say)
    plan = models[0].plan
    items = collect(inputs, channels=len(plan.channels), modality=plan.modality, source=plan.source, out=out)
    if not items:
        raise CpfnetError("no input was given", mend="give image files, a folder or a pattern")
    check_writable(out)
    compares = any(model.fitted.quality or any(c.levels for c in model.fitted.channels) for model in models)
    if shard is not None:
        items = shard.of(items)
    listed = out / f"quality{f'-{shard}' if shard else ''}.csv" if uncertainty or compares else None
    if listed is not None:
        read_list(listed)  # before the long work, not after it
    inputs_taken = {file.resolve() for item in items for file in item.files}

    def read(job: _Job) -> None:
        item = job.item
        if item.skipped:
            what = f"{item.skipped}; another series of its study fits"
            other = unfit(item.modality, plan.modality) is not None  # nothing else can be forced
            mend = "name it with --force to have it segmented all the same" if other else None
            job.end("skipped", str(InputRefused(what, where=item.path, mend=mend)))
            return
        if item.error is not None:
            raise item.error
        if (reason := unfit(item.modality, plan.modality)) and not force:  # before hundreds of slices are read
            raise refusal([reason], item.path)
        asked = zip(job.find_targets(out, format), (True, probabilities, uncertainty, overlays), strict=True)
        wanted = [path for path, one in asked if one]
        if resume and all(path.exists() for path in wanted):
            job.output = wanted[0]
            job.end("done")
            return
        for path in wanted:
            _check_free(path, inputs_taken, overwrite or resume)  # before the long work, not after it
        job.image = formats.read(item.files if len(item.files) > 1 else item.files[0])

    def segment(job: _Job, report: Callable[[float], None]) -> None:
        assert job.image is not None  # read before
        job.notes = job.image.notes
        for note in job.notes:
            say(f"{job.item.name}: {note}")
        job.segmentation = predictor.predict(
            job.image, force=force, keep_probabilities=probabilities, uncertainty=uncertainty, progress=report
        )
        if not overlays:
            job.image = None

    def write(job: _Job) -> None:
        segmentation, replace = job.segmentation, overwrite or resume
        assert segmentation is not None  # made before
        mask, maps, doubt, picture = job.targets
        job.output = formats.write(segmentation, mask, format=format, overwrite=replace)
        if segmentation.probabilities is not None:
            names = segmentation.classes
            formats.write_map(segmentation.probabilities, segmentation, maps, names=names, overwrite=replace)
        if segmentation.uncertainty is not None:
            formats.write_map(segmentation.uncertainty, segmentation, doubt, names=["uncertainty"], overwrite=replace)
        if job.image is not None:
            from cpfnet.inference.overlay import write_overlay

            write_overlay(job.image, segmentation, plan, picture, overwrite=replace)
        job.quality = segmentation.quality
        job.end("done")

    def finish(job: _Job) -> None:
        job.do(write)
        outcomes.append(job.outcome)

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from cpfnet.progress import Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    outcomes: list[Outcome] = []
    try:
        with Bar(*columns, show=progress) as bar:
            task = bar.add_task("predict", total=len(items))
            jobs = [_Job(item) for item in items]
            ahead: Future[None] | None = None
            # One thread reads the next input and writes the last result while the network works: one thing at a time, so that no more
            # than three inputs are in memory; of large ones just one.
            with ThreadPoolExecutor(1) as files:
                try:
                    while jobs:
                        job, number = jobs.pop(0), len(items) - len(jobs) - 1
                        bar.update(task, description=job.item.name)
                        (ahead or files.submit(job.do, read)).result()
                        light = bool(jobs) and _is_light(job.item) and _is_light(jobs[0].item)
                        ahead = files.submit(jobs[0].do, read) if light else None
                        job.do(segment, lambda share, number=number: bar.update(task, completed=number + share))
                        written = files.submit(finish, job)
                        del job
                        if ahead is None:
                            written.result()
                        bar.update(task, completed=number + 1)
                finally:  # what was predicted is still written
                    if ahead is not None:
                        ahead.cancel()
    finally:  # what was done before an interruption is listed, too
        judged = {o.output.name: o.quality for o in outcomes if o.output is not None and o.quality is not None}
        if listed is not None and judged:
            write_list(listed, judged)
    return outcomes


def _targets(item: Item, out: Path, format: OutputFormat) -> tuple[Path, Path, Path, Path]:
    """Where the label map, the probabilities and the uncertainty (formats that hold floats only) and the overlay go."""
    own = ".seg.dcm" if formats.is_dicom(item.files[0]) else formats.suffix_of(item.files[0])
    suffix = _SUFFIXES[format] or {".jpg": ".png", ".jpeg": ".png"}.get(own, own)  # JPEG would change the values
    if suffix.endswith(".dcm") and own != ".seg.dcm":
        raise OutputError(
            f"is no DICOM image, which {format} would refer to", where=item.path, mend="choose --format nifti or same"
        )
    floats = {".rtstruct.dcm": ".seg.dcm"}.get(suffix, suffix)
    floats = floats if floats in (".nii", ".nii.gz", ".tif", ".tiff", ".seg.dcm") else ".tif"
    return (
        out / (item.name + suffix),
        out / "probabilities" / (item.name + floats),
        # DICOM has no object for it that viewers show: fractional segments are probabilities of classes.
        out / "uncertainty" / (item.name + (".nii.gz" if floats == ".seg.dcm" else floats)),
        out / "overlays" / (item.name + ".png"),
    )


def _is_light(item: Item) -> bool:
    """May it lie in memory beside others? By its size on disk, which takes no time to find."""
    size = 0
    for path in item.files:
        place = path.parent if path.name.startswith(SERIES) else path
        try:
            files = place.rglob("*") if place.is_dir() else [place]
            size += sum(file.stat().st_size for file in files)
        except OSError:  # said when it is read
            return True
    return size <= LIGHT


def _check_free(path: Path, inputs: set[Path], overwrite: bool) -> None:
    if path.resolve() in inputs:
        raise OutputError("would replace an input", where=path, mend="write to another folder (-o)")
    if path.exists() and not overwrite:
        raise OutputError("exists already", where=path, mend="write to another folder (-o), or pass --overwrite")

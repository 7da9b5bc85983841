"""One input from its files to its results: prechecked, read, segmented, written. A step that fails is its last one.

The steps are the same wherever they are taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from cpfnet import formats
from cpfnet.errors import CpfnetError, FormatError, InputRefused, OutputError, is_out_of_memory, redacted_message
from cpfnet.files import check_free
from cpfnet.formats.file_types import is_stack, place_of
from cpfnet.formats.writing import map_suffix, mask_suffix
from cpfnet.image import Assessment, Image, Segmentation
from cpfnet.inference.batch import records
from cpfnet.inference.batch.item import Item
from cpfnet.inference.batch.records import Content, Recipe, Record
from cpfnet.inference.input_checks import modality_mismatch, refusal
from cpfnet.inference.options import OutputOptions, PredictorOptions
from cpfnet.inference.predictor import Predictor
from cpfnet.planning import Plan
from cpfnet.text import printable

logger = logging.getLogger(__name__)

LIGHT = 128 * 2**20
"""Bytes on disk up to which an input may lie in memory beside others."""

Status = Literal["done", "skipped", "refused", "failed"]


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        path: the input: a file (of several channel files the first), or the folder, archive or reference of a DICOM
            series.
        status: ``skipped``: a DICOM series that the Models are not for, found beside one of the same study that fits;
            ``refused``: outside what the Model was fitted for; ``failed``: unreadable, or the result unwritable.
        message: what is wrong and how to fix it; empty when done.
        output: the label map written.
        seconds: reading, predicting and writing.
        warnings: what was repaired or assumed while reading.
        quality: what the prediction tells of itself, and why to look at it first; None unless done.
        already_done: an earlier run had done it, from the same input in the same way; its results are as they were.
        again: why it was made again though an earlier run had made something under this name; else empty.
    """

    path: Path
    status: Status
    message: str = ""
    output: Path | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    quality: Assessment | None = None
    already_done: bool = False
    again: str = ""


@dataclass(frozen=True)
class Order:
    """What is to be made of every input, and how.

    Attributes:
        out: folder for the results.
        options: how the Models predict.
        output: what is written.
        recipe: what the records tell of it.
    """

    out: Path
    options: PredictorOptions = field(default_factory=PredictorOptions)
    output: OutputOptions = field(default_factory=OutputOptions)
    recipe: Recipe = field(default_factory=Recipe)

    @property
    def replaces(self) -> bool:
        """Whether results that exist may be replaced."""
        return self.output.overwrite or self.output.resume


class Job:
    """What is known of one input on its way.

    Its pixels are let go at its end; without them it travels between processes.
    """

    def __init__(self, item: Item):
        self.item = item
        self.status: Status | None = None
        self.message, self.seconds = "", 0.0
        self.wanted: dict[str, Path] = {}
        self.content: Content | None = None
        self.image: Image | None = None
        self.segmentation: Segmentation | None = None
        self.output: Path | None = None
        self.warnings: tuple[str, ...] = ()
        self.quality: Assessment | None = None
        self.already_done = self.forced = False
        self.again = ""

    def end(self, status: Status, message: str = "") -> None:
        self.status, self.message = status, message
        self.image = self.segmentation = self.content = None

    def do(self, step: Callable[..., None], *more: object) -> None:
        """Take a step, unless an earlier one was the last."""
        if self.status is not None:
            return
        start = time.perf_counter()
        try:
            step(self, *more)
        except CpfnetError as error:
            self.end("refused" if isinstance(error, InputRefused) else "failed", str(error))
        except Exception as error:
            # Whatever is wrong with this one, the others are still to be done.
            what = f"unexpected {type(error).__name__}: {redacted_message(error)}"
            if is_out_of_memory(error):
                what = "does not fit into memory\n  → close other programs, or predict with a smaller --tile or --batch"
            self.end("failed", f"{self.item.path}: {what}")
        self.seconds += time.perf_counter() - start

    @property
    def outcome(self) -> Outcome:
        assert self.status is not None  # the last step says so
        done = self.status == "done"
        output = self.output if done else None
        return Outcome(
            path=self.item.path,
            status=self.status,
            message=self.message,
            output=output,
            seconds=self.seconds,
            warnings=self.warnings,
            quality=self.quality if done else None,
            already_done=self.already_done,
            again=self.again if done else "",
        )


def precheck(job: Job, order: Order, plan: Plan, inputs: Collection[Path]) -> None:
    """Find out what can be known without reading: what the Model is not for, and what is in the way.

    Args:
        job: begun here.
        order: what to make.
        plan: of the Models.
        inputs: resolved files of all inputs, which are never replaced.
    """
    item, output = job.item, order.output
    mismatch = modality_mismatch(item.modality, plan.modality)
    if item.skipped:
        what = f"{item.skipped}; another series of its study fits"
        fix = (
            "name it with --force to have it segmented all the same" if mismatch else None
        )  # nothing else can be forced
        job.end("skipped", str(InputRefused(what, where=item.path, fix=fix)))
        return
    if item.error is not None:
        raise item.error
    if mismatch and not order.options.force:  # before hundreds of slices are read
        raise refusal([mismatch], item.path)
    wanted = (True, output.probabilities, output.uncertainty, output.overlays)
    patterns = [pattern for pattern, asked in zip(_patterns(item, output), wanted, strict=True) if asked]
    job.wanted = {pattern: order.out / pattern.replace("*", item.name, 1) for pattern in patterns}
    for path in job.wanted.values():
        if formats.stem(path) != Path(item.name).name:
            raise OutputError(
                f"its result would be {path.name}, which is what a result of {formats.stem(path)} is called",
                where=item.path,
                fix="rename the input, or choose another --format",
            )
        _check_free(path, inputs, order.replaces)  # before the long work, not after it


def read(job: Job) -> None:
    """Raises: FormatError: it cannot be read, or changed meanwhile, so that no record could tell what was read."""
    files = job.item.files
    content = job.content
    if content is None and not formats.is_dicom(files[0]):
        content = records.content_of(files)
    job.image = formats.read(files if len(files) > 1 else files[0])
    content = content or records.content_of(files, job.image)
    paths = job.image.source.paths if job.image.source is not None else ()
    if content.changed or not content.stamps.keys() >= set(paths):
        raise FormatError(
            "changed while it was read", where=job.item.path, fix="once it is copied whole, go on with --resume"
        )
    job.content = content


def segment(job: Job, order: Order, predictor: Predictor, progress: Callable[[float], None] | None) -> None:
    """Have the network look at it.

    Raises:
        InputRefused, FormatError: as `Predictor.predict`.
        OutputError: results of another input are in the way.
    """
    assert job.image is not None  # read before
    _, stale = _others(job, order, _before(job, order))
    if stale and not order.replaces:
        raise OutputError(
            "was made from another image, by another Model or in another way, so it cannot stay beside the new result "
            f"of {job.item.path}",
            where=stale[0],
            fix="write to another folder (-o), or have it replaced by adding --overwrite",
        )
    job.warnings = job.image.warnings
    for warning in job.warnings:
        logger.warning("%s: %s", printable(job.item.name), warning)
    job.forced = predictor.options.force and bool(predictor.out_of_range(job.image))
    job.segmentation = predictor.predict(
        job.image,
        progress=progress,
        keep_probabilities=order.output.probabilities,
        uncertainty=order.output.uncertainty,
    )
    if not order.output.overlays:
        job.image = None


def write(job: Job, order: Order, plan: Plan) -> None:
    """Each file whole or not at all, then the record that says so; the job is done then.

    A record that says that files are being replaced comes first: whoever resumes knows then whose they are.
    """
    segmentation, out, name = job.segmentation, order.out, job.item.name
    assert segmentation is not None  # made before
    assert job.content is not None
    before = _before(job, order)
    others, stale = _others(job, order, before)
    record = Record(
        input=job.content.digest,
        models=order.recipe.models,
        options=dict(order.recipe.options),
        forced=job.forced,
        writing=True,
        files={} if before is None else before.files,
        warnings=tuple(map(printable, job.warnings)),
        quality=segmentation.quality,
    )
    records.keep(out, name, record)
    _write_results(job, order, plan)
    for path in stale:
        path.unlink()
    for _ in range(3):  # another process that makes the same may replace a file in between
        stamps = [path.stat() for path in job.wanted.values()]
        files = {pattern: records.sha256_now(path) for pattern, path in job.wanted.items()}
        records.keep(out, name, record.model_copy(update={"writing": False, "files": files | others}))
        if all(path.stat().st_ino == stamp.st_ino for path, stamp in zip(job.wanted.values(), stamps, strict=True)):
            break
    job.output, job.quality = next(iter(job.wanted.values())), segmentation.quality
    job.end("done")


def _write_results(job: Job, order: Order, plan: Plan) -> None:
    segmentation, overwrite = job.segmentation, order.replaces
    assert segmentation is not None
    for pattern, path in job.wanted.items():
        match pattern.partition("/")[0]:
            case "probabilities":
                assert segmentation.probabilities is not None  # asked for
                names = segmentation.classes
                formats.write_map(segmentation.probabilities, segmentation, path, names=names, overwrite=overwrite)
            case "uncertainty":
                assert segmentation.uncertainty is not None
                formats.write_map(
                    segmentation.uncertainty, segmentation, path, names=["uncertainty"], overwrite=overwrite
                )
            case "overlays":
                from cpfnet.inference.batch.overlay import write_overlay

                assert job.image is not None  # kept for this
                write_overlay(job.image, segmentation, plan, path, overwrite=overwrite)
            case _:
                formats.write(segmentation, path, format=order.output.format, overwrite=overwrite)


def _others(job: Job, order: Order, before: Record | None) -> tuple[dict[str, str], list[Path]]:
    """What else an earlier run made under this name, and nobody changed.

    Returns:
        What tells of the same input and Models, in another format, too; and what does not: a map of another image
        beside the new mask would be taken for the mask's own.
    """
    kept: dict[str, str] = {}
    stale: list[Path] = []
    if before is None:
        return kept, stale
    assert job.content is not None  # known before it is segmented
    options = {**order.recipe.options, "format": before.options.get("format")}
    recipe = replace(order.recipe, options=options)
    same = not before.writing and not before.differences(job.content.digest, recipe, force=True)
    for pattern, digest in before.files.items():
        path = order.out / pattern.replace("*", job.item.name, 1)
        if pattern in job.wanted or not path.is_file() or records.sha256_now(path) != digest:
            continue
        if same:
            kept[pattern] = digest
        else:
            stale.append(path)
    return kept, stale


def _before(job: Job, order: Order) -> Record | None:
    try:
        return records.find(order.out, job.item.name)
    except ValueError:  # damaged: what it told of is nobody's
        return None


def _patterns(item: Item, output: OutputOptions) -> tuple[str, str, str, str]:
    """Where the label map, the probabilities, the uncertainty and the overlay go: * is the item's name."""
    first = item.files[0]
    own = ".seg.dcm" if formats.is_dicom(first) else ".tif" if is_stack(first) else formats.suffix_of(first)
    suffix = mask_suffix(own, output.format)
    if suffix.endswith(".dcm") and own != ".seg.dcm":
        raise OutputError(
            f"is no DICOM image, which {output.format} would refer to",
            where=item.path,
            fix="choose --format nifti or same",
        )
    floats = map_suffix(suffix)
    # DICOM has no object for the uncertainty that viewers show: fractional segments are probabilities of classes.
    uncertainty = ".nii.gz" if floats == ".seg.dcm" else floats
    return f"*{suffix}", f"probabilities/*{floats}", f"uncertainty/*{uncertainty}", "overlays/*.png"


def is_light(item: Item) -> bool:
    """May it lie in memory beside others? By its size on disk, which takes no time to find."""
    size = 0
    for path in item.files:
        here = place_of(path)
        try:
            files = here.rglob("*") if here.is_dir() else [here]
            size += sum(file.stat().st_size for file in files)
        except OSError:  # said when it is read
            return True
    return size <= LIGHT


def _check_free(path: Path, inputs: Collection[Path], overwrite: bool) -> None:
    if path.resolve() in inputs:
        raise OutputError("would replace an input", where=path, fix="write to another folder (-o)")
    if path.is_dir():
        raise OutputError(
            "is a folder, where a result is to be written",
            where=path,
            fix="move it elsewhere, or write to another folder (-o)",
        )
    check_free(path, overwrite=overwrite)

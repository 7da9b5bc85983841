"""One input on its way: looked at, read, segmented, written; the same steps wherever they are taken. A step that fails is its last one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cpfnet import formats
from cpfnet.errors import CpfnetError, InputRefused, OutputError, complaint
from cpfnet.formats import OutputFormat
from cpfnet.formats.files import JPEG_SUFFIXES, SERIES
from cpfnet.image import Assessment, Image, Segmentation
from cpfnet.inference.inputs import Item
from cpfnet.inference.predictor import Predictor, refusal, unfit
from cpfnet.planning import Plan

LIGHT = 128 * 2**20
"""Bytes on disk up to which an input may lie in memory beside others."""

Status = Literal["done", "skipped", "refused", "failed"]


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
        there: an earlier run had done it, with whatever options; its results are as they were.
    """

    path: Path
    status: Status
    message: str = ""
    output: Path | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    quality: Assessment | None = None
    there: bool = False


@dataclass(frozen=True)
class Order:
    """What is to be made of every input: see `cpfnet.inference.run.predict_files`."""

    out: Path
    format: OutputFormat = "same"
    probabilities: bool = False
    uncertainty: bool = False
    overlays: bool = False
    force: bool = False
    overwrite: bool = False
    resume: bool = False


class Job:
    """What is known of one input on its way. Its pixels are let go at its end; without them it travels between processes."""

    def __init__(self, item: Item):
        self.item = item
        self.status: Status | None = None
        self.message, self.seconds = "", 0.0
        self.targets: tuple[Path, ...] = ()
        self.image: Image | None = None
        self.segmentation: Segmentation | None = None
        self.output: Path | None = None
        self.notes: tuple[str, ...] = ()
        self.quality: Assessment | None = None
        self.there = False

    def end(self, status: Status, message: str = "") -> None:
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

    @property
    def outcome(self) -> Outcome:
        assert self.status is not None  # the last step says so
        done = self.status == "done"
        output = self.output if done else None
        return Outcome(
            self.item.path, self.status, self.message, output, self.seconds, self.notes, self.quality, self.there
        )


def look(job: Job, order: Order, plan: Plan, inputs: Collection[Path]) -> None:
    """Find out what can be known without reading: what the Model is not for, what is done already, what is in the way.

    Args:
        job: begun here.
        order: what to make.
        plan: of the Models.
        inputs: resolved files of all inputs, which are never replaced.
    """
    item = job.item
    if item.skipped:
        what = f"{item.skipped}; another series of its study fits"
        other = unfit(item.modality, plan.modality) is not None  # nothing else can be forced
        mend = "name it with --force to have it segmented all the same" if other else None
        job.end("skipped", str(InputRefused(what, where=item.path, mend=mend)))
        return
    if item.error is not None:
        raise item.error
    if (reason := unfit(item.modality, plan.modality)) and not order.force:  # before hundreds of slices are read
        raise refusal([reason], item.path)
    job.targets = _targets(item, order.out, order.format)
    asked = zip(job.targets, (True, order.probabilities, order.uncertainty, order.overlays), strict=True)
    wanted = [path for path, one in asked if one]
    if order.resume and all(path.exists() for path in wanted):
        job.output, job.there = wanted[0], True
        job.end("done")
        return
    for path in wanted:
        _check_free(path, inputs, order.overwrite or order.resume)  # before the long work, not after it


def read(job: Job) -> None:
    files = job.item.files
    job.image = formats.read(files if len(files) > 1 else files[0])


def segment(
    job: Job, order: Order, predictor: Predictor, say: Callable[[str], None], progress: Callable[[float], None] | None
) -> None:
    assert job.image is not None  # read before
    job.notes = job.image.notes
    for note in job.notes:
        say(f"{job.item.name}: {note}")
    job.segmentation = predictor.predict(
        job.image,
        force=order.force,
        keep_probabilities=order.probabilities,
        uncertainty=order.uncertainty,
        progress=progress,
    )
    if not order.overlays:
        job.image = None


def write(job: Job, order: Order, plan: Plan) -> None:
    """Each file whole or not at all; the job is done then."""
    segmentation, replace = job.segmentation, order.overwrite or order.resume
    assert segmentation is not None  # made before
    mask, maps, doubt, picture = job.targets
    job.output = formats.write(segmentation, mask, format=order.format, overwrite=replace)
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


SUFFIXES = {
    "same": "",
    "nifti": ".nii.gz",
    "png": ".png",
    "tiff": ".tif",
    "dicom-seg": ".seg.dcm",
    "dicom-labelmap": ".seg.dcm",
    "rtstruct": ".rtstruct.dcm",
}


def _targets(item: Item, out: Path, format: OutputFormat) -> tuple[Path, Path, Path, Path]:
    """Where the label map, the probabilities and the uncertainty (formats that hold floats only) and the overlay go."""
    own = ".seg.dcm" if formats.is_dicom(item.files[0]) else formats.suffix_of(item.files[0])
    suffix = SUFFIXES[format] or dict.fromkeys(JPEG_SUFFIXES, ".png").get(own, own)  # JPEG would change the values
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


def place(path: Path) -> Path:
    """Where an item's file lies on disk: of a reference to a series, the folder or archive that holds it."""
    return path.parent if path.name.startswith(SERIES) else path


def is_light(item: Item) -> bool:
    """May it lie in memory beside others? By its size on disk, which takes no time to find."""
    size = 0
    for path in item.files:
        here = place(path)
        try:
            files = here.rglob("*") if here.is_dir() else [here]
            size += sum(file.stat().st_size for file in files)
        except OSError:  # said when it is read
            return True
    return size <= LIGHT


def _check_free(path: Path, inputs: Collection[Path], overwrite: bool) -> None:
    if path.resolve() in inputs:
        raise OutputError("would replace an input", where=path, mend="write to another folder (-o)")
    if path.exists() and not overwrite:
        raise OutputError("exists already", where=path, mend="write to another folder (-o), or pass --overwrite")

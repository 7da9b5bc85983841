"""Training cases, decoded and preprocessed once, as memory-mapped arrays: RAM does not grow with the data set.

One folder a case, named after everything that shapes its content (the plan's data part, the files' names, sizes and
times), made whole or not at all:

    image.npy      (channels, [depth,] height, width), as the network's grid has it: float32, or with table.npy what
                   its numbers mean (`stored_image`); where there is a first stage, the codes of what it found are one
                   channel more
    codes.npy      uint8 (readers, [depth,] height, width); outside the region of interest IGNORED or OUTSIDE
    positions.npy  int64, flat indices of some pixels of every code, for patches centred on a structure
    meta.json      `Cached`, less the folder
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cpfnet import formats, preprocessing
from cpfnet.data.case import Case, placed
from cpfnet.errors import DatasetError, OutputError, TrainingError
from cpfnet.label_values import region_mask
from cpfnet.labels import IGNORED, OUTSIDE, empty_outside, encode
from cpfnet.messages import label_messages
from cpfnet.planning import Plan
from cpfnet.preprocessing import spatial
from cpfnet.preprocessing.intensity import extent, levels
from cpfnet.training.samples.stored_image import StoredImage, exactly, rounded
from cpfnet.training.signals import leave_signals

logger = logging.getLogger(__name__)

ANNOTATED = 0
"""Stands for "any annotated pixel" among the codes of `Cached.positions`."""

POSITIONS = 4096
"""Pixels of each code that are remembered for a reader of a case."""

FILL = 0.9
"""Share of a disk's free space that prepared cases may take; checkpoints and the Model take some, too."""

_LAYOUT = 6  # raise it when the content of a folder changes its meaning


@dataclass(frozen=True)
class Cached:
    """One case on disk.

    Attributes:
        id: the case's.
        folder: where its arrays lie.
        readers: names, in the order of ``codes.npy``.
        positions: (reader's index, code, start, stop): which part of ``positions.npy`` holds pixels of this code; code
            `ANNOTATED` is there only for readers that left something out.
        quantiles: the 0.5 % and 99.5 % quantiles of each channel of the file.
        levels: the brightness of each channel (`preprocessing.intensity.levels`).
        spacing: the file's, mm along the network's (depth, height, width), or None.
        pixel_volume: of the network's grid, mm³; None without millimetres.
        digest: of image (before any rounding) and codes; equal content has an equal digest, wherever and whenever it
            was made.
        warnings: what was repaired or assumed while reading image and labels.
    """

    id: str
    folder: Path
    readers: tuple[str, ...]
    positions: tuple[tuple[int, int, int, int], ...]
    quantiles: tuple[tuple[float, float], ...]
    levels: tuple[tuple[float, float, float] | None, ...]
    spacing: tuple[float, float, float] | None
    pixel_volume: float | None
    digest: str
    warnings: tuple[str, ...] = ()

    def image(self) -> StoredImage:
        """float32 (channels, [depth,] height, width) once it is indexed, memory-mapped; what a first stage found is one
        channel more."""
        return StoredImage.load(self.folder)

    def codes(self) -> np.ndarray:
        """uint8 (readers, [depth,] height, width), memory-mapped."""
        return np.load(self.folder / "codes.npy", mmap_mode="r")

    def position(self, index: int) -> int:
        """A remembered pixel: flat index into the case's grid."""
        return int(np.load(self.folder / "positions.npy", mmap_mode="r")[index])


def build(
    cases: Sequence[Case],
    plan: Plan,
    folder: Path,
    *,
    first_stage: Mapping[str, Path] | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Cached]:
    """Make what is not there yet, in parallel, and return all cases in the given order.

    Images are kept exactly. Only where the disk would not hold them so, those whose numbers are not the file's are
    rounded to 16 bits (`stored_image.rounded`), and a warning says it.

    Args:
        cases: labelled ones.
        plan: `channels`, `labels` and `spatial` shape the arrays; `training.workers` says how many processes work.
        folder: the cache's.
        first_stage: where the plan has one, of each case (its id) the file with what it found (`training.first_stage`).
        advance: called with the number of cases done and in all; may raise to stop.

    Raises:
        CpfnetError: a case cannot be read or does not fit the plan.
        OutputError: the disk is full, or ``folder`` cannot be written.
        TrainingError: a process was killed.
    """
    shown = first_stage or {}
    wanted = [(case, folder / key(case, plan, shown.get(case.id))) for case in cases]
    missing = [(case, target) for target, case in {t: c for c, t in wanted}.items() if not _there(target)]
    total = len({target for _, target in wanted})
    done = total - len(missing)
    advance(done, total)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tight = _is_tight(sum(_bytes(case, plan) for case, _ in missing), shutil.disk_usage(folder).free)
        if plan.training.workers == 0 or len(missing) < 2:
            for case, target in missing:
                _make(case, plan, target, shown.get(case.id), tight)
                advance(done := done + 1, total)
        else:
            with ProcessPoolExecutor(min(plan.training.workers, len(missing)), initializer=leave_signals) as pool:
                futures = [
                    pool.submit(_make, case, plan, target, shown.get(case.id), tight) for case, target in missing
                ]
                for _ in _finished(pool, futures):
                    advance(done := done + 1, total)
    except BrokenProcessPool:
        raise TrainingError(
            "a process that prepared cases was killed, most likely for want of memory",
            fix="set training.workers to 1 or 0, or close other programs",
        ) from None
    except OSError as error:
        raise disk_error(error, folder) from None
    return [_load(case, target) for case, target in wanted]


def _bytes(case: Case, plan: Plan) -> int:
    """On disk, from the header alone: at most, but for the table."""
    header = formats.read_header(case.images)
    way = spatial.trace(header, plan.spatial)
    kind, kept = header.dtype, 4
    if kind.kind in "iub" and kind.itemsize <= 2 and way.grid == way.oriented:
        kept = kind.itemsize
    return math.prod(way.grid) * (kept * (len(plan.channels) + plan.first_stage) + len(case.labels))


def _is_tight(wanted: int, free: int) -> bool:
    """Does the disk not hold so many bytes? Then it is said what is done about it."""
    if wanted <= FILL * free:
        return False
    logger.warning(
        "The prepared cases would take up to %.1f GiB, and %.1f GiB are free: images that are resampled are kept in 16 "
        "bits, where a value is off by 1/131,070 of its image's range at most. On a disk with more space they are "
        "exact.",
        wanted / 2**30,
        free / 2**30,
    )
    return True


def _finished(pool: Executor, futures: list[Future[None]]) -> Iterator[None]:
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def disk_error(error: OSError, where: Path) -> OutputError:
    """The system's error about writing, with the space that is left."""
    place = where
    while not place.exists():
        place = place.parent
    what, fix = f"cannot be written: {error.strerror or error}", "choose an output folder that you may write to"
    if error.errno == errno.ENOENT:  # a file or folder that was there when the work began
        fix = "something removed it meanwhile: keep other programs away from this folder, and go on with --resume"
    elif error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        what += f" ({shutil.disk_usage(place).free / 2**30:.1f} GiB free)"
        fix = "free some space and go on with --resume, or choose an output folder on another disk"
    return OutputError(what, where=error.filename or where, fix=fix)


def key(case: Case, plan: Plan, first_stage: Path | None = None) -> str:
    """Folder name: readable, and different whenever the content could be; `training.first_stage` names its files so."""
    try:
        stats = list(_stamps(case))
    except OSError as error:
        raise DatasetError(
            f"cannot be read: {error.strerror}", where=error.filename, fix="run `cpfnet check` on the dataset"
        ) from None
    content = [_LAYOUT, plan.model_dump(mode="json", include={"source", "channels", "labels", "spatial"}), stats]
    content += [first_stage.name] if first_stage is not None else []
    digest = hashlib.sha256(json.dumps([content, sorted(case.labels)], sort_keys=True).encode()).hexdigest()[:16]
    readable = "".join(c if c.isalnum() or c in "-_" else "_" for c in case.id)[:60]
    return f"{readable}-{digest}"


def _stamps(case: Case) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and time of change of every file that decides what is read."""
    files = []
    for image in case.images:
        if formats.is_dicom(image) and not image.is_file():
            from cpfnet.formats.dicom import one_series

            files += [location.path for location in one_series([image])[0].locations]
        else:
            files += formats.files_of(image)
    for label in case.files[len(case.images) :]:
        place = label if label.exists() or not label.parent.is_file() else label.parent  # of an archive
        files += sorted(place.rglob("*")) if place.is_dir() else formats.files_of(place)
    for file in files:
        status = file.stat()
        yield str(file.resolve()), status.st_size, status.st_mtime_ns


def _there(target: Path) -> bool:
    return (target / "meta.json").is_file()


def _load(case: Case, target: Path) -> Cached:
    meta = json.loads((target / "meta.json").read_text(encoding="utf-8"))
    return Cached(
        id=case.id,
        folder=target,
        readers=tuple(meta["readers"]),
        positions=tuple((r, c, a, b) for r, c, a, b in meta["positions"]),
        quantiles=tuple((low, high) for low, high in meta["quantiles"]),
        levels=tuple(None if one is None else (one[0], one[1], one[2]) for one in meta["levels"]),
        spacing=None if meta["spacing"] is None else tuple(meta["spacing"]),
        pixel_volume=meta["pixel_volume"],
        digest=meta["digest"],
        warnings=tuple(meta["warnings"]),
    )


def _make(case: Case, plan: Plan, target: Path, first_stage: Path | None, tight: bool) -> None:
    image = preprocessing.match_channels(formats.read(case.images), plan)
    found = None if first_stage is None else np.load(first_stage)
    array, trace = preprocessing.apply(image, plan, first_stage=found)
    labels = [placed(path, image, plan.labels) for path in case.labels.values()]
    encoded = (
        encode(label, plan.labels, where=str(path)) for label, path in zip(labels, case.labels.values(), strict=True)
    )
    codes = np.stack([preprocessing.apply_codes(code_map, trace) for code_map in encoded])
    if case.roi is not None:
        counts = region_mask(placed(case.roi, image))
        region = preprocessing.apply_codes(
            np.where(counts, 1, 2 * empty_outside(image.array, counts)).astype(np.uint8), trace
        )
        blank = (region == 2) & (codes == 0).all(axis=0)
        codes[:, region != 1] = IGNORED
        codes[:, blank] = OUTSIDE
    positions, ranges = _positions(codes)
    of_labels = [message for label in labels for message in label_messages(label, plan.labels)]
    cached = Cached(
        id=case.id,
        folder=target,
        readers=tuple(case.labels),
        positions=ranges,
        quantiles=tuple(extent(channel) for channel in image.array),
        levels=tuple(levels(x, channel.intensity) for x, channel in zip(image.array, plan.channels, strict=True)),
        spacing=trace.spacing,
        pixel_volume=None if trace.pixel_volume is None else trace.pixel_volume / trace.pixel_share,
        digest=f"{zlib.crc32(array.data):08x}{zlib.crc32(np.ascontiguousarray(codes).data):08x}",
        warnings=tuple(dict.fromkeys([*image.warnings, *of_labels])),
    )
    stored = exactly(array, [*trace.orient(image.array), *array[len(image.array) :]])
    if tight and stored.table is None:
        stored = rounded(array)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True, exist_ok=True)
        stored.save(temporary)
        for name, content in (("codes", codes), ("positions", positions)):
            with (temporary / f"{name}.npy").open("wb") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(content))
        meta = {key: value for key, value in asdict(cached).items() if key != "folder"}
        (temporary / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)  # one that somebody emptied
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _positions(codes: np.ndarray) -> tuple[np.ndarray, tuple[tuple[int, int, int, int], ...]]:
    """Some pixels of every code of every reader, the same ones for the same codes."""
    rng = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    ranges: list[tuple[int, int, int, int]] = []
    start = 0
    for reader, plane in enumerate(codes.reshape(len(codes), -1)):
        counts = np.bincount(plane, minlength=256)
        groups = [(code, plane == code) for code in range(1, OUTSIDE) if counts[code]]
        if 0 < counts[OUTSIDE:].sum() < plane.size:
            groups.append((ANNOTATED, plane < OUTSIDE))
        for code, mask in groups:
            found = np.flatnonzero(mask)
            if len(found) > POSITIONS:
                found = rng.choice(found, POSITIONS, replace=False)
            parts.append(found)
            ranges.append((reader, code, start, start + len(found)))
            start += len(found)
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts]), tuple(ranges)

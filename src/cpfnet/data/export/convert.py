"""A data set for other tools.

All its files in one folder, in formats that each of them reads, with the lists they ask for.

Volumes become NIfTI, pictures PNG (TIFF where 16 bits do not hold their values). Labels become numbers on their image's
own grid: 0 background, 1 … n the classes (or the sets of overlapping regions that occur together), n + 1 not annotated.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from cpfnet import formats
from cpfnet.data.case import Case, Dataset, dataset_warnings
from cpfnet.data.export.case_writer import Form, file_names, numbered, transcribe
from cpfnet.data.export.manifests import LISTS, MADE, About, Entry, Target, check_names
from cpfnet.data.infer_labels import Values, meaning_of, values_of
from cpfnet.data.splits import folds
from cpfnet.errors import CpfnetError, DatasetError, OutputError
from cpfnet.files import check_writable
from cpfnet.image import GREY, RGB
from cpfnet.messages import merge_messages
from cpfnet.planning import Folds, Labels, Modality, Plan
from cpfnet.progress import Bar
from cpfnet.text import printable

logger = logging.getLogger(__name__)

_WRITTEN = re.compile(r"(images|labels|roi)(T[rs])?(_.+)?|dataset\.(json|yaml)|splits_final\.json|cases\.csv")


@dataclass(frozen=True)
class Converted:
    """What became of a data set.

    Attributes:
        folder: where it lies now.
        cases: ids of the cases in it.
        failures: id → what is wrong with a case that is not in it, and how to fix that.
    """

    folder: Path
    cases: tuple[str, ...]
    failures: dict[str, str]


@dataclass(frozen=True)
class _Look:
    """What is known of a case before its pixels are read."""

    axes: int
    channels: tuple[str, ...]
    dtype: np.dtype
    modality: str | None
    sheared: bool
    values: Values | None

    @property
    def kind(self) -> tuple[int, int]:
        """Spatial axes and channels: the same in all of a data set."""
        return self.axes, len(self.channels)


def convert(
    dataset: Dataset,
    out: Path,
    *,
    to: Target,
    plan: Plan | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> Converted:
    """Write a data set for another tool, a case at a time; a case that cannot be read does not stop the others.

    Args:
        dataset: as `load` gives it.
        out: the folder; new or empty.
        to: ``"nnunet"`` (raw data of nnU-Net v2), ``"monai"`` (datalist) or ``"csv"`` (manifest and dataset.yaml).
        plan: whose labels, channels and folds to use; default: what the data set declares, else what would be proposed.
        overwrite: replace an earlier conversion in ``out``.
        progress: show bars.

    Raises:
        DatasetError: nothing is labelled, the labels have no meaning that could be proposed, or no case can be
            converted.
        OutputError: ``out`` holds something else, or cannot be written; nothing is left behind then.
    """
    if to not in LISTS:
        raise OutputError(f"unknown target {to!r}", where="--to", fix=f"choose one of {', '.join(LISTS)}")
    _check_free(out, dataset, overwrite)
    check_writable(out)
    failures: dict[str, str] = {}
    declared = dataset.labels if plan is None else plan.labels
    looks = _survey(dataset, declared, failures, progress)
    form, about = _settle(dataset, plan, to, looks, failures)
    for message in _warnings(dataset, form, about, out):
        logger.warning(message)
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        # Inside it, because that alone is surely on the same disk.
        with TemporaryDirectory(prefix=".convert-", dir=out) as temporary:
            entries = _write_all(dataset, [*looks], form, Path(temporary), failures, progress)
            for name, text in LISTS[to](entries, about).items():
                (Path(temporary) / name).write_text(text, encoding="utf-8")
            _place(Path(temporary), out)
    except OSError as error:
        fix = "choose a folder you may write to, with free space"
        raise OutputError(f"cannot be written: {error.strerror or error}", where=out, fix=fix) from None
    finally:
        if made and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    return Converted(out, tuple(entry.id for entry in entries), failures)


def _check_free(out: Path, dataset: Dataset, overwrite: bool) -> None:
    """Make sure that nothing but an earlier conversion would be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputError("is no folder", where=out, fix="give the name of a new folder")
    inside = sorted(entry.name for entry in out.iterdir())
    if not inside:
        return
    if any(path.resolve().is_relative_to(out.resolve()) for case in dataset.cases for path in case.files):
        raise OutputError("holds the data set itself", where=out, fix="write to another folder (-o)")
    lists = [out / name for name in ("dataset.json", "dataset.yaml")]
    ours = any(path.is_file() and MADE.encode() in path.read_bytes()[:4096] for path in lists)
    if not (ours and overwrite):
        what = "holds an earlier conversion" if ours else f"is not empty (holds {printable(', '.join(inside[:3]))})"
        fix = "replace it with --overwrite, or write to another folder" if ours else "write to a new or empty folder"
        raise OutputError(what, where=out, fix=fix)


def _place(made: Path, out: Path) -> None:
    """Put what was made in the place of an earlier conversion; the lists last."""
    for entry in out.iterdir():
        if _WRITTEN.fullmatch(entry.name):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for entry in sorted(made.iterdir(), key=lambda e: e.is_file()):
        entry.rename(out / entry.name)


@contextmanager
def _collecting(case: Case, failures: dict[str, str]) -> Iterator[None]:
    """Keep what is wrong with one case for the end; what is wrong with the disk stops all."""
    try:
        yield
    except MemoryError:
        failures[case.id] = f"{case.id}: does not fit into memory\n  → free memory, or cut the image into parts"
    except CpfnetError as error:
        if isinstance(error, OutputError) and isinstance(error.__cause__, OSError):
            raise
        failures[case.id] = str(error)


def _survey(dataset: Dataset, declared: Labels | None, failures: dict[str, str], progress: bool) -> dict[str, _Look]:
    """Look at every case; those that are not like the others fail."""
    looks: dict[str, _Look] = {}
    with Bar(show=progress) as bar:
        for case in bar.track(dataset.cases, description="Headers"):
            with _collecting(case, failures):
                looks[case.id] = _look(case, declared)
    if {GREY, RGB} <= {look.channels for look in looks.values()}:  # grey is read as equal red, green and blue
        looks = {name: replace(look, channels=RGB) if look.channels == GREY else look for name, look in looks.items()}
    usual, count = Counter(look.kind for look in looks.values()).most_common(1)[0] if looks else ((0, 0), 0)
    for case in dataset.cases:
        if case.id in looks and looks[case.id].kind != usual:
            axes, channels = looks.pop(case.id).kind
            error = DatasetError(
                f"{channels} channels and {axes} spatial axes, where {count} cases have {usual[1]} and {usual[0]}",
                where=case.id,
                fix="keep images of one kind in a data set; `cpfnet check` lists the others",
            )
            failures[case.id] = str(error)
    return looks


def _look(case: Case, declared: Labels | None) -> _Look:
    header = formats.read_header(case.images)
    undeclared = declared is None and case.labels and case.split != "test"
    return _Look(
        axes=len(header.shape),
        channels=header.channels,
        dtype=header.dtype,
        modality=header.modality,
        sheared=header.affine is not None and _is_sheared(header.affine),
        values=values_of(case, header, None) if undeclared else None,
    )


def _is_sheared(affine: np.ndarray) -> bool:
    cosines = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(cosines.T @ cosines - np.eye(3)).max() > 1e-4)


def _settle(
    dataset: Dataset, plan: Plan | None, to: Target, looks: dict[str, _Look], failures: dict[str, str]
) -> tuple[Form, About]:
    """What holds for all cases."""
    declared = dataset.labels if plan is None else plan.labels
    if not any(case.labels and case.split != "test" for case in dataset.cases if case.id in looks):
        raise _nothing(dataset, failures)
    if declared is None:
        labels = meaning_of(dataset, [look.values for look in looks.values() if look.values is not None])[0]
    else:
        labels = declared
    if to != "csv":
        check_names(labels)
    first = next(iter(looks.values()))
    small = all(look.dtype in (np.uint8, np.uint16) for look in looks.values())
    ending = ".nii.gz" if first.axes == 3 else ".png" if small else ".tif"
    form = Form(
        to=to,
        labels=labels,
        written=numbered(labels, ignore=to == "nnunet" and any(case.roi for case in dataset.cases)),
        ending=ending,
        channels=first.channels,
        colour=ending != ".nii.gz" and all(look.channels == RGB and look.dtype == np.uint8 for look in looks.values()),
        folds=Folds() if plan is None else plan.folds,
    )
    channels, modality = dataset.channels, dataset.modality
    known = {look.modality for look in looks.values()}
    if plan is not None:
        channels, modality = tuple(channel.name for channel in plan.channels), plan.modality
    elif modality is None and len(known) == 1:
        modality = cast("Modality | None", known.pop())
    about = About(
        name=dataset.name,
        modality=modality,
        channels=channels if channels and len(channels) == len(first.channels) else first.channels,
        labels=form.written,
        ending=ending,
        sheared=any(look.sheared for look in looks.values()),
    )
    return form, about


def _nothing(dataset: Dataset, failures: dict[str, str]) -> DatasetError:
    """The error where no case is left that could be learnt from."""
    found = f"none of {len(dataset.cases)} cases has a label to learn from"
    if failures:
        found += f" and can be converted; the first of {len(failures)} that failed: {next(iter(failures.values()))}"
    return DatasetError(found, where=dataset.root, fix="`cpfnet check` lists what is missing, and what is wrong")


def _warnings(dataset: Dataset, form: Form, about: About, out: Path) -> Iterator[str]:
    """What the user should know."""
    yield from dataset_warnings(dataset)
    if form.to == "csv":
        return
    unlabelled = sum(not case.labels and case.split != "test" for case in dataset.cases)
    if unlabelled:
        yield f"{unlabelled} cases without label stand among the test cases"
    if any(len(case.labels) > 1 for case in dataset.cases):
        where = "labelsTr_READER" if form.to == "nnunet" else "label_READER"
        yield f"several readers: the first of each case counts as the label, the others stand in {where}"
    if form.to != "nnunet":
        return
    if any(case.roi for case in dataset.cases):
        yield "nnU-Net knows no region of interest: outside of it labels say 'ignore'"
    if about.modality is None and form.ending == ".nii.gz":
        yield (
            "the modality is not declared, so nnU-Net will scale every image by itself; for CT, write `modality: ct` "
            "into a dataset.yaml and convert again"
        )
    if not re.fullmatch(r"Dataset\d{3}_.+", out.resolve().name):
        yield f"nnU-Net finds a data set as DatasetNNN_NAME in its folder nnUNet_raw: move or rename {out}"


def _write_all(
    dataset: Dataset,
    ids: Collection[str],
    form: Form,
    folder: Path,
    failures: dict[str, str],
    progress: bool,
) -> list[Entry]:
    """Write the cases called ``ids``, one at a time."""
    names = file_names([case.id for case in dataset.cases])
    renamed = [id for id, name in names.items() if id != name]
    if renamed and form.to == "nnunet":
        logger.info(f"{len(renamed)} cases have another name as files, such as {names[renamed[0]]} for {renamed[0]!r}")
    number = _fold_numbers(dataset, form.folds)
    entries, notes = [], []
    with Bar(show=progress) as bar:
        for case in bar.track([case for case in dataset.cases if case.id in ids], description="Convert"):
            with _collecting(case, failures):
                entry, messages = transcribe(case, names[case.id], number.get(case.id), folder, form)
                entries.append(entry)
                notes.append((case.id, messages))
    for message in merge_messages(notes):
        logger.warning(message)
    if not any(entry.trains for entry in entries):
        raise _nothing(dataset, failures)
    return entries


def _fold_numbers(dataset: Dataset, wanted: Folds) -> dict[str, int]:
    """Case → the fold that it validates, as training has it.

    Empty where the data set's own split or one patient decides.
    """
    labelled = [case for case in dataset.cases if case.labels and case.split != "test"]
    if any(case.split == "val" for case in labelled):
        return {}
    parts = folds(labelled, wanted.count, wanted.seed)
    return {case.id: k for k, (_, val) in enumerate(parts) for case in val} if len(parts) > 1 else {}

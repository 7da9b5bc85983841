"""What each result was made from: one small file a result, put in place once the result is safe on disk.

``OUT/.cpfnet/records/NAME.json`` for the result NAME. Nothing is shared between results, so processes, parts of a job
and workers on a network file system write without knowing of each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from cpfnet import formats
from cpfnet.errors import CpfnetError
from cpfnet.files import replacing, sha256_of
from cpfnet.formats.file_types import check_dicom, check_readable
from cpfnet.image import Assessment, Image
from cpfnet.inference.options import OutputOptions, PredictorOptions
from cpfnet.model import Model
from cpfnet.planning import Strict, content_hash

FOLDER = Path(".cpfnet", "records")
_SUFFIX = ".json"

Option = str | float | bool | None
Pattern = Annotated[str, Field(pattern=r"^([a-z]+/)?\*(\.[a-z]+)+$")]
"""A result below the output folder, * for its name: a record leads nowhere else, whoever wrote it."""


@dataclass(frozen=True)
class Recipe:
    """What makes the results of a run, the same for all of them.

    Attributes:
        models: digests of the Models, sorted.
        options: those that change what is written.
    """

    models: tuple[str, ...] = ()
    options: Mapping[str, Option] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[Model], options: PredictorOptions, output: OutputOptions) -> Recipe:
        """What the Models make with these options."""
        backend = options.backend
        if not isinstance(backend, str):
            backend = f"{backend.__module__}.{getattr(backend, '__qualname__', type(backend).__qualname__)}"
        sizes = (options.tile,) if options.tile is None or isinstance(options.tile, int) else options.tile
        sizes = sizes[:1] if len({*sizes}) == 1 else sizes  # one size for all axes is the same as each of it
        counting: dict[str, Option] = {
            "format": output.format,
            "backend": "float32" if backend in _EXACT else backend,
            "tta": options.tta,
            "overlap": options.overlap,
            "tile": None if options.tile is None else "x".join(map(str, sizes)),
        }
        return cls(tuple(sorted(model.digest for model in models)), counting)


_EXACT = ("auto", "torch", "onnx", "openvino")
"""Backends that decide as float32 does: the same masks, whichever runs."""


class Record(Strict):
    """How one result was made. It holds no name and nothing of a patient."""

    input: str = Field(description="SHA-256 over the content of the input's files")
    models: tuple[str, ...] = Field(description="digests of the Models, sorted")
    options: dict[str, Option] = Field(description="that change what is written")
    forced: bool = Field(False, description="the input lies outside what the Models were fitted for")
    writing: bool = Field(False, description="files are being replaced: they are those below, or new ones")
    files: dict[Pattern, str] = Field(description="results below the output folder, * for NAME → their SHA-256")
    warnings: tuple[str, ...] = Field((), description="what was repaired or assumed while reading")
    quality: Assessment | None = Field(None, description="what the prediction told of itself")

    @property
    def mask(self) -> str | None:
        """Which result is the label map: the first one."""
        return next((pattern for pattern in self.files if "/" not in pattern), None)

    def differences(self, input: str, recipe: Recipe, force: bool) -> list[str]:
        """Why this is not what the recipe would make of an input; empty where it is."""
        found = []
        if self.input != input:
            found.append("its input was another one")
        if self.models != recipe.models:
            found.append("another Model made it" if len(recipe.models) == 1 else "other Models made it")
        for name in sorted({*self.options, *recipe.options}):
            before, now = self.options.get(name), recipe.options.get(name)
            if before != now:
                found.append(f"it was made with {name} {_text(before)}, not {_text(now)}")
        if self.forced and not force:
            found.append("it was made with --force")
        return found


def _text(value: Option) -> str:
    if value is None:
        return "as planned"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def path_of(out: Path, name: str) -> Path:
    """Where the record of a result lies."""
    return out / FOLDER / (name + _SUFFIX)


def find(out: Path, name: str) -> Record | None:
    """The record of a result, if there is one.

    Raises:
        ValueError: it is damaged.
    """
    return _read(path_of(out, name))


def _read(path: Path) -> Record | None:
    try:
        return Record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ValueError(str(error)) from None


def keep(out: Path, name: str, record: Record) -> None:
    """Write a record, whole or not at all.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path_of(out, name), overwrite=True) as temporary:
        temporary.write_text(record.model_dump_json(indent=1), encoding="utf-8")


def each(out: Path) -> Iterator[tuple[str, Record]]:
    """The records below an output folder, by the name of their result, that can be read and whose results are whole."""
    top = out / FOLDER
    for parent, below, files in os.walk(top):
        below.sort()
        for file in sorted(files):
            path = Path(parent, file)
            if file.startswith(".") or path.suffix != _SUFFIX:  # what a killed process left
                continue
            try:
                record = _read(path)
            except ValueError:  # its result is made again by the next run that resumes
                continue
            if record is not None and not record.writing:
                yield str(path.relative_to(top)).removesuffix(_SUFFIX), record


@dataclass(frozen=True)
class Content:
    """What the files of an input hold.

    Attributes:
        digest: SHA-256 over it, whatever the files are called and whatever lies beside them.
        stamps: of each file size and time of change, as they were before it was read.
    """

    digest: str
    stamps: Mapping[Path, tuple[int, int]]

    @property
    def changed(self) -> bool:
        """Has a file been replaced, changed or taken away since?"""
        try:
            return any(_stamp(path) != stamp for path, stamp in self.stamps.items())
        except OSError:
            return True


def content_of(files: Sequence[Path], image: Image | None = None) -> Content:
    """The content of an input: of its files, in their order; of a DICOM series of its own files, in any order.

    Args:
        files: as of an `Item`.
        image: what was read from them, where it was: of DICOM it knows which files are the series', and is not looked
            for again.

    Raises:
        CpfnetError, OSError: they cannot be read.
    """
    if not formats.is_dicom(files[0]):
        for path in files:
            check_readable(path)
        whole = [part for path in files for part in formats.files_of(path)]
        stamps = {path: _stamp(path) for path in whole}
        return Content(content_hash([sha256_now(path) for path in whole]), stamps)
    from cpfnet.formats.dicom import one_series
    from cpfnet.formats.dicom.image.datasets import Archives, Location, sha256_at

    locations: Sequence[Location]
    if image is not None and image.source is not None:
        locations = image.source.details["locations"]
    else:
        for path in files:
            check_dicom(path)
        locations = one_series(files)[0].locations
    with Archives() as archives:
        digest = content_hash(sorted(sha256_at(location, archives) for location in locations))
    return Content(digest, {location.path: location.stamp for location in locations})


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def sha256_now(path: Path) -> str:
    """SHA-256 of what a file holds now, in hex: nothing is remembered, since times of change are too coarse to rely on.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return sha256_of(stream)


def is_whole(path: Path, pattern: str) -> bool:
    """Can a result be read to its end?

    What cannot is damaged; what can, and is not as it was made, was changed by somebody.

    Args:
        path: the file.
        pattern: which result it is, as in `Record.files`.
    """
    try:
        if path.name.endswith(".rtstruct.dcm"):
            from cpfnet.formats.dicom.image.datasets import Archives, Location, read_object

            with Archives() as archives:
                return read_object(Location(path), archives, pixels=True) is not None
        if not path.name.endswith(".seg.dcm"):
            formats.read(path)
        elif "/" in pattern:
            formats.read_map(path)
        else:
            formats.read_label(path)
    except (CpfnetError, OSError):
        return False
    return True

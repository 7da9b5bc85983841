"""The files of a job under their names, in a folder of their own, and the one image that they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from cpfnet import formats
from cpfnet.errors import FormatError
from cpfnet.inference.batch.inputs import collect
from cpfnet.inference.batch.item import Item
from cpfnet.planning import Plan
from cpfnet.serve.files import FileStore, read_manifest
from cpfnet.text import brief


@contextmanager
def unpacked(input: str, files: FileStore, work: Path) -> Iterator[None]:
    """Work in a folder with the files of an input, so that messages name nothing else.

    Args:
        input: digest of its manifest.
        files: where they are.
        work: a folder on the same disk.
    """
    before, folder = Path.cwd(), Path(mkdtemp(dir=work)).absolute()
    try:
        for name, digest in read_manifest(files.path(input)).items():
            place = folder / name
            place.parent.mkdir(exist_ok=True)
            os.link(files.path(digest), place)
        os.chdir(folder)
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder, ignore_errors=True)


def only_image(plan: Plan) -> Item:
    """The one image in the current folder; series beside it that the Model is not for do not count.

    Args:
        plan: of the Model.

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


def readable(item: Item) -> Path | tuple[Path, ...]:
    """An image's files, as `formats.read` takes them."""
    return item.files if len(item.files) > 1 else item.files[0]

"""A Model as one ZIP file: the same Model, the same bytes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from cpfnet.errors import OutputError
from cpfnet.files import replacing
from cpfnet.sharing.contents import Content, left_out, shared_files

logger = logging.getLogger(__name__)

_START = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP knows
_UNIX, _READABLE = 3, 0o100644 << 16


def pack(folder: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Write a Model as a ZIP file, whole or not at all.

    It holds what `shared_files` says, uncompressed, since zlib's bytes differ from version to version.

    Args:
        folder: of a Model, or of a cross-validation.
        out: the file to make.
        overwrite: replace an existing one.

    Returns:
        ``out``.

    Raises:
        CpfnetError: no Model, or a damaged one.
        OutputError: ``out`` exists, has another suffix, or cannot be written.
    """
    if out.suffix.lower() != ".zip":
        raise OutputError("a packed Model is known by its suffix, .zip", where=out, fix="give it another name (-o)")
    files = shared_files(folder)
    with replacing(out, overwrite=overwrite) as temporary, ZipFile(temporary, "w", ZIP_STORED) as archive:
        for name, content in files.items():
            _add(archive, name, content)
    if kept := left_out(folder):
        logger.info("Not packed: %s", ", ".join(kept))
    return out


def _add(archive: ZipFile, name: str, content: Content) -> None:
    entry = ZipInfo(name, _START)
    entry.create_system, entry.external_attr = _UNIX, _READABLE
    if isinstance(content, bytes):
        archive.writestr(entry, content)
        return
    entry.file_size = content.stat().st_size
    with content.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target, 2**20)

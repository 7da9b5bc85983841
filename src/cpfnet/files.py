"""Writing files whole or not at all, and telling their contents apart."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

from cpfnet.errors import OutputError


def check_writable(folder: Path) -> None:
    """Try that files could be written into an output folder, which need not exist: before the long work, not after it.

    Raises:
        OutputError: they cannot.
    """
    there = folder
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror}",
            where=folder,
            mend="choose a folder you may write to, with free space",
        ) from None


@contextmanager
def replacing(path: Path, *, overwrite: bool = False, keep: tuple[Path, ...] = ()) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` in one step, or leaves nothing behind.

    Args:
        path: the file to make; its folder is made too.
        overwrite: replace an existing file.
        keep: files that are never replaced, ``overwrite`` or not (the source image).

    Raises:
        OutputError: it exists, or cannot be written (permission, full disk, not a folder).
    """
    # The suffix must stay, since writers choose compression by it; and no name may grow beyond what file systems take.
    temporary = path.with_name(f".{os.getpid()}-{uuid.uuid4().hex[:8]}-{path.name[-64:]}")
    try:
        if path.is_dir():
            raise OutputError("is a folder", where=path, mend="give the name of a file")
        if path.exists():
            if any(path.samefile(kept) for kept in keep if kept.exists()):
                raise OutputError(
                    "would replace the image that was segmented", where=path, mend="write to another folder or name"
                )
            if not overwrite:
                raise OutputError(
                    "exists already", where=path, mend="write to another folder, or allow overwriting (--overwrite)"
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            mend="choose a folder you may write to, with free space",
        ) from error
    except MemoryError as error:
        raise OutputError("does not fit into memory", where=path, mend="free memory") from error
    finally:
        with suppress(OSError):  # its folder is no folder: then it was never made
            temporary.unlink(missing_ok=True)


def sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hex; taken once unless it was changed or replaced.

    Raises:
        OSError: it cannot be read.
    """
    status = file.stat()
    return _sha256(file.absolute(), status.st_mtime_ns, status.st_size, status.st_ino)


@cache
def _sha256(file: Path, changed: int, size: int, inode: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Write files whole or not at all, and compare their contents."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from cpfnet.errors import OutputError

_TEMPORARY = re.compile(r"\.(\d+)-([0-9a-f]{8})-")
"""Starts a temporary name: the process that writes it, and its machine."""


def check_writable(folder: Path) -> None:
    """Test that files can be written into an output folder, which need not exist: before the long work, not after it.

    Raises:
        OutputError: they cannot.
    """
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        with TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror}",
            where=folder,
            fix="choose a folder you may write to, with free space",
        ) from None


def check_free(path: Path, *, overwrite: bool = False, fix: str | None = None) -> None:
    """Whether something may be written to a path: before the long work, not after it.

    Args:
        path: a file or folder.
        overwrite: it may be replaced.
        fix: what else to do where it exists; default: another name, or ``--overwrite``.

    Raises:
        OutputError: it exists, and may not be replaced.
    """
    if path.exists() and not overwrite:
        raise OutputError(
            "exists already",
            where=path,
            fix=fix or "choose another name or folder, or allow replacing it (--overwrite)",
        )


@contextmanager
def replacing(path: Path, *, overwrite: bool = False, keep: tuple[Path, ...] = ()) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it becomes ``path`` in one step, or leaves nothing behind.

    Afterwards it survives a power cut: content first, then the name, then the folders that were made for it.

    Args:
        path: the file to make; its folder is made too.
        overwrite: replace an existing file.
        keep: files that are never replaced, ``overwrite`` or not (the source image).

    Raises:
        OutputError: it exists, or cannot be written (permission, full disk, not a folder).
    """
    # The suffix must stay, since writers choose compression by it; and no name may grow beyond what file systems take.
    temporary = path.with_name(f"{temporary_prefix()}{uuid.uuid4().hex[:8]}-{path.name[-64:]}")
    try:
        if path.is_dir():
            raise OutputError("is a folder", where=path, fix="give the name of a file")
        if path.exists():
            if any(path.samefile(kept) for kept in keep if kept.exists()):
                raise OutputError(
                    "would replace the image that was segmented", where=path, fix="write to another folder or name"
                )
            check_free(path, overwrite=overwrite)
        to_sync = [path.parent]  # the names in these folders must survive, too
        while not to_sync[-1].exists():
            to_sync.append(to_sync[-1].parent)
        if len(to_sync) > 1:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        for folder in to_sync:
            sync(folder)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=path,
            fix="give the input, or the file, a shorter name"
            if error.errno == errno.ENAMETOOLONG
            else "choose a folder you may write to, with free space",
        ) from error
    except MemoryError as error:
        raise OutputError("does not fit into memory", where=path, fix="free memory") from error
    finally:
        with suppress(OSError):  # its folder is not a folder: then the file was never made
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a power cut.

    Raises:
        OSError: the disk is full or failing. Folders that cannot be opened or synced (Windows, some network file
            systems) are left as they are.
    """
    try:
        number = os.open(path, os.O_RDWR if os.name == "nt" and path.is_file() else os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT) or not path.is_dir():
            raise


@cache
def _machine() -> str:
    """Identifies this machine or container on a network file system: each numbers its processes by itself."""
    space = Path("/proc/self/ns/pid")
    known = f"{socket.gethostname()} {space.readlink() if space.is_symlink() else ''}"
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def temporary_prefix() -> str:
    """Starts the names of files that `sweep` removes once this process is gone."""
    return f".{os.getpid()}-{_machine()}-"


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes of this machine left in a folder.

    Files of other machines may still be in use: they stay.

    Args:
        folder: searched without its subfolders; need not exist.
    """
    import psutil

    with suppress(OSError):  # another process may sweep, too
        for name in os.listdir(folder):  # noqa: PTH208 (names only: there may be a million)
            found = _TEMPORARY.match(name)
            if found is None or found[2] != _machine():
                continue
            if int(found[1]) == os.getpid() or not psutil.pid_exists(int(found[1])):
                (folder / name).unlink(missing_ok=True)


def sha256_of(stream: IO[bytes]) -> str:
    """SHA-256 of the rest of a stream, in hex."""
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hex; computed once unless the file was changed or replaced.

    Raises:
        OSError: it cannot be read.
    """
    status = file.stat()
    return _sha256(file.absolute(), status.st_mtime_ns, status.st_size, status.st_ino)


@cache
def _sha256(file: Path, changed: int, size: int, inode: int) -> str:
    with file.open("rb") as stream:
        return sha256_of(stream)

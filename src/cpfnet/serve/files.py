"""Files under the SHA-256 of their content: written and synced first, then recorded by whoever refers to them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock

from cpfnet.files import sweep, sync, temporary_prefix

CHUNK = 2**20
"""Bytes read or written at once."""

YOUNG = 3600.0
"""Seconds for which a file that nothing refers to may still be recorded by whoever wrote it."""


class FileStore:
    """Content-addressed files in a folder, for processes of one machine.

    Args:
        folder: must exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder.absolute()  # work goes on in other folders (`cpfnet.serve.job_files.unpacked`)
        self._lock = FileLock(self.folder / ".lock", mode=0o600)

    def path(self, digest: str) -> Path:
        """Where the file of a digest lies."""
        return self.folder / digest[:2] / digest

    @contextmanager
    def adding(self) -> Iterator[Batch]:
        """Add files; at the end all of them survive a power cut."""
        batch = Batch(self)
        try:
            yield batch
            batch.sync()
        finally:
            batch.discard()

    def add(self, path: Path) -> str:
        """Add one file's content; returns its digest."""
        with self.adding() as batch, path.open("rb") as stream:
            return batch.add(iter(lambda: stream.read(CHUNK), b""))

    def keep(self, digest: str, temporary: Path) -> None:
        """Put a synced file in its place, or say that the one there is wanted; see `sweep`."""
        path = self.path(digest)
        with self._lock:
            if path.exists():
                _touch(path)
            else:
                path.parent.mkdir(exist_ok=True)
                temporary.replace(path)

    def claim(self, digests: Iterable[str]) -> None:
        """Say that files are wanted, before that is recorded; see `sweep`.

        Raises:
            FileNotFoundError: one is gone.
        """
        with self._lock:
            for digest in digests:
                _touch(self.path(digest))

    def sweep(self, wanted: Callable[[], set[str]], *, young: float = YOUNG) -> int:
        """Remove the files that nothing refers to, and what killed processes left of others.

        A file that was added, or added again, less than ``young`` seconds ago stays: its record may be under way.

        Args:
            wanted: digests that are referred to; asked after the names of the files were read.
            young: seconds.

        Returns:
            How many were removed.
        """
        folders = [folder for folder in self.folder.iterdir() if folder.is_dir()]
        there = [path for folder in folders for path in folder.iterdir() if not path.name.startswith(".")]
        needed, removed = wanted(), 0
        for path in there:
            if path.name in needed:
                continue
            with self._lock:  # nobody finds it there between the look and the removal
                status = path.stat()
                if max(status.st_atime, status.st_mtime) < time.time() - young:
                    path.unlink()
                    removed += 1
        sweep(self.folder)
        return removed


def _touch(path: Path) -> None:
    """Its time of access says that it is wanted; its time of change says to readers that it is the same."""
    os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


class Batch:
    """Files on their way into a store."""

    def __init__(self, store: FileStore):
        self.store, self._folders, self._number = store, {store.folder}, 0
        self._open = ExitStack()

    def begin(self) -> Writer:
        """Begin a file, which is written piece by piece."""
        self._number += 1
        prefix = f"{temporary_prefix()}{id(self):x}-{self._number}"
        writer = Writer(self.store.folder / prefix)
        self._open.callback(writer.discard)
        return writer

    def end(self, writer: Writer) -> str:
        """Its digest; it is in the store now."""
        digest = writer.close()
        self.store.keep(digest, writer.path)
        self._folders.add(self.store.path(digest).parent)
        writer.discard()
        return digest

    def add(self, chunks: Iterable[bytes]) -> str:
        """Add what consists of these pieces; returns its digest."""
        writer = self.begin()
        for chunk in chunks:
            writer.write(chunk)
        return self.end(writer)

    def sync(self) -> None:
        """Make the names survive, too, once for all files."""
        for folder in self._folders:
            sync(folder)

    def discard(self) -> None:
        self._open.close()


class Writer:
    """A file that is being written."""

    def __init__(self, path: Path):
        self.path, self._hash = path, hashlib.sha256()
        self._file: IO[bytes] | None = path.open("xb")

    def write(self, chunk: bytes) -> None:
        assert self._file is not None  # not closed yet
        self._file.write(chunk)
        self._hash.update(chunk)

    def close(self) -> str:
        """Its content is safe on disk; returns its digest."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self.path.unlink(missing_ok=True)


def manifest(files: Mapping[str, str]) -> bytes:
    """Names and digests of an input's files, as a file of its own: its digest stands for the whole input.

    Args:
        files: path below the input's folder → digest.
    """
    return json.dumps(dict(sorted(files.items())), indent=0).encode()


def read_manifest(path: Path) -> dict[str, str]:
    """The files of an input; see `manifest`."""
    return dict(json.loads(path.read_bytes()))

"""The folder in which a server keeps jobs and files, for its user alone."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cpfnet.errors import CpfnetError, OutputError
from cpfnet.serve.cases.case_store import CaseStore
from cpfnet.serve.files import FileStore, read_manifest
from cpfnet.serve.jobs.job_store import LEASE, JobStore

DATABASE, FILES, WORK, LOCK = "jobs.sqlite", "files", "work", "server.lock"


@dataclass(frozen=True)
class StoreOptions:
    """Where a server keeps what must not be lost.

    Attributes:
        folder: made if need be; readable for its owner alone.
        database: URL of a PostgreSQL database for the jobs; None: SQLite in the folder.
        max_attempts: a job is failed once so many workers died of it.
        lease: seconds after which a worker that says nothing has lost its job.
    """

    folder: Path
    database: str | None = None
    max_attempts: int = 5
    lease: float = LEASE


class Store:
    """Jobs and files, opened; by the server and by each of its workers.

    Raises:
        CpfnetError: see `JobStore.open`.
    """

    def __init__(self, options: StoreOptions):
        self.folder = options.folder
        url = options.database or f"sqlite:///{self.folder.absolute() / DATABASE}"
        self.jobs = JobStore.open(url, lease=options.lease, max_attempts=options.max_attempts)
        self.cases = CaseStore(self.jobs.engine)
        self.files = FileStore(self.folder / FILES)
        self.work = self.folder / WORK

    def close(self) -> None:
        self.jobs.close()

    def wanted(self) -> set[str]:
        """Digests of all files that a job or a case refers to.

        Raises:
            OSError: a manifest cannot be read; nothing must be removed then.
        """
        inputs, results = self.jobs.files()
        for case in self.cases.each():
            inputs.add(case.input)
            results |= {case.kept, *(label.digest for label in case.labels)}
        parts = {digest for one in inputs for digest in read_manifest(self.files.path(one)).values()}
        return inputs | results | parts


@contextmanager
def serving(options: StoreOptions) -> Iterator[Store]:
    """The store of a server that starts: made if need be, locked, and without what an earlier server left half done.

    Raises:
        CpfnetError: another server uses it, others may read it, it is another kind of folder, or it cannot be written.
    """
    folder = options.folder
    _make(folder)
    lock = FileLock(folder / LOCK, mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        fix = "stop that server, or give this one a store of its own (--store)"
        raise CpfnetError("another server uses this store", where=folder, fix=fix) from None
    try:
        store = Store(options)
        try:
            shutil.rmtree(store.work, ignore_errors=True)  # a worker of an earlier server may just be ending
            store.work.mkdir(exist_ok=True)
            store.jobs.release_all()
            yield store
        finally:
            store.close()
    finally:
        lock.release()


def _make(folder: Path) -> None:
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
        elif any(folder.iterdir()) and not (folder / LOCK).is_file():
            raise OutputError("is no store, and not empty", where=folder, fix="give a new folder (--store)")
        if os.name != "nt" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
            raise OutputError("others than its owner may look into it", where=folder, fix=f"chmod 700 {folder}")
        for name in (FILES, WORK):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        fix = "give a folder that you may write to (--store)"
        raise OutputError(f"cannot be written: {error.strerror}", where=folder, fix=fix) from None

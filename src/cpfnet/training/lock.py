"""One training in a folder at a time: a lock, and beside it who holds it.

    .work/lock          locked by the operating system while a training runs; it lets go however the process ends
    .work/holder.json   `Holder`: who trains; left behind by a process that was killed

Network file systems do not always carry a lock from machine to machine (NFS does where its lock service runs; Lustre
where mounted with ``flock``). The record tells of a training on another machine there, too, save of one that starts in
the same moment.
"""

from __future__ import annotations

import errno
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import ValidationError

from cpfnet.errors import OutputError
from cpfnet.files import replacing
from cpfnet.planning import Strict
from cpfnet.training.samples.cache import disk_error

logger = logging.getLogger(__name__)

GRACE = 10.0
"""Seconds within which the helpers of a killed training end, which hold its lock as long as they live."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)

SAME_START = 5.0
"""Seconds by which a process seems to have started earlier or later after its machine's clock was set."""


class Holder(Strict):
    """A process that trains.

    Attributes:
        host: name of its machine.
        boot: tells apart machines of one name, and one machine before and after it was started again; "" where it is
            not known.
        pid: its number there.
        started: when it started; a later process may get the same number. Seconds since 1970, as `began`.
        began: when it began to train.
    """

    host: str
    boot: str
    pid: int
    started: float
    began: float

    @classmethod
    def this(cls) -> Holder:
        own = psutil.Process()
        return cls(host=platform.node(), boot=_boot(), pid=own.pid, started=own.create_time(), began=time.time())

    @property
    def here(self) -> bool:
        """Was it on this machine?

        Another one of the same name was started at another time, and trained since this one was started.
        """
        restarted = self.boot == _boot() or self.began < psutil.boot_time()
        return self.host == platform.node() and restarted

    @property
    def alive(self) -> bool:
        """Does it still run? Only for one that is `here`."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            same = self.boot == _boot() and abs(process.create_time() - self.started) < SAME_START
            return same and process.status() != psutil.STATUS_ZOMBIE
        return False

    def __str__(self) -> str:
        place = "this machine" if self.here else self.host
        return f"process {self.pid} on {place}, since {datetime.fromtimestamp(self.began):%Y-%m-%d %H:%M:%S}"


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Hold a run's folder; processes that train together have one holder.

    Args:
        work: ``out/.work``; made, and removed in the end where nothing was begun in it.

    Raises:
        OutputError: another training holds it, or did on a machine that cannot be asked; or it cannot be written.
    """
    lock, record = FileLock(work / "lock"), work / "holder.json"
    made = [folder for folder in work.parents if not folder.exists()]
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, work) from None
    _acquire(lock, record, work.parent)
    try:
        with replacing(record, overwrite=True) as temporary:
            temporary.write_text(Holder.this().model_dump_json(), encoding="utf-8")
        try:
            yield
        finally:
            with suppress(OSError):
                record.unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # somebody may have removed it
            if {entry.name for entry in work.iterdir()} <= {"lock"}:
                (work / "lock").unlink(missing_ok=True)
                for folder in (work, *made):
                    folder.rmdir()
        lock.release()


def _acquire(lock: FileLock, record: Path, out: Path) -> None:
    end = time.monotonic() + GRACE
    while True:
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # filelock's own way where the system has no locks is good, too
                lock.acquire(timeout=0)
            break
        except Timeout:
            holder = _read(record)
            if time.monotonic() < end and (holder is None or (holder.here and not holder.alive)):
                time.sleep(0.1)  # it writes who it is in a moment; or the helpers of a killed one are about to end
                continue
            raise _held(holder, out) from None
        except FileNotFoundError:  # whoever held it has just cleared up behind itself
            record.parent.mkdir(parents=True, exist_ok=True)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise disk_error(error, out) from None
            logger.warning(
                f"{out}: this file system has no locks; do not start two trainings in it at the same moment."
            )
            break
    holder = _read(record)
    if holder is None:
        return
    if holder.here and not holder.alive:
        logger.info(f"The training that held this folder ended without a word ({holder}): going on without it.")
        return
    lock.release()
    if holder.here:
        raise _held(holder, out)
    raise OutputError(
        f"was being trained by {holder}, and nothing says that this has ended; from here nobody can see whether "
        "it still runs",
        where=out,
        fix=f"look on {holder.host} whether process {holder.pid} still trains. If it surely does not, remove "
        f"{record} by hand and start again: the checkpoint stays",
    )


def _read(record: Path) -> Holder | None:
    with suppress(OSError, ValidationError):
        return Holder.model_validate_json(record.read_bytes())
    return None


def _held(holder: Holder | None, out: Path) -> OutputError:
    who = "another process" if holder is None else str(holder)
    stop = ""
    if holder is not None:
        how = f"kill {holder.pid}" if holder.here and os.name == "posix" else "Ctrl-C there"
        stop = f", stop it ({how}: it leaves a checkpoint)"
    return OutputError(
        f"is being trained by {who}", where=out, fix=f"wait until it ends{stop}, or train into another folder"
    )

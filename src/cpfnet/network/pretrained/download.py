"""Download one file over HTTP: resume where it was cut, verify its hash, and name it only when it is complete."""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from cpfnet.errors import OutputError, WeightsError

ATTEMPTS = 5
TIMEOUT = 20.0  # seconds without a byte

Report = Callable[[int, int | None], None]


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make the cache folder, and explain why it cannot be written.

    Raises:
        OutputError: no permission, no space, or not a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=folder,
            fix="free some space, or set CPFNET_CACHE to a folder that you may write to",
        ) from None


def fetch(address: str, target: Path, hash_prefix: str, *, progress: bool = True) -> None:
    """Download ``target`` unless it exists and is right.

    What has arrived stays in a ``.part`` file next to it, and the next call continues there. Two processes that want
    the same file wait for each other.

    Args:
        address: an http(s) URL.
        target: the file to make.
        hash_prefix: the first hex digits of its SHA-256.
        progress: show a bar.

    Raises:
        WeightsError: no connection, or a wrong hash (then nothing is kept).
        OutputError: the folder cannot be written.
    """
    if not address.startswith(("http://", "https://")):
        raise WeightsError("not an http(s) address", where=address, fix="correct CPFNET_WEIGHTS_URL")
    part = target.with_name(f"{target.name}.part")
    with writing_to(target.parent), FileLock(target.with_name(f".{target.name}.lock")):
        if target.is_file() and sha256(target).startswith(hash_prefix):
            return
        with _bar(target.name, progress) as report:
            _complete(address, part, report)
        digest = sha256(part)
        if not digest.startswith(hash_prefix):
            part.unlink()
            raise WeightsError(
                f"the server sent a wrong file: its SHA-256 begins with {digest[: len(hash_prefix)]}, "
                f"expected {hash_prefix}; it was removed",
                where=address,
                fix="try again, or set CPFNET_WEIGHTS_URL to another mirror",
            )
        part.replace(target)


@contextmanager
def _bar(title: str, show: bool) -> Iterator[Report]:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from cpfnet.progress import Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, show=show) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _complete(address: str, part: Path, report: Report) -> None:
    """Download the rest of ``part``, over several connections if necessary."""
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.2 * 2**attempt)
        try:
            if _connect_once(address, part, report):
                return
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code == 416:  # nothing follows: complete (the hash will tell), or longer than the server's file
                total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range") or "")
                if total and int(total[1]) == _size(part):
                    return
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code != 429:
                break
        except urllib.error.URLError as error:
            reason = f"no connection: {error.reason}"
            if isinstance(error.reason, (socket.gaierror, ConnectionRefusedError)):
                break  # offline: another attempt would fail, too
        except (OSError, http.client.HTTPException) as error:
            reason = f"the connection failed: {error or type(error).__name__}"
    kept = f"; the next try goes on after the {_size(part):,} bytes that are here" if _size(part) else ""
    raise WeightsError(f"{reason}{kept}", where=address, fix="check the connection and run it again")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _connect_once(address: str, part: Path, report: Report) -> bool:
    """One connection; True when the file is complete, as far as the server says how long it is."""
    done = _size(part)
    request = urllib.request.Request(address, headers={"User-Agent": "cpfnet"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        length = response.headers.get("Content-Length") or ""
        total = int(length) if length.isdigit() else None
        if response.status == 206:
            stated = response.headers.get("Content-Range") or ""
            span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", stated)
            if not span or int(span[1]) != done:
                part.unlink(missing_ok=True)  # another part than the one asked for: start again
                raise http.client.HTTPException(f"asked for bytes from {done}, got {stated or 'an unnamed piece'}")
            total = int(span[3]) if span[3].isdigit() else int(span[2]) + 1
        else:
            done = 0  # the server knows no ranges and sends all of it
        with writing_to(part.parent), part.open("ab" if done else "wb") as file:
            while block := _read(response):
                file.write(block)
                done += len(block)
                report(done, total)
    return total is None or done >= total


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(1 << 16)
    except OSError as error:  # of the connection, not of the disk
        raise http.client.HTTPException(str(error) or type(error).__name__) from None

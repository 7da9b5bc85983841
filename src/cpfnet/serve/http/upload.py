"""The files of a request, on their way into the store: a raw body with its name, or a form of one file or several.

Files are written as they come, each once, and never lie in memory whole. Names are kept for people and for their
suffixes; nothing is written under them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cpfnet.formats import suffix_of
from cpfnet.serve.files import Batch, FileStore, Writer, manifest
from cpfnet.serve.http.archive import is_archive, unpack
from cpfnet.serve.http.problems import Problem
from cpfnet.serve.options import Limits

LOOK = 64 * 2**20
"""Bytes after which the free space is looked at again."""

LONGEST = 100
"""Bytes of a name; file systems take 255, and results add a suffix."""


async def receive(request: Request, name: str | None, files: FileStore, limits: Limits) -> str:
    """Put what a request brings into the store.

    Args:
        request: its body was not read.
        name: of a raw body; forms bring the names of their files.
        files: the store.
        limits: how much is taken.

    Returns:
        The digest of its manifest; all files are safe on disk.

    Raises:
        Problem: too much, too slow, cut short, or not what it says.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limits.body:
        raise _too_long(limits)
    with files.adding() as batch:
        inbox = _Inbox(batch, limits, int(announced) if announced.isdecimal() else 0)
        feed, end = inbox.form(options.get(b"boundary", b"")) if kind == b"multipart/form-data" else inbox.raw(name)
        size, chunks = 0, request.stream().__aiter__()
        while True:
            try:
                async with asyncio.timeout(limits.silence):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise Problem(408, f"nothing came for {limits.silence:g} seconds", "send it again") from None
            except ClientDisconnect:
                raise Problem(400, "the request ended before its end", "send it again") from None
            size += len(chunk)
            if size > limits.body:
                raise _too_long(limits)
            await run_in_threadpool(feed, chunk)
        await run_in_threadpool(end)
        return await run_in_threadpool(inbox.record)


def _too_long(limits: Limits) -> Problem:
    return Problem(413, f"the request is larger than {limits.body} bytes", "send one image at a time")


class _Inbox:
    """What has come so far."""

    def __init__(self, batch: Batch, limits: Limits, announced: int):
        self.batch, self.limits = batch, limits
        self.files: list[tuple[str, str]] = []  # name with the folders that it came with, and digest
        self._writer: Writer | None = None
        self._name, self._head, self._unseen = "", b"", 0
        self._check_disk(announced)

    def raw(self, name: str | None) -> tuple[Callable[[bytes], object], Callable[[], None]]:
        if not name:
            fix = "add ?name=scan.nii.gz to the address, or send a form (multipart/form-data)"
            raise Problem(422, "the file has no name, which tells what it is", fix)
        self._begin(name)
        return self._write, self._end

    def form(self, boundary: bytes) -> tuple[Callable[[bytes], object], Callable[[], None]]:
        header: dict[bytes, bytes] = {}
        field, value = bytearray(), bytearray()
        whole = False

        def end_header() -> None:
            header[bytes(field).lower()] = bytes(value)
            field.clear()
            value.clear()

        def begin_part() -> None:
            _, options = parse_options_header(header.get(b"content-disposition"))
            header.clear()
            name = options.get(b"filename")
            if name is None:
                raise Problem(422, "the form has a field that is no file", "send options in the address (?model=…)")
            self._begin(name.decode(errors="replace"))

        def end_form() -> None:
            nonlocal whole
            whole = True

        def end() -> None:
            if not whole:
                raise Problem(400, "the form ends before its end", "send it again")

        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_header_field": lambda data, start, stop: field.extend(data[start:stop]),
                    "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
                    "on_header_end": end_header,
                    "on_headers_finished": begin_part,
                    "on_part_data": lambda data, start, stop: self._write(data[start:stop]),
                    "on_part_end": self._end,
                    "on_end": end_form,
                },
            )
        except MultipartParseError:
            raise Problem(400, "the form names no boundary") from None

        def feed(chunk: bytes) -> None:
            try:
                parser.write(chunk)
            except MultipartParseError:
                raise Problem(400, "the form is damaged", "send it again") from None

        return feed, end

    def record(self) -> str:
        """The manifest, in the store."""
        if not self.files:
            raise Problem(422, "no file was sent", "send an image, the files of a DICOM series, or a ZIP of them")
        folders = {str(PurePosixPath(name).parent): None for name, _ in self.files}
        places = {folder: f"{number}/" if len(folders) > 1 else "" for number, folder in enumerate(folders, 1)}
        named = [(places[str(PurePosixPath(name).parent)] + clean(name), digest) for name, digest in self.files]
        often = Counter(name for name, _ in named)
        if twice := next((name for name in often if often[name] > 1), None):
            raise Problem(422, f"two files are called {twice}", "give each one a name of its own")
        return self.batch.add([manifest(dict(named))])

    def _begin(self, name: str) -> None:
        if len(self.files) >= self.limits.files:
            raise Problem(413, f"there are more than {self.limits.files} files", "send one image at a time")
        self._name, self._head, self._writer = name, b"", self.batch.begin()

    def _write(self, data: bytes) -> None:
        assert self._writer is not None  # begun
        if len(self._head) < 4:
            self._head += data[:4]
        self._unseen += len(data)
        if self._unseen > LOOK:
            self._check_disk(0)
        self._writer.write(data)

    def _end(self) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        if not is_archive(self._head):
            self.files.append((self._name.replace("\\", "/"), self.batch.end(writer)))
            return
        writer.close()
        for name, chunks in unpack(writer.path, self.limits, len(self.files)):
            self._begin(name)
            for chunk in chunks:
                self._write(chunk)
            if is_archive(self._head):
                raise Problem(422, "the ZIP holds another ZIP", "unpack that one")
            self._end()
        writer.discard()

    def _check_disk(self, more: int) -> None:
        self._unseen = 0
        if shutil.disk_usage(self.batch.store.folder).free - more < self.limits.free_disk:
            raise Problem(507, "the disk of the server is nearly full", "free space on it, then send it again")


def clean(name: str) -> str:
    """The last part of a name, as a file name of letters, digits, spaces, ``_``, ``-`` and ``.``, not hidden.

    Example:
        >>> clean("C:\\\\scans\\\\..\\\\Müller?.nii.gz")
        'Müller_.nii.gz'
    """
    last = re.split(r"[\\/]", name)[-1]
    safe = re.sub(r"[^\w .-]", "_", last).strip(" .") or "file"
    suffix = suffix_of(safe)
    stem = safe[: len(safe) - len(suffix)].encode()[: LONGEST - len(suffix)].decode(errors="ignore")
    return stem + safe[len(safe) - len(suffix) :]

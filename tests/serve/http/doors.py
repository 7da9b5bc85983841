"""Servers for tests, on a free port of this machine, and a client that shows what really comes back."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from cpfnet.model import Model
from cpfnet.serve.cases.labelling import Labelling
from cpfnet.serve.http.app import make_app
from cpfnet.serve.http.models import named
from cpfnet.serve.http.service import Service
from cpfnet.serve.image_process import ImageProcess
from cpfnet.serve.options import Limits, ServeOptions
from cpfnet.serve.server import config_of, listen
from cpfnet.serve.store import Store, StoreOptions, serving
from cpfnet.serve.worker_pool import WorkerPool

TOKEN = "the-token-of-this-start"


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """A script on the same machine; a connection for each request."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, self.headers | named)
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def send(self, query: str, files: Mapping[str, bytes], **headers: str) -> Answer:
        """A form."""
        kind, body = form(files)
        return self.ask("POST", f"/api/v1/jobs?{query}", body, content_type=kind, **headers)

    def raw(self, query: str, content: bytes, **headers: str) -> Answer:
        return self.ask("POST", f"/api/v1/jobs?{query}", content, **headers)


def form(files: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Content type and body."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


def zipped(files: Mapping[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


@dataclass
class Door:
    client: Client
    store: Store


@contextmanager
def door(
    folder: Path, models: list[Model], limits: Limits | None = None, require_token: bool = False
) -> Iterator[Door]:
    """A server without workers: jobs wait."""
    with serving(StoreOptions(folder)) as store, listen(ServeOptions(port=0)) as listener:
        port = listener.getsockname()[1]
        pool = WorkerPool([], store.jobs, print)
        address, images = f"http://127.0.0.1:{port}", ImageProcess(store.files, store.work)
        known, most = named([(folder, [model]) for model in models]), limits or Limits()
        labelling = Labelling(store, [one.plan for one in models])
        service = Service(store, pool, images, labelling, known, most, address, lambda: server.should_exit)
        server = uvicorn.Server(config_of(make_app(service, port=port, token=TOKEN, require_token=require_token)))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield Door(Client(port), store)
        finally:
            server.should_exit = True
            thread.join()


class Program:
    """``cpfnet serve`` in a process of its own."""

    def __init__(self, store: Path, *models: Path | None, **options: object):
        words = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        command = [sys.executable, "-m", "cpfnet", "serve", *map(str, models), "--store", str(store), *words]
        command += ["--no-browser", "--port", "0", "--backend", "onnx", "--device", "cpu"]
        self.log = store.with_name(f"{store.name}.log")
        with self.log.open("ab") as log:
            begin = self.log.stat().st_size
            environment = os.environ | {"PYTHONUNBUFFERED": "1"}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        end = time.monotonic() + 60
        while True:
            said = self.log.read_bytes()[begin:].decode()
            if found := re.search(r"127\.0\.0\.1:(\d+)/\?token=(\S+)\nCtrl-C", said):
                break
            assert self.process.poll() is None, said
            assert time.monotonic() < end
            time.sleep(0.02)
        self.client, self.token = Client(int(found[1])), found[2]

    def until_ready(self) -> None:
        end = time.monotonic() + 60
        while self.client.get("/health/ready").status != 200:
            assert time.monotonic() < end
            time.sleep(0.05)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

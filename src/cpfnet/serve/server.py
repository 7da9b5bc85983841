"""A server from its start to its end: store, workers, and the door to them."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import uvicorn
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp

from cpfnet.errors import CpfnetError, redacted_message
from cpfnet.inference.batch.signals import Ended, ending
from cpfnet.inference.model_arguments import ModelArgument
from cpfnet.serve.cases.labelling import Labelling
from cpfnet.serve.http.app import make_app
from cpfnet.serve.http.models import served
from cpfnet.serve.http.service import Service
from cpfnet.serve.image_process import ImageProcess
from cpfnet.serve.options import ServeOptions
from cpfnet.serve.store import Store, serving
from cpfnet.serve.worker import Setting
from cpfnet.serve.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

CLEANING = 600.0
"""Seconds between two looks for what is no longer needed."""

DAY = 86_400.0

HEADERS = 32 * 2**10
"""Bytes of a request's headers."""

LAST_ANSWERS = 3
"""Seconds for requests that are being answered when the server ends."""


def serve(models: Sequence[ModelArgument], options: ServeOptions, started: Callable[[str, str], None]) -> None:
    """Serve until SIGINT or SIGTERM comes.

    Args:
        models: each served by itself; an ensemble as one.
        options: how.
        started: called once with the address, and with the same that lets a browser in.

    Raises:
        CpfnetError: a Model that lies in no folder or cannot be run here, a port or store that is taken.
    """
    described = served(models)
    if not described:
        raise CpfnetError("there is no Model to serve", fix="give the folders of Models")
    with ending(), serving(options.store) as store, listen(options) as listener:
        port = listener.getsockname()[1]
        failures: list[str] = []

        def fail(reason: str) -> None:
            failures.append(reason)
            server.should_exit = True

        settings = [
            Setting(
                name="",
                model=one.folder.absolute(),
                digest=one.digest,
                store=replace(options.store, folder=store.folder.absolute()),
                device=options.device,
                backend=options.backend,
                most_voxels=options.limits.voxels,
            )
            for one in described
            for _ in range(options.workers)
        ]
        token = secrets.token_urlsafe(24)
        name = f"[{options.host}]" if ":" in options.host else options.host
        address = f"http://{name}:{port}"
        pool = WorkerPool(settings, store.jobs, fail)
        images = ImageProcess(store.files, store.work)
        labelling = Labelling(store, [one.model.plan for one in described])
        service = Service(
            store, pool, images, labelling, described, options.limits, address, lambda: server.should_exit
        )
        app = make_app(service, port=port, token=token, require_token=options.require_token)
        server = uvicorn.Server(config_of(app))
        with pool, Cleaning(store, options.retention):
            started(address, f"{address}/?token={token}")
            try:
                server.run(sockets=[listener])
            except (KeyboardInterrupt, Ended):  # raised again by uvicorn once it has ended
                logger.info("Stopped; jobs that are not done go on when the server is started again")
        if failures:
            raise CpfnetError(failures[0])


def config_of(app: ASGIApp) -> uvicorn.Config:
    """How an app is served: within limits, and without a word about what runs here."""
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADERS,
        timeout_graceful_shutdown=LAST_ANSWERS,
    )


def listen(options: ServeOptions) -> socket.socket:
    """A socket that waits for connections.

    Raises:
        CpfnetError: the port is taken.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except OSError as error:
        raise CpfnetError(
            f"port {options.port} cannot be listened on: {error.strerror}",
            where=options.host,
            fix="stop what uses it, or choose another one (--port; 0: any)",
        ) from None


class Cleaning:
    """Now and then, delete jobs after their time, and files that no job refers to."""

    def __init__(self, store: Store, retention: float | None):
        self.store, self.retention = store, retention
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                if self.retention is not None:
                    self.store.jobs.expire(time.time() - self.retention * DAY)
                self.store.files.sweep(self.store.wanted)
            except (DBAPIError, OSError) as error:
                logger.warning("Old files stay for now: %s", redacted_message(error))
            if self._end.wait(CLEANING):
                return

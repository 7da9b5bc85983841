"""What the routes of a server share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import Request

from cpfnet.serve.cases.labelling import Labelling
from cpfnet.serve.http.models import Served
from cpfnet.serve.image_process import ImageProcess
from cpfnet.serve.options import Limits
from cpfnet.serve.store import Store
from cpfnet.serve.worker_pool import WorkerPool


@dataclass(frozen=True)
class Service:
    """A server that runs.

    Attributes:
        store: jobs and files.
        pool: the workers.
        images: does what takes pixels.
        labelling: keeps cases and labels.
        models: that it serves.
        limits: how much it takes.
        address: such as ``http://127.0.0.1:8000``.
        stopping: whether it is about to end, so that nobody is to wait for it.
    """

    store: Store
    pool: WorkerPool
    images: ImageProcess
    labelling: Labelling
    models: Sequence[Served]
    limits: Limits
    address: str
    stopping: Callable[[], bool]


def of_request(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service

"""What a server may be told: where it listens, what it keeps, and how much it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cpfnet.errors import CpfnetError
from cpfnet.serve.store import StoreOptions

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Hosts that only programs of this machine reach."""

GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """How much a server takes, so that nobody fills its memory, its disk or its time.

    Attributes:
        body: bytes of a request.
        files: of one job; thin CTs have thousands of slices.
        unpacked: bytes that the files of a ZIP may have.
        voxels: of an image, all channels together; larger ones are not read.
        queue: jobs that wait.
        free_disk: bytes that stay free on the store's disk.
        wait: seconds that a request may wait for its job.
        silence: seconds after which a sender that sends nothing is cut off.
    """

    body: int = 8 * GIB
    files: int = 20_000
    unpacked: int = 32 * GIB
    voxels: int = GIB
    queue: int = 1_000
    free_disk: int = GIB
    wait: float = 60.0
    silence: float = 30.0

    @classmethod
    def given(cls, texts: Sequence[str]) -> Limits:
        """Limits of which some are changed, as ``["files=50000"]``.

        Raises:
            CpfnetError: no such limit, or no number from 0.
        """
        known = asdict(cls())
        found: dict[str, Any] = {}
        for text in texts:
            name, _, value = text.partition("=")
            if name not in known:
                raise CpfnetError(f"{name!r} is no limit", where="--limit", fix=f"choose {', '.join(known)}")
            try:
                found[name] = type(known[name])(value)
            except ValueError:
                found[name] = -1
            if not found[name] >= 0:
                raise CpfnetError(
                    f"{value!r} is no number from 0", where=f"--limit {name}", fix=f"{name}={known[name]}"
                )
        return cls(**found)


@dataclass(frozen=True)
class ServeOptions:
    """How Models are served.

    Attributes:
        host: to listen on; of this machine only, as long as there are no users.
        port: 0: any that is free.
        store: where jobs and files are kept.
        workers: processes for each Model.
        device, backend: see `PredictorOptions`.
        require_token: from scripts, too; browsers always need it.
        retention: days after which finished jobs are deleted with their files; None: never.
        limits: how much is taken.

    Raises:
        CpfnetError: a host that others reach, or a value that cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    store: StoreOptions = field(default_factory=lambda: StoreOptions(Path("cpfnet-serve")))
    workers: int = 1
    device: str = "auto"
    backend: str = "auto"
    require_token: bool = False
    retention: float | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK:
            raise CpfnetError(
                f"{self.host} can be reached from other machines, and this server knows neither users nor encryption",
                where="--host",
                fix=f"serve on 127.0.0.1, and reach it from elsewhere by ssh -L {self.port}:127.0.0.1:{self.port}",
            )
        if self.workers < 1 or (self.retention is not None and self.retention < 0):
            raise CpfnetError("there is no such number of workers or days", fix="choose at least one worker, 0 days")

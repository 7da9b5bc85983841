"""A job: one image that one Model is to segment for one user, and what became of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["queued", "running", "done", "failed", "refused", "cancelled"]

ACTIVE: tuple[State, ...] = ("queued", "running")
FINISHED: tuple[State, ...] = ("done", "failed", "refused", "cancelled")
"""States that a job never leaves."""

LABELS = "labels"
"""The kind of result that holds what the mask says, from which it is written in other formats; not for users."""


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        input: digest of the manifest of the input's files (`cpfnet.serve.files`).
        model: digest of the Model.
        options: how it predicts and what is written, in JSON's types.
        user: who asks; "" where the server has no users.
    """

    input: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    user: str = ""

    @property
    def key(self) -> str:
        """The same where the same user asks for the same: SHA-256 in hex."""
        text = json.dumps([self.user, self.input, self.model, self.options], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """One file that a job made: what it is called for its user, and under which digest it lies in the store."""

    name: str
    digest: str


@dataclass(frozen=True)
class Ending:
    """How a worker ends a job.

    Attributes:
        state: ``done``, ``failed`` or ``refused``.
        message: what is wrong and how to fix it; empty when done.
        report: warnings and the estimate of quality, in JSON's types.
        results: by kind: ``mask``, `LABELS`, and what else was asked for.
    """

    state: State
    message: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A row of the store.

    Attributes:
        id: random, so that nobody guesses it.
        request: what was asked for.
        state: see `State`.
        priority: the higher, the sooner; among equals the first comes first.
        progress: share of the work done, 0 … 1.
        attempts: how often a worker died of it.
        created, started, finished: seconds since 1970; None: not yet. A job that is tried again starts again.
        message, report, results: see `Ending`.
    """

    id: str
    request: Request
    state: State
    priority: int
    progress: float
    attempts: int
    created: float
    started: float | None
    finished: float | None
    message: str
    report: dict[str, Any]
    results: dict[str, Result]


@dataclass(frozen=True)
class Claim:
    """A job in the hands of a worker.

    Attributes:
        job: as it was when it was taken.
        lease: of this taking alone: once the store gives the job to another, nothing is accepted under it.
    """

    job: Job
    lease: str

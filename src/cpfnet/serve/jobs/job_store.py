"""Jobs that nothing can lose: each change is one transaction, and each job ends once."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine, and_, delete, func, select, update
from sqlalchemy.exc import IntegrityError

from cpfnet.errors import CpfnetError
from cpfnet.serve.database import open_database, reading
from cpfnet.serve.jobs.job import ACTIVE, FINISHED, Claim, Ending, Job, Request, Result
from cpfnet.serve.schema import jobs

LEASE = 30.0
"""Seconds after which a worker that did not say that it lives has lost its job."""


class QueueFull(CpfnetError):
    """There are as many jobs as the server takes."""


class JobStore:
    """The jobs of a server, in a database that its workers open, too.

    A worker *claims* a job and gets a lease, which it renews while it works. Whatever it records it records under its
    lease; once the store has taken the job back (the lease ran out, the user cancelled, the server started anew),
    nothing under it counts. So work may repeat, and a job ends with exactly one recorded result.

    Args:
        engine: from `open_database`.
        lease: seconds.
        max_attempts: a job is failed once so many workers died of it.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        lease: float = LEASE,
        max_attempts: int = 5,
        clock: Callable[[], float] = time.time,
    ):
        self.engine, self.lease, self.max_attempts, self.clock = engine, lease, max_attempts, clock

    @classmethod
    def open(cls, url: str, **options: Any) -> JobStore:
        """Raises: CpfnetError: see `open_database`."""
        return cls(open_database(url), **options)

    def close(self) -> None:
        self.engine.dispose()

    # What users ask for.

    def submit(self, request: Request, *, priority: int = 0, most: int | None = None) -> tuple[Job, bool]:
        """Record a job, or find the one that the same user asked for before.

        Once it returns, the job survives a power cut. A job that failed or was cancelled is not found: asking again
        tries again.

        Args:
            request: what is asked for; its files are safe on disk.
            priority: the higher, the sooner.
            most: jobs that may be queued.

        Returns:
            The job, and whether it is new.

        Raises:
            QueueFull: as many are queued.
        """
        for _ in range(3):  # another process may record the same in between
            with self.engine.begin() as db:
                if found := db.execute(select(jobs).where(jobs.c.key == request.key)).one_or_none():
                    return _job(found), False
                queued = select(func.count()).where(jobs.c.state == "queued")
                if most is not None and db.execute(queued).scalar_one() >= most:
                    raise QueueFull(f"{most} jobs are waiting, and no more are taken", fix="try again later")
                row = {
                    "id": secrets.token_hex(16),
                    "key": request.key,
                    "user": request.user,
                    "input": request.input,
                    "model": request.model,
                    "options": json.dumps(request.options, sort_keys=True),
                    "state": "queued",
                    "priority": priority,
                    "progress": 0.0,
                    "attempts": 0,
                    "created": self.clock(),
                    "message": "",
                    "report": "{}",
                    "results": "{}",
                }
                try:
                    with db.begin_nested():
                        db.execute(jobs.insert().values(row))
                except IntegrityError:
                    continue
                return _job(db.execute(select(jobs).where(jobs.c.id == row["id"])).one()), True
        raise CpfnetError("the job could not be recorded", fix="try again")  # it came and went three times

    def get(self, id: str, user: str = "") -> Job | None:
        """A user's job; None: there is none of this id, or it is another's."""
        with reading(self.engine) as db:
            row = db.execute(select(jobs).where(jobs.c.id == id, jobs.c.user == user)).one_or_none()
        return None if row is None else _job(row)

    def cancel(self, id: str, user: str = "") -> bool:
        """End a job that is queued or running; its worker notices when it next renews its lease."""
        mine = and_(jobs.c.id == id, jobs.c.user == user, jobs.c.state.in_(ACTIVE))
        with self.engine.begin() as db:
            return db.execute(update(jobs).where(mine).values(self._end("cancelled") | {"key": None})).rowcount == 1

    def delete(self, id: str, user: str = "") -> bool:
        """Forget a finished job; its files go with the next `FileStore.sweep`."""
        mine = and_(jobs.c.id == id, jobs.c.user == user, jobs.c.state.in_(FINISHED))
        with self.engine.begin() as db:
            return db.execute(delete(jobs).where(mine)).rowcount == 1

    def expire(self, before: float) -> int:
        """Forget the jobs that finished before a time, in seconds since 1970; returns how many."""
        old = and_(jobs.c.state.in_(FINISHED), jobs.c.finished < before)
        with self.engine.begin() as db:
            return db.execute(delete(jobs).where(old)).rowcount

    # What workers do.

    def claim(self, model: str, worker: str) -> Claim | None:
        """Take the next job of a Model: the most urgent one, of these the oldest; None: there is nothing to do."""
        now, lease = self.clock(), secrets.token_hex(16)
        with self.engine.begin() as db:
            lapsed = and_(jobs.c.state == "running", jobs.c.lease_until < now)
            db.execute(update(jobs).where(lapsed).values(_QUEUED))
            number = db.execute(
                select(jobs.c.number)
                .where(jobs.c.state == "queued", jobs.c.model == model)
                .order_by(jobs.c.priority.desc(), jobs.c.number)
                .limit(1)
                .with_for_update(skip_locked=True)  # PostgreSQL; SQLite lets one write at a time
            ).scalar_one_or_none()
            if number is None:
                return None
            taken = {
                "state": "running",
                "progress": 0.0,
                "started": now,
                "worker": worker,
                "lease": lease,
                "lease_until": now + self.lease,
            }
            db.execute(update(jobs).where(jobs.c.number == number).values(taken))
            return Claim(_job(db.execute(select(jobs).where(jobs.c.number == number)).one()), lease)

    def renew(self, claim: Claim, progress: float) -> bool:
        """Say that the work goes on; False: the job is no longer this worker's."""
        with self.engine.begin() as db:
            values = {"progress": progress, "lease_until": self.clock() + self.lease}
            return db.execute(update(jobs).where(_held(claim)).values(values)).rowcount == 1

    def finish(self, claim: Claim, ending: Ending) -> bool:
        """Record the end of a job; once it returns, it survives a power cut.

        Returns:
            False: the job is no longer this worker's, and nothing was recorded.
        """
        values = self._end(ending.state) | {
            "message": ending.message,
            "report": json.dumps(ending.report),
            "results": json.dumps({kind: asdict(result) for kind, result in ending.results.items()}),
        }
        if ending.state == "failed":
            values["key"] = None
        else:
            values["progress"] = 1.0
        with self.engine.begin() as db:
            return db.execute(update(jobs).where(_held(claim)).values(values)).rowcount == 1

    # What the server does.

    def add_result(self, id: str, kind: str, result: Result) -> bool:
        """Record what was made of a job that is done; False: there is no such job any more."""
        done = and_(jobs.c.id == id, jobs.c.state == "done")
        with self.engine.begin() as db:
            before = db.execute(select(jobs.c.results).where(done).with_for_update()).scalar_one_or_none()
            if before is None:
                return False
            results = json.dumps(json.loads(before) | {kind: asdict(result)})
            db.execute(update(jobs).where(done).values(results=results))
            return True

    def worker_died(self, worker: str) -> int:
        """Give back what a worker held that died by itself.

        The attempt counts, and the last one fails the job.

        Returns:
            How many jobs it held: one, or none.
        """
        held = and_(jobs.c.state == "running", jobs.c.worker == worker)
        with self.engine.begin() as db:
            rows = db.execute(select(jobs.c.number, jobs.c.attempts).where(held).with_for_update()).all()
            for number, attempts in rows:
                values = _QUEUED if attempts + 1 < self.max_attempts else self._end("failed") | self._died
                db.execute(update(jobs).where(jobs.c.number == number).values(values | {"attempts": attempts + 1}))
            return len(rows)

    @property
    def _died(self) -> dict[str, Any]:
        message = (
            f"the worker process died {self.max_attempts} times over this image, perhaps for want of memory\n"
            "  → free memory, or send a smaller image; asking again tries again"
        )
        return {"message": message, "key": None}

    def release_all(self) -> int:
        """Give back what is running: nobody works on it, since its server stopped. No attempt counts.

        Only whoever holds the store's lock may call it.
        """
        with self.engine.begin() as db:
            return db.execute(update(jobs).where(jobs.c.state == "running").values(_QUEUED)).rowcount

    def count(self) -> dict[tuple[str, str], int]:
        """How many jobs there are, by Model and state."""
        with reading(self.engine) as db:
            rows = db.execute(select(jobs.c.model, jobs.c.state, func.count()).group_by(jobs.c.model, jobs.c.state))
            return {(model, state): number for model, state, number in rows}

    def files(self) -> tuple[set[str], set[str]]:
        """Digests that jobs refer to: of manifests of inputs, and of results."""
        with reading(self.engine) as db:
            rows = db.execute(select(jobs.c.input, jobs.c.results)).all()
        results = {one["digest"] for _, text in rows for one in json.loads(text).values()}
        return {digest for digest, _ in rows}, results

    def each(self) -> Iterator[Job]:
        """All jobs, in the order of their arrival."""
        with reading(self.engine) as db:
            yield from map(_job, db.execute(select(jobs).order_by(jobs.c.number)).all())

    def _end(self, state: str) -> dict[str, Any]:
        return {"state": state, "finished": self.clock(), "worker": None, "lease": None, "lease_until": None}


_QUEUED: dict[str, Any] = {
    "state": "queued",
    "progress": 0.0,
    "started": None,
    "worker": None,
    "lease": None,
    "lease_until": None,
}


def _held(claim: Claim) -> Any:
    return and_(jobs.c.id == claim.job.id, jobs.c.state == "running", jobs.c.lease == claim.lease)


def _job(row: Any) -> Job:
    results = {kind: Result(**one) for kind, one in json.loads(row.results).items()}
    return Job(
        id=row.id,
        request=Request(row.input, row.model, json.loads(row.options), row.user),
        state=row.state,
        priority=row.priority,
        progress=row.progress,
        attempts=row.attempts,
        created=row.created,
        started=row.started,
        finished=row.finished,
        message=row.message,
        report=json.loads(row.report),
        results=results,
    )

"""No job is lost, none ends twice, nobody gets another's; in SQLite and in PostgreSQL."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import text

from cpfnet.errors import CpfnetError
from cpfnet.serve import schema
from cpfnet.serve.jobs.job import FINISHED, Claim, Ending, Request, Result
from cpfnet.serve.jobs.job_store import JobStore, QueueFull

DONE = Ending("done", report={"quality": None}, results={"mask": Result("a.nii.gz", "d" * 64)})


def request(number: int = 0, user: str = "", model: str = "m") -> Request:
    return Request(input=f"{number:064d}", model=model, options={"format": "same"}, user=user)


@pytest.fixture
def store(database: str) -> Iterator[JobStore]:
    made = JobStore.open(database)
    yield made
    made.close()


def take(store: JobStore, worker: str = "w") -> Claim:
    claim = store.claim("m", worker)
    assert claim is not None
    return claim


class TestAsking:
    def test_the_same_asked_twice_is_one_job(self, store: JobStore) -> None:
        first, new = store.submit(request())
        again, old = store.submit(request())
        assert (new, old) == (True, False)
        assert first == again == store.get(first.id)

    @pytest.mark.parametrize(
        "other",
        [request(1), request(user="b"), request(model="n"), dataclasses.replace(request(), options={"format": "nrrd"})],
    )
    def test_what_differs_is_another_job(self, store: JobStore, other: Request) -> None:
        assert store.submit(request())[0].id != store.submit(other)[0].id

    def test_nobody_sees_ends_or_deletes_the_job_of_another(self, store: JobStore) -> None:
        job, _ = store.submit(request(user="a"))
        assert store.get(job.id, "b") is None
        assert not store.cancel(job.id, "b")
        store.cancel(job.id, "a")
        assert not store.delete(job.id, "b")
        assert store.delete(job.id, "a")

    @pytest.mark.parametrize(("state", "new"), [("failed", True), ("refused", False), ("done", False)])
    def test_asking_again_tries_a_failed_job_again(self, store: JobStore, state: Any, new: bool) -> None:
        job, _ = store.submit(request())
        assert store.finish(take(store), Ending(state))
        again, made = store.submit(request())
        assert made == new == (again.id != job.id)

    def test_a_full_queue_takes_no_more_but_knows_what_it_has(self, store: JobStore) -> None:
        store.submit(request(0), most=1)
        with pytest.raises(QueueFull, match="1 jobs are waiting"):
            store.submit(request(1), most=1)
        assert not store.submit(request(0), most=1)[1]


class TestWorking:
    def test_the_most_urgent_comes_first_then_the_oldest(self, store: JobStore) -> None:
        for number, priority in enumerate([0, 5, 0, 5]):
            store.submit(request(number), priority=priority)
        assert [int(take(store).job.request.input) for _ in range(4)] == [1, 3, 0, 2]
        assert store.claim("m", "w") is None

    def test_a_model_gets_its_own_jobs(self, store: JobStore) -> None:
        store.submit(request(model="other"))
        assert store.claim("m", "w") is None

    def test_what_was_recorded_is_found_as_it_was(self, store: JobStore) -> None:
        job, _ = store.submit(request())
        claim = take(store)
        assert store.renew(claim, 0.25)
        now = store.get(job.id)
        assert now is not None
        assert (now.state, now.progress) == ("running", 0.25)
        assert store.finish(claim, DONE)
        ended = store.get(job.id)
        assert ended is not None
        assert (ended.state, ended.progress, ended.results, ended.report) == ("done", 1, DONE.results, DONE.report)
        assert not store.finish(claim, Ending("failed", "later"))

    def test_a_worker_that_says_nothing_loses_its_job_and_the_attempt_does_not_count(self, database: str) -> None:
        now = [0.0]
        store = JobStore.open(database, lease=10, clock=lambda: now[0])
        store.submit(request())
        first = take(store)
        now[0] = 9
        assert store.renew(first, 0)
        now[0] = 18
        assert store.claim("m", "other") is None
        now[0] = 19.5
        second = take(store, "other")
        assert second.job.attempts == 0
        assert not store.renew(first, 0.9)
        assert not store.finish(first, DONE)
        assert store.finish(second, DONE)
        store.close()

    def test_a_job_that_kills_its_workers_is_failed(self, database: str) -> None:
        store = JobStore.open(database, max_attempts=2)
        job, _ = store.submit(request())
        take(store, "one")
        assert store.release_all() == 1  # the server stopped: this does not count
        take(store, "two")
        assert store.worker_died("two") == 1
        assert store.worker_died("two") == 0
        take(store, "three")
        store.worker_died("three")
        ended = store.get(job.id)
        assert ended is not None
        assert (ended.state, ended.attempts) == ("failed", 2)
        assert "died 2 times" in ended.message
        assert store.submit(request())[1]
        store.close()

    def test_a_cancelled_job_takes_no_result(self, store: JobStore) -> None:
        job, _ = store.submit(request())
        claim = take(store)
        assert store.cancel(job.id)
        assert not store.renew(claim, 0.5)
        assert not store.finish(claim, DONE)
        assert not store.cancel(job.id)

    def test_old_jobs_go_after_their_time_active_ones_never(self, database: str) -> None:
        now = [0.0]
        store = JobStore.open(database, clock=lambda: now[0])
        store.submit(request(0))
        store.finish(take(store), DONE)
        store.submit(request(1))
        now[0] = 100
        assert store.expire(0) == 0
        assert store.expire(50) == 1
        assert [job.request.input for job in store.each()] == [request(1).input]
        store.close()


class TestSchema:
    def test_an_older_store_is_brought_to_today_and_keeps_its_jobs(self, store: JobStore) -> None:
        job, _ = store.submit(request())
        steps = (*schema.MIGRATIONS, lambda db: db.execute(text("ALTER TABLE cpfnet_jobs ADD COLUMN shift TEXT")))
        for _ in range(2):
            with store.engine.begin() as db:
                schema.migrate(db, steps)
        assert store.get(job.id) == job
        with store.engine.begin() as db:
            assert db.execute(text("SELECT shift FROM cpfnet_jobs")).all() == [(None,)]

    def test_a_step_that_fails_changes_nothing(self, store: JobStore) -> None:
        def breaks(db: Any) -> None:
            db.execute(text("ALTER TABLE cpfnet_jobs ADD COLUMN shift TEXT"))
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), store.engine.begin() as db:
            schema.migrate(db, (*schema.MIGRATIONS, breaks))
        with store.engine.begin() as db:
            schema.migrate(db)
            assert "shift" not in [*db.execute(text("SELECT * FROM cpfnet_jobs")).keys()]

    def test_a_later_store_is_refused_and_left_as_it_is(self, store: JobStore, database: str) -> None:
        with store.engine.begin() as db:
            db.execute(schema.schema.update().values(version=99))
        with pytest.raises(CpfnetError, match="has version 99, and this cpfnet knows versions up to 1"):
            JobStore.open(database)

    @pytest.mark.parametrize(
        "url", ["mysql://root:secret@localhost/x", "nonsense", "postgresql://u:secret@/x?host=/no"]
    )
    def test_other_databases_are_refused_without_repeating_a_password(self, url: str) -> None:
        with pytest.raises(CpfnetError) as caught:
            JobStore.open(url)
        assert "secret" not in str(caught.value)


def work(url: str, name: str, speed: float) -> None:
    """A worker of no Model: claims, renews, sometimes cancels, finishes, until it is killed."""
    store, draw = JobStore.open(url, lease=0.5), random.Random(name)
    while True:
        claim = store.claim("m", name)
        if claim is None:
            time.sleep(speed)
            continue
        for share in (0.3, 0.6):
            time.sleep(draw.random() * speed)
            store.renew(claim, share)
        digest = claim.job.request.input
        store.finish(claim, Ending("done", results={"mask": Result("a", digest)}))


@pytest.mark.slow
def test_workers_killed_at_any_moment_lose_nothing(database: str) -> None:
    """Each job is done with its own result, however often its workers die; some die without anybody noticing."""
    store, processes, draw = (
        JobStore.open(database, lease=0.5, max_attempts=1000),
        multiprocessing.get_context("fork"),
        random.Random(1),
    )
    store.engine.dispose()  # connections are not shared with the children
    jobs = [store.submit(request(number))[0].id for number in range(16)]
    store.engine.dispose()
    alive: dict[str, Any] = {}
    kills = 0
    deadline = time.monotonic() + 60
    while any(job.state != "done" for job in store.each()):
        assert time.monotonic() < deadline
        while len(alive) < 3:
            store.engine.dispose()
            name = f"worker {kills} {len(alive)} {draw.random()}"
            alive[name] = processes.Process(target=work, args=(database, name, 0.02), daemon=True)
            alive[name].start()
        time.sleep(draw.random() * 0.1)
        if kills < 8:
            name = draw.choice([*alive])
            victim = alive.pop(name)
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            kills += 1
            if draw.random() < 0.7:
                store.worker_died(name)
    for one in alive.values():
        one.kill()
        one.join()
    ended = [*store.each()]
    assert [job.id for job in ended] == jobs
    assert [job.results["mask"].digest for job in ended] == [job.request.input for job in ended]
    store.close()


@dataclasses.dataclass
class Expected:
    """What a job should be."""

    request: Request
    state: str = "queued"
    attempts: int = 0
    holder: Claim | None = None
    until: float = 0.0
    worker: str = ""
    results: dict[str, Result] = dataclasses.field(default_factory=dict)


class Jobs(RuleBasedStateMachine):
    """The store against a dictionary: users ask and cancel, workers work, stall and die, servers stop, time passes."""

    LEASE, MOST = 10.0, 2

    def __init__(self) -> None:
        super().__init__()
        self.folder, self.now = TemporaryDirectory(), 0.0
        url = f"sqlite:///{Path(self.folder.name) / 'jobs.sqlite'}"
        self.store = JobStore.open(url, lease=self.LEASE, max_attempts=self.MOST, clock=lambda: self.now)
        self.expected: dict[str, Expected] = {}
        self.claims: list[tuple[str, Claim]] = []

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    def holding(self, test: Callable[[Expected], bool]) -> list[Expected]:
        return [one for one in self.expected.values() if one.holder is not None and test(one)]

    @rule(number=st.integers(0, 2), user=st.sampled_from("ab"), priority=st.integers(0, 1))
    def ask(self, number: int, user: str, priority: int) -> None:
        asked = request(number, user)
        known = {
            id for id, one in self.expected.items() if one.request == asked and one.state not in ("failed", "cancelled")
        }
        job, new = self.store.submit(asked, priority=priority)
        assert known == (set() if new else {job.id})
        self.expected.setdefault(job.id, Expected(asked))

    @rule(worker=st.sampled_from("uvw"))
    def claim(self, worker: str) -> None:
        for one in self.holding(lambda one: one.until < self.now):
            one.state, one.holder = "queued", None
        claim = self.store.claim("m", worker)
        waiting = {id for id, one in self.expected.items() if one.state == "queued"}
        if claim is None:
            assert not waiting
            return
        assert claim.job.id in waiting
        one = self.expected[claim.job.id]
        one.state, one.holder, one.until, one.worker = "running", claim, self.now + self.LEASE, worker
        self.claims.append((claim.job.id, claim))

    @rule(data=st.data(), state=st.sampled_from(["done", "failed", "refused", None]))
    def work(self, data: st.DataObject, state: Any) -> None:
        """With a claim of now, or of long ago."""
        if not self.claims:
            return
        id, claim = data.draw(st.sampled_from(self.claims))
        one = self.expected.get(id)
        holds = one is not None and one.holder is claim
        if state is None:
            assert self.store.renew(claim, 0.5) == holds
        else:
            results = {"mask": Result("a", claim.lease)} if state == "done" else {}
            assert self.store.finish(claim, Ending(state, results=results)) == holds
        if one is None or not holds:
            return
        if state is None:
            one.until = self.now + self.LEASE
        else:
            one.state, one.holder, one.results = state, None, results

    @rule(data=st.data(), user=st.sampled_from("ab"), delete=st.booleans())
    def end(self, data: st.DataObject, user: str, delete: bool) -> None:
        if not self.expected:
            return
        id = data.draw(st.sampled_from([*self.expected]))
        one = self.expected[id]
        over = one.state in FINISHED
        may = one.request.user == user and over == delete
        assert (self.store.delete if delete else self.store.cancel)(id, user) == may
        if may and delete:
            del self.expected[id]
        elif may:
            one.state, one.holder = "cancelled", None

    @rule(worker=st.sampled_from("uvw"))
    def die(self, worker: str) -> None:
        self.store.worker_died(worker)
        for one in self.holding(lambda one: one.worker == worker):
            one.attempts, one.holder = one.attempts + 1, None
            one.state = "failed" if one.attempts >= self.MOST else "queued"

    @rule()
    def stop(self) -> None:
        self.store.release_all()
        for one in self.holding(lambda one: True):
            one.state, one.holder = "queued", None

    @rule(seconds=st.sampled_from([1.0, 6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def all_is_as_expected(self) -> None:
        found = {job.id: (job.request, job.state, job.attempts, job.results) for job in self.store.each()}
        assert found == {id: (o.request, o.state, o.attempts, o.results) for id, o in self.expected.items()}


Jobs.TestCase.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
TestJobs = Jobs.TestCase

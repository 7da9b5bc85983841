"""The inputs spread over a cluster, by Ray: one worker a machine, or one a GPU, takes job after job.

What a lost worker had is done elsewhere.

The command that was given is the only one that knows the whole: it hands out jobs one by one and collects what came of
them, so that the workers need nothing from each other. Pixels travel through the file system alone. Ray's actors, not
Ray Data: that moves tables, with pandas and PyArrow, and tries a block of rows again, where one study is to be tried
elsewhere, a few times, and then named.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import cpfnet
from cpfnet.environment import environment
from cpfnet.errors import CpfnetError, redacted_message
from cpfnet.files import temporary_prefix
from cpfnet.formats.file_types import place_of
from cpfnet.inference.backends import exported_files
from cpfnet.inference.batch.job import Job, Order, precheck, read
from cpfnet.inference.batch.ray_worker import AHEAD, Setting, Worker
from cpfnet.inference.batch.signals import Ended, end, keeping, telling
from cpfnet.model import Model

logger = logging.getLogger(__name__)

TRIES = 3
"""Workers that may be lost over one input, or in one place without having done anything, before it is given up."""

PERIOD = 1.0
"""Seconds after which machines are counted anew."""

SILENCE = 20.0
"""Seconds after which it is said that no worker is ready yet."""

PATIENCE = 60.0
"""Seconds to wait for a machine, where the cluster has none left."""

GRACE = 10.0
"""Seconds in which the workers may finish what they have, once the command was interrupted."""


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Be part of a cluster.

    Args:
        address: ``host:port`` of its head; default: the cluster that this machine, or the variable ``RAY_ADDRESS``,
            belongs to, else one of this machine alone.

    Raises:
        CpfnetError: there is none, or it is of another version.
    """
    # Read when Ray is imported: none of its messages among ours; seconds, not minutes, to find that nobody is there.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    os.environ.setdefault("RAY_py_gcs_connect_timeout_s", "5")
    alone = address is None and not os.environ.get("RAY_ADDRESS")
    if alone:  # what is started here listens to this machine only; on Linux, and there alone, Ray would to the network
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    if ray.is_initialized():  # by whoever called us
        yield
        return
    try:
        with _quiet(), keeping(), environment(_ASKING_NOBODY) if alone else contextlib.nullcontext():
            ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise CpfnetError(
            f"no Ray cluster can be joined: {redacted_message(error)}",
            where=address or os.environ.get("RAY_ADDRESS"),
            fix="give the address that `ray start --head` printed, such as 10.0.0.1:6379, on a machine of the cluster, "
            "with its versions of Ray and Python, and with its token and RAY_AUTH_MODE=token where it asks for one",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


_ASKING_NOBODY = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
"""Nobody listens there: what is started asks no cloud whether it runs there, as Ray does for statistics even where they
are off."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on standard error: what Ray's compiled part writes there comes as an exception, too."""
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: BaseException) -> str:
    """Why a worker was lost, without Ray's internals."""
    from ray.exceptions import OutOfMemoryError, RayTaskError

    text = str(error).strip()
    if isinstance(error, OutOfMemoryError) or "running low on memory" in text:
        return "its machine was running out of memory"
    if isinstance(error, RayTaskError) or "creation task" in text:  # the last line is Python's
        return f"it could not begin: {' '.join(text.splitlines()[-1].split())[:300]}"
    return "it ended without a word, as what is killed, crashes or is cut off does"


def spread(
    models: Sequence[Model],
    jobs: list[Job],
    order: Order,
    inputs: Collection[Path],
    show: Callable[[str, float], None],
) -> None:
    """Take every job to its end, on the cluster that this process is connected to.

    Args:
        models: in folders that all machines see.
        jobs: replaced by what became of them.
        order: what to make; ``out`` is made.
        inputs: resolved files of all inputs, which are never replaced.
        show: called with how far it is.

    Raises:
        CpfnetError: no machine can work, with the reason of one of them.
        KeyboardInterrupt, Ended: what the workers had was finished, where that took no longer than `GRACE`.
    """
    order.out.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=order.out, prefix=temporary_prefix()) as mark:
        folders = tuple(exported_files.folder(model).parent for model in models)
        level = logging.getLogger("cpfnet").getEffectiveLevel()
        setting = Setting(folders, tuple(model.fitted for model in models), order, Path.cwd(), Path(mark.name), level)
        crew = _Crew(setting, jobs, lambda job: job.do(precheck, order, models[0].plan, inputs), show)
        try:
            with telling(crew.answers.put):
                crew.work()
        finally:
            crew.dismiss()


@dataclass(eq=False)
class _Member:
    """A worker as it is known here.

    Attributes:
        place: its machine in the cluster, and which of the machine's workers it is.
        host: what people call the machine.
        handle: Ray's.
        has: numbers of the jobs that it was given.
        ready: the Models are loaded.
        lost: nothing more is given to it.
    """

    place: tuple[str, int]
    host: str
    handle: Any
    has: set[int] = field(default_factory=set)
    ready: bool = False
    lost: bool = False


class _Crew:
    """Hands out jobs, and takes what comes of them.

    All in one thread; answers come through a queue, so that a thousand workers cost no more than one.
    """

    def __init__(
        self,
        setting: Setting,
        jobs: list[Job],
        check: Callable[[Job], None],
        show: Callable[[str, float], None],
    ):
        self.setting, self.jobs, self.precheck, self.show = setting, jobs, check, show
        self.waiting = deque(range(len(jobs)))
        self.tries: Counter[int] = Counter()  # workers lost over a job
        self.falls: Counter[tuple[str, int]] = (
            Counter()
        )  # workers lost in a place, since one of them did anything there
        self.dropped: dict[tuple[str, int], CpfnetError] = {}
        self.members: dict[tuple[str, int], _Member] = {}
        self.answers: queue.SimpleQueue[tuple[_Member, int | None, Future[Any]] | int] = queue.SimpleQueue()
        self.ended = 0
        self.logged: set[str] = set()

    def work(self) -> None:
        begun = counted = helped = time.monotonic()
        self.enlist()
        try:
            while self.ended < len(self.jobs):
                self.take(PERIOD)
                now = time.monotonic()
                if now - counted > PERIOD:
                    counted = now
                    self.enlist()
                if now - begun > SILENCE and not any(member.ready for member in self.members.values()):
                    self.log_once(
                        "Waiting for a worker: the machines' CPUs are taken by others, or the Models still load"
                    )
                if self.members:
                    helped = now
                elif self.dropped:
                    raise next(reversed(self.dropped.values()))
                elif now - helped > PATIENCE:
                    raise CpfnetError(
                        f"no machine of the cluster has been left for {PATIENCE:g} s",
                        fix="start one (ray start --address …), and go on with --resume",
                    )
        except (KeyboardInterrupt, Ended):
            logger.info("Stopping; what the workers have may take %g s more", GRACE)
            self.waiting.clear()
            end = time.monotonic() + GRACE
            while any(member.has for member in self.members.values()) and time.monotonic() < end:
                self.take(0.1)
            raise

    def enlist(self) -> None:
        """Start a worker wherever there should be one and is none."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for node in ray.nodes():
            has = node["Resources"]
            if not node["Alive"] or has.get("CPU", 0) < 1:
                continue
            gpus = 0 if self.setting.order.options.device == "cpu" else int(has.get("GPU", 0))
            for number in range(gpus or 1):
                here = (node["NodeID"], number)
                if here in self.members or here in self.dropped:
                    continue
                actor = ray.remote(Worker).options(
                    num_cpus=has["CPU"] // (gpus or 1),
                    num_gpus=min(gpus, 1),
                    max_concurrency=AHEAD,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
                )
                member = _Member(here, node["NodeManagerHostname"], actor.remote())
                self.members[here] = member
                self.ask(member, None, member.handle.start.remote(self.setting))

    def ask(self, member: _Member, number: int | None, answer: Any) -> None:
        answer.future().add_done_callback(lambda future: self.answers.put((member, number, future)))

    def feed(self, member: _Member) -> None:
        """Give a worker as much as it may have; a job that others were lost over comes alone, to take none along."""
        while member.ready and not member.lost and self.waiting:
            number = self.waiting[0]
            alone = self.tries[number] > 0 or any(self.tries[other] for other in member.has)
            if len(member.has) >= (1 if alone else AHEAD):
                return
            self.waiting.popleft()
            job = self.jobs[number]
            if not self.tries[number]:
                self.precheck(job)
            if job.status is not None:
                self.end(job)
                continue
            member.has.add(number)
            self.ask(member, number, member.handle.do.remote(job, self.tries[number] > 0))

    def take(self, seconds: float) -> None:
        """Wait for an answer, and do what follows from it."""
        try:
            answer = self.answers.get(timeout=seconds)
        except queue.Empty:
            return
        if isinstance(answer, int):
            end(answer)
        member, number, future = answer
        error = future.exception()
        if number is not None:
            member.has.discard(number)
        if error is not None:
            self.lose(member, number, error)
        elif number is None:
            self.welcome(member, future.result())
        elif isinstance(result := future.result(), CpfnetError):
            self.check(member, number, result)
        else:
            self.jobs[number], messages = result
            for message in messages:
                self.hand_on(message)
            self.falls[member.place] = 0
            self.end(self.jobs[number])
        if member.lost and not member.has:
            self.members.pop(member.place, None)
            for other in self.members.values():
                self.feed(other)
        self.feed(member)

    def welcome(self, member: _Member, answer: str | CpfnetError) -> None:
        if isinstance(answer, str) and answer != cpfnet.__version__:
            answer = CpfnetError(
                f"has cpfnet {answer}, and this is {cpfnet.__version__}",
                where=member.host,
                fix="install the same version on all machines",
            )
        if isinstance(answer, CpfnetError):
            self.drop(member, answer)
        else:
            member.ready = True

    def check(self, member: _Member, number: int, error: CpfnetError) -> None:
        """A worker does not see an input: it is no use then, unless nobody sees that."""
        job = self.jobs[number]
        if all(os.path.exists(place_of(file)) for file in job.item.files):  # noqa: PTH110
            self.waiting.appendleft(number)
            self.drop(member, error)
            return
        job.do(read)  # says what is wrong
        if job.status is None:
            job.end("failed", str(error))
        self.end(job)

    def lose(self, member: _Member, number: int | None, error: BaseException) -> None:
        """A worker, or its machine, is gone; its jobs come here one by one."""
        import ray

        if isinstance(error, ray.exceptions.RayTaskError) and number is not None:  # a defect of ours
            raise error
        why = _reason(error)
        if not member.lost:
            member.lost = True
            ray.kill(member.handle)  # it may only be out of reach
            if number is not None:
                many = len(member.has) + 1
                inputs = f"{many} input{'s' * (many > 1)}"
                logger.warning("A worker on %s was lost; what it had, %s, is done elsewhere", member.host, inputs)
            alive = any(node["Alive"] and node["NodeID"] == member.place[0] for node in ray.nodes())
            fresh = number is None or not self.tries[number]  # else the job is to be suspected, not the place
            self.falls[member.place] += alive and fresh
            if self.falls[member.place] >= TRIES:
                fix = (
                    "install the same versions of cpfnet and its extras on all machines, and see whether their memory "
                    "suffices"
                )
                self.drop(member, CpfnetError(f"no worker can live there: {why}", where=member.host, fix=fix))
        if number is None:
            return
        self.tries[number] += 1
        job = self.jobs[number]
        if self.tries[number] < TRIES:
            self.waiting.append(number)
        else:
            job.end(
                "failed",
                f"{job.item.path}: {TRIES} workers were lost over it, at last because {why}\n"
                "  → predict it alone, and see whether memory suffices",
            )
            self.end(job)

    def drop(self, member: _Member, error: CpfnetError) -> None:
        """Do without workers in this place."""
        import ray

        member.lost = True
        self.dropped[member.place] = error
        ray.kill(member.handle)
        # Without others it ends the run; of many machines that miss the same thing one is named.
        if len(self.members) > 1 and error.fix not in self.logged:
            self.logged.add(error.fix or "")
            logger.warning("Without %s: %s", member.host, error)

    def log_once(self, text: str) -> None:
        if text not in self.logged:
            self.logged.add(text)
            logger.warning(text)

    def hand_on(self, message: logging.LogRecord) -> None:
        """Log here what a worker logged; what many of them say comes once."""
        if message.getMessage() not in self.logged:
            self.logged.add(message.getMessage())
            logging.getLogger(message.name).handle(message)

    def end(self, job: Job) -> None:
        self.ended += 1
        self.show(job.item.name, self.ended)

    def dismiss(self) -> None:
        import ray

        for member in self.members.values():
            ray.kill(member.handle)

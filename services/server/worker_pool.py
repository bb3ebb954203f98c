"""Workers and the queue before them: who waits, who computes, what happens when one dies."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from he_runtime.errors import WireError
from services.server.limits import Limits
from services.server.model import ServedModel
from services.server.worker_entry import WorkerSettings
from services.server.worker_handle import Progress, WorkerDiedError, WorkerHandle

log = structlog.get_logger()
RESTART_SECONDS = 5.0
"""Before a worker that does not start is tried again."""


@dataclass(frozen=True)
class Job:
    """One piece of work. `digest` names its input."""

    name: str
    key_set: str
    arguments: tuple[Any, ...]
    digest: str = ""


class WorkerPool:
    """Several workers, one job at a time each."""

    def __init__(
        self,
        settings: WorkerSettings,
        count: int,
        limits: Limits,
        *,
        on_restart: Callable[[str], None] = lambda _cause: None,
        on_killed_by: Callable[[Job, str], None] = lambda _job, _cause: None,
    ) -> None:
        self.limits = limits
        self.workers = [WorkerHandle(settings) for _ in range(count)]
        self.waiting = 0
        self.computing = 0
        self.job_seconds = 10.0
        """How long a job takes, a running mean: what clients that are turned away are told to wait."""
        self._on_restart, self._on_killed_by = on_restart, on_killed_by
        self._free: list[WorkerHandle] = []
        self._turn = asyncio.Condition()
        self._restarts: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._program = ""

    async def start(self) -> ServedModel:
        """Start all workers; the first also fills the cache that the others map."""
        try:
            model = await self.workers[0].start()
            await asyncio.gather(*(worker.start() for worker in self.workers[1:]))
        except WorkerDiedError as error:
            message = f"a worker ended before it was ready ({error.cause}); its own message is above"
            raise WorkerDiedError(message) from None
        self._free = list(self.workers)
        self._program = model.binding.program_digest
        return model

    @property
    def ready(self) -> int:
        """Workers that are up."""
        return sum(worker.ready for worker in self.workers)

    @property
    def retry_seconds(self) -> float:
        """When a client that was turned away had best try again."""
        return max(1.0, (self.waiting + self.computing) * self.job_seconds / max(1, len(self.workers)))

    async def run(
        self,
        job: Job,
        *,
        on_progress: Progress | None = None,
        on_started: Callable[[], None] = lambda: None,
    ) -> Any:
        """Wait for a worker, run the job, free the worker.

        WireError `busy` when too many wait; TimeoutError when it takes too long; WorkerDiedError when the worker ended.
        """
        # A job that finds a worker free does not wait.
        if not self._free and self.waiting >= self.limits.queued_requests:
            raise WireError("busy", f"{self.waiting} requests are waiting; try again in {self.retry_seconds:.0f} s")
        worker = await self._take(job.key_set)
        self.computing += 1
        started = time.monotonic()
        try:
            on_started()
            answer = await worker.job(job.name, job.arguments, self.limits.request_seconds, on_progress)
            self._remember(worker, job)
            self.job_seconds += 0.2 * (time.monotonic() - started - self.job_seconds)
            return answer
        except WorkerDiedError as error:
            self._on_killed_by(job, error.cause)
            raise
        finally:
            self.computing -= 1
            self._give_back(worker)

    async def forget(self, key_set: str) -> None:
        """Have idle workers free a set's keys; busy ones let go of it when they need the room."""
        for worker in [worker for worker in self._free if key_set in worker.key_sets]:
            if worker not in self._free:
                continue  # a query took it meanwhile
            self._free.remove(worker)
            try:
                with contextlib.suppress(WorkerDiedError):
                    await worker.job("forget", (key_set,), self.limits.request_seconds, None)
                worker.key_sets.remove(key_set)
            finally:
                self._give_back(worker)

    def replace_ended(self) -> None:
        """Start idle workers anew that ended by themselves, before a query has to find out and is blamed for it."""
        for worker in [worker for worker in self._free if worker.ended()]:
            self._free.remove(worker)
            self._give_back(worker)

    async def stop(self) -> None:
        """End all workers."""
        self._stopping = True
        for task in self._restarts:
            task.cancel()
        for worker in self.workers:
            await asyncio.to_thread(worker.stop)

    async def _take(self, key_set: str) -> WorkerHandle:
        """A free worker, best one that has the keys in memory."""
        self.waiting += 1
        try:
            async with self._turn:
                await self._turn.wait_for(lambda: bool(self._free))
                worker = next((worker for worker in self._free if key_set in worker.key_sets), self._free[0])
                self._free.remove(worker)
                return worker
        finally:
            self.waiting -= 1

    def _give_back(self, worker: WorkerHandle) -> None:
        if worker.ready:
            self._free.append(worker)
            self._background(self._tell())
        elif not self._stopping:
            self._background(self._restart(worker))

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _tell(self) -> None:
        async with self._turn:
            self._turn.notify_all()

    async def _restart(self, worker: WorkerHandle) -> None:
        while not self._stopping:
            try:
                model = await worker.start()
            except (WorkerDiedError, OSError) as error:
                log.error("a worker did not start", cause=str(error))
                await asyncio.sleep(RESTART_SECONDS)
                continue
            if model.binding.program_digest != self._program:
                log.error("the bundle was replaced by another while it is served: restart the server to serve that one")
                await asyncio.to_thread(worker.stop)
                await asyncio.sleep(RESTART_SECONDS)
                continue
            self._on_restart(worker.cause)
            self._free.append(worker)
            await self._tell()
            return

    def _remember(self, worker: WorkerHandle, job: Job) -> None:
        if job.name == "forget" or not job.key_set:
            return
        if job.key_set in worker.key_sets:
            worker.key_sets.remove(job.key_set)
        worker.key_sets.append(job.key_set)
        del worker.key_sets[: -self.limits.loaded_key_sets]


class Counters:
    """How many of something each client has going, held against a limit."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextlib.contextmanager
    def one(self, tenant: str, each: int, everyone: int | None = None) -> Any:
        """Count one for the length of the block. WireError `too_many` when the client, or everyone together, has enough."""
        if self._counts[tenant] >= each:
            raise WireError("too_many", f"you have {each} of these going already; wait for one to end")
        if everyone is not None and self._counts.total() >= everyone:
            raise WireError("busy", "the server has as many of these going as it takes; try again in a minute")
        self._counts[tenant] += 1
        try:
            yield
        finally:
            self._counts[tenant] -= 1
            if not self._counts[tenant]:
                del self._counts[tenant]

    def total(self) -> int:
        """Of everyone."""
        return self._counts.total()

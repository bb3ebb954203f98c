"""The front's side of one worker: starts it, hands it one job at a time, ends it when it must."""

import asyncio
import json
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from he_runtime.errors import WireError
from services.server import worker_entry
from services.server.model import ServedModel
from services.server.worker_entry import WorkerSettings

Progress = Callable[[int, int], Awaitable[None]]
CANCEL_SECONDS = 0.8
"""A worker whose caller went away may finish the operation that it is at; after so long it is ended and started anew."""


class WorkerDiedError(Exception):
    """The worker ended while it had a job. `cause` is `signal-N` or `exit-N`."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class WorkerFailedError(Exception):
    """The worker could not do the job, for a reason that is not the caller's."""


class WorkerHandle:
    """One spawned worker. All waiting for its pipe happens on a thread of its own, so a worker that stalls stalls nobody."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.key_sets: list[str] = []
        """What it has in memory, the last used last."""
        self.ready = False
        self.cause = ""
        """Why it ended last."""
        self._started = False
        self._context = multiprocessing.get_context("spawn")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="worker-pipe")

    @property
    def process_id(self) -> int | None:
        """Of the process, once it was started."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether an idle worker ended by itself; it is not ready then."""
        if self.ready and not self._process.is_alive():
            self._died()
        return not self.ready

    async def start(self) -> ServedModel:
        """Spawn, and wait until the model is planned and the kernels are compiled."""
        self._pipe, theirs = self._context.Pipe()
        self._cancelled = self._context.Event()
        self._process = self._context.Process(
            target=worker_entry.run, args=(theirs, self._cancelled, self.settings), daemon=True
        )
        self._process.start()
        self._started = True
        theirs.close()
        self.key_sets.clear()
        _, plan_json, files = await self._receive()
        self.ready = True
        return ServedModel.from_plan(json.loads(plan_json), plan_json, files)

    async def job(self, name: str, arguments: tuple[Any, ...], seconds: float, on_progress: Progress | None) -> Any:
        """Run one job; refusals come as WireError.

        Cancelling the caller, or `seconds`, ends the job at its next operation; the worker is ended if that takes too long.
        """
        self._cancelled.clear()
        finished = asyncio.ensure_future(self._run(name, arguments, on_progress))
        try:
            return await asyncio.wait_for(asyncio.shield(finished), seconds)
        except (asyncio.CancelledError, TimeoutError):
            self._cancelled.set()
            await self._end_of(finished)
            raise

    async def _end_of(self, finished: "asyncio.Future[Any]") -> None:
        """Wait until the cancelled job is over, one way or the other; not even a second cancellation cuts this short."""
        deadline = time.monotonic() + CANCEL_SECONDS
        while not finished.done():
            try:
                await asyncio.wait([finished], timeout=max(deadline - time.monotonic(), 0))
            except asyncio.CancelledError:
                continue
            if time.monotonic() >= deadline and not finished.done():
                self.kill()
                deadline = time.monotonic() + CANCEL_SECONDS
        if not finished.cancelled() and isinstance(finished.exception(), WorkerDiedError):
            self.ready = False

    async def _run(self, name: str, arguments: tuple[Any, ...], on_progress: Progress | None) -> Any:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._pipe.send, (name, arguments))
        except (OSError, ValueError):
            raise self._died() from None
        while True:
            kind, *values = await self._receive()
            if kind == "progress":
                if on_progress is not None:
                    await on_progress(*values)
            elif kind == "refused":
                raise WireError(*values)
            elif kind == "failed":
                raise WorkerFailedError(values[0])
            elif kind == "cancelled":
                return None
            else:
                return values[0]

    async def _receive(self) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = await asyncio.get_running_loop().run_in_executor(self._thread, self._pipe.recv)
        except (EOFError, OSError):
            raise self._died() from None
        return message

    def _died(self) -> WorkerDiedError:
        self.ready = False
        self._process.join(1)
        code = self._process.exitcode
        self.cause = "unknown" if code is None else f"signal-{-code}" if code < 0 else f"exit-{code}"
        return WorkerDiedError(self.cause)

    def kill(self) -> None:
        """End it now."""
        self.ready = False
        self._process.kill()

    def stop(self) -> None:
        """End it, and what belongs to it; nothing to end is fine."""
        self.ready = False
        if self._started:
            self._process.kill()
            self._process.join(5)
            self._pipe.close()
        self._thread.shutdown(wait=False)

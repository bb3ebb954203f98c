"""The front's side of the worker: starts it, hands it one job at a time, restarts it when it dies."""

import asyncio
import json
import multiprocessing
from collections.abc import Callable
from typing import Any

from he_runtime.errors import WireError
from services.server.limits import Limits
from services.server.model import ServedModel


class WorkerDiedError(Exception):
    """The worker ended while it had a job; it is being restarted."""


class WorkerHandle:
    """One spawned worker."""

    def __init__(self, bundle_directory: str, threads: int, limits: Limits, cache_directory: str | None = None) -> None:
        self.bundle_directory = bundle_directory
        self.threads = threads
        self.limits = limits
        self.cache_directory = cache_directory
        self.waiting = 0
        self._context = multiprocessing.get_context("spawn")
        self._lock = asyncio.Lock()

    async def start(self) -> ServedModel:
        """Spawn, and wait until the model is planned and the kernels are compiled."""
        from services.server import worker_entry

        self._pipe, theirs = self._context.Pipe()
        self._cancelled = self._context.Event()
        self._process = self._context.Process(
            target=worker_entry.run,
            args=(theirs, self._cancelled, self.bundle_directory, self.threads, self.cache_directory),
            daemon=True,
        )
        self._process.start()
        theirs.close()
        try:
            _, plan_json, files = await self._receive()
        except WorkerDiedError:
            raise WorkerDiedError("the worker ended before it was ready; its own message is above") from None
        return ServedModel.from_plan(json.loads(plan_json), plan_json, files)

    async def job(self, name: str, *arguments: Any, on_progress: Callable[[int, int], Any] | None = None) -> Any:
        """Run one job; refusals come as WireError. Cancelling the caller cancels the job at its next operation."""
        if self.waiting >= self.limits.queued_requests:
            raise WireError("busy", f"{self.waiting} requests are waiting; try again in a minute")
        self.waiting += 1
        try:
            async with self._lock:
                self._cancelled.clear()
                self._pipe.send((name, arguments))
                finished = asyncio.ensure_future(self._finish(on_progress))
                try:
                    return await asyncio.wait_for(asyncio.shield(finished), self.limits.request_seconds)
                except (asyncio.CancelledError, TimeoutError):
                    self._cancelled.set()
                    await asyncio.wait([finished])
                    finished.exception()
                    raise
        except WorkerDiedError:
            await self.start()
            raise
        finally:
            self.waiting -= 1

    async def _finish(self, on_progress: Callable[[int, int], Any] | None) -> Any:
        while True:
            kind, *values = await self._receive()
            if kind == "progress":
                if on_progress is not None:
                    await on_progress(*values)
            elif kind == "refused":
                raise WireError(*values)
            elif kind == "cancelled":
                return None
            else:
                return values[0]

    async def _receive(self) -> tuple[Any, ...]:
        try:
            message: tuple[Any, ...] = await asyncio.get_running_loop().run_in_executor(None, self._pipe.recv)
        except (EOFError, OSError):
            raise WorkerDiedError("the worker ended unexpectedly") from None
        return message

    def stop(self) -> None:
        """End the worker."""
        self._process.terminate()
        self._process.join(5)

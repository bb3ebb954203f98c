"""The pool with workers that take as long as a test says."""

import asyncio
from typing import Any

from services.server.limits import Limits
from services.server.worker_entry import WorkerSettings
from services.server.worker_pool import WorkerPool


class Worker:
    """Has keys of one set; its job waits to be let go."""

    def __init__(self) -> None:
        self.key_sets, self.ready = ["keys"], True
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def job(self, _name: str, _arguments: Any, _seconds: float, _on_progress: Any) -> None:
        self.began.set()
        await self.may_end.wait()


def test_keys_are_forgotten_though_a_query_takes_a_worker_meanwhile() -> None:
    async def run() -> None:
        pool = WorkerPool(WorkerSettings("", 1, 0, 64, 1, 1), 0, Limits())
        first, second = Worker(), Worker()
        pool._free = [first, second]  # type: ignore[list-item]
        forgetting = asyncio.ensure_future(pool.forget("keys"))
        await first.began.wait()
        taken = await pool._take("keys")
        assert taken is second
        first.may_end.set()
        await asyncio.wait_for(forgetting, 5)
        assert (first.key_sets, second.key_sets) == ([], ["keys"])
        assert not second.began.is_set()

    asyncio.run(run())

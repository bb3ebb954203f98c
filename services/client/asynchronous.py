"""The client's twin for asyncio: the same calls, awaited.

async with AsyncClient("localhost:8443", Path("~/.thex").expanduser(), Path("authority.pem")) as client:
    print((await client.classify("a gripping, beautifully shot film")).label)

Encryption is work for a processor, so each call runs on a thread, one at a time; cancelling the task ends the call here and at
the server.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from services.client.client import Client
from services.client.result import Match, Result

Answer = TypeVar("Answer")


class AsyncClient:
    """As Client, whose arguments it takes."""

    def __init__(self, target: str, key_directory: Path, authority: Path | None = None, **options: Any) -> None:
        self._arguments = (target, key_directory, authority)
        self._options = options
        self._client: Client | None = None
        self._working: object | None = None  # names the call that the thread is at
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thex-client")

    async def __aenter__(self) -> Self:
        self._client = await self._on_thread(lambda: Client(*self._arguments, **self._options))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def client(self) -> Client:
        """The client underneath, once connected."""
        if self._client is None:
            raise ValueError("use AsyncClient in an `async with` block: it connects there")
        return self._client

    async def prepare(self) -> None:
        """See Client.prepare."""
        await self._on_thread(self.client.prepare)

    async def classify(self, text: str, second: str | None = None) -> Result:
        """See Client.classify."""
        return await self._on_thread(lambda: self.client.classify(text, second))

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Client.embed."""
        return await self._on_thread(lambda: self.client.embed(texts))

    async def search(self, text: str, top: int = 10) -> list[Match]:
        """See Client.search."""
        return await self._on_thread(lambda: self.client.search(text, top))

    async def delete_keys(self) -> None:
        """See Client.delete_keys."""
        await self._on_thread(self.client.delete_keys)

    async def close(self) -> None:
        """Close the connection. Keys stay, here and at the server."""
        if self._client is not None:
            self._client.cancel()
            await self._on_thread(self._client.close)
            self._client = None
        self._thread.shutdown(wait=False)

    async def _on_thread(self, work: Callable[[], Answer]) -> Answer:
        mine = object()

        def at_work() -> Answer:
            self._working = mine
            try:
                return work()
            finally:
                self._working = None

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, at_work)
        except asyncio.CancelledError:
            if self._client is not None and self._working is mine:  # one that waits for its turn ends by itself
                self._client.cancel()
            raise

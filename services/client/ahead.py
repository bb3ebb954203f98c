"""Making things by threads while the ones before are sent."""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import TypeVar

Input = TypeVar("Input")
Item = TypeVar("Item")


@contextlib.contextmanager
def made_ahead(
    make: Callable[[Input], Item], inputs: Iterable[Input], *, threads: int, depth: int
) -> Iterator[Iterator[Item]]:
    """Iterate over make(input) of each input, in order; at most `depth` of them finished or in hand ahead of the reader.

    What making an item raises is raised where the item would have come. Block and threads end together, wherever the reader is:
    it may be a thread of its own, and finds no more items then.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="made-ahead")
    remaining, pending = iter(inputs), deque[Future[Item]]()
    ending, ended = threading.Lock(), threading.Event()

    def begin(count: int) -> None:
        with ending:
            if not ended.is_set():
                pending.extend(pool.submit(make, each) for each in itertools.islice(remaining, count))

    def read() -> Iterator[Item]:
        begin(depth)
        while pending:
            try:
                item = pending.popleft().result()
            except CancelledError:
                return
            begin(1)
            yield item

    try:
        yield read()
    finally:
        with ending:
            ended.set()
        pool.shutdown(cancel_futures=True)

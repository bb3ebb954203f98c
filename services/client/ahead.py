"""Making things in a thread while the ones before are sent."""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
POLL_SECONDS = 0.1


@contextlib.contextmanager
def made_ahead(items: Iterable[Item], depth: int) -> Iterator[Iterator[Item]]:
    """Iterate over `items` in a thread, at most `depth` finished ones ahead of the reader; the thread ends with the block.

    What making an item raises is raised where the item would have come.
    """
    made: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put((item, error), timeout=POLL_SECONDS)
                return

    def produce() -> None:
        try:
            for item in items:
                put(item, None)
                if stopped.is_set():
                    return
            put(None, StopIteration())
        except Exception as error:
            put(None, error)

    def read() -> Iterator[Item]:
        while not stopped.is_set():
            try:
                item, error = made.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # an item comes wherever no error does

    thread = threading.Thread(target=produce, name="made-ahead", daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        stopped.set()
        thread.join()

"""Sharing the rows of a residue matrix out to threads: every kernel works on rows, and releases the interpreter lock."""

import itertools
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray


class RowThreads:
    """A fixed number of threads, the calling one among them."""

    def __init__(self, threads: int = 1) -> None:
        if threads < 1:
            raise ValueError(f"an evaluator needs at least one thread, not {threads}")
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="rows") if threads > 1 else None

    def each(self, rows: int, task: Callable[[int, int], None]) -> None:
        """Call task(first, last) on parts of range(rows), as even as can be, and wait for all of them."""
        parts = min(self.threads, rows)
        if self._pool is None or parts < 2:
            task(0, rows)
            return
        bounds = [rows * part // parts for part in range(parts + 1)]
        others = [self._pool.submit(task, *pair) for pair in itertools.pairwise(bounds[1:])]
        try:
            task(0, bounds[1])
        finally:
            wait(others)  # all of them, even if one failed: they write to memory that the caller will use again
        for other in others:
            other.result()


class Scratch:
    """Named arrays that each thread keeps for itself, so that no kernel allocates."""

    def __init__(self) -> None:
        self._arrays = threading.local()

    def array(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Uninitialised; the same memory at every call of this thread with this name."""
        size = math.prod(shape)
        array: NDArray[np.float64] | None = getattr(self._arrays, name, None)
        if array is None or array.size < size:
            array = np.empty(size)
            setattr(self._arrays, name, array)
        return array[:size].reshape(shape)

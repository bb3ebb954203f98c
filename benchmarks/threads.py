"""What a second core is worth on this machine: of a virtual one it may be the other half of the first."""

import statistics
import threading
import time

import numba
import numpy as np
from numpy.typing import NDArray

import he_runtime.kernels  # noqa: F401  (compiles for the evaluator's vectors, if it comes before the first loop)

ENTRIES = 2048
"""Half of a first-level cache: no memory is shared but the processor's."""


@numba.njit(nogil=True, cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _multiply_and_add(values: NDArray[np.float64], times: int) -> None:
    for _ in range(times):
        for i in range(values.size):
            values[i] = values[i] * 0.999999 + 1e-6


def gain_of_two_threads(repeats: int = 15, times: int = 400_000) -> float:
    """How much more arithmetic two threads do in the same time than one: 2 on two whole cores. Median of turns."""
    arrays = [np.ones(ENTRIES) for _ in range(2)]
    _multiply_and_add(arrays[0], 1)

    def seconds(count: int) -> float:
        threads = [threading.Thread(target=_multiply_and_add, args=(array, times)) for array in arrays[:count]]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - started

    return statistics.median(2 * seconds(1) / seconds(2) for _ in range(repeats))

"""An evaluation key as the numba engine keeps it: six bytes a word, ready to be multiplied with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.engines.numba_tables import LevelTables
from he_runtime.engines.row_threads import RowThreads
from he_runtime.errors import PlanError
from he_runtime.kernels import key_switch
from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.parameters import Parameters


@dataclass(frozen=True)
class PackedKey:
    """low int32 and high int16 [rows, digits, 2, N]: value = high·2^32 + low, centred.

    Rows of q up to `level`, then the special ones. Conjugated by the inverse automorphism, the rows of q times 1/P.
    """

    level: int
    low: NDArray[np.int32]
    high: NDArray[np.int16]

    @property
    def memory_bytes(self) -> int:
        """Bytes that it takes."""
        return self.low.nbytes + self.high.nbytes


def pack_key(
    parameters: Parameters,
    tables: LevelTables,
    level: int,
    digits: Sequence[tuple[bytes, NDArray[np.uint64]]],
    permutation: NDArray[np.uint32],
    threads: RowThreads,
) -> PackedKey:
    """Pack a key of `level`; permutation: of the inverse automorphism.

    Each digit: the seed of its `a` rows, and its b rows uint64 [level+1+special, N], canonical. PlanError for another shape.
    """
    if len(digits) != parameters.digit_count(level):
        raise PlanError(f"a key of level {level} has {parameters.digit_count(level)} digits, not {len(digits)}")
    n, kept = parameters.ring_degree, tables.rows
    shape = (len(kept), len(digits), 2, n)
    key = PackedKey(level, np.empty(shape, np.int32), np.empty(shape, np.int16))
    product = math.prod(parameters.special_primes)
    primes = [parameters.all_primes[row] for row in kept]
    factors = [centred(pow(product, -1, p), p) if row <= level else 1 for row, p in enumerate(primes)]
    for j, (seed, b_rows) in enumerate(digits):
        if b_rows.shape != (len(kept), n):
            raise PlanError(f"a digit of a key of level {level} has shape {(len(kept), n)}, not {b_rows.shape}")
        a_rows = expand_uniform(seed, parameters.all_primes, n)

        def pack(first: int, last: int, j: int = j, a_rows: Any = a_rows, b_rows: Any = b_rows) -> None:
            for row in range(first, last):
                for half, values in ((0, b_rows[row]), (1, a_rows[kept[row]])):
                    low, high = key.low[row, j, half], key.high[row, j, half]
                    key_switch.pack_key_row(values, permutation, float(factors[row]), float(primes[row]), low, high)

        threads.each(len(kept), pack)
    return key


def zero_key(parameters: Parameters, tables: LevelTables, level: int) -> PackedKey:
    """A key of zeros, every page of it written."""
    shape = (len(tables.rows), parameters.digit_count(level), 2, parameters.ring_degree)
    return PackedKey(level, np.full(shape, 0, np.int32), np.full(shape, 0, np.int16))

"""An evaluation key as the numba engine keeps it: four or six bytes a word, ready to be multiplied with."""

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

NARROW_BELOW = 1 << 32
"""Primes whose centred residues fit an int32."""


@dataclass(frozen=True)
class PackedKey:
    """low int32 [rows, digits, 2, N], high int16 [wide rows, digits, 2, N]: value = high·2^32 + low, centred.

    Rows of q up to `level`, then the special ones. Conjugated by the inverse automorphism, the rows of q times 1/P. Where the
    primes of q but the first are below 2^32, their rows are narrow: high has the first row and the special ones alone.
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
    key = PackedKey(level, *(np.empty(shape, kind) for shape, kind in _parts(parameters, tables, level)))
    left_out = len(key.low) - len(key.high)
    nothing = np.empty(0, np.int16)
    product = math.prod(parameters.special_primes)
    primes = [parameters.all_primes[row] for row in kept]
    factors = [centred(pow(product, -1, p), p) if row <= level else 1 for row, p in enumerate(primes)]
    for j, (seed, b_rows) in enumerate(digits):
        if b_rows.shape != (len(kept), n):
            raise PlanError(f"a digit of a key of level {level} has shape {(len(kept), n)}, not {b_rows.shape}")
        a_rows = expand_uniform(seed, parameters.all_primes, n)

        def pack(first: int, last: int, j: int = j, a_rows: Any = a_rows, b_rows: Any = b_rows) -> None:
            for row in range(first, last):
                narrow = 1 <= row <= left_out
                for half, values in ((0, b_rows[row]), (1, a_rows[kept[row]])):
                    low, high = key.low[row, j, half], nothing if narrow else key.high[max(0, row - left_out), j, half]
                    key_switch.pack_key_row(values, permutation, float(factors[row]), float(primes[row]), low, high)

        threads.each(len(kept), pack)
    return key


def zero_key(parameters: Parameters, tables: LevelTables, level: int) -> PackedKey:
    """A key of zeros, every page of it written."""
    return PackedKey(level, *(np.full(shape, 0, kind) for shape, kind in _parts(parameters, tables, level)))


def _parts(parameters: Parameters, tables: LevelTables, level: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Shape and type of a key's low and high part."""
    rest = (parameters.digit_count(level), 2, parameters.ring_degree)
    narrow = max(parameters.primes[1:], default=0) < NARROW_BELOW
    rows = len(tables.rows)
    return ((rows, *rest), np.int32), ((rows - level * narrow, *rest), np.int16)

"""Weighted sums of rows against Python's integers: every kind of run, of prime and of group of sums, at the bounds."""

import numpy as np
import pytest

from he_runtime.kernels.arithmetic import anchor_of
from he_runtime.kernels.sum_tiles import SUMS
from he_runtime.kernels.weighing import MOST_TERMS, SCRATCH, weigh
from he_runtime.primes import primes_below

BLOCK, PADDING = 64, 8


@pytest.mark.parametrize("run", [1, 2, 4, 8, 16, 64])
@pytest.mark.parametrize(("sums", "inputs", "steps"), [(1, 1, 1), (4, 2, 3), (6, 1, MOST_TERMS), (9, 4, 32)])
@pytest.mark.parametrize("bits", [20, 30, 31, 36, 45])
def test_sums_are_those_of_integers(run: int, sums: int, inputs: int, steps: int, bits: int) -> None:
    """Rows and weights of random residues and of the largest ones, all of one sign; inputs at once, and one after the other."""
    p = primes_below(bits, 1024, 1)[0]
    random, half = np.random.default_rng(bits), p // 2
    x = random.integers(-half, half, (2, inputs * steps, BLOCK + PADDING), endpoint=True)
    # Words of two rows, of which the second counts, and of one run more, which comes first.
    words = [random.integers(-half, half, (2, sums, 1 + BLOCK // run, steps), endpoint=True) for _ in range(inputs)]
    x[0, :, :8] = half
    for table in words:
        table[1, 0] = -half
        table[1, -1] = half
    out = np.full((sums, 2, BLOCK), np.nan)
    at_once = max(1, MOST_TERMS // steps)
    for first in range(0, inputs, at_once):
        weigh(
            x.astype(np.float64), tuple(table.astype(np.float64) for table in words), 0, first, min(first + at_once, inputs),
            1, 1, run, BLOCK, float(p), 1 / p, anchor_of(p), np.empty(SCRATCH), np.empty(3 * SUMS), out.reshape(-1), 0, BLOCK,
            2 * BLOCK,
        )  # fmt: skip
    assert np.abs(out).max() <= p / 2
    rows = x[:, :, :BLOCK].reshape(2, inputs, steps, BLOCK).astype(object)
    for g in range(sums):
        weights = np.array([np.repeat(table[1, g, 1:].T, run, axis=1) for table in words]).astype(object)
        wanted = (rows * weights).sum(axis=(1, 2))
        assert ((out[g].astype(np.int64) - wanted) % p == 0).all()

"""Weights in halves, and conversions by them against Python's integers, at the bounds and beyond."""

import numpy as np
import pytest

from he_runtime.kernels.division import BLOCK, convert_rows
from he_runtime.kernels.halves import halves
from he_runtime.primes import primes_below, primes_nearest

DEGREE = 4096
SMALL = primes_nearest(30, DEGREE, 13)


def test_weights_are_cut_where_their_sums_are_exact_and_nowhere_else() -> None:
    large = primes_below(45, DEGREE, 13)
    for weights, largest, prime, exact in (
        ([SMALL[0] // 2] * 12, SMALL[:12], SMALL[0], True),
        ([-(SMALL[0] // 2)] * 16, SMALL[:1] * 16, SMALL[0], True),
        ([large[0] // 2 - 12345] * 12, SMALL[:12], large[0], False),
        ([SMALL[0] // 2] * 9, large[:9], SMALL[0], False),
    ):
        words, shift = halves(weights, largest, prime)
        assert (shift > 0) == exact
        assert [int(low) + int(shift) * int(high) for low, high in words.T] == weights
        if exact:
            assert sum(x * abs(int(high)) for x, high in zip(largest, words[1], strict=True)) < 2**53


@pytest.mark.parametrize("skip", [(0, 0), (0, 1), (2, 4), (6, 7)])
@pytest.mark.parametrize("count", [1, 4, 12])
def test_targets_are_made_four_at_a_time_or_alone_and_left_alone_where_told(count: int, skip: tuple[int, int]) -> None:
    """Seven targets, the third of a large prime: whatever lies side by side, each is its own sum."""
    random, targets = np.random.default_rng(count), [*SMALL[:2], *primes_below(45, DEGREE, 1), *SMALL[2:6]]
    sources = np.array([random.integers(1 - p, p, DEGREE) for p in SMALL[1 : 1 + count]], np.float64)
    weights = [[int(random.integers(-(q // 2), q // 2)) for _ in range(count)] for q in targets]
    cut = [halves(of_target, SMALL[1 : 1 + count], q) for of_target, q in zip(weights, targets, strict=True)]
    moduli = np.array([(q, 1 / q, shift or 1.5 * 2.0**85) for q, (_, shift) in zip(targets, cut, strict=True)])
    halved = np.array([shift > 0 for _, shift in cut])
    assert halved.sum() >= 6
    assert count < 12 or not halved[2]
    out = np.full((7, DEGREE), np.nan)
    convert_rows(sources, np.array([words for words, _ in cut]), moduli, halved, 0, DEGREE // BLOCK, *skip, out)
    for row, q in enumerate(targets):
        if skip[0] <= row < skip[1]:
            assert np.isnan(out[row]).all()
            continue
        for i in (0, 5, DEGREE - 1):
            wanted = sum(weights[row][k] * int(sources[k, i]) for k in range(count))
            assert int(out[row, i]) % q == wanted % q
            assert abs(out[row, i]) <= q / 2

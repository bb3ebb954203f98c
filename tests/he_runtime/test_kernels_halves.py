"""Sums of halved weights against Python's integers, at the bounds and beyond, and against the sums that they replace."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from he_runtime.kernels.division import BLOCK, convert_rows
from he_runtime.kernels.halves import SIDE_BY_SIDE, halves, sum_of_halves
from he_runtime.kernels.vector_code import LANES
from he_runtime.primes import primes_below, primes_nearest

DEGREE = 4096
SMALL = primes_nearest(30, DEGREE, 13)
WHOLE = LANES * SIDE_BY_SIDE


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
        if exact:
            assert [int(low) + int(shift) * int(high) for low, high in words.T] == weights
            assert sum(x * abs(int(high)) for x, high in zip(largest, words[1], strict=True)) < 2**53
        else:
            assert not words.any()


@given(
    st.integers(1, 16),
    st.data(),
)
def test_sums_are_those_of_integers_also_at_the_bounds(terms: int, data: st.DataObject) -> None:
    prime = SMALL[0]
    bound = prime // 2
    weights = data.draw(st.lists(st.sampled_from([-bound, -1, 0, 1, 12345, bound]), min_size=terms, max_size=terms))
    largest = [prime - 1] * terms
    values = data.draw(st.lists(st.sampled_from([1 - prime, -1, 0, 7, prime - 1]), min_size=terms, max_size=terms))
    words, shift = halves(weights, largest, prime)
    assert shift > 0
    sources = np.repeat(np.array(values, np.float64)[:, None], WHOLE, axis=1)
    out = np.full(WHOLE, np.nan)
    sum_of_halves(sources, 0, words, float(prime), 1.0 / prime, shift, out)
    assert np.abs(out).max() <= prime
    wanted = sum(weight * value for weight, value in zip(weights, values, strict=True)) % prime
    assert {int(value) % prime for value in out} == {wanted}


@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_conversion_by_halves_is_the_one_without(count: int) -> None:
    random, targets = np.random.default_rng(count), SMALL[:3]
    sources = np.array([random.integers(1 - p, p, DEGREE) for p in SMALL[1 : 1 + count]], np.float64)
    weights = [[int(random.integers(-(q // 2), q // 2)) for _ in range(count)] for q in targets]
    primes = np.array([[q, 1 / q, 0.0] for q in targets])
    cut = [halves(of_target, SMALL[1 : 1 + count], q) for of_target, q in zip(weights, targets, strict=True)]
    anchors = np.full(len(targets), 1.5 * 2.0**70)
    found = []
    for shifts in (np.array([shift for _, shift in cut]), np.zeros(len(targets))):
        out = np.zeros((len(targets), DEGREE))
        convert_rows(
            sources, np.array(weights, np.float64), anchors, np.array([words for words, _ in cut]), shifts,
            0, DEGREE // BLOCK, 1, 2, np.arange(len(targets)), primes, out,
        )  # fmt: skip
        assert not out[1].any()  # left alone
        found.append(out)
    for row, q in enumerate(targets):
        assert np.array_equal(found[0][row] % q, found[1][row] % q)
    exact = [sum(weights[2][k] * int(sources[k, 5]) for k in range(count)) % targets[2]]
    assert int(found[0][2, 5]) % targets[2] == exact[0]

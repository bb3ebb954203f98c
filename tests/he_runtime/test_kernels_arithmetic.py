"""Sums of products and tiles against Python integers, at the bounds that their docstrings state."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from he_runtime.kernels.arithmetic import ANCHOR_MARGIN_BITS, accumulate, anchor_of, nearest_product, settle
from he_runtime.kernels.tiles import transpose_tile
from he_runtime.primes import primes_below

PRIMES = [primes_below(bits, 65536, 1)[0] for bits in (36, 37, 43, 45)]


@njit
def sum_of_products(a: np.ndarray, w: np.ndarray, anchor: float, p: float) -> tuple[float, float]:
    high, low = anchor, 0.0
    for i in range(a.shape[0]):
        high, low = accumulate(high, low, a[i], w[i])
    return settle(high, low, anchor, p, 1.0 / p), low


@settings(max_examples=200)
@given(data=st.data(), p=st.sampled_from(PRIMES), count=st.integers(1, 64))
def test_a_settled_sum_is_the_sum_of_products_modulo_p(data: st.DataObject, p: int, count: int) -> None:
    largest = min(p * 2**ANCHOR_MARGIN_BITS, 2**52) // count
    a = data.draw(st.lists(st.integers(-largest, largest), min_size=count, max_size=count))
    w = data.draw(st.lists(st.integers(-(p // 2), p // 2), min_size=count, max_size=count))
    result, low = sum_of_products(np.array(a, np.float64), np.array(w, np.float64), anchor_of(p), float(p))
    assert result == int(result)
    assert int(result) % p == sum(x * y for x, y in zip(a, w, strict=True)) % p
    assert abs(result) <= 3 * p + abs(low) < 2**53


@pytest.mark.parametrize("p", PRIMES)
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sum_that_is_allowed_is_exact(p: int, sign: int) -> None:
    count = 64
    a = [min(p * 2**ANCHOR_MARGIN_BITS, 2**52) // count - k for k in range(count)]
    w = [sign * (p // 2 - k) for k in range(count)]
    result, _ = sum_of_products(np.array(a, np.float64), np.array(w, np.float64), anchor_of(p), float(p))
    assert int(result) % p == sum(x * y for x, y in zip(a, w, strict=True)) % p


@njit
def transposed(
    source: np.ndarray, start: int, step: int, target: np.ndarray, target_start: int, target_step: int
) -> None:
    transpose_tile(source, start, step, target, target_start, target_step)


@pytest.mark.parametrize(("start", "step", "target_start", "target_step"), [(0, 8, 0, 8), (3, 11, 5, 9)])
def test_a_tile_is_transposed_and_nothing_else_is_touched(
    start: int, step: int, target_start: int, target_step: int
) -> None:
    source, target = np.random.default_rng(0).normal(size=128), np.full(128, np.nan)
    transposed(source, start, step, target, target_start, target_step)
    expected = np.full(128, np.nan)
    for i in range(8):
        for k in range(8):
            expected[target_start + i * target_step + k] = source[start + k * step + i]
    np.testing.assert_array_equal(target, expected)


@njit
def nearest_products(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    for i in range(a.shape[0]):
        out[i] = nearest_product(a[i], b[i])


@given(st.lists(st.tuples(st.integers(-(2**50), 2**50), st.sampled_from([1.0, -0.5, 0.25, 2.0])), min_size=1))
def test_products_are_rounded_to_the_nearest_integer_ties_to_even(pairs: list[tuple[int, float]]) -> None:
    a, b = (np.array(values, np.float64) for values in zip(*pairs, strict=True))
    out = np.empty(len(pairs))
    nearest_products(a, b, out)
    assert out.tolist() == [round(Fraction(x) * Fraction(y)) for x, y in pairs]

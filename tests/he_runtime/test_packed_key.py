"""Packed keys, narrow and wide, against Python's integers: what is kept, and products with it."""

import math

import numpy as np
import pytest

from he_runtime.engines.numba_tables import level_tables
from he_runtime.engines.packed_key import PackedKey, pack_key, zero_key
from he_runtime.engines.row_threads import RowThreads
from he_runtime.kernels.arithmetic import anchor_of
from he_runtime.kernels.key_switch import key_product
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.parameters import ChainShape, Parameters, make_parameters

DEGREE, LEVEL, LOWER = 512, 8, 5
NARROW = make_parameters(DEGREE, LEVEL, insecure_test=True, shape=ChainShape(scale_bits=30, digit_size=2))
WIDE = make_parameters(DEGREE, LEVEL, insecure_test=True, shape=ChainShape(scale_bits=36, digit_size=3))
REVERSED = np.arange(DEGREE, dtype=np.uint32)[::-1].copy()


def packed(parameters: Parameters, level: int) -> tuple[PackedKey, np.ndarray]:
    """A key of random rows, and its words [rows, digits, 2, N] as integers."""
    tables = level_tables(parameters, level)
    primes = [parameters.all_primes[row] for row in tables.rows]
    random, product = np.random.default_rng(level), math.prod(parameters.special_primes)
    digits, words = [], []
    for digit in range(parameters.digit_count(level)):
        b_rows = np.array([random.integers(0, p, DEGREE, dtype=np.uint64) for p in primes])
        b_rows[:, :2] = [[p // 2, p // 2 + 1] for p in primes]  # the largest and the smallest when they are centred
        seed = bytes([digit]) * 64
        digits.append((seed, b_rows))
        a_rows = expand_uniform(seed, parameters.all_primes, DEGREE)[tables.rows]
        words.append([b_rows, a_rows])
    factors = [pow(product, -1, p) if row <= level else 1 for row, p in enumerate(primes)]
    whole = np.array(words).transpose(2, 0, 1, 3)[..., REVERSED].astype(object)
    for row, (p, factor) in enumerate(zip(primes, factors, strict=True)):
        whole[row] = whole[row] * factor % p
    return pack_key(parameters, tables, level, digits, REVERSED, RowThreads()), whole


@pytest.mark.parametrize("parameters", [NARROW, WIDE], ids=["narrow", "wide"])
@pytest.mark.parametrize("level", [0, 1, LEVEL])
def test_products_with_a_packed_key_are_those_of_its_words(parameters: Parameters, level: int) -> None:
    key, words = packed(parameters, level)
    for lower in sorted({level, min(level, LOWER)}):
        tables = level_tables(parameters, lower)
        digits = parameters.digit_count(lower)
        random = np.random.default_rng(lower)
        for target, row in enumerate(tables.rows):
            p = parameters.all_primes[row]
            extended = random.integers(-5 * p, 5 * p, (digits, len(tables.rows), DEGREE), endpoint=True)
            key_row = target if target <= lower else target + level - lower
            out = np.full((2, DEGREE), np.nan)
            key_product(
                extended.astype(np.float64), target, 0, key.low, key.high, key_row, out[0], out[1], float(p), 1 / p, anchor_of(p)
            )  # fmt: skip
            for half in range(2):
                wanted = sum(extended[j, target].astype(object) * words[key_row, j, half] for j in range(digits))
                assert ((out[half].astype(np.int64) - wanted) % p == 0).all()
                assert np.abs(out[half]).max() < 2**48


@pytest.mark.parametrize(("parameters", "wide_rows"), [(NARROW, 1), (WIDE, LEVEL + 1)], ids=["narrow", "wide"])
def test_a_narrow_row_takes_four_bytes_a_word_and_others_six(parameters: Parameters, wide_rows: int) -> None:
    key, _ = packed(parameters, LEVEL)
    specials, digits = len(parameters.special_primes), parameters.digit_count(LEVEL)
    words = 2 * digits * DEGREE
    assert key.memory_bytes == words * (4 * (LEVEL + 1 + specials) + 2 * (wide_rows + specials))
    zero = zero_key(parameters, level_tables(parameters, LEVEL), LEVEL)
    assert zero.memory_bytes == key.memory_bytes

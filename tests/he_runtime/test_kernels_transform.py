"""The transform, the arithmetic and the encoding against Python integers and direct evaluation."""

import subprocess
import sys

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from he_runtime.kernels.arithmetic import centred
from he_runtime.kernels.encoding import coefficients, encoding_positions, to_residues
from he_runtime.kernels.seeds import expand_uniform
from he_runtime.kernels.transform import (
    TransformTables,
    automorphism,
    forward_columns,
    forward_multiple,
    make_tables,
    smallest_root,
)
from he_runtime.primes import primes_below, primes_nearest

DEGREE = 64
PRIMES = (*primes_below(45, DEGREE, 1), *primes_nearest(36, DEGREE, 2))
TABLES = make_tables(PRIMES, DEGREE)


def transform(values: list[int], row: int, tables: TransformTables = TABLES) -> np.ndarray:
    x = np.array(values, np.float64)
    tables.forward(x, row)
    return x


def reverse(index: int, degree: int) -> int:
    return int(format(index, f"0{degree.bit_length() - 1}b")[::-1], 2)


def evaluate(values: list[int], point: int, p: int) -> int:
    total = 0
    for value in reversed(values):
        total = (total * point + value) % p
    return total


@pytest.mark.parametrize("degree", [16, 32, 64, 128, 512, 1024, 2048])
@pytest.mark.parametrize("bits", [36, 45])
def test_forward_evaluates_at_bit_reversed_odd_powers_of_the_smallest_root(degree: int, bits: int) -> None:
    (p,) = primes_below(bits, degree, 1)
    tables = make_tables((p,), degree)
    root = smallest_root(p, degree)
    roots = {pow(root, k, p) for k in range(1, 2 * degree, 2)}
    assert root == min(roots)
    assert pow(root, degree, p) == p - 1
    values = [int(v) for v in np.random.default_rng(degree).integers(0, p, degree)]
    out = transform(values, 0, tables)
    for i in range(degree):
        assert int(out[i]) % p == evaluate(values, pow(root, 2 * reverse(i, degree) + 1, p), p)


@pytest.mark.parametrize("degree", [2, 4, 8, DEGREE // 2])
@pytest.mark.parametrize("columns", [1, 3, 8])
def test_columns_are_transformed_as_each_alone(degree: int, columns: int) -> None:
    row = 1
    together = np.random.default_rng(degree).integers(0, PRIMES[row], (degree, columns)).astype(np.float64)
    alone = [np.ascontiguousarray(column) for column in together.T]
    for column in alone:
        TABLES.forward(column, row)
    forward_columns(together, TABLES.roots[row, 0], *TABLES.primes[row, :2])
    np.testing.assert_array_equal(together, np.stack(alone, axis=1))


residues = st.lists(st.integers(0, 2**45), min_size=DEGREE, max_size=DEGREE)


@settings(max_examples=25)
@given(values=residues, row=st.integers(0, len(PRIMES) - 1))
def test_inverse_undoes_forward_exactly(values: list[int], row: int) -> None:
    p = PRIMES[row]
    x = transform([v % p for v in values], row)
    TABLES.inverse(x, row, centred(pow(DEGREE, -1, p), p))
    assert [int(v) % p for v in x] == [v % p for v in values]
    assert np.abs(x).max() <= p


@settings(max_examples=10)
@given(left=residues, right=residues, row=st.integers(0, len(PRIMES) - 1))
def test_pointwise_products_are_negacyclic_products(left: list[int], right: list[int], row: int) -> None:
    p = PRIMES[row]
    product = [0] * DEGREE
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            sign = 1 if i + j < DEGREE else -1
            product[(i + j) % DEGREE] = (product[(i + j) % DEGREE] + sign * a * b) % p
    a, b = (transform([v % p for v in side], row) for side in (left, right))
    pointwise = [int(x) * int(y) % p for x, y in zip(a, b, strict=True)]
    assert pointwise == [int(v) % p for v in transform(product, row)]


@pytest.mark.parametrize("degree", [64, 512, 1024, 2048, 4096])
def test_a_multiple_is_transformed_as_if_it_had_been_made_first(degree: int) -> None:
    (p,) = primes_below(45, degree, 1)
    tables = make_tables((p,), degree)
    source = np.random.default_rng(degree).integers(-(p // 2), p // 2, degree).astype(np.float64)
    factor, before, x = p // 3, source.copy(), np.empty(degree)
    forward_multiple(source, float(factor), x, tables.roots[0, 0], tables.tails[0, 0], float(p), 1.0 / p)
    expected = transform([int(v) * factor % p for v in source], 0, tables)
    assert [int(v) % p for v in x] == [int(v) % p for v in expected]
    assert np.array_equal(source, before)


def test_extreme_residues_stay_exact() -> None:
    """All values p-1 in the worst pattern of signs: the largest growth that inputs below p can cause by alignment."""
    degree = 4096
    (p,) = primes_below(46, degree, 1)
    tables = make_tables((p,), degree)
    for values in (
        [p - 1] * degree,
        [(p - 1) * (i % 2) for i in range(degree)],
        [1 - p if i % 3 else p - 1 for i in range(degree)],
    ):
        x = transform(values, 0, tables)
        assert np.abs(x).max() < 10 * p
        root = smallest_root(p, degree)
        for i in (0, 1, 5, degree - 1):
            assert int(x[i]) % p == evaluate(values, pow(root, 2 * reverse(i, degree) + 1, p), p)


@settings(max_examples=20)
@given(exponent=st.integers(0, DEGREE - 1))
def test_automorphism_permutes_as_substitution(exponent: int) -> None:
    element = 2 * exponent + 1
    p = PRIMES[1]
    values = [int(v) for v in np.random.default_rng(exponent).integers(0, p, DEGREE)]
    substituted = [0] * DEGREE
    for i, value in enumerate(values):
        place = i * element % (2 * DEGREE)
        substituted[place % DEGREE] = value if place < DEGREE else -value % p
    permuted = transform(values, 1)[automorphism(element, DEGREE)]
    assert [int(v) % p for v in permuted] == [int(v) % p for v in transform(substituted, 1)]


def encode(values: np.ndarray, scale: float) -> np.ndarray:
    polynomial = coefficients(values, scale, encoding_positions(len(values)))
    out = np.empty((len(PRIMES), 2 * len(values)))
    to_residues(polynomial, TABLES.roots, TABLES.tails, TABLES.primes, np.arange(len(PRIMES)), out)
    return out


def test_encoded_slots_are_the_values_at_powers_of_three() -> None:
    values = np.random.default_rng(3).standard_normal(DEGREE // 2)
    scale = 2.0**36
    polynomial = coefficients(values, scale, encoding_positions(DEGREE // 2))
    for slot in range(DEGREE // 2):
        point = np.exp(1j * np.pi * pow(3, slot, 2 * DEGREE) / DEGREE)
        value = np.polyval(polynomial[::-1], point) / scale
        # Each of N coefficients is rounded by at most 1/2.
        assert abs(value - values[slot]) <= DEGREE / 2 / scale + 1e-12


@pytest.mark.parametrize("period", [1, 2, 8, DEGREE // 2])
def test_periodic_encoding_is_the_full_one_written_once_a_run(period: int) -> None:
    values = np.random.default_rng(period).standard_normal(period)
    compact = encode(values, 2.0**30)
    full = encode(np.tile(values, DEGREE // 2 // period), 2.0**30)
    primes = np.array(PRIMES, np.float64)[:, None]
    difference = np.repeat(compact, DEGREE // (2 * period), axis=1) - full
    assert compact.shape == (len(PRIMES), 2 * period)
    assert np.array_equal(np.rint(difference / primes) * primes, difference)


def test_seed_expansion_is_deterministic_uniform_and_below_each_prime() -> None:
    seed = bytes(range(64))
    rows = expand_uniform(seed, PRIMES, 4096)
    assert rows.shape == (3, 4096)
    assert rows.dtype == np.uint64
    assert np.array_equal(rows, expand_uniform(seed, PRIMES, 4096))
    assert not np.array_equal(rows, expand_uniform(bytes(64), PRIMES, 4096))
    for row, p in zip(rows, PRIMES, strict=True):
        assert int(row.max()) < p
        # Mean of 4096 uniform values: standard deviation p/sqrt(12·4096), allowed six of them.
        assert abs(float(row.mean()) / p - 0.5) < 6 / np.sqrt(12 * 4096)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="63 bytes"):
        expand_uniform(bytes(63), PRIMES, 4096)


@pytest.mark.skipif(not llvm.get_host_cpu_features().get("avx512f"), reason="this processor has no such vectors")
def test_loops_use_the_processors_whole_vectors() -> None:
    """What is compiled of a transform's inner loop names 512-bit registers, not halves of them. In a process of its own: what
    compiles a loop before the kernels are imported decides for all."""
    program = (
        "import numpy as np; from he_runtime.kernels.transform import _forward_pair as kept; from numba import njit; "
        "loop = njit(error_model='numpy')(kept.py_func); "  # what comes out of the cache cannot be looked at
        "loop(np.zeros(64), np.ones(32), 1, 16, 97.0, 1 / 97); (text,) = loop.inspect_asm().values(); "
        "print(text.count('zmm'), text.count('ymm'))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    whole, half = map(int, found.stdout.split())
    assert whole > 10 * half

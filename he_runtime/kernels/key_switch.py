"""Hybrid key switching (Han and Ki 2020, ePrint 2019/688) with hoisting (Halevi and Shoup 2018, ePrint 2018/244).

Switching c1 at level l with a key k:

 1. decompose: for each digit, with Q_j the product of its primes, take x_i = [c1·(Q_j/q_i)⁻¹] modulo each of its q_i.
 2. raise: digit j modulo any other prime r is Σ x_i·(Q_j/q_i) mod r, off by a small multiple of Q_j, which is a multiple
    that the key turns into noise below P. Then one transform.
 3. multiply-accumulate with the key's rows: Σ_j digit_j·k_j, about P·(c1·s') + noise modulo Q·P.
 4. divide by P: subtract the centred residue modulo P and multiply by 1/P. Here the q rows of keys hold 1/P already.
    With A_s = [acc·(P/p_s)⁻¹] modulo p_s, the centred residue is Σ A_s·(P/p_s) - u·P with u = rint(Σ A_s/p_s), so a row
    modulo q gets Σ A_s·(-P⁻¹·P/p_s) + u.

One target prime at a time, so that what is in use stays in cache: the rows of P first, then each q row is finished at
once. Rotations that share a decomposition share steps 1 and 2.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import Floats, Integers, centred, fma, multiply, multiply_constant, reduce, rint
from he_runtime.kernels.packing import PackedKey
from he_runtime.kernels.transform import TransformTables, forward, inverse
from he_runtime.parameters import Parameters

Scratch = Callable[[str, tuple[int, ...]], Floats]
"""Gives an uninitialised float64 array of a name and shape that is this thread's own until it is asked for again."""

_BLOCK = 1024  # words: accumulators of one block stay in the first-level cache while all digits pass


@dataclass(frozen=True)
class SwitchConstants:
    """The constants of key switching at one level. Rows of all primes: q_0 ... q_L, then the special ones."""

    bounds: tuple[int, ...]
    """Digit j holds primes bounds[j] ... bounds[j + 1] - 1."""
    decompose: Floats
    """[level + 1, 2]: (Q_j/q_i)⁻¹/N modulo q_i, and the same over q_i."""
    convert: Floats
    """[all primes, digits, digit_size, 2]: Q_j/q_i modulo the row's prime, and the same over it."""
    special: Floats
    """[special primes, 2]: (P/p_s)⁻¹/N modulo p_s, and the same over p_s."""
    divide: Floats
    """[level + 1, special primes, 2]: -P⁻¹·(P/p_s) modulo q, and the same over q."""


def switch_constants(parameters: Parameters, level: int) -> SwitchConstants:
    """Constants for ciphertexts at `level`; about a millisecond, so keep them."""
    degree, special = parameters.ring_degree, parameters.special_primes
    product = math.prod(special)
    digits = parameters.digits(level)
    decompose = np.zeros((level + 1, 2))
    convert = np.zeros((len(parameters.all_primes), len(digits), parameters.digit_size, 2))
    bounds = [0]
    for j, digit in enumerate(digits):
        digit_product = math.prod(digit)
        for i, q in enumerate(digit):
            decompose[bounds[j] + i] = _with_quotient(pow(digit_product // q * degree, -1, q), q)
            for row, r in enumerate(parameters.all_primes):
                convert[row, j, i] = _with_quotient(digit_product // q, r)
        bounds.append(bounds[j] + len(digit))
    return SwitchConstants(
        bounds=tuple(bounds),
        decompose=decompose,
        convert=convert,
        special=np.array([_with_quotient(pow(product // p * degree, -1, p), p) for p in special]),
        divide=np.array(
            [
                [_with_quotient(-pow(product, -1, q) * (product // p), q) for p in special]
                for q in parameters.primes[: level + 1]
            ]
        ),
    )


def _with_quotient(value: int, p: int) -> tuple[float, float]:
    near = centred(value, p)
    return float(near), near / p


@njit(nogil=True, error_model="numpy", cache=True)
def _decompose(c1: Floats, primes: Floats, twiddles: Floats, factors: Floats, out: Floats) -> None:
    """Step 1: c1 [level + 1, N] -> out, coefficients below 0.66q."""
    for t in range(c1.shape[0]):
        out[t] = c1[t]
        inverse(out[t], twiddles[t, 2], twiddles[t, 3], primes[t, 0], primes[t, 1], factors[t, 0], factors[t, 1])


@njit(nogil=True, error_model="numpy", cache=True)
def _raise_digit(x: Floats, factors: Floats, w: Floats, w_over_p: Floats, p: float, out: Floats) -> None:
    """Step 2: x [primes of the digit, N] -> one NTT row [N] modulo p. Each of the few summands is below 0.66p."""
    n = out.shape[0]
    if x.shape[0] == 3:  # fused: one pass for the digit size of N=32768
        a, b, c = x[0], x[1], x[2]
        f0, g0, f1, g1, f2, g2 = (
            factors[0, 0],
            factors[0, 1],
            factors[1, 0],
            factors[1, 1],
            factors[2, 0],
            factors[2, 1],
        )
        for i in range(n):
            out[i] = (
                multiply_constant(a[i], f0, g0, p)
                + multiply_constant(b[i], f1, g1, p)
                + multiply_constant(c[i], f2, g2, p)
            )
    else:
        out[:] = 0.0
        for k in range(x.shape[0]):
            a = x[k]
            f0 = factors[k, 0]
            g0 = factors[k, 1]
            for i in range(n):
                out[i] += multiply_constant(a[i], f0, g0, p)
    for i in range(n):
        out[i] = reduce(out[i], p, 1.0 / p)
    forward(out, w, w_over_p, p)


@njit(nogil=True, error_model="numpy", cache=True)
def _multiply_accumulate(
    digits: Floats,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    row: int,
    p: float,
    one_over_p: float,
    out0: Floats,
    out1: Floats,
) -> None:
    """Step 3: Σ_j digits[j]·key[j] for both halves of the key; digits [digits, N] of at most 10p, results reduced."""
    n = out0.shape[0]
    split = 4294967296.0
    for start in range(0, n, _BLOCK):
        end = min(start + _BLOCK, n)
        acc0 = out0[start:end]
        acc1 = out1[start:end]
        acc0[:] = 0.0
        acc1[:] = 0.0
        for j in range(digits.shape[0]):
            d = digits[j, start:end]
            low0 = low[j, 0, row, start:end]
            low1 = low[j, 1, row, start:end]
            high0 = high[j, 0, row, start:end]
            high1 = high[j, 1, row, start:end]
            for i in range(end - start):
                k0 = fma(np.float64(high0[i]), split, np.float64(low0[i]))
                k1 = fma(np.float64(high1[i]), split, np.float64(low1[i]))
                acc0[i] += multiply(d[i], k0, p, one_over_p)
                acc1[i] += multiply(d[i], k1, p, one_over_p)
        for i in range(end - start):
            acc0[i] = reduce(acc0[i], p, one_over_p)
            acc1[i] = reduce(acc1[i], p, one_over_p)


@njit(nogil=True, error_model="numpy", cache=True)
def _finish_special(
    acc: Floats, v: Floats, v_over_p: Floats, p: float, one_over_p: float, factor: float, factor_over_p: float
) -> None:
    """A_s of step 4, in place, nearest to zero."""
    inverse(acc, v, v_over_p, p, one_over_p, factor, factor_over_p)
    for i in range(acc.shape[0]):
        acc[i] = reduce(acc[i], p, one_over_p)


@njit(nogil=True, error_model="numpy", cache=True)
def _overflow(special: Floats, primes: Floats, out: Floats) -> None:
    """u of step 4: special [special primes, N], primes [special primes, 2] -> out [N]."""
    out[:] = 0.0
    for s in range(special.shape[0]):
        row = special[s]
        one_over_p = primes[s, 1]
        for i in range(out.shape[0]):
            out[i] += row[i] * one_over_p
    for i in range(out.shape[0]):
        out[i] = rint(out[i])


@njit(nogil=True, error_model="numpy", cache=True)
def _divide(
    acc: Floats,
    special: Floats,
    overflow: Floats,
    factors: Floats,
    w: Floats,
    w_over_p: Floats,
    p: float,
    one_over_p: float,
    addend: Floats,
    permutation: Integers,
    work: Floats,
    out: Floats,
) -> None:
    """Step 4 for one q row: acc - (centred residue)/P + addend, permuted into out [N], reduced. `acc` is overwritten."""
    n = acc.shape[0]
    for i in range(n):
        work[i] = overflow[i]
    for s in range(special.shape[0]):
        row = special[s]
        factor = factors[s, 0]
        factor_over_p = factors[s, 1]
        for i in range(n):
            work[i] += multiply_constant(row[i], factor, factor_over_p, p)
    for i in range(n):
        work[i] = reduce(work[i], p, one_over_p)
    forward(work, w, w_over_p, p)
    for i in range(n):
        acc[i] = reduce(acc[i] + work[i] + addend[i], p, one_over_p)
    for i in range(n):
        out[i] = acc[permutation[i]]


def switch_many(
    switched: Floats,
    addends: tuple[Floats, Floats | None],
    keys: Sequence[PackedKey],
    tables: TransformTables,
    constants: SwitchConstants,
    scratch: Scratch,
) -> list[Floats]:
    """Switch `switched` with each key, add and permute: one decomposition, one result [2, level + 1, N] a key.

    `switched` [level + 1, N] is the part that multiplies the foreign secret; `addends` (either half, None for zero) join
    before the key's permutation. All |x| <= p; so are the results. Every key's level must be at least this one.
    """
    rows, degree = switched.shape
    specials = len(constants.special)
    first_special = len(tables.primes) - specials
    digit_count = len(constants.bounds) - 1
    primes, twiddles = tables.primes, tables.twiddles
    coefficients = scratch("coefficients", (rows, degree))
    digits = scratch("digits", (digit_count, degree))
    accumulators = scratch("accumulators", (2, degree))
    work = scratch("work", (degree,))
    special = scratch("special", (len(keys), 2, specials, degree))
    overflow = scratch("overflow", (len(keys), 2, degree))
    zero = scratch("zero", (degree,))
    zero[:] = 0.0

    _decompose(switched, primes, twiddles, constants.decompose, coefficients)

    def raise_digits(row: int) -> None:
        for j in range(digit_count):
            first, last = constants.bounds[j], constants.bounds[j + 1]
            if first <= row < last:  # the digit modulo its own prime is c1 itself
                digits[j] = switched[row]
            else:
                factors = constants.convert[row, j]
                w, w_over_p = twiddles[row, 0], twiddles[row, 1]
                _raise_digit(coefficients[first:last], factors, w, w_over_p, primes[row, 0], digits[j])

    for s in range(specials):
        row = first_special + s
        p, one_over_p = primes[row]
        raise_digits(row)
        for k, key in enumerate(keys):
            halves = special[k, 0, s], special[k, 1, s]
            _multiply_accumulate(digits, key.low, key.high, key.level + 1 + s, p, one_over_p, *halves)
            for half in halves:
                _finish_special(half, twiddles[row, 2], twiddles[row, 3], p, one_over_p, *constants.special[s])
    for k in range(len(keys)):
        for half in range(2):
            _overflow(special[k, half], primes[first_special:], overflow[k, half])
    results = [np.empty((2, rows, degree)) for _ in keys]
    for row in range(rows):
        p, one_over_p = primes[row]
        raise_digits(row)
        for k, key in enumerate(keys):
            _multiply_accumulate(digits, key.low, key.high, row, p, one_over_p, accumulators[0], accumulators[1])
            for half in range(2):
                addend = addends[half]
                _divide(
                    accumulators[half],
                    special[k, half],
                    overflow[k, half],
                    constants.divide[row],
                    twiddles[row, 0],
                    twiddles[row, 1],
                    p,
                    one_over_p,
                    zero if addend is None else addend[row],
                    key.permutation,
                    work,
                    results[k][half, row],
                )
    return results

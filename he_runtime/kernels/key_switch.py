"""Hybrid key switching (Han and Ki 2020): a ciphertext part under another key becomes one under the secret key.

`extend` lifts a part, digit by digit, to all primes; every rotation of the same ciphertext shares it (hoisting). `switch`
multiplies with one key, divides by P and permutes. Keys carry the inverse automorphism already, so only the result is permuted;
their q rows carry the factor 1/P, so the division is one more summand.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import KERNEL, fma, multiply, multiply_constant, reduce, rint
from he_runtime.kernels.transform import forward, inverse

Array = NDArray[np.float64]


@njit(**KERNEL)
def _convert(sources: Array, first: int, last: int, w: Array, ratios: Array, p: float, out: Array) -> None:
    """out[i] = sum over k of sources[first + k, i]·w[k] mod p, first + k < last: three terms at a time, in registers."""
    x, w0, r0 = sources[first], w[0], ratios[0]
    remaining = last - first - 1
    if remaining % 3 == 0:
        for i in range(out.shape[0]):
            out[i] = multiply_constant(x[i], w0, r0, p)
    elif remaining % 3 == 1:
        y, w1, r1 = sources[first + 1], w[1], ratios[1]
        for i in range(out.shape[0]):
            out[i] = multiply_constant(x[i], w0, r0, p) + multiply_constant(y[i], w1, r1, p)
    else:
        y, w1, r1 = sources[first + 1], w[1], ratios[1]
        z, w2, r2 = sources[first + 2], w[2], ratios[2]
        for i in range(out.shape[0]):
            out[i] = (
                multiply_constant(x[i], w0, r0, p)
                + multiply_constant(y[i], w1, r1, p)
                + multiply_constant(z[i], w2, r2, p)
            )
    for k in range(1 + remaining % 3, last - first, 3):
        x, w0, r0 = sources[first + k], w[k], ratios[k]
        y, w1, r1 = sources[first + k + 1], w[k + 1], ratios[k + 1]
        z, w2, r2 = sources[first + k + 2], w[k + 2], ratios[k + 2]
        for i in range(out.shape[0]):
            out[i] += (
                multiply_constant(x[i], w0, r0, p)
                + multiply_constant(y[i], w1, r1, p)
                + multiply_constant(z[i], w2, r2, p)
            )


@njit(**KERNEL)
def extend(
    part: Array,
    coefficients: Array,
    extended: Array,
    rows: NDArray[np.int64],
    roots: Array,
    primes: Array,
    digit_starts: NDArray[np.int64],
    gadget: Array,
    conversion: Array,
    conversion_ratios: Array,
) -> None:
    """extended[j, r] = digit j of `part`, modulo the prime of row r, transformed.

    part: [rows of q, N], transformed; coefficients: scratch of the same shape; extended: [digits, len(rows), N];
    rows: for each target, its row in the tables; digit_starts: [digits+1];
    gadget: [q rows, 2], (Q_j/q_i)^-1/N mod q_i, and the same over q_i;
    conversion: [len(rows), digits, digit size], Q_j/q_i mod the target prime; conversion_ratios: the same over it.
    """
    level_rows = part.shape[0]
    for i in range(level_rows):
        coefficients[i] = part[i]
        inverse(coefficients[i], roots[i, 2], roots[i, 3], primes[i, 0], primes[i, 1], gadget[i, 0], gadget[i, 1])
    for j in range(digit_starts.shape[0] - 1):
        start, stop = digit_starts[j], digit_starts[j + 1]
        for r in range(rows.shape[0]):
            out = extended[j, r]
            if start <= r < stop:
                out[:] = part[r]
                continue
            row = rows[r]
            p = primes[row, 0]
            _convert(coefficients, start, stop, conversion[r, j], conversion_ratios[r, j], p, out)
            forward(out, roots[row, 0], roots[row, 1], p)


@njit(**KERNEL)
def _accumulate(
    extended: Array,
    target: int,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    key_row: int,
    total0: Array,
    total1: Array,
    p: float,
    inverse_p: float,
) -> None:
    """total_h = sum over digits of digit·key row h, both halves at once: the digits are read once. extended [digits, rows, N].

    Rows are taken out of whole arrays by number: a slice across digits would have a stride that the compiler does not know, and
    the loops would not become vector code.
    """
    for j in range(extended.shape[0]):
        d = extended[j, target]
        low0, high0, low1, high1 = low[key_row, j, 0], high[key_row, j, 0], low[key_row, j, 1], high[key_row, j, 1]
        if j == 0:
            for i in range(d.shape[0]):
                x = d[i]
                total0[i] = multiply(x, fma(float(high0[i]), 4294967296.0, float(low0[i])), p, inverse_p)
                total1[i] = multiply(x, fma(float(high1[i]), 4294967296.0, float(low1[i])), p, inverse_p)
        else:
            for i in range(d.shape[0]):
                x = d[i]
                total0[i] += multiply(x, fma(float(high0[i]), 4294967296.0, float(low0[i])), p, inverse_p)
                total1[i] += multiply(x, fma(float(high1[i]), 4294967296.0, float(low1[i])), p, inverse_p)


@njit(**KERNEL)
def switch(
    extended: Array,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    key_level_rows: int,
    addend0: Array,
    addend1: Array,
    has_addend1: bool,
    permutation: NDArray[np.int64],
    rows: NDArray[np.int64],
    roots: Array,
    primes: Array,
    special_factors: Array,
    down: Array,
    down_ratios: Array,
    special: Array,
    quotient: Array,
    total: Array,
    row: Array,
    out: Array,
) -> None:
    """out[h] = permuted(addend_h + (sum of digits·key_h)/P). out [2, q rows, N].

    low, high: packed key [key rows, key digits, 2, N], its special rows after `key_level_rows` rows of q.
    special_factors [special, 2]: (P/p_s)^-1/N mod p_s and over p_s. down [q rows, special]: -(P/p_s)/P mod q_t, and over q_t.
    Scratch: special [2, special, N], quotient [2, N], total [2, N], row [N].
    """
    q_rows, n = out.shape[1], out.shape[2]
    specials = special.shape[1]
    quotient[:] = 0.0
    for s in range(specials):
        table = rows[q_rows + s]
        p, inverse_p = primes[table, 0], primes[table, 1]
        key = key_level_rows + s
        _accumulate(extended, q_rows + s, low, high, key, special[0, s], special[1, s], p, inverse_p)
        for half in range(2):
            x, u = special[half, s], quotient[half]
            for i in range(n):
                x[i] = reduce(x[i], p, inverse_p)
            inverse(x, roots[table, 2], roots[table, 3], p, inverse_p, special_factors[s, 0], special_factors[s, 1])
            for i in range(n):
                x[i] = reduce(x[i], p, inverse_p)
                u[i] += x[i] * inverse_p
    # sum_s x_s·(P/p_s) = remainder + u·P with u = rint(sum_s x_s/p_s): u corrects the basis conversion exactly.
    for half in range(2):
        for i in range(n):
            quotient[half, i] = rint(quotient[half, i])
    for t in range(q_rows):
        p, inverse_p = primes[t, 0], primes[t, 1]
        _accumulate(extended, t, low, high, t, total[0], total[1], p, inverse_p)
        for half in range(2):
            sums, o, u = total[half], out[half, t], quotient[half]
            _convert(special[half], 0, specials, down[t], down_ratios[t], p, row)
            for i in range(n):
                row[i] += u[i]
            forward(row, roots[t, 0], roots[t, 1], p)
            if half == 0:
                a = addend0[t]
                for i in range(n):
                    sums[i] = reduce(sums[i] + row[i] + a[i], p, inverse_p)
            elif has_addend1:
                a = addend1[t]
                for i in range(n):
                    sums[i] = reduce(sums[i] + row[i] + a[i], p, inverse_p)
            else:
                for i in range(n):
                    sums[i] = reduce(sums[i] + row[i], p, inverse_p)
            for i in range(n):
                o[i] = sums[permutation[i]]


@njit(**KERNEL)
def pack_key_row(
    values: NDArray[np.uint64],
    permutation: NDArray[np.int64],
    factor: float,
    p: float,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
) -> None:
    """One key row, permuted, times `factor`, as value = high·2^32 + low with |value| <= p/2."""
    for i in range(values.shape[0]):
        value = multiply(float(values[permutation[i]]), factor, p, 1.0 / p)
        value = reduce(value, p, 1.0 / p)
        upper = rint(value * 2.0**-32)
        lower = value - upper * 4294967296.0
        if lower == 2147483648.0:  # a tie that rounded to even downwards; int32 ends one below
            upper += 1.0
            lower = -2147483648.0
        high[i] = np.int16(upper)
        low[i] = np.int32(lower)

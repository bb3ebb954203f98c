"""Hybrid key switching (Han and Ki 2020): a ciphertext part under another key becomes one under the secret key.

The part's digits are lifted to all primes (`transform_digits`; every rotation of the same ciphertext shares them: hoisting),
multiplied with a key (`key_product`) and divided by P (`division`), row by row of the residue matrix, so that a row stays in the
second cache and rows can be shared out to threads. Keys carry the inverse automorphism already: only the result is permuted.

A value X modulo QP is kept as X/P modulo the primes of Q and X modulo those of P: keys have been multiplied so when they were
loaded. Dividing by P is then one more summand, and a ciphertext modulo Q is added to X·P as it is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import accumulate, fma, multiply, reduce, rint, settle
from he_runtime.kernels.compiling import inlined, kernel
from he_runtime.kernels.division import divided
from he_runtime.kernels.transform import forward, inverse

Array = NDArray[np.float64]


@kernel
def to_coefficients(
    part: Array,
    extended: Array,
    coefficients: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    digit_starts: NDArray[np.int64],
    gadget: Array,
) -> None:
    """Rows first to last of `part` [rows of q, N], transformed back, times gadget [rows]: (Q_j/q_i)^-1/N mod q_i.

    And as they are, put in their own digits' rows of `extended` [digits, QP rows, N].
    """
    for j in range(digit_starts.shape[0] - 1):
        for t in range(max(first, digit_starts[j]), min(last, digit_starts[j + 1])):
            extended[j, t] = part[t]
            inverse(part[t], coefficients[t], roots[t, 1], tails[t, 1], primes[t, 0], primes[t, 1], gadget[t])


@kernel
def divided_to_coefficients(
    part: Array,
    remainders: Array,
    scale: Array,
    extended: Array,
    coefficients: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    digit_starts: NDArray[np.int64],
    gadget: Array,
) -> None:
    """`part` divided by the dropped primes (see `division`), put in its own digits' rows of `extended` and in `coefficients`.

    As `divided_rows`, `to_coefficients` and the copies of `transform_digits` would, while a row lies in the second cache.
    """
    for j in range(digit_starts.shape[0] - 1):
        for t in range(max(first, digit_starts[j]), min(last, digit_starts[j + 1])):
            x, out, remainder = part[t], extended[j, t], remainders[t]
            p, inverse_p = primes[t, 0], primes[t, 1]
            forward(remainder, roots[t, 0], tails[t, 0], p, inverse_p)
            divided(x, x, False, remainder, scale[t], p, inverse_p, out)
            inverse(out, coefficients[t], roots[t, 1], tails[t, 1], p, inverse_p, gadget[t])


@kernel
def transform_digits(
    extended: Array,
    first: int,
    last: int,
    rows: NDArray[np.int64],
    roots: Array,
    tails: Array,
    primes: Array,
    digit_starts: NDArray[np.int64],
) -> None:
    """Transform extended[j, r], digit j modulo the prime of row r, but for the rows of its own primes; r from first to last.

    extended: [digits, len(rows), N], as `convert_rows` leaves it; rows: for each target, its row in the tables; digit_starts:
    [digits+1].
    """
    for r in range(first, last):
        row = rows[r]
        for j in range(digit_starts.shape[0] - 1):
            if not digit_starts[j] <= r < digit_starts[j + 1]:
                forward(extended[j, r], roots[row, 0], tails[row, 0], primes[row, 0], primes[row, 1])


@inlined
def _word(low: NDArray[np.int32], high: NDArray[np.int16], i: int, narrow: bool) -> Any:
    return float(low[i]) if narrow else fma(float(high[i]), 4294967296.0, float(low[i]))


@inlined
def _key_terms(
    extended: Array,
    j: int,
    count: int,
    narrow: bool,
    target: int,
    start: int,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    key_row: int,
    high_row: int,
    out0: Array,
    out1: Array,
    add: bool,
    p: float,
    inverse_p: float,
    anchor: float,
) -> None:
    """Digits j to j + count of `key_product`: count, at most three, and narrow are constants where this is inlined.

    So the sum stays in registers; and rows are sliced one by one, because an index start + i costs a check of its sign, which
    keeps the compiler from vector code.
    """
    stop, second, third = start + out0.shape[0], j + min(1, count - 1), j + min(2, count - 1)
    x0, x1, x2 = (
        extended[j, target, start:stop],
        extended[second, target, start:stop],
        extended[third, target, start:stop],
    )
    low00, low01 = low[key_row, j, 0, start:stop], low[key_row, j, 1, start:stop]
    low10, low11 = low[key_row, second, 0, start:stop], low[key_row, second, 1, start:stop]
    low20, low21 = low[key_row, third, 0, start:stop], low[key_row, third, 1, start:stop]
    high00, high01 = high[high_row, j, 0, start:stop], high[high_row, j, 1, start:stop]
    high10, high11 = high[high_row, second, 0, start:stop], high[high_row, second, 1, start:stop]
    high20, high21 = high[high_row, third, 0, start:stop], high[high_row, third, 1, start:stop]
    for i in range(out0.shape[0]):
        rest0 = reduce(out0[i], p, inverse_p) if add else 0.0
        rest1 = reduce(out1[i], p, inverse_p) if add else 0.0
        sum0, rest0 = accumulate(anchor, rest0, x0[i], _word(low00, high00, i, narrow))
        sum1, rest1 = accumulate(anchor, rest1, x0[i], _word(low01, high01, i, narrow))
        if count > 1:
            sum0, rest0 = accumulate(sum0, rest0, x1[i], _word(low10, high10, i, narrow))
            sum1, rest1 = accumulate(sum1, rest1, x1[i], _word(low11, high11, i, narrow))
        if count > 2:
            sum0, rest0 = accumulate(sum0, rest0, x2[i], _word(low20, high20, i, narrow))
            sum1, rest1 = accumulate(sum1, rest1, x2[i], _word(low21, high21, i, narrow))
        out0[i] = settle(sum0, rest0, anchor, p, inverse_p)
        out1[i] = settle(sum1, rest1, anchor, p, inverse_p)


@kernel
def key_product(
    extended: Array,
    target: int,
    start: int,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    key_row: int,
    out0: Array,
    out1: Array,
    p: float,
    inverse_p: float,
    anchor: float,
) -> None:
    """out_h[i] = sum over digits j of extended[j, target, start + i]·key[key_row, j, h, start + i], at most 2^48.

    extended [digits, rows, N]; low, high: packed key [key rows, key digits, 2, N], high without the narrow rows, which come after
    the first (see `engines.packed_key`). Both halves at once: digits are read once.
    """
    digits, left_out = extended.shape[0], low.shape[0] - high.shape[0]
    narrow = 1 <= key_row <= left_out
    high_row = 0 if narrow or key_row == 0 else key_row - left_out
    for first in range(0, digits, 3):
        count, add = min(3, digits - first), first > 0
        if narrow:
            if count == 1:
                _key_terms(
                    extended, first, 1, True, target, start, low, high, key_row, high_row, out0, out1, add, p, inverse_p, anchor
                )  # fmt: skip
            elif count == 2:
                _key_terms(
                    extended, first, 2, True, target, start, low, high, key_row, high_row, out0, out1, add, p, inverse_p, anchor
                )  # fmt: skip
            else:
                _key_terms(
                    extended, first, 3, True, target, start, low, high, key_row, high_row, out0, out1, add, p, inverse_p, anchor
                )  # fmt: skip
        elif count == 1:
            _key_terms(
                extended, first, 1, False, target, start, low, high, key_row, high_row, out0, out1, add, p, inverse_p, anchor
            )  # fmt: skip
        elif count == 2:
            _key_terms(
                extended, first, 2, False, target, start, low, high, key_row, high_row, out0, out1, add, p, inverse_p, anchor
            )  # fmt: skip
        else:
            _key_terms(
                extended, first, 3, False, target, start, low, high, key_row, high_row, out0, out1, add, p, inverse_p, anchor
            )  # fmt: skip


@kernel
def dropped_products(
    extended: Array,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    key_rows: NDArray[np.int64],
    addend0: Array,
    addend1: Array,
    has_addend1: bool,
    sources: NDArray[np.int64],
    tables: NDArray[np.int64],
    factors: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    out: Array,
) -> None:
    """out[h, d] = x_d (see `division`) of addend_h + sum of digits·key_h, for dropped primes d from first to last.

    sources, tables, key_rows: row of each dropped prime in `extended`, in the tables and in the key. Addends have rows of q only.
    """
    for d in range(first, last):
        row, source = tables[d], sources[d]
        p, inverse_p, anchor = primes[row, 0], primes[row, 1], primes[row, 2]
        x0, x1 = out[0, d], out[1, d]
        back, back_tails = roots[row, 1], tails[row, 1]
        key_product(extended, source, 0, low, high, key_rows[d], x0, x1, p, inverse_p, anchor)
        if source < addend0.shape[0]:
            _add(x0, addend0[source])
            if has_addend1:
                _add(x1, addend1[source])
        inverse(x0, x0, back, back_tails, p, inverse_p, factors[d])
        inverse(x1, x1, back, back_tails, p, inverse_p, factors[d])


@inlined
def _add(x: Array, y: Array) -> None:
    for i in range(x.shape[0]):
        x[i] += y[i]


@kernel
def switched_rows(
    extended: Array,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
    addend0: Array,
    addend1: Array,
    has_addend1: bool,
    permutation: NDArray[np.uint32],
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    remainders: Array,
    scale: Array,
    total: Array,
    out: Array,
) -> None:
    """out[h, t] = permuted((addend_h + sum of digits·key_h) divided by the dropped primes), t from first to last.

    remainders [2, rows, N], scale [rows]: see `division.divided`. Scratch: total [3, N].
    """
    for t in range(first, last):
        p, inverse_p, anchor = primes[t, 0], primes[t, 1], primes[t, 2]
        key_product(extended, t, 0, low, high, t, total[0], total[1], p, inverse_p, anchor)
        for half in range(2):
            o, remainder, whole = out[half, t], remainders[half, t], total[2]
            forward(remainder, roots[t, 0], tails[t, 0], p, inverse_p)
            if half == 0:
                divided(total[0], addend0[t], True, remainder, scale[t], p, inverse_p, whole)
            else:
                divided(total[1], addend1[t], has_addend1, remainder, scale[t], p, inverse_p, whole)
            for i in range(o.shape[0]):
                o[i] = whole[permutation[i]]


@kernel
def pack_key_row(
    values: NDArray[np.uint64],
    permutation: NDArray[np.uint32],
    factor: float,
    p: float,
    low: NDArray[np.int32],
    high: NDArray[np.int16],
) -> None:
    """One key row, permuted, times `factor`, as value = high·2^32 + low with |value| <= p/2; high [0] where p is below 2^32."""
    for i in range(values.shape[0]):
        value = multiply(float(values[permutation[i]]), factor, p, 1.0 / p)
        value = reduce(value, p, 1.0 / p)
        upper = rint(value * 2.0**-32)
        lower = value - upper * 4294967296.0
        if lower == 2147483648.0:  # a tie that rounded to even downwards; int32 ends one below
            upper += 1.0
            lower = -2147483648.0
        low[i] = np.int32(lower)
        if high.shape[0]:
            high[i] = np.int16(upper)

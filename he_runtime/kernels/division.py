"""Dividing by primes of the modulus: by P after a key switch, by the last prime of the chain in a rescale, or by both at once.

Let D be the product of the primes d to be dropped, and X a polynomial modulo all of them. By the remainder theorem
X mod D = sum_d x_d·D/d - u·D with x_d = X·(D/d)^-1 mod d and u = rint(sum_d x_d/d), so for every prime q that is kept

    (X - (X mod D))/D = X·D^-1 + sum_d x_d·(-1/d) + u   (mod q),

which rounds to the nearest integer. The x_d are polynomials of integers: `dropped_rows` makes them from transformed rows,
`convert_rows` their sums, and `divide_row` transforms those forward again.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from he_runtime.kernels.arithmetic import INLINE, KERNEL, accumulate, multiply_constant, reduce, rint, settle
from he_runtime.kernels.halves import SIDE_BY_SIDE, sum_of_halves
from he_runtime.kernels.transform import forward, forward_multiple, inverse
from he_runtime.kernels.vector_code import LANES

Array = NDArray[np.float64]

WHOLE = LANES * SIDE_BY_SIDE
BLOCK = 2048
"""Entries of a row that are worked on together, so that as many rows as it takes fit the second cache."""


@njit(**INLINE)
def _terms(
    sources: Array,
    k: int,
    count: int,
    start: int,
    w: Array,
    add: bool,
    p: float,
    inverse_p: float,
    anchor: float,
    out: Array,
) -> None:
    """Terms k to k + count of `_convert`: count, at most four, is a constant where this is inlined.

    So the sum stays in registers; and rows are sliced one by one, because an index start + i costs a check of its sign, which
    keeps the compiler from vector code.
    """
    stop, final = start + out.shape[0], k + count - 1
    x0, x1 = sources[k, start:stop], sources[min(k + 1, final), start:stop]
    x2, x3 = sources[min(k + 2, final), start:stop], sources[min(k + 3, final), start:stop]
    for i in range(out.shape[0]):
        high, low = accumulate(anchor, out[i] if add else 0.0, x0[i], w[k])
        if count > 1:
            high, low = accumulate(high, low, x1[i], w[k + 1])
        if count > 2:
            high, low = accumulate(high, low, x2[i], w[k + 2])
        if count > 3:
            high, low = accumulate(high, low, x3[i], w[k + 3])
        out[i] = settle(high, low, anchor, p, inverse_p)


@njit(**INLINE)
def _convert(sources: Array, start: int, w: Array, p: float, inverse_p: float, anchor: float, out: Array) -> None:
    """out[i] = sum over k of sources[k, start + i]·w[k] mod p, not fully reduced: at most 2^50 in absolute value."""
    count = sources.shape[0]
    first = (count - 1) % 4 + 1
    if first == 1:
        _terms(sources, 0, 1, start, w, False, p, inverse_p, anchor, out)
    elif first == 2:
        _terms(sources, 0, 2, start, w, False, p, inverse_p, anchor, out)
    elif first == 3:
        _terms(sources, 0, 3, start, w, False, p, inverse_p, anchor, out)
    else:
        _terms(sources, 0, 4, start, w, False, p, inverse_p, anchor, out)
    for k in range(first, count, 4):
        _terms(sources, k, 4, start, w, True, p, inverse_p, anchor, out)


@njit(**KERNEL)
def convert_rows(
    sources: Array,
    weights: Array,
    anchors: Array,
    halves: Array,
    shifts: Array,
    first: int,
    last: int,
    skip_from: int,
    skip_to: int,
    tables: NDArray[np.int64],
    primes: Array,
    out: Array,
) -> None:
    """out[t] = sum over k of sources[k]·weights[t, k] modulo the prime of row tables[t], for blocks first to last of a row.

    sources [count, N], weights [targets, count], anchors [targets], which depend on the sources' primes too, out [targets, N];
    halves [targets, 2, count], shifts [targets]: see `kernels.halves`; targets skip_from to skip_to are left alone. All targets
    of a block are made while its sources lie in the second cache: row by row they would be read anew for each target.
    """
    block = min(BLOCK, out.shape[1])
    for start in range(first * block, last * block, block):
        for t in range(out.shape[0]):
            if t < skip_from or t >= skip_to:
                row = tables[t]
                target = out[t, start : start + block]
                if shifts[t] > 0 and block % WHOLE == 0:
                    sum_of_halves(sources, start, halves[t], primes[row, 0], primes[row, 1], shifts[t], target)
                    continue
                _convert(sources, start, weights[t], primes[row, 0], primes[row, 1], anchors[t], target)


@njit(**KERNEL)
def dropped_rows(
    part: Array,
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
    """out[d] = x_d of `part` [rows, N], for dropped primes d from first to last.

    sources, tables: row of each dropped prime in `part` and in the tables; factors [dropped]: (D/d)^-1/N.
    """
    for d in range(first, last):
        row = tables[d]
        inverse(part[sources[d]], out[d], roots[row, 1], tails[row, 1], primes[row, 0], primes[row, 1], factors[d])


@njit(**KERNEL)
def quotients(dropped: Array, tables: NDArray[np.int64], primes: Array, out: Array) -> None:
    """out = u: rint of the sum over d of dropped[d]/d. dropped [primes, N]; tables: row of each dropped prime in the tables."""
    out[:] = 0.0
    for d in range(tables.shape[0]):
        x, inverse_p = dropped[d], primes[tables[d], 1]
        for i in range(out.shape[0]):
            out[i] += x[i] * inverse_p
    for i in range(out.shape[0]):
        out[i] = rint(out[i])


@njit(**INLINE)
def _transformed_remainder(
    remainder: Array, quotient: Array, roots: Array, tails: Array, p: float, inverse_p: float
) -> None:
    """remainder = transformed(remainder + quotient)."""
    for i in range(quotient.shape[0]):
        remainder[i] += quotient[i]
    forward(remainder, roots, tails, p, inverse_p)


@njit(**KERNEL)
def divide_row(
    x: Array, remainder: Array, quotient: Array, scale: float, roots: Array, tails: Array, p: float, inverse_p: float
) -> None:
    """x = x·scale + transformed(remainder + quotient), reduced, modulo one prime that is kept. Overwrites remainder.

    remainder: sum_d x_d·(-1/d), as `convert_rows` makes it; quotient: u; scale: 1/D, or what is left
    of it where x carries 1/P already.
    """
    _transformed_remainder(remainder, quotient, roots, tails, p, inverse_p)
    if scale == 1.0:
        for i in range(x.shape[0]):
            x[i] = reduce(x[i] + remainder[i], p, inverse_p)
    else:
        ratio = scale * inverse_p
        for i in range(x.shape[0]):
            x[i] = reduce(remainder[i] + multiply_constant(x[i], scale, ratio, p), p, inverse_p)


@njit(**KERNEL)
def divided_rows(
    parts: tuple[Array, Array],
    remainders: Array,
    quotients: Array,
    scale: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    out: Array,
) -> None:
    """out[h, t] = row t of parts[h] [rows, N] divided by the dropped primes, for t from first to last. Overwrites remainders.

    As `divide_row`, which works in place: the same loop over two arrays that may be one would not become vector code. Both parts
    of a row in turn, while the prime's tables lie in the second cache.
    """
    for t in range(first, last):
        p, inverse_p, w = primes[t, 0], primes[t, 1], scale[t]
        ratio = w * inverse_p
        for half in range(2):
            x, o, remainder = parts[half][t], out[half, t], remainders[half, t]
            _transformed_remainder(remainder, quotients[half], roots[t, 0], tails[t, 0], p, inverse_p)
            for i in range(o.shape[0]):
                o[i] = reduce(remainder[i] + multiply_constant(x[i], w, ratio, p), p, inverse_p)


@njit(**KERNEL)
def rescaled_rows(
    parts: tuple[Array, Array],
    dropped: Array,
    down: Array,
    scale: Array,
    first: int,
    last: int,
    roots: Array,
    tails: Array,
    primes: Array,
    row: Array,
    out: Array,
) -> None:
    """As `divided_rows` where one prime is dropped: its row fits the second cache, so no remainders need to be kept.

    dropped [2, N]: x_d, centred, so that the quotient is zero; down [rows]: -1/d modulo each prime. Scratch: row [N].
    """
    for t in range(first, last):
        p, inverse_p, minus, w = primes[t, 0], primes[t, 1], down[t], scale[t]
        ratio = w * inverse_p
        for half in range(2):
            x, o = parts[half][t], out[half, t]
            forward_multiple(dropped[half], minus, row, roots[t, 0], tails[t, 0], p, inverse_p)
            for i in range(o.shape[0]):
                o[i] = reduce(row[i] + multiply_constant(x[i], w, ratio, p), p, inverse_p)
